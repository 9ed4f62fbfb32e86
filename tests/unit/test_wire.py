"""The framing of the privileged tree: whatever the pieces, the messages come out, and noise ends the session."""

import contextlib
import os
import socket
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import strategies

from crossns import entry, errors, fault, operation, sysctl, wire

CALLS = (
    operation.Call(1, operation.Hello(service="nsmanager", token=operation.Token(2**64 - 1, 7))),
    operation.Call(2, operation.ListNamespaces(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    operation.Call(3, operation.StartEngine(engine="haproxy", config="x" * 100_000)),
    operation.Call(4, operation.PutRoute(route=operation.Route(destination="::/0", next_hops=(operation.NextHop("::1"),)))),
    operation.Call(5, entry.PutRule(rule=entry.Rule(family="inet", priority=9, mark=1, mark_mask=0xFF, kernel_table=2**32 - 1))),
    operation.Call(6, entry.RemoveNeighbor(neighbor=entry.Neighbor(link="lan", address="::2", proxy=True))),
    operation.Call(7, sysctl.SetLinkSysctl(link="lan", name="rp_filter", value="1")),
)


def decoder() -> wire.Decoder[operation.Call]:
    return wire.Decoder(operation.Call)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(0)
        other.settimeout(0)
        yield one, other


@hypothesis.given(strategies.lists(strategies.integers(1, 5000), max_size=40))
def test_messages_come_out_whole_whatever_the_pieces(cuts: list[int]) -> None:
    stream = b"".join(wire.encode(call) for call in CALLS)
    receiver, came = decoder(), []
    for size in [*cuts, len(stream)]:
        piece, stream = stream[:size], stream[size:]
        came += receiver.feed(piece)
    assert came == list(CALLS)


def test_message_that_is_not_complete_does_not_come() -> None:
    frame = wire.encode(CALLS[0])
    receiver = decoder()
    assert receiver.feed(frame[:-1]) == []
    assert receiver.feed(frame[-1:]) == [CALLS[0]]


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff\xff\xff",
        (wire.MESSAGE_MAX + 1).to_bytes(4, "big"),
        b"\0\0\0\x03abc",
        b"\0\0\0\0",
        # A message of somebody else's, and one of ours that is no call.
        wire.encode(operation.Reply(1)),
        wire.encode(operation.Dump()),
    ],
)
def test_what_is_no_call_ends_the_session(frame: bytes) -> None:
    with pytest.raises(wire.WireError):
        decoder().feed(frame)


@hypothesis.given(strategies.binary(max_size=200))
def test_noise_is_refused_or_waited_on_and_nothing_else(noise: bytes) -> None:
    with contextlib.suppress(wire.WireError):
        assert decoder().feed(noise) == []


def test_operation_that_is_not_in_the_closed_set_is_refused() -> None:
    frame = wire.encode(operation.Call(1, operation.Dump())).replace(b"Dump", b"Exec")
    with pytest.raises(wire.WireError):
        decoder().feed(frame)


def test_outbox_sends_in_order_what_the_socket_takes(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    # Less than the longest frame takes.
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    outbox, received, came = wire.Outbox(), decoder(), []
    for call in CALLS * 20:
        outbox.put(wire.encode(call))
    while not outbox.flush(sender):
        while (got := wire.receive(receiver)) is not None:
            came += received.feed(got[0])
    while (got := wire.receive(receiver)) is not None:
        came += received.feed(got[0])
    assert came == list(CALLS * 20)
    assert outbox.size_bytes == 0


def test_descriptors_come_with_their_frame_and_stay_ours_no_longer(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    outbox = wire.Outbox()
    ends = [os.pipe() for _ in range(3)]
    for number, (read, _) in enumerate(ends):
        outbox.put(wire.encode(operation.Reply(number)), (read,))
    assert outbox.flush(sender)
    for read, _ in ends:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(read)
    came: list[int] = []
    while (got := wire.receive(receiver)) is not None:
        came += got[1]
    assert len(came) == len(ends)
    for read, (_, write) in zip(came, ends, strict=True):
        assert not os.get_inheritable(read)
        os.write(write, b"%d" % write)
        assert os.read(read, 16) == b"%d" % write
        os.close(read)
        os.close(write)


def test_dropped_outbox_closes_its_descriptors() -> None:
    read, write = os.pipe()
    outbox = wire.Outbox()
    outbox.put(b"frame", (read,))
    outbox.clear()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read)
    os.close(write)


def test_peer_that_is_gone_is_told_from_one_that_is_silent(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    assert wire.receive(receiver) is None
    sender.close()
    assert wire.receive(receiver) == (b"", [])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.FailedPrecondition("ROUTE_TABLE_BUILT_IN", "no"), "request"),
        (errors.FailedPrecondition("FENCED", "stop", service="nsmanager"), "fenced"),
        (errors.AgentUnavailable("AGENT_UNAVAILABLE", "later"), "temporary"),
        (errors.PermanentError("KERNEL_REFUSED", "never", link="eth0"), "permanent"),
        (errors.InvariantError("bug"), "invariant"),
    ],
)
def test_error_is_the_same_on_the_other_side(error: errors.CrossnsError, kind: str) -> None:
    sent = fault.of(error)
    assert sent.kind == kind
    came = fault.raised(sent)
    assert (type(came), came.reason, came.message, came.metadata) == (type(error), error.reason, error.message, error.metadata)
