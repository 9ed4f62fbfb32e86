"""The demo from beginning to end; every step is a command that is printed with its result.

The process that shows it starts other processes all the time, so that it never imports gRPC: it uses the command line.
"""

import asyncio
import json
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from crossns import errors, proc, settings
from crossns.cli import exits, processes, running
from crossns.cli.demo import bill, maintenance, picture, proof, stage
from crossns.testing import lab

_FILE = "examples/two-tenants.yaml"
# What the processes of the suite printed last, shown when something goes wrong.
_LOG_LINES = 40
# Where there is no terminal: what the picture needs.
_WIDTH = 110
# What stopped an attempt, short enough for a table.
_SHORT = {"Network is unreachable": "no route", "No route to host": "no neighbour", "Connection refused": "refused"}


@click.command()
@click.option("--keep", is_flag=True, help="stay: a shell inside, in which everything can be looked at; `exit` ends it all")
def demo(*, keep: bool) -> int:
    """Two tenants with the same addresses behind one vService, in a sandbox, with the proof.

    Nothing on this machine's network changes, and all is gone afterwards. Exit status 0 when every check was as it should be.
    """
    running.enter_sandbox()
    log: deque[str] = deque(maxlen=_LOG_LINES)
    try:
        return asyncio.run(_Demo(log).play(keep=keep))
    except (errors.CrossnsError, ExceptionGroup):
        click.echo("\n".join(log), err=True)
        raise


