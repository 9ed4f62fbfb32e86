"""The command line without a device: names, options, exit statuses, and errors that say what to do."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest
from google.protobuf import json_format
from grpc import StatusCode, aio

from crossns import errors, rpc
from crossns.cli import bundle, client, columns, description, exits, kinds, progress, render, root
from crossns.rpc import status
from crossns.v1 import config_pb2, interface_pb2, neighbor_pb2, route_table_pb2, rule_pb2, status_pb2, v_service_pb2


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CROSSNS_SERVER", f"unix:{tmp_path}/nobody.sock")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)


def test_every_command_is_there_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["--help"]) == exits.DONE
    listed = capsys.readouterr().out
    for name in root.cli.list_commands(click.Context(root.cli)):
        assert f"\n  {name} " in listed
        assert root.run([name, "--help"]) == exits.DONE
        assert f"Usage: crossns {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        ["nonsense"],
        ["get"],
        ["get", "tables", "-o", "xml"],
        ["--timeout", "0", "status"],
        ["status", "--timeout", "soon"],
        ["apply"],
        ["delete"],
        ["describe", "a", "b", "c"],
        ["delete", "interfaces/a", "--evacuate"],
        ["get", "tables", "-l", "novalue"],
        ["get", "tables", "--tls-ca", __file__],
        ["table", "create", "a", "--index", "0"],
        ["completion", "tcsh"],
        ["exec", "a"],
        ["up", "--nonsense"],
    ],
)
def test_wrong_usage_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(argv) == exits.USAGE
    assert "Error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["get", "tables"],
        ["describe", "vServices/web"],
        ["status"],
        ["export"],
        ["watch"],
        ["table", "create", "a"],
        ["service", "list"],
    ],
)
def test_without_a_device_it_says_how_to_start_one(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(argv) == exits.FAILED
    assert capsys.readouterr().err == (
        "error: no crossns is running here: start it with `crossns up` (or name another device with --server)\n"
    )


def test_gateway_that_ends_in_the_middle_is_not_said_to_be_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        threading.Thread(target=ending, args=(listener,), daemon=True).start()
        assert root.run(["status", "--server", f"unix:{tmp_path / 's'}"]) == exits.FAILED
    assert capsys.readouterr().err == "error: crossns ended before it had answered, and is there again: try again\n"


def ending(listener: socket.socket) -> None:
    """Everybody who connects."""
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()


async def test_what_a_service_says_of_its_failure_is_told() -> None:
    error = errors.AgentUnavailable("LAUNCHER_UNAVAILABLE", "the look at the device ended")
    details = aio.Metadata(*status.trailers(status.of(error)))

    async def failing(_request: object, **_: object) -> None:
        raise aio.AioRpcError(StatusCode.UNAVAILABLE, aio.Metadata(), details, error.message, None)

    async with rpc.channel("unix:/nobody") as channel:
        api = client.Client(channel, client.Connection("unix:/nobody", None, None))
        with pytest.raises(errors.AgentUnavailable, match="the look at the device ended"):
            await api.call(failing, None)


def test_a_server_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["get", "tables", "--server", "127.0.0.1:1"]) == exits.FAILED
    assert "nothing answers at 127.0.0.1:1" in capsys.readouterr().err


def test_options_of_the_connection_may_stand_before_and_behind_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["--server", "127.0.0.1:1", "get", "tables"]) == exits.FAILED
    assert "127.0.0.1:1" in capsys.readouterr().err
    assert root.run(["--server", "127.0.0.1:1", "get", "tables", "--server", "127.0.0.1:2"]) == exits.FAILED
    assert "127.0.0.1:2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["get", "cats"], "'cats' is none: use one of routeTables, interfaces, routes, rules, neighbors, vServices"),
        (["get", "tabels"], "did you mean 'table"),
        (["describe", "web"], "'web' is not the full name of a resource: write routeTables/ID"),
        (["describe", "table", "A"], "'A' is not an id: use 1 to 63 of a-z"),
        (["delete", "vServices/web", "cats/tom"], "'cats/tom' is not the full name"),
        (["apply", "-f", "/nowhere.yaml"], "/nowhere.yaml: cannot be read: No such file"),
        (["exec", "Table", "true"], "is not an id"),
        (["exec", "nowhere", "true"], "no route table nowhere on this device"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_sent(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(argv) == exits.FAILED
    assert words in capsys.readouterr().err


def test_diff_has_the_exit_statuses_of_diff(capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["diff", "-f", "/nowhere.yaml"]) == exits.TROUBLE
    assert "cannot be read" in capsys.readouterr().err


def test_exec_of_an_unknown_program_exits_as_a_shell_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        root.run(["exec", "default", "no-such-program"])
    assert raised.value.code == 127
    assert "'no-such-program'" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["completion", shell]) == exits.DONE
    script = capsys.readouterr().out
    assert "_CROSSNS_COMPLETE" in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_shell_is_told_which_commands_begin_so() -> None:
    environ = {"_CROSSNS_COMPLETE": "bash_complete", "COMP_WORDS": "crossns de", "COMP_CWORD": "1", "PATH": "/usr/bin:/bin"}
    root_folder = Path(__file__).parents[2]
    told = subprocess.run(
        [sys.executable, "-m", "crossns.cli"], env=environ, cwd=root_folder, capture_output=True, text=True, check=False
    )
    assert told.stdout.split() == ["plain,demo", "plain,describe", "plain,delete"]


@pytest.mark.parametrize("word", ["table", "tables", "routetables", "routeTables", "RouteTable", "rt"])
def test_a_kind_has_many_names(word: str) -> None:
    assert kinds.find(word).name == "RouteTable"


@pytest.mark.parametrize(
    ("word", "name", "full"),
    [
        ("table", "a", "routeTables/a"),
        ("table", "routeTables/a", "routeTables/a"),
        ("route", "a/r", "routeTables/a/routes/r"),
        ("route", "routeTables/a/routes/r", "routeTables/a/routes/r"),
        ("rule", "a/r", "routeTables/a/rules/r"),
        ("neigh", "a/n", "routeTables/a/neighbors/n"),
        ("svc", "web", "vServices/web"),
    ],
)
def test_a_short_name_and_its_kind_make_the_full_name(word: str, name: str, full: str) -> None:
    assert kinds.full_name(kinds.find(word), name) == full
    assert kinds.full_name(kinds.find(word), kinds.short_name(full)) == full


@pytest.mark.parametrize(("word", "name"), [("route", "r"), ("table", "a/b"), ("table", "interfaces/a"), ("service", "")])
def test_a_name_that_does_not_fit_its_kind_is_refused(word: str, name: str) -> None:
    with pytest.raises(errors.InvalidSpec):
        kinds.full_name(kinds.find(word), name)


def web() -> v_service_pb2.VService:
    service = v_service_pb2.VService(name="vServices/web")
    front = service.spec.frontends.add(name="dmz", route_table="routeTables/dmz", address="2001:db8::10", port=80)
    member = service.spec.pools.add(name="main").members.add(name="a", route_table="routeTables/a", address="10.0.0.5", port=8080)
    for state, reason in ((status_pb2.STATE_READY, "OK"), (status_pb2.STATE_PENDING, "VIP_ABSENT")):
        service.status.frontends.add(name=front.name, state=state, reason=reason, service="proxy")
    service.status.members.add(name=f"main/{member.name}", state=status_pb2.STATE_READY, reason="OK", service="proxy")
    service.status.state = status_pb2.STATE_PENDING
    return service


def test_a_part_is_ready_only_when_every_service_says_so() -> None:
    line = click.unstyle(columns.table([web()])).splitlines()[1]
    assert line.split() == ["web", "PENDING", "dmz", "[2001:db8::10]:80", "0/1", "1/1"]


@pytest.mark.parametrize(
    ("spec", "selects", "action"),
    [
        ({"kernelTable": 100}, "from all", "lookup 100"),
        ({"source": "10.0.0.0/8", "destination": "::/0", "kernelTable": 7}, "from 10.0.0.0/8 to ::/0", "lookup 7"),
        ({"interface": "interfaces/lan", "mark": 16, "action": 2}, "from all iif lan fwmark 0x10", "blackhole"),
        ({"markMask": 255, "action": "RULE_ACTION_PROHIBIT"}, "from all fwmark 0x0/0xff", "prohibit"),
    ],
)
def test_a_rule_is_shown_as_ip_rule_writes_it(spec: dict[str, object], selects: str, action: str) -> None:
    rule = json_format.ParseDict({"name": "routeTables/a/rules/r", "spec": spec}, rule_pb2.Rule())
    assert (columns.selector(rule), columns.action(rule)) == (selects, action)


def test_a_neighbour_is_shown_with_its_mac_address_or_as_answered_for() -> None:
    name = "routeTables/a/neighbors/n"
    static, proxy = neighbor_pb2.Neighbor(name=name), neighbor_pb2.Neighbor(name=name)
    static.spec.address, static.spec.interface, static.spec.mac_address = "10.0.0.9", "interfaces/lan", "02:00:00:00:00:09"
    proxy.spec.address, proxy.spec.interface, proxy.spec.proxy = "10.0.0.8", "interfaces/lan", True
    rows = click.unstyle(columns.table([static, proxy])).splitlines()[1:]
    assert [row.split()[2:] for row in rows] == [["10.0.0.9", "lan", "02:00:00:00:00:09"], ["10.0.0.8", "lan", "answered", "for"]]


def test_columns_are_aligned_whatever_their_colour() -> None:
    rows = [["NAME", "STATE"], ["a", click.style("READY", fg="green")], ["long", "x"]]
    assert click.unstyle(columns.aligned(rows)).splitlines() == ["NAME  STATE", "a     READY", "long  x"]


def test_a_single_resource_is_no_list_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    table = route_table_pb2.RouteTable(name="routeTables/a")
    render.show([table], "json", single=True)
    assert capsys.readouterr().out.startswith("{")
    render.show([table], "json")
    assert capsys.readouterr().out.startswith("[")
    render.show([table], "name")
    assert capsys.readouterr().out == "routeTables/a\n"


def test_a_reference_deep_in_a_spec_makes_a_user() -> None:
    assert description.concerns(web(), "routeTables/a")
    assert not description.concerns(web(), "routeTables/b")
    below = interface_pb2.Interface(name="interfaces/a", spec=interface_pb2.InterfaceSpec(route_table="routeTables/a"))
    assert description.concerns(below, "routeTables/a")


def test_pruning_takes_the_labels_that_all_have_in_common() -> None:
    both = [
        route_table_pb2.RouteTable(name="routeTables/a", labels={"app": "shop", "tier": "1"}),
        route_table_pb2.RouteTable(name="routeTables/b", labels={"app": "shop", "tier": "2"}),
    ]
    assert bundle.owning(both, {}) == {"app": "shop"}
    assert bundle.owning(both, {"x": "y"}) == {"x": "y"}
    with pytest.raises(click.UsageError):
        bundle.owning([*both, route_table_pb2.RouteTable(name="routeTables/c")], {})


# Longer than patience lasts in these tests.
PAUSE = 0.05


class _Gateway:
    """Answers Wait with the given responses, pauses where a number of seconds stands, then ends as `ending` says."""

    def __init__(self, responses: list[config_pb2.WaitResponse | float], ending: str = "end") -> None:
        self._responses, self._ending = responses, ending
        self.config = SimpleNamespace(Wait=None)
        self.connection = client.Connection("unix:x", None, 1)

    async def stream(self, _method: Any, _request: Any) -> AsyncIterator[config_pb2.WaitResponse]:
        for response in self._responses:
            if isinstance(response, float):
                await asyncio.sleep(response)
            else:
                yield response
        if self._ending == "silence":
            await asyncio.Event().wait()
        if self._ending == "deadline":
            raise errors.DeadlineExceeded("DEADLINE_EXCEEDED", "time is up")


def told(name: str, state: status_pb2.State.ValueType, *, done: bool = False) -> config_pb2.WaitResponse:
    condition = status_pb2.Condition(
        type="Present", status=status_pb2.CONDITION_STATUS_FALSE, reason="LINK_MISSING", message="no card eth7"
    )
    return config_pb2.WaitResponse(name=name, done=done, state=state, conditions=[] if done else [condition])


async def waited(*responses: config_pb2.WaitResponse | float, ending: str = "end") -> int:
    targets = [progress.target(name) for name in ("interfaces/a", "interfaces/b")]
    return await progress.wait(cast("client.Client", _Gateway(list(responses), ending)), targets)


DONE = [told(name, status_pb2.STATE_READY, done=True) for name in ("interfaces/a", "interfaces/b")]
HOPELESS = [DONE[0], told("interfaces/b", status_pb2.STATE_ERROR)]


async def test_waiting_ends_when_all_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert await waited(*DONE) == exits.DONE
    assert capsys.readouterr().out == "interfaces/a is READY\ninterfaces/b is READY\n"


async def test_waiting_for_what_is_in_error_fails_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_HOPELESS_S", 0.01)
    assert await waited(*HOPELESS, ending="silence") == exits.FAILED
    shown = capsys.readouterr().err
    assert "interfaces/b  ERROR  no card eth7" in shown
    assert "interfaces/a" not in shown


async def test_an_error_that_passes_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_HOPELESS_S", 0.01)
    assert await waited(*HOPELESS, told("interfaces/b", status_pb2.STATE_PENDING), PAUSE, DONE[1]) == exits.DONE


async def test_what_is_pending_is_waited_for_until_the_time_is_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_HOPELESS_S", 0.01)
    pending = told("interfaces/a", status_pb2.STATE_PENDING)
    assert await waited(pending, HOPELESS[1], PAUSE, ending="deadline") == exits.TIMED_OUT
    shown = capsys.readouterr().err
    assert "not as wanted after 1 s" in shown
    assert "interfaces/a  PENDING" in shown
