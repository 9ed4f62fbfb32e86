"""RouteTables: the standard methods, what `default` does not allow, evacuation, and what follows from the index."""

from typing import Any

from google.protobuf import field_mask_pb2

from crossns import errors, names, standard
from crossns.registry import ATTEMPTS, Options, Registry, contention
from crossns.v1 import interface_pb2, route_table_pb2, route_table_pb2_grpc

# VRRP has 8 bits for a virtual router id, 0 is not one (RFC 5798 5.2.3).
VRID_COUNT = 255


class RouteTables(route_table_pb2_grpc.RouteTablesServicer):
    def __init__(self, registries: dict[str, Registry]) -> None:
        self._registries = registries
        self._registry = registries["routeTables"]

    async def ensure_built_in(self) -> None:
        """`routeTables/default` always exists."""
        default = route_table_pb2.RouteTable(name=names.DEFAULT_TABLE)
        default.spec.description = "the namespace that the device booted in"
        try:
            await self._registry.create(default, Options())
        except errors.AlreadyExists:
            return

    async def GetRouteTable(self, request: Any, _context: Any) -> Any:
        return await standard.get(self._registry, request)

    async def ListRouteTables(self, request: Any, _context: Any) -> Any:
        return await standard.list_page(self._registry, request, route_table_pb2.ListRouteTablesResponse)

    async def CreateRouteTable(self, request: Any, _context: Any) -> Any:
        return await standard.create(self._registry, request)

    async def UpdateRouteTable(self, request: Any, _context: Any) -> Any:
        return await standard.update(self._registry, request)

    async def DeleteRouteTable(self, request: Any, _context: Any) -> Any:
        if request.name == names.DEFAULT_TABLE:
            message = "routeTables/default is the device's own namespace: it always exists and cannot be deleted"
            raise errors.FailedPrecondition("ROUTE_TABLE_BUILT_IN", message, resource=request.name)
        await self._check_unprotected(request.name)
        if not request.evacuate or request.validate_only:
            return await standard.delete(self._registry, request)
        for _ in range(ATTEMPTS):
            await self._evacuate(names.check(request.name, "routeTables", "name"))
            try:
                return await standard.delete(self._registry, request)
            except errors.FailedPrecondition as error:
                # Somebody put another interface in meanwhile.
                if error.reason != "ROUTE_TABLE_NOT_EMPTY":
                    raise
        raise contention(request.name)

    async def GetIdentity(self, request: Any, _context: Any) -> Any:
        table = await standard.get(self._registry, request)
        index = table.status.index
        return route_table_pb2.RouteTableIdentity(
            name=table.name,
            index=index,
            vrid_base=(index - 1) % VRID_COUNT + 1,
            router_id=f"0.0.{index >> 8}.{index & 255}",
            control_socket_prefix=f"rt{index}",
            netns_cookie=table.status.netns_cookie,
        )

    async def _check_unprotected(self, name: str) -> None:
        try:
            table = await self._registry.get(names.check(name, "routeTables", "name"))
        except errors.NotFound:
            return
        if isinstance(table, route_table_pb2.RouteTable) and table.spec.protected:
            message = f"{name} is protected against deletion: clear spec.protected first"
            raise errors.FailedPrecondition("ROUTE_TABLE_PROTECTED", message, resource=name)

    async def _evacuate(self, table: str) -> None:
        """Cards go back to `default` without their addresses, virtual interfaces and routes of the table are deleted."""
        refs = await self._registry.store.list(self._registry.keys.refs_to(table))
        referrers = sorted((entry.key.split("//", 1)[1] for entry in refs.entries), key=names.collection, reverse=True)
        for name in referrers:
            registry = self._registries[names.collection(name)]
            try:
                found = await registry.get(name)
                if isinstance(found, interface_pb2.Interface) and found.spec.HasField("physical"):
                    await registry.update(_pulled_back(found), field_mask_pb2.FieldMask(paths=["spec"]), Options())
                else:
                    await registry.delete(name, Options(allow_missing=True))
            except errors.NotFound:
                continue


def _pulled_back(card: interface_pb2.Interface) -> interface_pb2.Interface:
    wanted = interface_pb2.Interface(name=card.name)
    wanted.spec.route_table = names.DEFAULT_TABLE
    wanted.spec.physical.CopyFrom(card.spec.physical)
    wanted.spec.link_name = card.status.original_link_name if card.spec.physical.mac_address else ""
    return wanted
