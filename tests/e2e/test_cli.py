"""The command line against the whole suite, as a person or a script uses it."""

import asyncio
import json
import re
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossns.cli import document
from crossns.testing import otlp
from tests.e2e.terminal import CROSSNS, ENVIRON, ROOT, crossns, done, up

pytestmark = pytest.mark.e2e

TWO_TABLES = """
kind: RouteTable
name: routeTables/blue
labels: {app: shop}
spec: {description: The blue one}
---
kind: RouteTable
name: routeTables/green
labels: {app: shop}
---
kind: Interface
name: interfaces/blue-lan
labels: {app: shop}
spec:
  routeTable: routeTables/blue
  linkName: lan
  addresses: [10.1.0.1/24, 'fd00:1::1/64']
  bridge: {}
---
kind: Route
name: routeTables/blue/routes/away
labels: {app: shop}
spec:
  destination: 192.0.2.0/24
  gateways:
  - {address: 10.1.0.254}
"""


@pytest.fixture(scope="module", autouse=True)
def _suite() -> Iterator[None]:
    with up("--quiet"):
        yield
    done("down", "--purge")


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    """A file with two tables, applied; gone afterwards."""
    file = tmp_path / "two-tables.yaml"
    file.write_text(TWO_TABLES)
    done("apply", "-f", str(file))
    yield file
    file.write_text(TWO_TABLES)
    done("delete", "--allow-missing", "-f", str(file))


