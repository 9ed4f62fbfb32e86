"""The master socket of a HAProxy of values, with workers that reload, finish and end as those of HAProxy 2.6 do: with a grace, a
worker that was replaced goes on accepting until its frontends are shut, and does not end by itself.
"""

import asyncio
from dataclasses import dataclass, field

from crossns.layout import Layout
from tests.unit.proxy.show_stat import row, table

FRONTEND, POOL = "vs.web.fe.fe", "vs.web.po.main"


@dataclass
class Worker:
    """`status`: that of its frontends that were not `shut`; `deaf`: what it does not answer to; `line`: its member's."""

    pid: int
    total: int = 0
    connections: int = 0
    vservices: tuple[str, ...] = ("web",)
    shut: list[str] = field(default_factory=list)
    deaf: str = "-"
    status: str = "OPEN"
    line: str = "a1.tenant-a.21"

    @property
    def accepting(self) -> list[str]:
        return [section for section in self._frontends() if section not in self.shut]

    def answer(self, command: str) -> str:
        match command.split():
            case _ if command.startswith(self.deaf):
                return ""
            case ["show", "backend"]:
                return "\n".join(["# name", *(f"vs.{each}.po.main" for each in self.vservices), "", ""])
            case ["show", "servers", "conn"]:
                lines = [f"vs.{each}.po.main/{self.line} 3/1 10.0.0.5 8080 - 5000 0 0 0 0 0 -1 0 0 0" for each in self.vservices]
                return "\n".join(["# bkname/svname bkid/svid addr port - purge_delay", *lines, "", ""])
            case ["show", "info"]:
                # It counts neither idle connections to members nor those of its own socket.
                return f"Name: HAProxy\nCurrConns: {self.connections}\nCumConns: 99\nJobs: 5\nStopping: 0\n\n"
            case ["show", "stat", "-1", "1", "-1"]:
                # HAProxy's own are among them where a file has some.
                return table(*(self._frontend(each) for each in self._frontends()), row("admin", "FRONTEND", status="OPEN"))
            case ["show", "stat", "-1", "7", "-1"]:
                return table(*self._rows(FRONTEND), *self._rows(POOL))
            case ["show", "stat", section, "7", "-1"]:
                return table(*self._rows(section)) if section.split(".")[1] in self.vservices else "No such proxy.\n\n"
            case ["shutdown", "frontend", section]:
                words = "\n" if section in self.accepting else "Frontend was already shut down.\n\n"
                self.shut.append(section)
                return words
        return f"unknown: {command}\n\n"

    def _frontends(self) -> list[str]:
        return [f"vs.{each}.fe.fe" for each in self.vservices]

    def _frontend(self, section: str) -> str:
        return row(section, "FRONTEND", status="STOP" if section in self.shut else self.status)

    def _rows(self, section: str) -> tuple[str, ...]:
        counts = {"stot": self.total, "scur": self.connections}
        if section == FRONTEND:
            return (row(FRONTEND, "FRONTEND", **counts),)
        return row(POOL, self.line, "10.0.0.5:8080", **counts), row(POOL, "BACKEND", **counts)


class HAProxy:
    """`workers` begins with the current one; `asked`: all commands so far."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.pid, self.workers = 10, [Worker(11)]
        # After a refused reload there is none but the one that serves on.
        self.has_current = True
        self.asked: list[str] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._layout.haproxy_master.parent.mkdir(parents=True, exist_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, self._layout.haproxy_master)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    def reload(self, *vservices: str) -> Worker:
        self.workers.insert(0, Worker(self.workers[0].pid + 1, vservices=vservices or ("web",)))
        return self.workers[0]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for command in (await reader.read()).decode().strip().split(";"):
            self.asked.append(command)
            writer.write(self._say(command).encode())
        writer.close()

    def _say(self, command: str) -> str:
        if command == "show proc":
            return self._processes()
        target, _, words = command.partition(" ")
        worker = next((each for each in self.workers if target == f"@!{each.pid}"), None)
        return worker.answer(words) if worker else f"Can't find the target PID matching the prefix '{target}'\n"

    def _processes(self) -> str:
        current, old = (self.workers[:1], self.workers[1:]) if self.has_current else ([], self.workers)
        lines = [
            "#<PID>          <type>          <reloads>       <uptime>        <version>",
            f"{self.pid}           master          7 [failed: 0]   1d00h00m04s     2.6.12",
            "# workers",
            *(f"{each.pid}           worker          0               0d00h01m40s     2.6.12" for each in current),
            "# old workers",
            *(f"{each.pid}           worker          1               0d00h05m00s     2.6.12" for each in old),
            "# programs",
        ]
        return "\n".join([*lines, "", ""])
