"""The closed list of lines that HAProxy's file may have behind its head; what else stands in it is a fault of the renderer."""

import re
from collections.abc import Sequence

from services.proxy.render import head
from tests.unit.proxy import sample

_ID = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NS = rf"{_ID}\.[1-9][0-9]{{0,19}}"
_NUMBER = r"(?:0|[1-9][0-9]{0,9})"
_HOST = r"(?:ipv4@[0-9]{1,3}(?:\.[0-9]{1,3}){3}|ipv6@\[[0-9a-f:]{2,39}\])"
_PORT = r"[1-9][0-9]{0,4}"
_FORMATS = "|".join(re.escape(each) for each in head.LOG_FORMATS.values())
# In the order in which they stand in a section.
_FRONTEND = (
    rf"bind {_HOST}:{_PORT}(?:-{_PORT})? namespace (?P<ns>{_NS}) name (?P=ns) transparent(?: v6only)?(?: accept-proxy)?",
    rf"maxconn {_NUMBER}",
    rf"rate-limit sessions {_NUMBER}",
    r"stick-table type ipv6 size 100k expire 30s store conn_cur",
    r"tcp-request session track-sc0 src",
    rf"tcp-request session reject if \{{ sc0_conn_cur gt {_NUMBER} \}}",
    rf"timeout (?:client|http-request|http-keep-alive) {_NUMBER}ms",
    r"log global",
    rf"log-format (?:{_FORMATS})",
    rf"default_backend vs\.{_ID}\.po\.{_ID}",
)
_SERVER = (
    rf"server (?:{_ID}|_[1-9][0-9]{{0,3}})\.{_NS} {_HOST}(?::{_PORT})? id {_NUMBER} namespace {_NS}(?: send-proxy(?:-v2)?)?"
    rf" weight {_NUMBER}(?: maxconn {_NUMBER})?(?: disabled)?"
)
_BACKEND = (
    r"balance (?:roundrobin|leastconn|source|random|first)",
    r"hash-type consistent",
    rf"timeout (?:connect|server|queue) {_NUMBER}ms",
    _SERVER,
)
_LINES = {
    "": re.compile(rf"(?:frontend vs\.{_ID}\.fe|backend vs\.{_ID}\.po)\.{_ID} from (?:tcp|http)", re.ASCII),
    "frontend": re.compile("|".join(f"    (?:{each})" for each in _FRONTEND), re.ASCII),
    "backend": re.compile("|".join(f"    (?:{each})" for each in _BACKEND), re.ASCII),
}


def structure(text: str) -> str:
    """The digest that a text bears."""
    found = re.search(r"^    description ([0-9a-f]*)$", text, re.MULTILINE)
    return found[1] if found else ""


def body(text: str) -> list[str]:
    """Everything behind the head."""
    found = re.search(r"^    maxconn ([0-9]+)$", text, re.MULTILINE)
    assert found
    top = head.render(int(found[1]), str(sample.LIMITS.engine_dir), structure(text))
    assert text.startswith(f"{top}\n")
    return text.removeprefix(f"{top}\n").split("\n")


def sections(text: str) -> dict[str, list[str]]:
    """By title, the lines of each section."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in body(text):
        if line.startswith(" "):
            found[title].append(line.strip())
        elif line:
            assert line not in found
            title = line
            found[title] = []
    return found


def strange(text: str) -> Sequence[str]:
    """The lines that are none of those, or stand where they may not."""
    result: list[str] = []
    kind = ""
    for line in body(text):
        if not line.startswith(" ") and line:
            kind = line.split(" ", maxsplit=1)[0]
            if not _LINES[""].fullmatch(line):
                result.append(line)
        elif line and not (kind and _LINES[kind].fullmatch(line)):
            result.append(line)
    return result
