"""`crossns up` and `down` with the whole suite: what stays, what goes, who comes back."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossns.cli import processes
from crossns.layout import Layout
from crossns.testing import etcd
from tests.e2e.terminal import CROSSNS, ENVIRON, OUTSIDE, crossns, done, up, wait_until

pytestmark = pytest.mark.e2e

LAYOUT = Layout()
# A disabled member is not checked: once the suite is ready, nothing changes by itself.
SHOP = """
kind: RouteTable
name: routeTables/shop
---
kind: Interface
name: interfaces/shop-lan
spec: {routeTable: routeTables/shop, linkName: lan, addresses: [203.0.113.1/24], bridge: {}}
---
kind: VService
name: vServices/web
spec:
  protocol: TCP
  frontends: [{name: front, routeTable: routeTables/shop, address: 203.0.113.10, port: 80}]
  pools: [{name: main, members: [{name: one, routeTable: routeTables/shop, address: 203.0.113.5, port: 8080, state: DISABLED}]}]
"""
DATA_PLANE = {"haproxy", "agent default", "agent shop"}
SERVICES = {"etcd", "launcher", "zygote", "spare", "nsmanager", "proxy", "gateway"}


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    done("down", "--purge")


def running(*names: str) -> dict[int, str]:
    return {each.pid: each.name for each in processes.find(LAYOUT) if not names or each.name in names}


def links_of_shop() -> str:
    return done("exec", "shop", "--", "ip", "-brief", "address")


def test_data_plane_stays_when_the_services_stop_and_the_next_up_changes_nothing() -> None:
    with up() as first:
        done("apply", "-f", "-", stdin=SHOP)
        before, links = running(*DATA_PLANE), links_of_shop()
        assert first.stop() == 0
    assert set(before.values()) == DATA_PLANE
    assert running() == before
    assert links_of_shop() == links
    with up() as second:
        wait_until(lambda: crossns("status").returncode == 0)
        assert running(*DATA_PLANE) == before
        assert "applied" not in second.text
    assert links_of_shop() == links


def test_suite_goes_on_after_its_supervisor_was_killed() -> None:
    with up() as first:
        done("apply", "-f", "-", stdin=SHOP)
        before = running(*DATA_PLANE)
        first.stop(signal.SIGKILL)
    wait_until(lambda: not SERVICES & set(running().values()), 10)
    assert running() == before
    with up() as second:
        wait_until(lambda: crossns("status").returncode == 0)
        assert running(*DATA_PLANE) == before
        assert "applied" not in second.text


def test_second_interrupt_does_not_wait_for_a_service_that_hangs() -> None:
    with up() as started:
        (hanging,) = running("gateway")
        os.kill(hanging, signal.SIGSTOP)
        began = time.monotonic()
        started.process.send_signal(signal.SIGINT)
        started.wait_until_printed("stopping the services")

        def is_ended_by_another() -> bool:
            started.process.send_signal(signal.SIGINT)
            return started.process.poll() is not None

        wait_until(is_ended_by_another)
        # Each service is given 8 s to end by itself.
        assert time.monotonic() - began < 4
    assert not SERVICES & set(running().values())


def test_down_stops_what_runs_and_keeps_what_is_wanted() -> None:
    with up() as started:
        done("apply", "-f", "-", stdin=SHOP)
        assert "what is wanted is kept in /var/lib/crossns" in done("down")
        assert started.process.wait(5) == 0
    assert running() == {}
    assert not LAYOUT.run.exists()
    assert not (LAYOUT.netns / "shop").exists()
    assert "crossns" not in Path("/proc/self/mountinfo").read_text().replace("/var/lib/crossns", "")
    listed = crossns("up", "--quiet", "--", *CROSSNS, "get", "services", "-o", "name")
    assert (listed.returncode, listed.stdout) == (0, "vServices/web\n")


def test_down_with_purge_forgets_what_was_wanted() -> None:
    with up():
        done("apply", "-f", "-", stdin=SHOP)
    done("down", "--purge")
    listed = crossns("up", "--quiet", "--", *CROSSNS, "get", "tables", "-o", "name")
    assert listed.stdout == "routeTables/default\n"


def test_service_that_is_killed_is_back_and_leads_again() -> None:
    with up() as started:
        (killed,) = running("nsmanager")
        os.kill(killed, signal.SIGKILL)
        started.wait_until_printed("ended (killed by signal 9): starts again in 0.1 s")
        wait_until(lambda: crossns("status").returncode == 0)
        assert killed not in running("nsmanager")


def test_services_have_uids_of_their_own_and_no_capability() -> None:
    with up():
        for pid, name in running("etcd", "nsmanager", "proxy", "gateway").items():
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert status["Uid"].split() == [str(LAYOUT.uid(name))] * 4
            assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
            assert status["NoNewPrivs"] == "1"


async def test_suite_runs_on_a_cluster_instead_of_its_own_etcd(tmp_path: Path) -> None:
    async with etcd.cluster(tmp_path, 1) as members:
        endpoints = ",".join(endpoint for member in members for endpoint in member.settings.endpoints)
        with up("--etcd", endpoints):
            done("apply", "-f", "-", stdin=SHOP)
            # The test's own member runs under root.
            assert not running("etcd")
        done("down")


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -KILL $$", 137)])
def test_up_with_a_command_exits_as_the_command_does(script: str, status: int) -> None:
    assert crossns("up", "--quiet", "--", "sh", "-c", script).returncode == status
    assert not SERVICES & set(running().values())


def test_command_that_does_not_exist_is_told_as_a_shell_does() -> None:
    assert crossns("up", "--quiet", "--", "no-such-program").returncode == 127


def test_sandboxed_suite_leaves_the_machine_alone() -> None:
    before = running()
    inside = crossns("up", "--sandbox", "--quiet", "--", "crossns", "apply", "-f", "/dev/stdin", stdin=SHOP, environ=OUTSIDE)
    assert inside.returncode == 0, inside.stderr
    assert "vServices/web is READY" in inside.stdout
    assert running() == before
    assert not LAYOUT.run.exists()


def test_nothing_is_left_of_a_sandboxed_suite_whose_outermost_process_is_killed() -> None:
    with up("--sandbox", environ=OUTSIDE) as started:
        family = set(running())
        assert {"etcd", "launcher", "gateway"} <= set(running().values())
        started.stop(signal.SIGKILL)
        wait_until(lambda: not family & set(running()), 5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--listen", "0.0.0.0:7443"), "0.0.0.0:7443 can be reached from other machines: give --tls-cert"),
        (("--tls-cert", __file__), "--tls-cert: belongs with --tls-key and --client-ca"),
        (("--quiet", "--listen", "0.0.0.0:7443", "--", "echo", "it ran"), "--listen: 0.0.0.0:7443 can be reached"),
    ],
    ids=["strangers", "half of TLS", "command"],
)
def test_up_whose_gateway_refuses_its_settings_ends_and_says_why(options: tuple[str, ...], words: str) -> None:
    refused = crossns("up", *options)
    assert (refused.returncode, refused.stdout) == (2, "")
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("Error: gateway refuses its settings: --")
    assert words in last
    assert not SERVICES & set(running().values())


def test_up_that_cannot_start_says_which_variable_is_wrong() -> None:
    refused = crossns("up", environ={**ENVIRON, "CROSSNS_UID_BASE": "many"})
    assert refused.returncode == 1
    assert re.match("error: CROSSNS_UID_BASE: must be the first of a block", refused.stderr)
