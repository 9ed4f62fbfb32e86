"""Bad input through the gateway: canonical code, one ErrorInfo, a message that says what to do, and nothing changed."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import field_mask_pb2, json_format
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status

from crossns import names, resource, settings, store
from crossns.etcd.client import EtcdStore
from crossns.testing.device import Device, doc, wait_until
from crossns.v1 import interface_pb2 as interface
from crossns.v1 import (
    interface_pb2_grpc,
    neighbor_pb2_grpc,
    route_pb2_grpc,
    route_table_pb2_grpc,
    rule_pb2_grpc,
    v_service_pb2_grpc,
)
from crossns.v1 import neighbor_pb2 as neighbor
from crossns.v1 import route_pb2 as route
from crossns.v1 import route_table_pb2 as table
from crossns.v1 import rule_pb2 as rule
from crossns.v1 import v_service_pb2 as service

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """A request as JSON, and what must be said of it."""

    method: str
    request: Any
    code: str
    reason: str
    says: str


def _of(collection: str, spec: Spec, name: str = "") -> Any:
    return json_format.ParseDict({"name": name, "spec": spec}, resource.MESSAGES[collection]())


def make_interface(identifier: str, spec: Spec) -> Any:
    return interface.CreateInterfaceRequest(interface_id=identifier, interface=_of("interfaces", spec))


def make_route(spec: Spec, parent: str = "routeTables/a") -> Any:
    return route.CreateRouteRequest(parent=parent, route_id="r", route=_of("routes", spec))


def make_rule(spec: Spec) -> Any:
    return rule.CreateRuleRequest(parent="routeTables/a", rule_id="r", rule=_of("rules", {"priority": 9, **spec}))


def make_neighbor(spec: Spec) -> Any:
    return neighbor.CreateNeighborRequest(parent="routeTables/a", neighbor_id="n", neighbor=_of("neighbors", spec))


def make_service(**changed: Any) -> Any:
    frontend = {"name": "f", "routeTable": "routeTables/a", "address": "10.0.0.80", "port": 80}
    member = {"name": "m", "routeTable": "routeTables/a", "address": "10.0.0.5", "port": 80}
    spec = {
        "protocol": "PROTOCOL_TCP",
        "frontends": [frontend | changed.get("frontend", {})],
        "pools": [{"name": "p", "members": [member | changed.get("member", {})]}],
    }
    return service.CreateVServiceRequest(v_service_id="web", v_service=_of("vServices", spec))


BRIDGE: Spec = {"routeTable": "routeTables/a", "bridge": {}}
CALLS = {
    "unknown table": Call(
        "CreateInterface",
        make_interface("x", {**BRIDGE, "routeTable": "routeTables/none"}),
        "FAILED_PRECONDITION",
        "TARGET_NOT_FOUND",
        "create it first",
    ),
    "unknown table of a get": Call(
        "GetRouteTable", table.GetRouteTableRequest(name="routeTables/none"), "NOT_FOUND", "NOT_FOUND", "list"
    ),
    "table that is being deleted": Call(
        "CreateInterface",
        make_interface("x", {**BRIDGE, "routeTable": "routeTables/leaving"}),
        "FAILED_PRECONDITION",
        "TARGET_BEING_DELETED",
        "wait",
    ),
    "name of what is being deleted": Call(
        "CreateRouteTable",
        table.CreateRouteTableRequest(route_table_id="leaving"),
        "ABORTED",
        "BEING_DELETED",
        "wait until it is gone",
    ),
    "duplicate resource": Call(
        "CreateRouteTable", table.CreateRouteTableRequest(route_table_id="a"), "ALREADY_EXISTS", "ALREADY_EXISTS", "update it"
    ),
    "duplicate link name": Call(
        "CreateInterface",
        make_interface("y", {**BRIDGE, "linkName": "br0"}),
        "ALREADY_EXISTS",
        "LINK_NAME_TAKEN",
        "choose another name",
    ),
    "duplicate index": Call(
        "CreateRouteTable",
        table.CreateRouteTableRequest(route_table_id="b", route_table=_of("routeTables", {"index": 7})),
        "ALREADY_EXISTS",
        "INDEX_TAKEN",
        "choose another",
    ),
    "address that is none": Call(
        "CreateInterface",
        make_interface("y", {**BRIDGE, "addresses": ["10.0.0.256/24"]}),
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "such as 10.0.0.1/24",
    ),
    "VIP that is none": Call(
        "CreateVService", make_service(frontend={"address": "vip"}), "INVALID_ARGUMENT", "INVALID_FIELD", "frontends[0].address"
    ),
    "member port out of range": Call(
        "CreateVService", make_service(member={"port": 70000}), "INVALID_ARGUMENT", "INVALID_FIELD", "65535"
    ),
    "member in an unknown table": Call(
        "CreateVService",
        make_service(member={"routeTable": "routeTables/none"}),
        "FAILED_PRECONDITION",
        "TARGET_NOT_FOUND",
        "create it first",
    ),
    "name too long": Call(
        "CreateRouteTable", table.CreateRouteTableRequest(route_table_id="a" * 64), "INVALID_ARGUMENT", "INVALID_NAME", "1 to 63"
    ),
    "link name too long": Call(
        "CreateInterface",
        make_interface("y", {**BRIDGE, "linkName": "sixteen-letters-"}),
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "15 characters",
    ),
    "name with newline": Call(
        "CreateRouteTable",
        table.CreateRouteTableRequest(route_table_id="a\nb"),
        "INVALID_ARGUMENT",
        "INVALID_NAME",
        "use 1 to 63",
    ),
    "link name with quote": Call(
        "CreateInterface", make_interface("y", {**BRIDGE, "linkName": 'a"b'}), "INVALID_ARGUMENT", "INVALID_FIELD", "use letters"
    ),
    "frontend name with newline": Call(
        "CreateVService", make_service(frontend={"name": "f\n  daemon"}), "INVALID_ARGUMENT", "INVALID_NAME", "use 1 to 63"
    ),
    "unreachable gateway": Call(
        "CreateRoute",
        make_route({"destination": "192.0.2.0/24", "gateways": [{"address": "10.9.9.9"}]}),
        "FAILED_PRECONDITION",
        "GATEWAY_UNREACHABLE",
        "10.0.0.0/24",
    ),
    "prefix with host bits": Call(
        "CreateRoute",
        make_route({"destination": "192.0.2.1/24", "type": "ROUTE_TYPE_BLACKHOLE"}),
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "write 192.0.2.0/24",
    ),
    "missing interface": Call(
        "CreateRoute",
        make_route({"destination": "192.0.2.0/24", "gateways": [{"interface": "interfaces/none"}]}),
        "FAILED_PRECONDITION",
        "TARGET_NOT_FOUND",
        "create it first",
    ),
    "rule of no family": Call("CreateRule", make_rule({"kernelTable": 9}), "INVALID_ARGUMENT", "REQUIRED_FIELD", "IPV4 or IPV6"),
    "rule in place of the kernel's own": Call(
        "CreateRule", make_rule({"priority": 32766, "source": "10.0.0.0/8"}), "INVALID_ARGUMENT", "INVALID_FIELD", "1..32765"
    ),
    "rule for a missing interface": Call(
        "CreateRule",
        make_rule({"source": "10.0.0.0/8", "interface": "interfaces/none", "kernelTable": 9}),
        "FAILED_PRECONDITION",
        "TARGET_NOT_FOUND",
        "create it first",
    ),
    "neighbour without a MAC address": Call(
        "CreateNeighbor",
        make_neighbor({"address": "10.0.0.9", "interface": "interfaces/x0"}),
        "INVALID_ARGUMENT",
        "REQUIRED_FIELD",
        "or set proxy",
    ),
    "ARP behaviour that nobody knows": Call(
        "UpdateRouteTable",
        table.UpdateRouteTableRequest(route_table=_of("routeTables", {"reversePathFilter": 9}, "routeTables/a")),
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "spec.reverse_path_filter",
    ),
    "stale etag": Call(
        "UpdateRouteTable",
        table.UpdateRouteTableRequest(
            route_table=table.RouteTable(name="routeTables/a", etag="1"), update_mask=field_mask_pb2.FieldMask(paths=["spec"])
        ),
        "ABORTED",
        "STALE_ETAG",
        "read it again",
    ),
    "update mask of a field that is not there": Call(
        "UpdateRouteTable",
        table.UpdateRouteTableRequest(
            route_table=table.RouteTable(name="routeTables/a"), update_mask=field_mask_pb2.FieldMask(paths=["spec.colour"])
        ),
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "does not exist",
    ),
    "index that cannot be changed": Call(
        "UpdateRouteTable",
        table.UpdateRouteTableRequest(route_table=_of("routeTables", {"index": 8}, "routeTables/a")),
        "INVALID_ARGUMENT",
        "IMMUTABLE_FIELD",
        "delete",
    ),
    "empty spec": Call("CreateInterface", make_interface("y", {}), "INVALID_ARGUMENT", "REQUIRED_FIELD", "spec.route_table"),
    "empty spec of a vService": Call(
        "CreateVService", service.CreateVServiceRequest(v_service_id="web"), "INVALID_ARGUMENT", "REQUIRED_FIELD", "spec."
    ),
    "table with interfaces": Call(
        "DeleteRouteTable",
        table.DeleteRouteTableRequest(name="routeTables/a"),
        "FAILED_PRECONDITION",
        "ROUTE_TABLE_NOT_EMPTY",
        "evacuate",
    ),
    "protected table": Call(
        "DeleteRouteTable",
        table.DeleteRouteTableRequest(name="routeTables/kept"),
        "FAILED_PRECONDITION",
        "ROUTE_TABLE_PROTECTED",
        "spec.protected",
    ),
    "the built-in table": Call(
        "DeleteRouteTable",
        table.DeleteRouteTableRequest(name="routeTables/default", evacuate=True),
        "FAILED_PRECONDITION",
        "ROUTE_TABLE_BUILT_IN",
        "cannot be deleted",
    ),
    "page size": Call(
        "ListRouteTables", table.ListRouteTablesRequest(page_size=-1), "INVALID_ARGUMENT", "INVALID_FIELD", "must not be negative"
    ),
    "page token of another list": Call(
        "ListRouteTables",
        table.ListRouteTablesRequest(page_token="x"),  # noqa: S106 - it is none
        "INVALID_ARGUMENT",
        "INVALID_PAGE_TOKEN",
        "begin without one",
    ),
}
STUBS = {
    "RouteTable": route_table_pb2_grpc.RouteTablesStub,
    "Interface": interface_pb2_grpc.InterfacesStub,
    "Route": route_pb2_grpc.RoutesStub,
    "Rule": rule_pb2_grpc.RulesStub,
    "Neighbor": neighbor_pb2_grpc.NeighborsStub,
    "VService": v_service_pb2_grpc.VServicesStub,
}


def _method(channel: aio.Channel, name: str) -> Callable[..., Any]:
    kind = max((kind for kind in STUBS if kind in name), key=len)
    method: Callable[..., Any] = getattr(STUBS[kind](channel), name)
    return method


async def everything(device: Device) -> dict[str, bytes]:
    backend = await EtcdStore.connect(settings.Etcd((f"unix:{device.layout.etcd_socket}",)))
    try:
        return {entry.key: entry.value for entry in (await backend.list("/crossns/")).entries}
    finally:
        await backend.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prepared(suite: Device) -> AsyncIterator[Device]:
    await suite.apply(
        doc("routeTables/a", index=7),
        doc("routeTables/kept", protected=True),
        doc("interfaces/x0", routeTable="routeTables/a", bridge={}, linkName="br0", addresses=["10.0.0.1/24"]),
        doc("routeTables/leaving"),
    )
    backend = await EtcdStore.connect(settings.Etcd((f"unix:{suite.layout.etcd_socket}",)))
    try:
        # Another service has a part of it: its deletion does not end.
        await backend.commit([], [store.Put(names.Keys("local", "proxy").status("routeTables/leaving"), b"")])
        await suite.delete("routeTables/leaving", wait=False)
        await wait_until(lambda: not suite.pids("agent leaving") and not (suite.layout.netns / "leaving").exists())
        yield suite
    finally:
        await backend.close()


@pytest.mark.parametrize("case", CALLS)
async def test_bad_input_is_refused_clearly_and_changes_nothing(prepared: Device, case: str) -> None:
    before, writes = await everything(prepared), await prepared.kernel_writes("a")
    call = CALLS[case]
    with pytest.raises(aio.AioRpcError) as caught:
        await _method(prepared.client.channel, call.method)(call.request, timeout=5)
    _check(caught.value, call)
    assert await everything(prepared) == before
    assert await prepared.kernel_writes("a") == writes


def _check(error: aio.AioRpcError, call: Call) -> None:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    details = {each.TypeName(): each for each in status.details}
    infos = [each for each in status.details if each.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1, details
    found = error_details_pb2.ErrorInfo()
    infos[0].Unpack(found)
    said = (error.code().name, found.reason, found.domain)
    assert said == (call.code, call.reason, "crossns"), error.details()
    assert call.says in (error.details() or "")
    if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
        assert "google.rpc.BadRequest" in details
