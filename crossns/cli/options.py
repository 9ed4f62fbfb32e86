"""Options that commands share: where the gateway is, how long to wait, how to print.

Those of the connection may stand before the command's name or behind it; what stands behind wins.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = ("table", "yaml", "json", "name")
TIMEOUT_S = 60.0
# The parameters that `connection` gives a function.
CONNECTION = ("server", "tls_ca", "tls_cert", "tls_key", "timeout_s")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def connection(function: F) -> F:
    """--server, --tls-*, --timeout."""
    for option in reversed(
        (
            click.option("--server", metavar="TARGET", help="unix:PATH or HOST:PORT of the gateway [default: this device's own]"),
            click.option("--tls-ca", type=_FILE, help="who signed the gateway's certificate (PEM); for HOST:PORT"),
            click.option("--tls-cert", type=_FILE, help="our own certificate (PEM)"),
            click.option("--tls-key", type=_FILE, help="its key (PEM)"),
            click.option(
                "--timeout",
                "timeout_s",
                type=click.FloatRange(min=0, min_open=True),
                metavar="SECONDS",
                help=f"give up after this time, with exit status 3 [default: {TIMEOUT_S:g}]",
            ),
        )
    ):
        function = option(function)
    return function


def output(function: F) -> F:
    """-o for what prints resources."""
    return click.option(
        "-o", "--output", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="how to print"
    )(function)


def no_wait(function: F) -> F:
    return click.option("--no-wait", is_flag=True, help="return as soon as the change is stored")(function)


def cut_my_session(function: F) -> F:
    return click.option("--cut-my-session", is_flag=True, help="also where the SSH session of this command goes over it")(
        function
    )


def labels(text: str) -> Callable[[F], F]:
    return click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", callback=_labels, help=text)


def _labels(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    wrong = next((text for text in given if "=" not in text or text.startswith("=")), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} is not KEY=VALUE")
    return {text.partition("=")[0]: text.partition("=")[2] for text in given}
