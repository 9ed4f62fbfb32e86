"""What an agent may: it gives up every capability that its operations do not need, for good.

Called by the zygote in each new agent; `acting_as` by whoever makes a socket that shall be another uid's.
"""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# linux/capability.h. SETUID: setfsuid; NET_RAW: announcements; SYS_ADMIN: a look into the table that a link is moved to.
_SETUID, _NET_ADMIN, _NET_RAW, _SYS_ADMIN = 7, 12, 13, 21
KEPT = (_SETUID, _NET_ADMIN, _NET_RAW, _SYS_ADMIN)
_CAP_VERSION_3 = 0x20080522
# linux/prctl.h
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 15, 24, 38
_LAST_CAP = Path("/proc/sys/kernel/cap_last_cap")

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int | bytes = 0) -> None:
    value = argument if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    if _libc.prctl(option, value, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def end_with_parent() -> None:
    """SIGKILL for this process when its parent ends; its own children do not inherit that."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def set_name(name: str) -> None:
    """What `ps` shows as the command's name, 15 characters of it."""
    _prctl(_PR_SET_NAME, name.encode())


def drop() -> None:
    """Keep KEPT and nothing else, in this process and whatever it would start."""
    kept = sum(1 << capability for capability in KEPT)
    for capability in range(int(_LAST_CAP.read_text(encoding="ascii")) + 1):
        if not kept >> capability & 1:
            _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    # Effective, permitted, inheritable of capabilities 0..31, then of 32..63.
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    if _libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """What is made inside belongs to `uid`: `meta skuid` sees the fsuid of the process that made the socket."""
    _libc.setfsuid(uid)
    try:
        # It returns the former fsuid, whether it did anything or not: only a second call tells.
        if _libc.setfsuid(-1) != uid:
            raise PermissionError(f"setfsuid {uid}")
        yield
    finally:
        _libc.setfsuid(os.geteuid())
