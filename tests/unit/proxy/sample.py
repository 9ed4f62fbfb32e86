"""vServices for the tests of the proxy's pure rooms, and a device that has their route tables."""

import ipaddress
from pathlib import Path

from crossns.v1 import v_service_pb2
from services.proxy import model, render

TABLES = {"routeTables/dmz": "dmz.11", "routeTables/tenant-a": "tenant-a.21", "routeTables/tenant-b": "tenant-b.22"}
LIMITS = render.Limits(open_files=20_000, engine_dir=Path("/run/crossns/engines/haproxy"))


def message() -> v_service_pb2.VService:
    """A valid vService: one frontend in dmz, two members with one address in two tables."""
    result = v_service_pb2.VService(name="vServices/web", generation=3)
    result.spec.protocol = v_service_pb2.PROTOCOL_TCP
    result.spec.frontends.add(name="dmz", route_table="routeTables/dmz", address="203.0.113.10", port=80)
    pool = result.spec.pools.add(name="main", algorithm=v_service_pb2.ALGORITHM_ROUND_ROBIN)
    pool.members.add(name="a1", route_table="routeTables/tenant-a", address="10.0.0.5", port=8080)
    pool.members.add(name="b1", route_table="routeTables/tenant-b", address="10.0.0.5", port=8080)
    return result


def vservice(name: str = "web", port: int = 80, table: str = "dmz", generation: int = 1) -> model.VService:
    """One frontend `fe` on 203.0.113.10 and one member `a1` of tenant-a."""
    frontend = model.Frontend("fe", f"routeTables/{table}", ipaddress.ip_address("203.0.113.10"), port, "main", port)
    member = model.Member("a1", "routeTables/tenant-a", ipaddress.ip_address("10.0.0.5"), 8080)
    return model.VService(f"vServices/{name}", (frontend,), (model.Pool("main", (member,)),), generation)


def listener(name: str = "web", port: int = 80, namespace: str = "dmz.11") -> render.Part:
    """What HAProxy makes of the frontend of `vservice`."""
    return render.Part(f"vs.{name}.fe.fe", namespace, f"203.0.113.10:{port}")


def server(name: str = "web", namespace: str = "tenant-a.21", host: int = 5) -> render.Part:
    """What HAProxy makes of the member of `vservice`."""
    return render.Part(f"vs.{name}.po.main", namespace, f"10.0.0.{host}:8080")
