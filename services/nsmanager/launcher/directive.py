"""Which HAProxy configuration the launcher lets run: a closed list, because a configuration file is power.

Called by `engine` before a file is written. HAProxy runs whatever a `program` section, `external-check` or Lua names, with
SYS_ADMIN; so a line passes only if its section and first words are known to do nothing but proxying. Quotes, escapes and
variables are refused altogether: with them a word could be written in a way that is read differently here and there.
"""

import hashlib
import re
from collections.abc import Collection
from pathlib import Path

from crossns import errors

# Longer than any real one: 5,000 vServices with 4 members each take 2 MB.
CONFIG_MAX = 16 * 1024 * 1024
SECTIONS = frozenset({"global", "defaults", "frontend", "backend", "listen", "peers"})
# Before the line that begins one.
_SECTION = re.compile(rf"^(?=(?:{'|'.join(sorted(SECTIONS))})\s)", re.MULTILINE)
_GLOBAL = frozenset(
    {
        *("description", "grace", "hard-stop-after", "httpclient.ssl.verify", "localpeer", "log", "maxconn", "maxpipes"),
        *("nbthread", "spread-checks", "stats"),
    }
)
_PEERS = frozenset({"peer", "table", "description"})
_PROXY = frozenset(
    {
        *("acl", "backlog", "balance", "bind", "compression", "cookie", "default-server", "default_backend", "description"),
        *("disabled", "enabled", "force-persist", "fullconn", "hash-balance-factor", "hash-type", "http-after-response"),
        *("http-check", "http-request", "http-response", "http-reuse", "id", "ignore-persist", "log", "log-format", "log-tag"),
        *("maxconn", "mode", "monitor-uri", "no", "option", "rate-limit", "redirect", "retries", "retry-on", "server"),
        *("server-template", "source", "stick", "stick-table", "tcp-check", "tcp-request", "tcp-response", "timeout"),
        *("unique-id-format", "unique-id-header", "use-server", "use_backend"),
    }
)
_ALLOWED = {"global": _GLOBAL, "peers": _PEERS} | dict.fromkeys(("defaults", "frontend", "backend", "listen"), _PROXY)
# Inside lines that are allowed otherwise: code, other programs, files, sockets of this machine.
_FORBIDDEN = re.compile(r"(?:^|[\s,([])(?:lua[.]|map(?:_\w+)?\(|external-check|file\s|lf-file\s|errorfile|-f\s|-F\s)")
_STRANGE = re.compile(r"[^\x20-\x7e\t\n]|[\\\"'$]")
# `unix@`, `abns@`, `fd@`, `sockpair@` and plain paths reach sockets of this machine; `ipv4@` and `ipv6@` do not.
_LOCAL_ADDRESS = re.compile(r"(?:^|,)(?:/|(?!ipv[46]@)[\w+]+@)")
# Lines in which addresses stand, in more words than one: `source`, `addr`, `socks4`.
_WITH_ADDRESSES = frozenset({"bind", "server", "server-template", "default-server", "peer", "source"})
_LOG_TARGETS = frozenset({"global", "stdout", "stderr", "/dev/log"})


def check(config: str, engine_dir: Path, passed: Collection[bytes] = ()) -> frozenset[bytes]:
    """Raises PermanentError ENGINE_REFUSED that names the first line that may not run; else the digests of the sections.

    What has `passed` before is not looked at again: a section begins with its own line and depends on no other.
    """
    if len(config) > CONFIG_MAX:
        raise _refused(0, f"it is longer than {CONFIG_MAX} characters")
    found: set[bytes] = set()
    first = 1
    for section in _SECTION.split(config):
        digest = hashlib.blake2b(section.encode(), digest_size=16).digest()
        if digest not in passed:
            _check_section(section, first, engine_dir)
        found.add(digest)
        first += section.count("\n")
    return frozenset(found)


def _check_section(text: str, first: int, engine_dir: Path) -> None:
    """`first` is the number of its first line."""
    section = ""
    for number, line in enumerate(text.split("\n"), start=first):
        words = line.split("#", 1)[0].split()
        if _STRANGE.search(line):
            raise _refused(number, "quotes, escapes, variables and characters beyond ASCII may not stand in it")
        if not words:
            continue
        if words[0] in SECTIONS:
            section = words[0]
        elif not section or not _is_allowed(section, words):
            raise _refused(number, f"{' '.join(words[:2])} is not among what may stand in {section or 'no section'}")
        elif reason := _reason_against(words, engine_dir):
            raise _refused(number, reason)


def _is_allowed(section: str, words: list[str]) -> bool:
    return words[0] in _ALLOWED[section] or (section == "global" and words[0].startswith("tune.") and "lua" not in words[0])


def _reason_against(words: list[str], engine_dir: Path) -> str:
    if _FORBIDDEN.search(" ".join(words)):
        return "it names code, a program or a file"
    if words[0] == "stats" and not (words[1:2] == ["timeout"] or _is_stats_socket(words, engine_dir)):
        return f"the only sockets are those directly in {engine_dir}"
    if words[0] == "log" and not (words[1:] and (words[1] in _LOG_TARGETS or _is_in(words[1], engine_dir))):
        return f"logs go to the local syslog socket, stdout, stderr or a socket directly in {engine_dir}"
    # `tcp-check connect addr ...`
    has_addresses = words[0] in _WITH_ADDRESSES or words[1:2] == ["connect"]
    if has_addresses and any(_LOCAL_ADDRESS.search(word) for word in words[1:]):
        return "only IP addresses are listened on and connected to"
    return ""


def _is_stats_socket(words: list[str], engine_dir: Path) -> bool:
    return words[1:2] == ["socket"] and len(words) > 2 and _is_in(words[2].removeprefix("unix@"), engine_dir)


def _is_in(path: str, engine_dir: Path) -> bool:
    directory, _, name = path.rpartition("/")
    return directory == str(engine_dir) and name not in {"", ".", ".."}


def _refused(number: int, reason: str) -> errors.PermanentError:
    where = f"line {number} of the configuration" if number else "the configuration"
    return errors.PermanentError("ENGINE_REFUSED", f"{where} may not run: {reason}", line=number)
