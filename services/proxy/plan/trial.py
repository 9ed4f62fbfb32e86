"""Finds what HAProxy does not start with, so that it alone is left out and reported, and the rest applied.

HAProxy takes a file whole or not at all: one frontend whose port another process holds would freeze everybody else. Where the
check of a file fails, HAProxy's words name the line. A listener that cannot be opened shows only when it is opened: then the new
listeners are halved until one is left.
"""

import re
from collections.abc import Collection, Mapping

from crossns import errors
from services.proxy import render
from services.proxy.plan.engine import Trial

# An address of version 6 stands in brackets.
_PORT = re.compile(r"(^[^\[\]:]*|\]):[0-9]+$")
# `parsing [/path/haproxy.cfg:18]`, `Binding [/path/haproxy.cfg:18]`, `line 18 of the configuration`.
_LINE = re.compile(r"\[[^\[\]\s]*:([0-9]{1,9})\]|\bline ([0-9]{1,9}) of the configuration")


def succeeded(trial: Trial) -> Trial:
    """HAProxy runs without what is left out: the first half of the last group has its turn."""
    if not trial.postponed:
        return trial
    *before, last = trial.postponed
    later = last[max(len(last) // 2, 1) :]
    return Trial(trial.refused, (*before, later) if later else tuple(before))


def failed(trial: Trial, config: str, new: Collection[render.Part], words: str) -> Trial:
    """HAProxy did not start with `config`, in which the listeners `new` were new.

    Where there is nobody to blame, nobody was: the trial starts over, and is the same where it had not begun.
    """
    ordered = tuple(sorted(new))
    culprits = blamed(words, config) or frozenset(ordered if len(ordered) == 1 else ())
    if culprits:
        return Trial({**trial.refused, **dict.fromkeys(culprits, errors.bounded(words))})
    if not ordered:
        return Trial()
    return Trial(trial.refused, (*trial.postponed, ordered[len(ordered) // 2 :]))


def blamed(words: str, config: str) -> frozenset[render.Part]:
    """The parts of `config` whose lines `words` name."""
    known = parts(config)
    numbers = (int(one or other) for one, other in _LINE.findall(words))
    return frozenset(known[number] for number in numbers if number in known)


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
            case ["server", name, address, *_] if not name.startswith("_"):
                socket = address.partition("@")[2]
                found[number] = render.Part(section, name.partition(".")[2], socket if _PORT.search(socket) else f"{socket}:0")
    return found
