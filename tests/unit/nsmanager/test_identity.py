"""What follows from an index, over all indices that there are: in its range, and unique where it is said to be."""

import ipaddress

from hypothesis import example, given
from hypothesis import strategies as st

from services.nsmanager.model import identity

ALL = range(1, identity.INDEX_MAX + 1)
# How many indices that follow each other have ports of their own.
PORT_BLOCK = 1596
indices = st.integers(ALL.start, ALL.stop - 1)


@given(indices)
@example(1)
@example(identity.INDEX_MAX)
def test_identity_is_in_its_ranges(index: int) -> None:
    found = identity.of(index)
    assert 1 <= found.vrid_base <= 255
    assert ipaddress.IPv4Address(0) < ipaddress.IPv4Address(found.router_id) <= ipaddress.IPv4Address(identity.INDEX_MAX)
    assert len(found.control_socket_prefix) <= 7
    assert 20000 <= found.port_base <= found.port_base + identity.PORT_COUNT - 1 < 32768


def test_router_ids_and_control_sockets_are_unique_on_a_device() -> None:
    found = [identity.of(index) for index in ALL]
    assert len({each.router_id for each in found}) == len({each.control_socket_prefix for each in found}) == len(ALL)


@given(indices, st.integers(1, 254))
def test_vrids_are_unique_among_255_indices_that_follow_each_other(index: int, further: int) -> None:
    assert identity.of(index).vrid_base != identity.of(index + further).vrid_base
    assert identity.of(index).vrid_base == identity.of(index + 255).vrid_base


@given(indices, st.integers(1, PORT_BLOCK - 1))
def test_ports_do_not_overlap_among_1596_indices_that_follow_each_other(index: int, further: int) -> None:
    assert abs(identity.of(index).port_base - identity.of(index + further).port_base) >= identity.PORT_COUNT
    assert identity.of(index).port_base == identity.of(index + PORT_BLOCK).port_base


@given(indices, st.sets(indices, max_size=40), st.sampled_from(["vrid_base", "port_base"]))
def test_exactly_those_are_told_that_share_it(index: int, others: set[int], field: str) -> None:
    size = {"vrid_base": 255, "port_base": PORT_BLOCK}[field]
    near = {each for each in (index + size, index - size, index + 1) if each in ALL}
    told = identity.sharing(index, {each: f"{each:05}" for each in others | near | {index}}, field)
    assert list(told) == sorted(f"{each:05}" for each in others | near if each != index and (each - index) % size == 0)
