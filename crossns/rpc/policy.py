"""Which role a method needs: the one table for all services. A method that does not stand here is refused.

Servers call a policy before each method; a test enumerates the methods of all protos and fails when one has no entry.
"""

from collections.abc import Callable, Mapping

from crossns import errors
from crossns.rpc.identity import Identity

# Called with the full method (`/crossns.v1.RouteTables/GetRouteTable`); raises PermissionDenied.
Policy = Callable[[Identity, str], None]


def _methods(service: str, role: str, *names: str) -> dict[str, str]:
    return {f"/{service}/{name}": role for name in names}


NEEDED: Mapping[str, str] = {
    # Tells no more than whether a service is up: supervisors and load balancers ask without an identity.
    **_methods("grpc.health.v1.Health", "anonymous", "Check", "List", "Watch"),
    **_methods("grpc.reflection.v1alpha.ServerReflection", "viewer", "ServerReflectionInfo"),
    **_methods("crossns.v1.RouteTables", "viewer", "GetRouteTable", "ListRouteTables", "GetIdentity", "AnalyzeImpact"),
    **_methods("crossns.v1.RouteTables", "viewer", "GetStatistics", "WatchStatistics", "ListStatistics"),
    **_methods("crossns.v1.RouteTables", "admin", "CreateRouteTable", "UpdateRouteTable", "DeleteRouteTable"),
    **_methods("crossns.v1.RouteTables", "admin", "VerifyIsolation"),
    **_methods("crossns.v1.Interfaces", "viewer", "GetInterface", "ListInterfaces", "AnalyzeImpact"),
    **_methods("crossns.v1.Interfaces", "admin", "CreateInterface", "UpdateInterface", "DeleteInterface", "Move"),
    **_methods("crossns.v1.Routes", "viewer", "GetRoute", "ListRoutes"),
    **_methods("crossns.v1.Routes", "admin", "CreateRoute", "UpdateRoute", "DeleteRoute"),
    **_methods("crossns.v1.Rules", "viewer", "GetRule", "ListRules"),
    **_methods("crossns.v1.Rules", "admin", "CreateRule", "UpdateRule", "DeleteRule"),
    **_methods("crossns.v1.Neighbors", "viewer", "GetNeighbor", "ListNeighbors"),
    **_methods("crossns.v1.Neighbors", "admin", "CreateNeighbor", "UpdateNeighbor", "DeleteNeighbor"),
    **_methods("crossns.v1.VServices", "viewer", "GetVService", "ListVServices"),
    **_methods("crossns.v1.VServices", "viewer", "GetVServiceStatistics", "ListVServiceStatistics"),
    **_methods("crossns.v1.VServices", "admin", "CreateVService", "UpdateVService", "DeleteVService"),
    **_methods("crossns.v1.ImpactParts", "viewer", "AnalyzePart"),
    **_methods("crossns.v1.Events", "viewer", "Watch"),
    **_methods("crossns.v1.Config", "viewer", "Diff", "Export", "Wait"),
    **_methods("crossns.v1.Config", "admin", "Apply"),
}


def by_role(identity: Identity, method: str) -> None:
    """The policy of every server: the caller's role must be the one that the method needs, or a stronger one."""
    needed = NEEDED.get(method)
    if needed is not None and identity.holds(needed):
        return
    if identity.role == "anonymous":
        cure = "call as root or as the gateway's uid, or start the gateway with `--admin-uid UID` for your own"
    else:
        cure = f"ask for the role {needed}" if needed else "no role may call it"
    raise errors.PermissionDenied(
        "PERMISSION_DENIED",
        f"{identity.name} may not call {method}: {cure}",
        identity=identity.name,
        role=identity.role,
        method=method,
    )
