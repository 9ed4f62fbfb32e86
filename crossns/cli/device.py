"""`crossns up`, `down`, `exec`: what is done on the device itself, as root, without the API."""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from crossns import errors, names, settings
from crossns.cli import exits, running

_FILE = click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)
# Where `ip netns` looks.
_IP_NETNS = Path("/run/netns")


def _gateway_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that `python -m gateway` takes, too; they reach it through its variables."""
    tcp = "the gateway listens on TCP too, in a route table if one is named; beyond loopback with TLS only; repeatable"
    function = click.option("--client-ca", type=_FILE, help="who signs the clients' certificates (PEM)")(function)
    function = click.option("--tls-key", type=_FILE, help="its key (PEM)")(function)
    function = click.option("--tls-cert", type=_FILE, help="the gateway's certificate (PEM)")(function)
    metrics = "tell Prometheus there, over HTTP at /metrics, what is counted; beyond loopback with TLS only"
    function = click.option("--metrics", metavar="ADDRESS:PORT", help=metrics)(function)
    return click.option("--listen", multiple=True, metavar="[TABLE:]ADDRESS:PORT", help=tcp)(function)


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--sandbox", "in_sandbox", is_flag=True, help="in private namespaces: this machine does not change, all is gone afterwards"
)
@click.option("--etcd", metavar="ENDPOINT[,ENDPOINT...]", help="a cluster instead of the embedded etcd: HOST:PORT or unix:PATH")
@_gateway_options
@click.option("--quiet", is_flag=True, help="do not print what the processes print")
@click.argument("command", nargs=-1, metavar="[-- COMMAND...]")
def up(*, in_sandbox: bool, etcd: str | None, quiet: bool, command: Sequence[str], **gateway: Any) -> int:
    """Run the whole suite on this device, in the foreground.

    Ctrl-C stops the services and leaves the data plane: traffic goes on, the next `up` carries on from there, `crossns down`
    removes it all. A second Ctrl-C kills. With --sandbox everything is in private namespaces and always cleaned up.

    With a COMMAND it runs that once the suite is ready, then stops, and exits with the command's status.

    Examples: crossns up; crossns up --sandbox -- bash
    """
    if in_sandbox:
        running.enter_sandbox()
    listen = ",".join(gateway.pop("listen"))
    given = {"CROSSNS_ETCD": etcd, "CROSSNS_GATEWAY_LISTEN": listen}
    given |= {f"CROSSNS_GATEWAY_{name.upper()}": file for name, file in gateway.items()}
    environ = dict(os.environ) | {name: str(value) for name, value in given.items() if value}
    return asyncio.run(running.up(environ, command, quiet=quiet))


@click.command()
@click.option("--purge", is_flag=True, help="remove the stored state as well: nothing comes back with the next `up`")
@click.option(
    "--timeout", "timeout_s", type=float, default=60, show_default=True, metavar="SECONDS", help="for a suite that runs to stop"
)
def down(*, purge: bool, timeout_s: float) -> int:
    """Remove everything that is ours from this device: processes, engines, route tables, sockets.

    What is wanted stays stored, so that the next `up` brings it all back, unless --purge is given. Network cards go back to
    the default route table first. A suite that runs is stopped.
    """
    return asyncio.run(running.down(os.environ, timeout_s, purge=purge))


@click.command(name="exec", context_settings={"allow_interspersed_args": False})
@click.argument("table")
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...")
def enter(table: str, command: Sequence[str]) -> None:
    """Run COMMAND inside the route table TABLE, as root, on the device itself.

    It sees the table's links, routes and sockets, and the files of /etc/netns/TABLE in place of those of /etc.

    Examples: crossns exec tenant-a -- ip address; crossns exec dmz -- bash
    """
    name = names.check_id(table.removeprefix("routeTables/"), "TABLE")
    # Behind the table's name it is an argument to click; people write it all the same.
    command = command[1:] if command[0] == "--" else command
    program = shutil.which(command[0]) if command else None
    if program is None:
        exits.complain(f"there is no program {' '.join(command[:1])!r}")
        raise SystemExit(127)
    if name == names.resource_id(names.DEFAULT_TABLE):
        os.execv(program, list(command))
    layout = settings.from_environ(os.environ).layout
    namespace = layout.netns / name
    if not namespace.exists():
        message = f"no route table {name} on this device: `crossns table list` shows which there are"
        raise errors.NotFound("NOT_FOUND", message)
    if os.geteuid() != 0:
        raise errors.PermissionDenied("PERMISSION_DENIED", "a route table is entered through its namespace: run it as root")
    entering = ["ip", "netns", "exec", name] if layout.netns == _IP_NETNS else ["nsenter", f"--net={namespace}", "--"]
    os.execvp(entering[0], [*entering, program, *command[1:]])
