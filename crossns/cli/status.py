"""`crossns status`: do the services answer, what is there and in which state, which processes run and what they cost."""

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import click

from crossns import errors, settings
from crossns.cli import client, columns, exits, kinds, processes
from crossns.cli.client import Client
from crossns.names import OWNERS, SERVICES
from crossns.v1 import config_pb2, status_pb2

_WRONG = (status_pb2.STATE_ERROR, status_pb2.STATE_DEGRADED)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Whether a service answers: only the one that leads does. `why` is empty when it does."""

    service: str
    milliseconds: float
    why: str


@click.command()
@click.option(
    "-o", "--output", "form", type=click.Choice(("table", "json")), default="table", show_default=True, help="how to print"
)
@client.remote()
async def status(api: Client, form: str) -> int:
    """Is all well? Services, resources by state, and on the device itself the processes with their memory.

    Exit status 0 when every service answers and no resource is DEGRADED or in ERROR, else 1.
    """
    answers = [await _ask(api, service) for service in ("gateway", *SERVICES)]
    up = {answer.service for answer in answers if not answer.why}
    states = {
        kind.collection: Counter([each.status.state async for each in api.list(kind)])
        for kind in kinds.KINDS
        if OWNERS[kind.collection] in up
    }
    running = processes.find(settings.from_environ(os.environ).layout) if api.connection.is_local else []
    if form == "json":
        click.echo(json.dumps(_as_json(answers, states, running), indent=2))
    else:
        click.echo(_as_text(answers, states, running))
    is_well = len(up) == len(answers) and not any(count[state] for count in states.values() for state in _WRONG)
    return exits.DONE if is_well else exits.FAILED


async def _ask(api: Client, service: str) -> _Answer:
    """The cheapest call that the service itself must answer."""
    began = time.monotonic()
    try:
        if service == "gateway":
            await api.call(api.config.Diff, config_pb2.DiffRequest())
        else:
            collection = next(name for name, owner in OWNERS.items() if owner == service)
            await anext(api.list(kinds.BY_COLLECTION[collection]), None)
    except errors.DeadlineExceeded:
        raise
    except errors.CrossnsError as error:
        if service == "gateway" and error.reason == "SERVICE_UNAVAILABLE":
            raise
        return _Answer(service, 0, error.message)
    return _Answer(service, round((time.monotonic() - began) * 1000, 1), "")


def _as_json(
    answers: Sequence[_Answer], states: dict[str, Counter[status_pb2.State.ValueType]], running: Sequence[processes.Process]
) -> dict[str, object]:
    return {
        "services": [asdict(answer) for answer in answers],
        "resources": {
            name: {status_pb2.State.Name(state).removeprefix("STATE_"): number for state, number in count.items()}
            for name, count in states.items()
        },
        "processes": [asdict(process) for process in running],
    }


def _as_text(
    answers: Sequence[_Answer], states: dict[str, Counter[status_pb2.State.ValueType]], running: Sequence[processes.Process]
) -> str:
    told = [["SERVICE", "STATE", ""]]
    for answer in answers:
        state = click.style("answers", fg="green") if not answer.why else click.style("does not answer", fg="red")
        told.append([answer.service, state, answer.why or f"in {answer.milliseconds:g} ms"])
    counted = [["RESOURCES", "NUMBER", ""]]
    for name, count in states.items():
        listed = ", ".join(f"{number} {columns.state(state)}" for state, number in sorted(count.items()))
        counted.append([name, str(count.total()), listed])
    sections = [columns.aligned(told), columns.aligned(counted)]
    if running:
        sections.append(columns.aligned([["PROCESS", "PID", "UP", "MEMORY"], *map(_row, running)]))
    return "\n\n".join(sections)


def _row(process: processes.Process) -> list[str]:
    memory = f"{process.pss_bytes / 2**20:.1f} MiB" if process.pss_bytes is not None else "as root only"
    return [process.name, str(process.pid), _duration(process.up_s), memory]


def _duration(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}h{minute:02}m" if hours else f"{minute}m{second:02}s" if minute else f"{second}s"