class _Demo:
    def __init__(self, log: deque[str]) -> None:
        self._log = log
        self._console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
        self._began = time.monotonic()

    async def play(self, *, keep: bool) -> int:
        self._title("A device of its own: private network, mounts and processes; this machine is not touched")
        async with (
            lab.Lab() as network,
            running.suite_on(os.environ, lambda name, line: self._log.append(f"{name} | {line}")) as suite,
        ):
            async with asyncio.TaskGroup() as group:
                building = group.create_task(stage.build(network))
                group.create_task(running.wait_until_ready(suite))
            self._stage = building.result()
            self._step(
                "the suite is up: etcd, launcher, nsmanager, proxy, gateway; four hosts are plugged into four network cards"
            )
            await self._apply()
            await self._draw()
            faults = [*await self._serve(), *await self._maintain(), *await self._isolate(), *await self._compare()]
            self._pay()
            self._finish(faults)
            if keep:
                await self._shell()
            # The sandbox goes as a whole: nobody needs an orderly end.
            suite.kill()
        return exits.FAILED if faults else exits.DONE

    async def _apply(self) -> None:
        self._title("What is wanted stands in one file; it goes through the API")
        await self._run(f"crossns apply -f {_FILE}")

    async def _draw(self) -> None:
        self._title("What the API says there is now")
        tables, interfaces, services = await proof.all_of(
            [self._documents(f"crossns get {kind} -o json") for kind in ("tables", "interfaces", "services")]
        )
        around = {actor.cable.card: actor.name for actor in stage.ACTORS}
        self._console.print(picture.draw(picture.World(tables, interfaces, services, around), self._console.width))

    async def _serve(self) -> list[str]:
        self._title("Clients of both networks are served by both tenants' 10.0.0.5, each request on a new connection")
        faults = []
        for served in await proof.serve(self._stage):
            self._command(served.line)
            counts = ", ".join(f"{count} by {name}" for name, count in served.by.items())
            self._outcome(f"{served.answered} answered, {served.lost} lost: {counts or 'by nobody'}", is_right=served.is_right)
            faults += [] if served.is_right else [f"{served.client.name} was not served as it should be at {served.target}"]
        return faults

    async def _maintain(self) -> list[str]:
        self._title("A member is taken out and back, while a client asks 200 times a second and opens 100 connections besides")
        faults = []

        def show(step: maintenance.Step) -> None:
            self._command(step.line)
            counts = ", ".join(f"{count} by {name}" for name, count in step.by.items())
            self._outcome(f"new connections are answered: {counts or 'by nobody'}", is_right=step.is_right)
            if not step.is_right:
                faults.append(f"`{step.line}` did not do what it says")

        seen = await maintenance.maintain(self._stage, show)
        self._command(seen.line)
        text = f"{seen.kept} answered on kept connections, {seen.new} on new ones, {seen.lost} lost in {seen.seconds:.1f} s"
        self._outcome(text, is_right=seen.is_right)
        return faults if seen.is_right else [*faults, "the client lost requests, or asked too little to prove anything"]

    def _pay(self) -> None:
        self._title("What it costs, four route tables, `default` and all")
        self._console.print(bill.table(processes.find(settings.from_environ(self._stage.environ).layout)))

    async def _isolate(self) -> list[str]:
        self._title("No network reaches another: from every host and table, by ping and TCP, to each host's own address")
        reached = await proof.isolate(self._stage)
        grid = Table(box=None, padding=(0, 2))
        for head in ("from", *(f"to {actor.name}\n{actor.own}" for actor in stage.ACTORS)):
            grid.add_column(head, no_wrap=True)
        for row in reached:
            grid.add_row(row.place, *(_cell(row, actor) for actor in stage.ACTORS))
        self._console.print(grid)
        self._console.print("  its own network answers, which shows that the attempt works; one of these commands:", style="dim")
        self._command(reached[0].line)
        return [f"{row.place} reaches what it must not, or not its own network" for row in reached if not row.is_right]

    async def _compare(self) -> list[str]:
        self._title("What is exported is what was applied")
        line = f"crossns diff -f {_FILE}"
        completed = await self._run(line)
        return [] if completed.status == exits.DONE else ["the device differs from the file"]

    def _finish(self, faults: Sequence[str]) -> None:
        took = f"{time.monotonic() - self._began:.1f} s"
        if faults:
            self._title(f"Not as it should be ({took})")
            for fault in faults:
                self._outcome(fault, is_right=False)
            self._console.print("\n".join(self._log), style="dim", markup=False)
            return
        self._title(f"All as it should be ({took}). To look around: `crossns demo --keep`, then for example")
        for line, what in _HINTS:
            self._console.print(f"  [bold]{line:<52}[/] {what}")

    async def _shell(self) -> None:
        self._title("A shell inside the sandbox; `exit` ends it all")
        await proc.foreground(["bash", "--norc", "-i"], environ={**self._stage.environ, "PS1": "demo# "})

    def _title(self, text: str) -> None:
        self._console.print(f"\n[bold cyan]{text}[/]")

    def _step(self, text: str) -> None:
        self._console.print(f"  {text}")

    def _command(self, line: str) -> None:
        self._console.print(f"  [bold]$ {line}[/]")

    def _outcome(self, text: str, *, is_right: bool) -> None:
        self._console.print(f"  [green]✓[/] {text}" if is_right else f"  [red]✗ {text}[/]")

    async def _run(self, line: str) -> proc.Completed:
        """Run and show; an error of the command ends the demo unless its status says that it only found a difference."""
        self._command(line)
        completed = await self._stage.run(line)
        for text in (completed.stdout + completed.stderr).splitlines():
            self._console.print(f"    {text}", markup=False)
        if completed.status not in (exits.DONE, exits.DIFFERS) or (completed.status and completed.stderr):
            raise errors.PermanentError("INTERNAL", f"`{line}` failed with exit status {completed.status}")
        return completed

    async def _documents(self, line: str) -> list[Any]:
        documents: list[Any] = json.loads((await self._stage.run(line)).check().stdout)
        return documents


def _cell(row: proof.Reached, actor: stage.Actor) -> str:
    is_own = actor.table == row.table
    why = row.whys[actor.name].partition(" within")[0]
    text = "answers" if row.answers[actor.name] else _SHORT.get(why, why)
    return f"[{'green' if row.answers[actor.name] == is_own else 'bold red'}]{text}[/]"


_HINTS = (
    ("crossns status", "is all well?"),
    ("crossns service show web", "every frontend, pool and member, and what came through it"),
    ("crossns table show tenant-a", "a table, and what is derived from its index"),
    ("crossns exec tenant-a -- ip address", "the same address in one tenant ..."),
    ("crossns exec tenant-b -- ip address", "... and in the other"),
    ("host client-dmz traffic load --target 203.0.113.10:80 --seconds 2", "load, counted by backend"),
    ("crossns delete vServices/web", "and the clients get nothing any more"),
    ("crossns watch", "what happens, as it happens"),
)
