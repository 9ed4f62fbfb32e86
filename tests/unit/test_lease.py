"""Leases that many writes share."""

from crossns.registry.lease import SharedLease


async def test_claims_that_rest_share_a_lease_for_a_while_and_rest_a_minute_at_least() -> None:
    granted: list[int] = []

    class Leases:
        async def grant(self, ttl_s: int) -> int:
            granted.append(ttl_s)
            return len(granted)

    now = [100.0]
    shared = SharedLease(Leases(), 60, 5, lambda: now[0])  # type: ignore[arg-type] # as much of a store as is asked
    assert [await shared.id(), await shared.id()] == [1, 1]
    now[0] += 4.9
    assert await shared.id() == 1
    now[0] += 0.1
    assert await shared.id() == 2
    shared.forget()
    assert await shared.id() == 3
    assert granted == [65, 65, 65]
