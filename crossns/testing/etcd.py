"""A real etcd for tests: the embedded one as the suite runs it, or a cluster on loopback, with TLS where asked.

Called by tests and benchmarks. Each member can be killed, frozen and started again; all end with the context, and with the test's
process however that ends.
"""

import asyncio
import contextlib
import dataclasses
import os
import socket
import uuid
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGSTOP, Signals

from aetcd import rpc

from crossns import proc, settings
from crossns.etcd import client, embedded, endpoint
from crossns.layout import Layout
from crossns.supervisor import ready


class Member:
    """One etcd process, whose data outlives it."""

    def __init__(self, command: Callable[[], Sequence[str]], directory: Path, config: settings.Etcd) -> None:
        """`command` is asked for its argv at each start; `config` says how to reach this member alone."""
        self.settings = config
        self._command = command
        self._directory = directory
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        if self._process is None:
            raise RuntimeError("this member was not started")
        return self._process

    async def start(self) -> None:
        """Start it without waiting for it."""
        argv = ("setpriv", "--pdeathsig", "KILL", "--", *self._command())
        self._process = await proc.start(argv, directory=self._directory, output=None)

    async def wait_until_answering(self) -> None:
        where = self.settings.endpoints[0]
        if where.startswith("unix:"):
            # gRPC's back-off is longer than etcd takes to start.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ready.wait("etcd", where.removeprefix("unix:")), client.CONNECT_TIMEOUT_S)
        await (await client.EtcdStore.connect(self.settings)).close()

    async def compact(self, revision: int) -> None:
        """Forget what was before `revision`."""
        endpoints = endpoint.Endpoints(self.settings)
        await endpoints.call(lambda member: member.kv.Compact, rpc.CompactionRequest(revision=revision, physical=True))
        await endpoints.close()

    async def restart(self) -> None:
        """Kill it as a crash does, and start it again."""
        await self.end()
        await self.start()
        await self.wait_until_answering()

    def signal(self, number: Signals) -> None:
        """SIGSTOP freezes it, SIGCONT lets it go on. Returns when it stands still."""
        proc.kill(self.process, number)
        if number == SIGSTOP:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    async def end(self, number: Signals = SIGKILL) -> None:
        """End it and wait for that; one that was not started or has ended is left as it is."""
        if self._process is not None:
            proc.kill(self._process, number)
            await self._process.wait()


@contextlib.asynccontextmanager
async def embedded_member(directory: Path, *options: str) -> AsyncIterator[Member]:
    """The suite's own etcd, below `directory`, on its unix socket; `options` come behind its own and outdo them."""
    layout = Layout(run=directory / "run", state=directory / "state", uid_base=os.getuid())
    for path in (layout.etcd_dir, embedded.data_dir(layout)):
        path.mkdir(parents=True, mode=0o700)
    member = Member(lambda: (*embedded.argv(layout), *options), layout.etcd_dir, settings.Etcd((f"unix:{layout.etcd_socket}",)))
    async with _running([member]):
        yield member


@dataclass(frozen=True, slots=True)
class Tls:
    """One authority, and one certificate of it that serves on loopback and is shown by clients."""

    ca: Path
    cert: Path
    key: Path

    def arguments(self) -> tuple[str, ...]:
        return (f"--cert-file={self.cert}", f"--key-file={self.key}", f"--trusted-ca-file={self.ca}", "--client-cert-auth")


async def make_tls(directory: Path) -> Tls:
    """Fresh keys and certificates in `directory`."""
    tls = Tls(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    signed = ("-CA", str(tls.ca), "-CAkey", str(directory / "ca-key.pem"), "-addext", "basicConstraints=CA:FALSE")
    for options in (
        ("-subj", "/CN=ca", "-keyout", str(directory / "ca-key.pem"), "-out", str(tls.ca)),
        ("-subj", "/CN=etcd", "-keyout", str(tls.key), "-out", str(tls.cert), *signed, "-addext", "subjectAltName=IP:127.0.0.1"),
    ):
        (await proc.run((*new, *options))).check()
    return tls


@contextlib.asynccontextmanager
async def cluster(directory: Path, size: int = 3, tls: Tls | None = None) -> AsyncIterator[tuple[Member, ...]]:
    """`size` members on loopback TCP; with `tls` they ask for client certificates."""
    ports = _free_ports(2 * size)
    peers = {f"m{index}": f"http://127.0.0.1:{port}" for index, port in enumerate(ports[size:])}
    shared = (
        f"--initial-cluster={','.join(f'{name}={peer}' for name, peer in peers.items())}",
        f"--initial-cluster-token={uuid.uuid4().hex}",
        *(tls.arguments() if tls else ()),
        *embedded.LIMITS,
    )
    members = []
    for port, (name, peer) in zip(ports[:size], peers.items(), strict=True):
        client_url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        argv = (
            "etcd",
            "--data-dir=data",
            f"--name={name}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            *shared,
        )
        (directory / name).mkdir(parents=True)
        config = settings.Etcd((f"127.0.0.1:{port}",), *((tls.ca, tls.cert, tls.key) if tls else ()))
        members.append(Member(_always(argv), directory / name, config))
    async with _running(members):
        yield tuple(members)


@contextlib.asynccontextmanager
async def _running(members: Sequence[Member]) -> AsyncIterator[None]:
    try:
        for member in members:
            await member.start()
        for member in members:
            await member.wait_until_answering()
        yield
    finally:
        for member in members:
            await member.end()


def _always(argv: Sequence[str]) -> Callable[[], Sequence[str]]:
    return lambda: argv


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def anywhere(members: Sequence[Member]) -> settings.Etcd:
    """How to reach any of the members."""
    endpoints = tuple(endpoint for member in members for endpoint in member.settings.endpoints)
    return dataclasses.replace(members[0].settings, endpoints=endpoints)


class Relay:
    """Stands between a store and a member, on a unix socket, and can keep back what either says; `kept_back` once it did."""

    def __init__(self, target: Path, path: Path) -> None:
        self.settings = settings.Etcd((f"unix:{path}",))
        self.passes_requests = True
        self.passes_answers = True
        self.kept_back = asyncio.Event()
        self._target = target
        self._path = path
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        async with await asyncio.start_unix_server(self._serve, self._path):
            try:
                yield self
            finally:
                self.cut()

    def cut(self) -> None:
        """Break every connection; new ones are served, and everything passes again."""
        self.passes_requests = self.passes_answers = True
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(self._target)
        pair = {writer, upstream_writer}
        self._writers |= pair
        try:
            await asyncio.gather(
                self._pump(reader, upstream_writer, lambda: self.passes_requests),
                self._pump(upstream_reader, writer, lambda: self.passes_answers),
            )
        finally:
            self._writers -= pair
            for end in pair:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[], bool]) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                if passes():
                    writer.write(piece)
                else:
                    self.kept_back.set()
        writer.transport.abort()
