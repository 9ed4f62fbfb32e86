"""What a check connects to: one socket in one namespace, whichever members of however many pools stand for it.

Made by the driver of what is desired, a member's table resolved to its namespace. A table that was made anew has another
namespace, so its targets are others too.
"""

from dataclasses import dataclass

from services.proxy.model.values import PORT_MAX, Address, Desired, Member, Pool, VService, socket


@dataclass(frozen=True, slots=True)
class Target:
    """`namespace` is `<table>.<cookie>`; `port` 1..65535."""

    namespace: str
    address: Address
    port: int

    def __lt__(self, other: "Target") -> bool:
        # The two families of addresses do not compare with each other.
        return self._key < other._key

    def __str__(self) -> str:
        """`10.0.0.5:8080 in tenant-a`"""
        return f"{socket(self.address, self.port)} in {self.table}"

    @property
    def table(self) -> str:
        """The route table's id."""
        return self.namespace.rpartition(".")[0]

    @property
    def cookie(self) -> int:
        return int(self.namespace.rpartition(".")[2])

    @property
    def _key(self) -> tuple[str, int, int, int]:
        return self.namespace, self.address.version, int(self.address), self.port


def targets(desired: Desired) -> frozenset[Target]:
    """Those of all members but the disabled ones, in route tables that have a namespace."""
    return frozenset(
        target_of(vservice, pool, member, desired.tables[member.table])
        for vservice in desired.services
        for pool in vservice.pools
        for member in pool.members
        if member.state != "disabled" and member.table in desired.tables
    )


def target_of(vservice: VService, pool: Pool, member: Member, namespace: str) -> Target:
    """Where clients choose the port, the first one that they can choose is asked."""
    ports = [frontend.port for frontend in vservice.frontends if frontend.pool == pool.name]
    return Target(namespace, member.address, member.port or min(ports, default=PORT_MAX))
