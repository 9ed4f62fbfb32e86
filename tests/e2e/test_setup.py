"""The suite from a clone that only root may look into, as an operator's own clone below /root is; and that set-up is quick."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]


def _run(argv: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    # As in a terminal: nothing of this run of pytest, and not knowing of its sandbox either, so that a new one is made.
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("CROSSNS", "PYTHON", "PYTEST", "MAKE"))}
    return subprocess.run(argv, cwd=directory, env=environ, capture_output=True, text=True, check=False)


def _generated(folder: str, names: list[str]) -> set[str]:
    """What `make clean` removes, and git's own."""
    found = {name for name in names if name in {".git", ".venv", "build", "__pycache__"} or name.endswith("_cache")}
    return found | ({"v1"} if Path(folder) == ROOT / "crossns" else set())


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another file system.
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def clone() -> Iterator[Path]:
    """This tree without what was generated, in a folder with mode 0700."""
    with TemporaryDirectory(dir="/root", prefix="crossns-clone-") as private:
        target = Path(private) / "crossns"
        shutil.copytree(ROOT, target, symlinks=True, ignore=_generated)
        # What a set-up from nothing would fetch: the same files, at the clone's own place.
        shutil.copytree(ROOT / ".venv", target / ".venv", symlinks=True, copy_function=_link)
        yield target


def test_make_prints_help(clone: Path) -> None:
    done = _run(["make"], clone)
    assert done.returncode == 0
    assert all(f"make {target} " in done.stdout for target in ("demo", "up", "test", "verify", "bench", "mutants"))


def test_set_up_of_the_clone_generates_what_is_not_in_git(clone: Path) -> None:
    assert not (clone / "crossns/v1").exists()
    done = _run(["make", "setup"], clone)
    assert done.returncode == 0, done.stderr
    assert (clone / "crossns/v1/route_table_pb2.py").exists()
    assert (clone / "crossns/v1/route_table_pb2_grpc.pyi").exists()


def test_second_set_up_does_nothing_and_is_quick(clone: Path) -> None:
    _run(["make", "setup"], clone)
    begun = time.monotonic()
    done = _run(["make", "setup"], clone)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - begun < 1


def test_suite_runs_from_a_clone_that_its_services_cannot_look_into(clone: Path) -> None:
    _run(["make", "setup"], clone)
    assert clone.parent.stat().st_mode & 0o777 == 0o700
    show = ".venv/bin/crossns status && cat /proc/[0-9]*/status | grep -c '^Uid:.641'"
    done = _run([".venv/bin/crossns", "up", "--sandbox", "--quiet", "--", "sh", "-euc", show], clone)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "gateway" in done.stdout
    # etcd, nsmanager, proxy and gateway, each with a uid of its own.
    assert int(done.stdout.splitlines()[-1]) >= 4
