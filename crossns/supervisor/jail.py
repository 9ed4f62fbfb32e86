"""The command line that makes a process what deploy/stack.toml says: its uid and groups, no capabilities, its view of the code.

Pure. util-linux does it (unshare, setpriv), so that a systemd unit and a container can do the same in their own words. The
code may lie below somebody's home (0700): a read-only bind mount in a private mount namespace shows it to processes with a
uid of their own. The launcher stays in the device's mount namespace, in which it makes the route tables' mounts.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from crossns.etcd import embedded
from crossns.layout import Layout
from crossns.supervisor import stack

CODE = Path(__file__).parents[2]
# What a process gets of the environment that the supervisor was started in.
_PASSED = ("PATH", "LANG", "LC_ALL", "TZ")
_PASSED_PREFIXES = ("CROSSNS_", "OTEL_", "GRPC_")
_SHOW_CODE = 'mount --bind "$1" "$2"; mount -o remount,bind,ro,nosuid,nodev "$2"; cd "$3"; shift 3; exec "$@"'
# A supervisor that is killed takes the services along; the launcher leaves the data plane as it does whenever it ends.
_WITH_SUPERVISOR = "--pdeathsig=TERM"


def argv(process: stack.Process, layout: Layout) -> list[str]:
    """The whole command, to be run as root."""
    app = layout.run / stack.APP
    command = embedded.argv(layout) if process.embedded else process.argv
    seen = CODE if not process.user else app
    filled = [part.format(python=_python(seen)) if part == "{python}" else part for part in command]
    if not process.user:
        return ["setpriv", _WITH_SUPERVISOR, "--", *filled]
    show = ["unshare", "--mount", "--propagation=slave", "--", "sh", "-euc", _SHOW_CODE, "sh", str(CODE), str(app)]
    return [*show, str(process.directory or app), *_privileges(process, layout), *filled]


def _privileges(process: stack.Process, layout: Layout) -> list[str]:
    uid = layout.uid(process.user)
    groups = ",".join(str(gid(group, layout)) for group in process.groups)
    return [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        f"--groups={groups}" if groups else "--clear-groups",
        "--no-new-privs",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
        _WITH_SUPERVISOR,
        "--",
    ]


def gid(group: str, layout: Layout) -> int:
    """A uid's primary gid is the same number; `store` and `agents` are groups of their own."""
    shared = {"store": layout.store_gid, "agents": layout.agents_gid}
    return shared[group] if group in shared else layout.uid(group)


def _python(code: Path) -> str:
    """This interpreter's path as seen where the code is shown at `code`; itself where it is not part of the code."""
    own = Path(sys.executable)
    return str(code / own.relative_to(CODE)) if own.is_relative_to(CODE) else str(own)


def environ(process: stack.Process, layout: Layout, given: Mapping[str, str]) -> dict[str, str]:
    """What the process gets of `given`, and where its code is."""
    passed = {key: value for key, value in given.items() if key in _PASSED or key.startswith(_PASSED_PREFIXES)}
    code = layout.run / stack.APP if process.user else CODE
    return passed | {"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"}
