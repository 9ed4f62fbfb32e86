"""`crossns demo`: it proves what it says, in time, and leaves nothing behind however it ends."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.terminal import CROSSNS, OUTSIDE, ROOT, wait_until

pytestmark = pytest.mark.e2e

DEMO = (*CROSSNS, "demo")
# What the demo may take once everything is set up.
LIMIT_S = 30


def test_demo_shows_service_and_isolation_within_the_time() -> None:
    began = time.monotonic()
    shown = subprocess.run(DEMO, capture_output=True, text=True, timeout=LIMIT_S * 2, env=OUTSIDE, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert time.monotonic() - began < LIMIT_S
    text = shown.stdout
    assert len(re.findall(r"✓ 100 answered, 0 lost: \d+ by backend-a, \d+ by backend-b", text)) == 3
    for place in ("client-dmz", "client-office", "backend-a", "backend-b"):
        row = next(line for line in text.splitlines() if line.strip().startswith(f"{place} ") and "answers" in line)
        assert row.count("answers") == 1
    assert "● VIP 203.0.113.10:80" in text
    assert text.count("● 10.0.0.5:8080") == 2
    assert "✓ new connections are answered: 40 by backend-b\n" in text
    assert re.search(r"✓ new connections are answered: \d+ by backend-a, \d+ by backend-b", text)
    assert re.search(r"✓ \d+ answered on kept connections, \d+ on new ones, 0 lost", text)
    for kind, number in (("launcher", "1"), ("agent", "5"), ("haproxy", "2"), ("gateway", "1")):
        assert re.search(rf"^ +{kind} +{number} .*\d+\.\d", text, re.MULTILINE)
    assert "✗" not in text
    assert "$ crossns apply -f examples/two-tenants.yaml" in text


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        (
            "    - {name: b, routeTable: routeTables/tenant-b, address: 10.0.0.5, port: 8080}\n",
            "",
            "client-dmz was not served as it should be",
        ),
        (
            "routeTable: routeTables/office\n  linkName: lan\n",
            "routeTable: routeTables/dmz\n  linkName: other\n",
            "client-dmz reaches what it must not",
        ),
    ],
)
def test_demo_fails_when_what_it_proves_is_not_so(tmp_path: Path, before: str, after: str, fault: str) -> None:
    example = ROOT / "examples" / "two-tenants.yaml"
    wrong = tmp_path / "wrong.yaml"
    text = example.read_text()
    assert before in text
    # A table that forwards between its own links: with the second change both clients are its own.
    wrong.write_text(
        text.replace(before, after).replace(
            "spec: {description: 'Clients from outside", "spec: {forwarding: true, description: 'Clients from outside"
        )
    )
    place = [sys.executable, "-m", "crossns.testing.sandbox", "sh", "-c", 'mount --bind "$1" "$2"; shift 2; exec "$@"', "sh"]
    shown = subprocess.run(
        [*place, wrong, example, *DEMO], capture_output=True, text=True, timeout=LIMIT_S * 2, env=OUTSIDE, check=False
    )
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert f"✗ {fault}" in shown.stdout


def test_demo_that_is_kept_is_a_shell_in_which_everything_can_be_looked_at() -> None:
    commands = (
        "crossns status; crossns exec tenant-b -- ip -brief address; host client-dmz traffic reach 203.0.113.10:80; exit 5\n"
    )
    shown = subprocess.run(
        [*DEMO, "--keep"], input=commands, capture_output=True, text=True, timeout=LIMIT_S * 2, env=OUTSIDE, check=False
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert re.search(r"^vServices +1 +1 READY$", shown.stdout, re.MULTILINE)
    assert "10.0.0.1/24 fd00::1/64" in shown.stdout
    assert '"target": "203.0.113.10:80", "how": "tcp", "reached": true' in shown.stdout


@pytest.fixture
def demo() -> Iterator[subprocess.Popen[str]]:
    """A demo that has just begun to show what it does."""
    process = subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=OUTSIDE, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "the suite is up" in line:
            break
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=LIMIT_S)


def descendants(pid: int) -> list[int]:
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [pid, *(each for child in children for each in descendants(int(child)))]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_of_the_demo_is_left_however_it_ends(demo: subprocess.Popen[str], number: signal.Signals) -> None:
    family = descendants(demo.pid)
    assert len(family) > 5
    demo.send_signal(number)
    demo.communicate(timeout=LIMIT_S)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), 5)
