"""The supervisor with processes of the test's own: order, privileges, restarts, endings, who may run it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from crossns import errors, proc
from crossns.layout import Layout
from crossns.supervisor import jail, place, stack, suite

pytestmark = pytest.mark.e2e

# Says what it is, listens where it is told, and waits for SIGTERM.
SERVICE = """
import json, os, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
words = ("Uid", "Gid", "Groups", "NoNewPrivs", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
told = {word: status[word].split() for word in words}
code = os.environ["PYTHONPATH"]
told |= {"cwd": os.getcwd(), "executable": sys.executable, "environ": dict(os.environ), "code": os.listdir(code)}
told |= {"mounts": os.readlink("/proc/self/ns/mnt"), "read_only": bool(os.statvfs(code).f_flag & os.ST_RDONLY)}
print(json.dumps(told), flush=True)
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
print("listening", flush=True)
signal.sigwait([signal.SIGTERM])
os.unlink(sys.argv[1])
print("stopped", flush=True)
"""


@pytest.fixture
def layout() -> Iterator[Layout]:
    layout = Layout()
    yield layout
    place.remove(layout, purge=True)


class Log(list[tuple[str, str]]):
    """What the processes printed, in order."""

    def lines(self, name: str) -> list[str]:
        return [line for who, line in self if who == name]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_so():
                await asyncio.sleep(0.005)


def service(layout: Layout, name: str, user: str = "gateway", after: tuple[str, ...] = (), code: str = SERVICE) -> stack.Process:
    socket = f"{layout.run}/{user or 'root'}-{name}/socket"
    return stack.Process(name, ("{python}", "-c", code, socket), ("socket", socket), user=user, groups=("store",), after=after)


def of(layout: Layout, *processes: stack.Process) -> stack.Stack:
    places = (stack.Directory(Path(process.ready[1]).parent, process.user, process.user) for process in processes)
    return stack.Stack((stack.Directory(layout.run / stack.APP), *places), processes)


@asynccontextmanager
async def running(layout: Layout, wanted: stack.Stack, log: Log) -> AsyncIterator[suite.Suite]:
    with place.held(layout):
        place.prepare(wanted, layout)
        async with suite.running(wanted, layout, os.environ, lambda name, line: log.append((name, line))) as made:
            yield made


async def until_ready(made: suite.Suite) -> None:
    await asyncio.wait_for(made.wait_until_ready(), 10)


def about(log: Log, name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(log.lines(name)[0])
    return told


async def pids(pattern: str) -> list[int]:
    return [int(pid) for pid in (await proc.run(["pgrep", "-f", "--", pattern])).stdout.split()]


async def test_processes_start_when_those_they_need_are_ready_and_stop_in_reverse(layout: Layout) -> None:
    log = Log()
    slow = SERVICE.replace("listening.bind", "import time; time.sleep(0.3); listening.bind")
    first, second = service(layout, "first", code=slow), service(layout, "second", after=("first",))
    async with running(layout, of(layout, first, second), log) as made:
        await until_ready(made)
    events = [(name, line) for name, line in log if not line.startswith("{")]
    assert events == [("first", "listening"), ("second", "listening"), ("second", "stopped"), ("first", "stopped")]


async def test_service_has_its_uid_and_no_privilege_at_all(layout: Layout) -> None:
    log = Log()
    async with running(layout, of(layout, service(layout, "svc")), log) as made:
        await until_ready(made)
    told, uid = about(log, "svc"), str(layout.uid("gateway"))
    assert (told["Uid"], told["Gid"], told["Groups"]) == ([uid] * 4, [uid] * 4, [str(layout.store_gid)])
    assert told["NoNewPrivs"] == ["1"]
    assert [told[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [["0" * 16]] * 5


async def test_service_sees_the_code_read_only_and_nobody_else_sees_it_there(layout: Layout) -> None:
    log = Log()
    async with running(layout, of(layout, service(layout, "svc")), log) as made:
        await until_ready(made)
        listed = (await proc.run(["ls", "-A", str(layout.run / stack.APP)])).stdout
    told, app = about(log, "svc"), str(layout.run / stack.APP)
    assert {"crossns", "services", "deploy"} <= set(told["code"])
    assert told["executable"].startswith(f"{app}/")
    assert (told["cwd"], told["read_only"], listed) == (app, True, "")
    assert told["mounts"] != os.readlink("/proc/self/ns/mnt")


async def test_service_gets_only_what_is_meant_for_it_of_the_environment(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("CROSSNS_LOG", "DEBUG")
    log = Log()
    async with running(layout, of(layout, service(layout, "svc")), log) as made:
        await until_ready(made)
    environ = about(log, "svc")["environ"]
    assert environ["CROSSNS_LOG"] == "DEBUG"
    assert not {"SECRET", "HOME"} & set(environ)


async def test_privileged_process_stays_root_in_the_mount_namespace_of_the_device(layout: Layout) -> None:
    log = Log()
    async with running(layout, of(layout, service(layout, "launcher", user="")), log) as made:
        await until_ready(made)
    told = about(log, "launcher")
    assert (told["Uid"][0], told["mounts"], told["executable"]) == ("0", os.readlink("/proc/self/ns/mnt"), sys.executable)


async def test_process_that_dies_is_back_at_once(layout: Layout) -> None:
    log = Log()
    wanted = service(layout, "svc")
    async with running(layout, of(layout, wanted), log) as made:
        await until_ready(made)
        os.unlink(wanted.ready[1])
        (pid,) = await pids(wanted.ready[1])
        began = asyncio.get_running_loop().time()
        os.kill(pid, signal.SIGKILL)
        await log.until(lambda: log.lines("svc").count("listening") == 2)
        took_s = asyncio.get_running_loop().time() - began
        await until_ready(made)
    assert "ended (killed by signal 9): starts again in 0.1 s" in log.lines("svc")
    assert took_s < 2


async def test_process_that_keeps_dying_is_started_ever_later(layout: Layout) -> None:
    log = Log()
    wanted = service(layout, "svc", code="raise SystemExit(3)")
    async with running(layout, of(layout, wanted), log) as made:
        await log.until(lambda: len(log.lines("svc")) >= 3)
        assert made.missing == ["svc"]
    delays = [line for line in log.lines("svc") if line.startswith("ended (exit status 3)")]
    assert [line.split()[-2] for line in delays[:3]] == ["0.1", "0.2", "0.4"]


async def test_process_whose_settings_are_wrong_is_not_started_again(layout: Layout) -> None:
    log = Log()
    good = service(layout, "good")
    wrong = service(layout, "wrong", after=("good",), code="print('no such option', flush=True); raise SystemExit(2)")
    async with running(layout, of(layout, good, wrong), log) as made:
        assert await asyncio.wait_for(made.refused, 10) == "wrong"
    assert log.lines("wrong") == ["no such option"]
    assert log.lines("good")[-1] == "stopped"


async def test_process_that_has_been_ready_has_the_right_settings_however_it_ends(layout: Layout) -> None:
    log = Log()
    ending = SERVICE.replace('print("stopped", flush=True)', "raise SystemExit(2)")
    wanted = service(layout, "svc", code=ending)
    async with running(layout, of(layout, wanted), log) as made:
        await until_ready(made)
        (pid,) = await pids(wanted.ready[1])
        os.kill(pid, signal.SIGTERM)
        await log.until(lambda: log.lines("svc").count("listening") == 2)
        assert not made.refused.done()
    assert "ended (exit status 2): starts again in 0.1 s" in log.lines("svc")


async def test_process_that_does_not_stop_is_killed(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "_STOP_S", 0.2)
    log = Log()
    deaf = SERVICE.replace("signal.sigwait([signal.SIGTERM])", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.pause()")
    wanted = service(layout, "svc", code=deaf)
    async with running(layout, of(layout, wanted), log) as made:
        await until_ready(made)
    assert log.lines("svc")[-1] == "does not end within 0.2 s: killed"
    assert await pids(wanted.ready[1]) == []


async def test_nothing_is_left_when_the_start_is_interrupted(layout: Layout) -> None:
    log = Log()
    wanted = of(layout, service(layout, "svc", code="import time; print('up', flush=True); time.sleep(1000)"))
    with pytest.raises(TimeoutError):
        async with running(layout, wanted, log) as made:
            await asyncio.wait_for(made.wait_until_ready(), 0.3)
    assert await pids("svc/socket") == []
    assert place.holder(layout) == 0


async def test_services_end_with_a_supervisor_that_is_killed(layout: Layout) -> None:
    wanted = service(layout, "svc")
    program = (
        "import asyncio, sys; sys.path[0:0] = sys.argv[1:]\n"
        "from crossns.layout import Layout\n"
        "from tests.e2e import test_supervisor as t\n"
        "async def main():\n"
        "    layout = Layout()\n"
        "    async with t.running(layout, t.of(layout, t.service(layout, 'svc')), t.Log()) as made:\n"
        "        await made.wait_until_ready(); print('ready', flush=True); await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    supervisor = await proc.start([sys.executable, "-c", program, str(jail.CODE)])
    assert supervisor.stdout is not None
    assert await asyncio.wait_for(supervisor.stdout.readline(), 10) == b"ready\n"
    assert place.holder(layout) == supervisor.pid
    supervisor.kill()
    await supervisor.wait()
    async with asyncio.timeout(5):
        while await pids(wanted.ready[1]):
            await asyncio.sleep(0.01)
    assert place.holder(layout) == 0


def test_only_one_runs_here_and_the_other_is_named(layout: Layout) -> None:
    with place.held(layout):
        assert place.holder(layout) == os.getpid()
        with pytest.raises(errors.FailedPrecondition, match=f"runs here already \\(pid {os.getpid()}\\)"), place.held(layout):
            pass
    assert place.holder(layout) == 0
    with place.held(layout):
        pass


def test_directories_have_their_owners_and_modes(layout: Layout) -> None:
    place.prepare(stack.load(layout), layout)
    place.prepare(stack.load(layout), layout)

    def told(path: Path) -> tuple[int, int, int]:
        status = path.stat()
        return status.st_uid, status.st_gid, status.st_mode & 0o7777

    uid = layout.uid
    assert told(layout.service_socket("nsmanager").parent) == (uid("nsmanager"), uid("gateway"), 0o2750)
    assert told(layout.service_socket("proxy").parent) == (uid("proxy"), uid("gateway"), 0o2750)
    assert told(layout.engine_dir("haproxy")) == (uid("haproxy"), uid("proxy"), 0o2770)
    assert told(layout.gateway_socket.parent) == (uid("gateway"), uid("gateway"), 0o755)
    assert told(layout.etcd_dir)[:2] == (uid("etcd"), layout.store_gid)
    assert told(layout.state / "etcd") == (uid("etcd"), uid("etcd"), 0o700)


def test_a_cluster_leaves_out_the_embedded_etcd_and_who_waits_for_it(layout: Layout) -> None:
    whole = stack.load(layout)
    assert [process.name for process in whole.processes if process.embedded] == ["etcd"]
    rest = whole.without_embedded()
    assert [process.name for process in rest.processes] == [process.name for process in whole.processes if process.name != "etcd"]
    assert not any("etcd" in process.after for process in rest.processes)


def test_every_process_waits_only_for_those_that_start_before_it(layout: Layout) -> None:
    seen: set[str] = set()
    for process in stack.load(layout).processes:
        assert set(process.after) <= seen
        seen.add(process.name)
