"""Sessions of services with a privileged process: who may come in, who may command what, and the way back for answers.

Called by the launcher and by agents, on a poll loop each (`loop.Reactor` is what they ask of it). The invariant: no
operation reaches the process unless its peer's uid runs that service, the service has that duty and the fence lets its
token pass.
"""

import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from crossns import errors, fault, names, netns, operation, wire
from services.nsmanager.launcher.fence import Fence
from services.nsmanager.launcher.loop import Reactor

# A peer that lets this much wait for it is stuck: it is cut off and asks again when it is back.
BACKLOG_MAX = 4 * wire.MESSAGE_MAX
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LISTEN_BACKLOG = 128
# Of a session that has not said hello.
_NOBODY = operation.Token(0, 0)
_log = logging.getLogger(__name__)

Outcome = operation.Result | errors.CrossnsError | None


class Answer(Protocol):
    """Called once for each operation, at once or later; `fds` are closed behind it."""

    def __call__(self, outcome: Outcome, fds: tuple[int, ...] = (), /) -> None: ...


@dataclass(frozen=True, slots=True)
class Charter:
    """What a privileged process does for whom: operation type -> the services that may ask for it, None for every one."""

    duties: Mapping[type[operation.Message], frozenset[str] | None]
    # Those of `duties` that change something: they pass the fence.
    changes: frozenset[type[operation.Message]]
    process_of: Callable[[int], str | None]
    fence: Fence
    dispatch: Callable[[Any, Answer], None]


@dataclass(slots=True)
class Tally:
    """Counted since this process started."""

    operations: int = 0
    writes: int = 0
    refused: int = 0

    def counters(self) -> operation.Counters:
        return operation.Counters(operations=self.operations, writes=self.writes, refused=self.refused)


@dataclass(eq=False, slots=True)
class Session:
    """One connection. `service` is "" until its hello was accepted."""

    peer: socket.socket
    process: str | None
    is_root: bool
    decoder: wire.Decoder[operation.Call] = field(default_factory=lambda: wire.Decoder(operation.Call))
    outbox: wire.Outbox = field(default_factory=wire.Outbox)
    service: str = ""
    token: operation.Token = _NOBODY
    closed: bool = False

    def may_speak_for(self, service: str) -> bool:
        return self.is_root or service == self.process