def test_apply_shows_the_plan_and_waits_until_all_is_ready(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(TWO_TABLES)
    planned = done("apply", "--dry-run", "-f", str(file))
    assert "+ routeTables/blue\n" in planned
    assert planned.endswith("4 to create\n")
    assert "routeTables/blue" not in done("get", "tables", "-o", "name")
    applied = done("apply", "-f", str(file))
    for name in ("routeTables/blue", "routeTables/green", "interfaces/blue-lan", "routeTables/blue/routes/away"):
        assert f"{name} is READY\n" in applied
    assert "4 as wanted already" in done("apply", "-f", str(file))
    deleted = done("delete", "-f", str(file))
    assert "interfaces/blue-lan is gone\n" in deleted
    assert done("get", "tables", "-o", "name") == "routeTables/default\n"


def test_what_is_exported_is_what_was_applied(bundle: Path) -> None:
    exported = done("export", "--label", "app=shop")
    assert crossns("diff", "-f", "-", stdin=exported).returncode == 0
    assert exported == done("export", "--label", "app=shop", "-o", "yaml")
    as_json = done("export", "--table", "blue", "-o", "json")
    assert {each["name"] for each in json.loads(as_json)} == {
        "routeTables/blue",
        "interfaces/blue-lan",
        "routeTables/blue/routes/away",
    }
    assert crossns("diff", "-f", "-", stdin=as_json).returncode == 0
    assert bundle.exists()


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_example_is_exported_as_it_was_applied(form: str) -> None:
    example = ROOT / "examples" / "two-tenants.yaml"
    # Its network cards are the demo's: here it stays wanted only.
    done("apply", "--no-wait", "-f", str(example))
    try:
        exported = done("export", "-o", form)
        assert document.parse(exported, "exported") == document.parse(example.read_text(), "example")
    finally:
        done("delete", "-f", str(example))


def test_diff_tells_by_its_exit_status_and_names_the_fields(bundle: Path) -> None:
    assert crossns("diff", "-f", str(bundle)).returncode == 0
    bundle.write_text(TWO_TABLES.replace("The blue one", "Another blue one").replace("routeTables/green", "routeTables/red"))
    differs = crossns("diff", "-f", str(bundle))
    assert differs.returncode == 1
    assert re.search(r"^~ routeTables/blue .*description", differs.stdout, re.MULTILINE)
    assert "+ routeTables/red\n" in differs.stdout
    assert "1 to create, 1 to update, 2 as wanted already" in differs.stdout
    bundle.write_text("kind: [")
    assert crossns("diff", "-f", str(bundle)).returncode == 2


def test_prune_deletes_what_the_file_no_longer_names(bundle: Path) -> None:
    bundle.write_text(TWO_TABLES.partition("---\nkind: Route\n")[0])
    would = crossns("diff", "--prune", "-f", str(bundle))
    assert (would.returncode, "- routeTables/blue/routes/away\n" in would.stdout) == (1, True)
    pruned = done("apply", "--prune", "-f", str(bundle))
    assert "- routeTables/blue/routes/away\n" in pruned
    assert "routeTables/blue/routes/away is gone\n" in pruned
    assert done("get", "routes", "--table", "blue", "-o", "name") == ""


def test_file_that_is_wrong_changes_nothing_and_is_told_with_its_line(bundle: Path) -> None:
    bundle.write_text(TWO_TABLES.replace("The blue one", "Changed").replace("destination:", "destinatoin:"))
    wrong = crossns("apply", "-f", str(bundle))
    assert wrong.returncode == 1
    assert re.search(
        r"two-tables.yaml:\d+ \(document 4\): unknown field 'destinatoin' .*did you mean 'destination'", wrong.stderr
    )
    assert "The blue one" in done("get", "table", "blue")


def test_error_of_the_api_names_the_resource_and_what_to_do() -> None:
    text = "kind: Interface\nname: interfaces/lost\nspec: {routeTable: routeTables/nowhere, dummy: {}}\n"
    refused = crossns("apply", "-f", "-", stdin=text)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert "routeTables/nowhere" in refused.stderr
    assert crossns("get", "interface", "lost").returncode == 1


def test_get_prints_in_every_form(bundle: Path) -> None:
    assert bundle.exists()
    assert done("get", "tables", "-o", "name") == "routeTables/blue\nrouteTables/default\nrouteTables/green\n"
    heads, *rows = done("get", "tables").splitlines()
    assert heads.split() == ["NAME", "STATE", "INDEX", "FORWARDS", "DESCRIPTION"]
    assert [row.split()[:2] for row in rows] == [["blue", "READY"], ["default", "READY"], ["green", "READY"]]
    one = json.loads(done("get", "table", "blue", "-o", "json"))
    assert (one["name"], one["status"]["state"], one["spec"]["description"]) == ("routeTables/blue", "READY", "The blue one")
    assert "state: READY" in done("get", "routeTables/blue", "-o", "yaml")
    assert [each["name"] for each in json.loads(done("get", "tables", "-l", "app=shop", "-o", "json"))] == [
        "routeTables/blue",
        "routeTables/green",
    ]
    assert done("get", "interfaces", "--table", "green", "-o", "name") == ""


def test_what_get_prints_of_one_can_be_applied(bundle: Path) -> None:
    assert bundle.exists()
    assert "1 as wanted already" in done("apply", "-f", "-", stdin=done("get", "table", "blue", "-o", "yaml"))


def test_describe_tells_state_conditions_and_who_uses_it(bundle: Path) -> None:
    assert bundle.exists()
    text = done("describe", "table", "blue")
    assert text.startswith("routeTables/blue  READY")
    assert "app=shop" in text
    assert text.count("vridBase") == text.count("portBase") == 1
    used_by = text.partition("used by:\n")[2].split()
    assert used_by == ["interfaces/blue-lan", "routeTables/blue/routes/away"]
    assert done("table", "show", "blue") == text


def test_table_with_an_interface_is_deleted_only_by_evacuation(bundle: Path) -> None:
    assert bundle.exists()
    refused = crossns("table", "delete", "blue")
    assert refused.returncode == 1
    assert "interfaces/blue-lan" in refused.stderr
    assert "evacuate" in refused.stderr
    assert "routeTables/blue is gone\n" in done("table", "delete", "blue", "--evacuate")


def test_table_lives_from_create_to_delete() -> None:
    assert done("table", "create", "short", "--description", "Here and gone", "--index", "77") == "routeTables/short is READY\n"
    assert re.search(r"^short +READY +77 +no +Here and gone$", done("table", "list"), re.MULTILINE)
    again = crossns("table", "create", "short")
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert done("table", "delete", "short") == "routeTables/short is gone\n"
    assert crossns("table", "delete", "short").returncode == 1
    assert crossns("table", "delete", "short", "--allow-missing").returncode == 0


def test_exec_runs_in_the_table_with_its_own_files(bundle: Path) -> None:
    assert bundle.exists()
    own = Path("/etc/netns/blue")
    own.mkdir(parents=True)
    (own / "hosts").write_text("10.1.0.9 only-in-blue\n")
    try:
        shown = done("exec", "blue", "--", "sh", "-c", "ip -brief address show lan; cat /etc/hosts")
    finally:
        (own / "hosts").unlink()
        own.rmdir()
    assert "10.1.0.1/24" in shown
    assert "10.1.0.9 only-in-blue" in shown
    assert crossns("exec", "blue", "--", "sh", "-c", "exit 7").returncode == 7
    assert "10.1.0.1/24" not in done("exec", "default", "--", "ip", "-brief", "address")


def test_interface_and_service_are_listed() -> None:
    text = """
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
  pools: [{name: main, members: [{name: one, routeTable: routeTables/shop, address: 203.0.113.5, port: 8080}]}]
"""
    done("apply", "-f", "-", stdin=text)
    try:
        assert re.search(
            r"^shop-lan +READY +shop +lan +bridge +203.0.113.1/24$", done("interface", "list", "--table", "shop"), re.MULTILINE
        )
        # The member is not there: sooner or later that is noticed.
        assert re.search(r"^web +\w+ +TCP +shop 203.0.113.10:80 +1/1 +[01]/1", done("service", "list"), re.MULTILINE)
        shown = done("service", "show", "web")
        assert re.search(r"^  front +shop 203.0.113.10:80 +main +READY", shown, re.MULTILINE)
        assert re.search(r"^  main/one +shop 203.0.113.5:8080 +1 +ENABLED", shown, re.MULTILINE)
    finally:
        done("delete", "-f", "-", stdin=text)


def test_waiting_for_what_cannot_be_fails_with_the_reason_and_no_wait_does_not() -> None:
    text = "kind: Interface\nname: interfaces/lost\nspec: {routeTable: routeTables/default, physical: {linkName: nowhere0}}\n"
    try:
        waited = crossns("apply", "-f", "-", "--timeout", "8", stdin=text)
        assert waited.returncode in (1, 3)
        assert re.search(r"interfaces/lost +(ERROR|PENDING) +.*nowhere0", waited.stderr)
        assert crossns("apply", "-f", "-", "--no-wait", stdin=text).returncode == 0
    finally:
        done("delete", "interfaces/lost")


def test_watch_prints_what_happens_and_goes_on_where_it_stopped() -> None:
    with subprocess.Popen([*CROSSNS, "watch", "-o", "json"], stdout=subprocess.PIPE, text=True, env=ENVIRON) as watching:
        assert watching.stdout is not None
        try:
            events: list[dict[str, str]] = []
            while not any((event["type"], event.get("name")) == ("CREATED", "routeTables/seen") for event in events):
                if not select.select([watching.stdout], [], [], 1)[0]:
                    # Until the stream stands, nothing is seen.
                    crossns("table", "delete", "seen", "--allow-missing")
                    done("table", "create", "seen")
                    continue
                events.append(json.loads(watching.stdout.readline()))
        finally:
            watching.terminate()
    token = events[-1]["resumeToken"]
    done("table", "delete", "seen")
    resumed = crossns("watch", "--resume", token, "--table", "seen", "--timeout", "2")
    assert resumed.returncode == 3
    assert re.search(r"DELETED +routeTables/seen", resumed.stdout)
    assert "routeTables/seen does not exist" in resumed.stderr


def test_status_says_that_all_is_well_and_shows_processes_with_their_memory() -> None:
    text = done("status")
    for service in ("gateway", "nsmanager", "proxy"):
        assert re.search(rf"^{service} +answers +in [0-9.]+ ms$", text, re.MULTILINE)
    assert re.search(r"^routeTables +1 +1 READY$", text, re.MULTILINE)
    for process in ("supervisor", "etcd", "launcher", "zygote", "spare", "agent default", "nsmanager", "proxy", "gateway"):
        assert re.search(rf"^{process} +[0-9]+ +\w+ +[0-9.]+ MiB$", text, re.MULTILINE), process
    told = json.loads(done("status", "-o", "json"))
    assert {each["name"] for each in told["processes"]} >= {"etcd", "launcher", "nsmanager", "proxy", "gateway"}


def test_second_up_is_refused_and_named() -> None:
    second = crossns("up")
    assert second.returncode == 1
    assert re.search(r"crossns runs here already \(pid [0-9]+\)", second.stderr)


async def test_command_is_the_root_of_its_trace() -> None:
    async with otlp.Collector() as collector:
        environ = {**ENVIRON, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        traced = await asyncio.to_thread(crossns, "get", "tables", environ=environ)
        assert traced.returncode == 0, traced.stderr
        await collector.wait_until(lambda spans: len(spans) >= 2)
    (root,) = collector.named("crossns get")
    (call,) = [span for span in collector.spans if span.kind == "client"]
    assert (root.service, root.parent) == ("cli", "")
    assert (call.trace_id, call.parent, call.attributes["rpc.method"]) == (root.trace_id, root.span_id, "ListRouteTables")


async def test_command_goes_on_with_the_trace_of_who_called_it() -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with otlp.Collector() as collector:
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "TRACEPARENT": f"00-{trace}-{parent}-01"}
        failed = await asyncio.to_thread(crossns, "get", "table", "nowhere", environ={**ENVIRON, **given})
        assert failed.returncode == 1
        await collector.wait_until(lambda _spans: bool(collector.named("crossns get")))
    (root,) = collector.named("crossns get")
    assert (root.trace_id, root.parent, root.failed) == (trace, parent, True)
