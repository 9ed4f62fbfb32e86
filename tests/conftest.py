"""How tests run: in the sandbox where they touch the kernel, with counts and seeds that are said, and leaving nothing behind.

Tests marked `kernel`, `e2e` or `fault` run inside the sandbox only; a plain `pytest tests/kernel` goes there by itself. A
test that cannot run here is skipped and says which feature of the machine is missing.
"""

import asyncio
import fcntl
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import hypothesis
import pytest
from grpc import aio

from crossns.testing import sandbox
from tests import leak

SANDBOXED = ("kernel", "e2e", "fault")
TESTDATA = Path(__file__).parent / "testdata"
BUILD = Path(__file__).parent.parent / "build"
# Link kinds that some kernels lack -> `ip` arguments that need them. Whatever else a test `needs` is a program.
LINK_KINDS = {
    "bond": "link add probe type bond",
    "bridge": "link add probe type bridge",
    "dummy": "link add probe type dummy",
    "macvlan": "link add link veth0 name probe type macvlan",
    "tap": "tuntap add dev probe mode tap",
    "vlan": "link add link veth0 name probe type vlan id 5",
    "vxlan": "link add probe type vxlan id 5 dstport 4789",
}

hypothesis.settings.register_profile("reduced", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.register_profile("full", derandomize=True, deadline=None, max_examples=2000)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("crossns")
    group.addoption("--long", action="store_true", help="full counts, and the tests marked long")
    group.addoption("--seed", type=int, default=1, help="where all dice of the tests begin (default: 1)")
    group.addoption("--golden", action="store_true", help="write the expected files anew instead of comparing with them")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("full" if config.getoption("--long") else "reduced")


def pytest_report_header(config: pytest.Config) -> str:
    counts = "full counts" if config.getoption("--long") else "reduced counts (make test-long has the full ones)"
    place = "in the sandbox" if sandbox.is_inside() else "outside the sandbox"
    return f"crossns: {counts}, seed {config.getoption('--seed')}, {place}"


def _is_sandboxed(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in SANDBOXED)


@cache
def _lacks(feature: str) -> bool:
    """Whether this machine lacks a link kind or a program. Tried in a namespace of its own."""
    if feature not in LINK_KINDS:
        return shutil.which(feature) is None
    script = f"ip link add veth0 type veth peer name veth1 && ip {LINK_KINDS[feature]}"
    return subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, check=False).returncode != 0


def _missing(item: pytest.Item) -> str:
    """Why the test cannot run here, "" where it can."""
    if _is_sandboxed(item) and os.geteuid() != 0:
        return "needs root"
    features = [feature for marker in item.iter_markers("needs") for feature in marker.args]
    lacking = [feature for feature in features if _lacks(feature)]
    if lacking:
        return f"needs {', '.join(lacking)}, which this machine does not have"
    return ""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if reason := _missing(item):
            item.add_marker(pytest.mark.skip(reason=reason))
        elif item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="long: make test-long runs it"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start over inside the sandbox where a test that was chosen wants it: this process becomes the one that waits outside."""
    config = session.config
    wants = any(_is_sandboxed(item) and not item.get_closest_marker("skip") for item in session.items)
    if not wants or sandbox.is_inside() or config.getoption("--collect-only"):
        return
    config.pluginmanager.getplugin("capturemanager").suspend_global_capture(in_=True)
    sys.stdout.flush()
    pytest_again = [sys.executable, "-m", "pytest", *config.invocation_params.args]
    os.execv(sys.executable, [sys.executable, "-m", "crossns.testing.sandbox", *pytest_again])


def _fail_on_leak(before: leak.Census, what: str) -> None:
    left = leak.left_since(before)
    if left:
        listed = "\n".join(f"  {count} x {thing}" for thing, count in sorted(left.items()))
        pytest.fail(f"{what} left behind:\n{listed}", pytrace=False)


@pytest.fixture(autouse=True)
def _cores(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where two workers share the machine: a test marked `alone` has all of it. Whoever waits for it keeps newcomers out."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    kind = fcntl.LOCK_EX if request.node.get_closest_marker("alone") else fcntl.LOCK_SH
    with (BUILD / "cores.lock").open("w") as cores:
        with (BUILD / "cores.door.lock").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(cores, kind)
        yield


async def _begin_grpc() -> None:
    aio.init_grpc_aio()  # type: ignore[attr-defined] # missing in the types
    server = aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await server.stop(None)


@pytest.fixture(autouse=True, scope="session")
def _grpc_has_begun() -> Iterator[None]:
    """gRPC's pollers and their descriptors stay until the end: in the first test that uses gRPC they would look like a leak."""
    if not sandbox.is_inside():
        yield
        return
    asyncio.run(_begin_grpc())
    yield
    aio.shutdown_grpc_aio()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True, scope="module")
def _module_leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    # Around what a module's tests share.
    if not sandbox.is_inside():
        yield
        return
    before = leak.census()
    yield
    _fail_on_leak(before, f"the module {request.node.name}")


@pytest.fixture(autouse=True)
def _test_leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    if not (sandbox.is_inside() and _is_sandboxed(request.node)):
        yield
        return
    before = leak.census()
    yield
    _fail_on_leak(before, "the test")


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """A source of chance that is the same in each run with the same seed, and another one in each test."""
    return random.Random(f"{request.config.getoption('--seed')} {request.node.nodeid}")


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """`count(reduced, full)`: how often to do it in this run."""
    is_long = request.config.getoption("--long")
    return lambda reduced, full: full if is_long else reduced


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("plan/move.txt", text)`: the text is what the file in testdata says; `make golden` writes the file."""
    writes = request.config.getoption("--golden")

    def compare(name: str, text: str) -> None:
        path = TESTDATA / name
        if writes:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        expected = path.read_text(encoding="utf-8") if path.exists() else f"{name} is missing: make golden"
        assert text == expected

    return compare