class Sessions:
    """Everybody who is connected to one listening socket."""

    def __init__(self, reactor: Reactor, listener: socket.socket, charter: Charter, tally: Tally) -> None:
        self._reactor = reactor
        self._listener = listener
        self._charter = charter
        self._tally = tally
        self._open: set[Session] = set()
        reactor.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        self._reactor.remove_reader(self._listener.fileno())
        self._listener.close()
        for session in list(self._open):
            self._drop(session)

    def notify(self, event: operation.Event, to: str = "") -> None:
        """Push an event to every service that has introduced itself, or to the one named."""
        frame = wire.encode(operation.Notice(event))
        for session in list(self._open):
            if session.service and to in {"", session.service}:
                self._send(session, frame)

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        uid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        session = Session(peer, self._charter.process_of(uid), is_root=uid == 0)
        if session.process is None and not session.is_root:
            self._tally.refused += 1
            _log.warning("refused a connection of uid %d, which runs no service", uid)
            peer.close()
            return
        peer.settimeout(0)
        self._open.add(session)
        self._reactor.add_reader(peer.fileno(), lambda: self._read(session))

    def _read(self, session: Session) -> None:
        received = wire.receive(session.peer)
        if received is None:
            return
        piece, fds = received
        for fd in fds:
            os.close(fd)
        if not piece:
            self._drop(session)
            return
        try:
            calls = session.decoder.feed(piece)
        except wire.WireError as error:
            _log.warning("cut off %s: %s", session.service or session.process or "root", error)
            self._drop(session)
            return
        for call in calls:
            if not session.closed:
                self._serve(session, call)

    def _serve(self, session: Session, call: operation.Call) -> None:
        def answer(outcome: Outcome, fds: tuple[int, ...] = ()) -> None:
            self._reply(session, call.id, outcome, fds)

        self._tally.operations += 1
        try:
            if isinstance(call.operation, operation.Hello):
                answer(self._welcome(session, call.operation))
            else:
                self._admit(session, call.operation)
                self._charter.dispatch(call.operation, answer)
        except errors.CrossnsError as error:
            answer(error)
        except Exception:  # noqa: BLE001 - our bug in one operation is no reason to stop serving
            _log.exception("failed in %s (trace %s)", type(call.operation).__name__, call.traceparent or "-")
            answer(errors.InvariantError("the operation failed inside the privileged process: its log has the details"))

    def _welcome(self, session: Session, hello: operation.Hello) -> operation.Welcome:
        if not session.may_speak_for(hello.service):
            raise self._refusal(f"this peer runs as {session.process}, not {hello.service}")
        # The fence keeps a file of that name.
        names.check_id(hello.service, "service")
        try:
            self._charter.fence.accept(hello.service, hello.token)
        except errors.CrossnsError:
            self._tally.refused += 1
            raise
        for other in [other for other in self._open if other.service == hello.service and other is not session]:
            self._drop(other)
        session.service, session.token = hello.service, hello.token
        return operation.Welcome(boot_id=_BOOT_ID.read_text().strip(), pid=os.getpid(), cookie=netns.cookie())

    def _admit(self, session: Session, wanted: operation.Message) -> None:
        kind = type(wanted)
        if not session.service:
            raise self._refusal("say hello first")
        if kind not in self._charter.duties:
            raise errors.Unimplemented("UNIMPLEMENTED", f"{kind.__name__} is not done by this process")
        allowed = self._charter.duties[kind]
        if allowed is not None and session.service not in allowed:
            raise self._refusal(f"{kind.__name__} is not for {session.service}")
        if kind in self._charter.changes:
            try:
                self._charter.fence.check(session.service, session.token)
            except errors.CrossnsError:
                self._tally.refused += 1
                raise

    def _refusal(self, message: str) -> errors.PermissionDenied:
        self._tally.refused += 1
        return errors.PermissionDenied("PERMISSION_DENIED", message)

    def _reply(self, session: Session, number: int, outcome: Outcome, fds: tuple[int, ...]) -> None:
        if isinstance(outcome, errors.CrossnsError):
            reply = operation.Reply(number, fault=fault.of(outcome))
        else:
            reply = operation.Reply(number, result=outcome)
        self._send(session, wire.encode(reply), fds)

    def _send(self, session: Session, frame: bytes, fds: tuple[int, ...] = ()) -> None:
        session.outbox.put(frame, fds)
        if session.closed:
            # Its answer came too late; only the descriptors matter.
            session.outbox.clear()
        elif session.outbox.size_bytes > BACKLOG_MAX:
            _log.warning("cut off %s, which does not read", session.service)
            self._drop(session)
        else:
            self._flush(session)

    def _flush(self, session: Session) -> None:
        try:
            is_empty = session.outbox.flush(session.peer)
        except ConnectionError:
            self._drop(session)
            return
        if is_empty:
            self._reactor.remove_writer(session.peer.fileno())
        else:
            self._reactor.add_writer(session.peer.fileno(), lambda: self._flush(session))

    def _drop(self, session: Session) -> None:
        if session.closed:
            return
        session.closed = True
        self._open.discard(session)
        session.outbox.clear()
        self._reactor.remove_reader(session.peer.fileno())
        self._reactor.remove_writer(session.peer.fileno())
        session.peer.close()


def listen(path: Path, *, mode: int, gid: int = 0) -> socket.socket:
    """A non-blocking listening socket on `path`, in place of what a dead process left there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Short: the path of a unix socket ends at 107 bytes.
    fresh = path.with_name(f".{os.getpid()}")
    fresh.unlink(missing_ok=True)
    listener.bind(os.fspath(fresh))
    os.chown(fresh, 0, gid)
    fresh.chmod(mode)
    listener.listen(_LISTEN_BACKLOG)
    listener.settimeout(0)
    # Whoever finds the path finds somebody listening.
    fresh.replace(path)
    return listener
