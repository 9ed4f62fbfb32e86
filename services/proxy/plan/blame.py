"""Finds what HAProxy does not start with, so that it alone is left out and reported, and the rest applied.

HAProxy takes a file whole or not at all: one frontend whose port another process holds would freeze everybody else. But it names
the line of everything that it refuses, in its check of the file as well as when it opens the listeners.
"""

import re
from collections.abc import Mapping

from crossns import errors
from services.proxy import render
from services.proxy.plan.engine import Refusal, StartEngine

# `parsing [/path/haproxy.cfg:18]`, `Binding [/path/haproxy.cfg:18]`, `line 18 of the configuration`; not `[10.0.0.1:80]`.
_LINE = re.compile(r"\[/[^\[\]\s]*:([0-9]{1,9})\]|\bline ([0-9]{1,9}) of the configuration")
# An address of version 6 stands in brackets.
_PORT = re.compile(r"(^[^\[\]:]*|\]):[0-9]+$")
# The launcher puts it between what HAProxy says.
_BETWEEN = "; "


def blamed(op: StartEngine, words: str) -> Mapping[render.Part, Refusal]:
    """The parts whose lines `words` name, each with what is said of it; empty where there is nobody to blame."""
    known = parts(op.config)
    found: dict[render.Part, Refusal] = {}
    for alert in words.split(_BETWEEN):
        for one, other in _LINE.findall(alert):
            part = known.get(int(one or other))
            if part is not None:
                found.setdefault(part, Refusal(errors.bounded(alert), op.generations.get(render.owner(part.section), 0)))
    return found


def parts(config: str) -> Mapping[int, render.Part]:
    """By line number, from 1: the inverse of what the renderer writes."""
    section = ""
    found: dict[int, render.Part] = {}
    for number, line in enumerate(config.splitlines(), start=1):
        match line.split():
            case ["frontend" | "backend", title, *_]:
                section = title
            case ["bind", socket, "namespace", namespace, *_]:
                found[number] = render.Part(section, namespace, socket.partition("@")[2])
            case ["server", name, address, *_] if not address.endswith(f"@{render.NOWHERE}"):
                # Also on a spare line, which has another name than its member.
                socket = address.partition("@")[2]
                found[number] = render.Part(section, name.partition(".")[2], socket if _PORT.search(socket) else f"{socket}:0")
    return found
