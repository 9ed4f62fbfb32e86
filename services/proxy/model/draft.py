"""What a vService needs of others: the ports of its VIPs, and the route tables that it names."""

from crossns import errors, resource
from crossns.v1 import v_service_pb2
from services.proxy.model import parse
from services.proxy.model.values import VService, socket_of


def draft(message: resource.Resource) -> resource.Draft:
    """The VIPs that a vService takes and the route tables that it needs; InvalidSpec where it is not valid."""
    if not isinstance(message, v_service_pb2.VService):
        raise errors.InvariantError(f"{message.name} is no vService")
    vservice = parse.v_service(message)
    return resource.Draft(claims(vservice), references(vservice))


def claims(vservice: VService) -> tuple[resource.Claim, ...]:
    """For each frontend its port of the VIP in its table."""
    return tuple(
        resource.Claim(
            kind="vip",
            key=f"{frontend.table}/{frontend.address}/tcp",
            reason="VIP_TAKEN",
            message=f"spec.frontends[{index}]: {{owner}} listens on {socket_of(frontend)} in {frontend.table} already: "
            "give another address or port",
            first=frontend.port,
            last=frontend.port,
        )
        for index, frontend in enumerate(vservice.frontends)
    )


def references(vservice: VService) -> tuple[resource.Reference, ...]:
    """Each route table once, with the first field that names it."""
    fields: dict[str, str] = {}
    for index, frontend in enumerate(vservice.frontends):
        fields.setdefault(frontend.table, f"spec.frontends[{index}].route_table")
    for pool_index, pool in enumerate(vservice.pools):
        for index, member in enumerate(pool.members):
            fields.setdefault(member.table, f"spec.pools[{pool_index}].members[{index}].route_table")
    return tuple(resource.Reference(target, field) for target, field in fields.items())
