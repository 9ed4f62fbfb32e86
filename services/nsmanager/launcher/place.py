"""The launcher's directories and mounts: made at start with the right owners, taken away by `--down`.

Called by `app` and `teardown`. Both are idempotent.
"""

import contextlib
import os
import shutil
from pathlib import Path

from crossns import errors, netns
from crossns.layout import Layout

_MOUNTS = Path("/proc/self/mountinfo")
# HAProxy looks here, whatever `layout.netns` is; in its own mount namespace other names are mounted over it.
_LOOKED_UP = Path("/var/run/netns")


def prepare(layout: Layout) -> None:
    """Make what is missing; PermanentError FOREIGN_OBJECT where something else stands there."""
    _make(layout.run, 0o755)
    _make(layout.launcher_dir, 0o700)
    _make(agent_records(layout), 0o700)
    _make(rehearsals(layout), 0o700)
    _make(layout.fence_dir, 0o700)
    for directory in _shared_directories(layout):
        _make(directory, 0o755)
    # The engine makes its sockets there, the group of the service that drives it opens them.
    _make(layout.engine_dir("haproxy"), 0o2770, uid=layout.uid("haproxy"), gid=layout.uid("proxy"))
    _make(_LOOKED_UP.resolve(), 0o755)
    for directory in (layout.incarnations, layout.netns):
        _make(directory, 0o755)
        _share(directory)


def agent_records(layout: Layout) -> Path:
    """One file per agent, `<table>.<cookie>`."""
    return layout.launcher_dir / "agents"


def rehearsals(layout: Layout) -> Path:
    """What agents have of their own before they are any table's: sockets, and a fence that keeps nobody out."""
    return layout.launcher_dir / "rehearsals"


def launcher_record(layout: Layout) -> Path:
    return layout.launcher_dir / "pid"


def engine_record(layout: Layout) -> Path:
    return layout.launcher_dir / "haproxy"


def engine_config(layout: Layout) -> Path:
    """The configuration that the engine accepted last; root's, for the engine's uid to read."""
    return layout.engine_dir("haproxy").with_name("haproxy.cfg")


def remove(layout: Layout) -> None:
    """Everything that launcher, agents and engine put into the run directory; `layout.netns` stays, as `ip netns` leaves it."""
    if _propagation(layout.incarnations) is not None:
        netns.umount(layout.incarnations)
    for directory in (layout.incarnations, layout.launcher_dir, layout.fence_dir, *_shared_directories(layout)):
        shutil.rmtree(directory, ignore_errors=True)
    layout.launcher_socket.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # Services may have theirs in it.
        layout.run.rmdir()


def _shared_directories(layout: Layout) -> tuple[Path, Path]:
    return layout.agent_socket("default").parent, layout.engine_dir("haproxy").parent


def _make(path: Path, mode: int, uid: int = 0, gid: int = 0) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        message = f"{path} is there and no directory: remove it"
        raise errors.PermanentError("FOREIGN_OBJECT", message, path=path) from error
    os.chown(path, uid, gid)
    path.chmod(mode)


def _share(directory: Path) -> None:
    """As `ip netns` does: a mount point of itself, so that what is mounted below it appears in other mount namespaces too."""
    propagation = _propagation(directory)
    if propagation is None:
        netns.mount(directory, directory, netns.MS_BIND | netns.MS_REC)
        # Out of the peer group of its parent: a mount below it must not appear twice.
        netns.mount(None, directory, netns.MS_PRIVATE)
        propagation = ""
    if "shared:" not in propagation:
        netns.mount(None, directory, netns.MS_SHARED)
    if "shared:" not in (_propagation(directory) or ""):
        raise errors.PermanentError("FOREIGN_OBJECT", f"{directory} cannot be made a shared mount", path=directory)


def _propagation(directory: Path) -> str | None:
    """The optional fields of the topmost mount on `directory` (proc_pid_mountinfo(5)); None where it is no mount point."""
    found = None
    for line in _MOUNTS.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[4] == str(directory.resolve()):
            found = " ".join(fields[6 : fields.index("-")])
    return found
