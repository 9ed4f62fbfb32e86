"""A filter of system calls for engines: the one signal that HAProxy must not send.

Called by `confined`. When HAProxy cannot open a new listener in a reload, it tells the running worker to pause all of its own
(SIGTTOU) and tries again for two seconds: one port that somebody holds would stop everybody's traffic. Where the signal cannot
be sent it gives up at once, and the worker goes on as it was.
"""

import ctypes
import errno
import os
import platform
import signal
import struct

# linux/prctl.h, linux/seccomp.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
# linux/bpf_common.h: load a word of seccomp_data, jump if equal, return.
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
# Offsets in seccomp_data (linux/seccomp.h) of the number, the architecture and the second argument's lower half.
_NUMBER, _ARCHITECTURE, _SIGNAL = 0, 4, 24
# Machine -> AUDIT_ARCH_* (linux/audit.h) and its number of kill(2).
_MACHINES = {"x86_64": (0xC000003E, 62), "aarch64": (0xC00000B7, 129)}
_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def refuse_pausing() -> None:
    """For this process and all that it becomes. A kernel or machine without such filters is left as it is."""
    if platform.machine() not in _MACHINES:
        return
    architecture, kill = _MACHINES[platform.machine()]
    instructions = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 0, 4, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_EQUAL, 0, 2, kill),
        (_LOAD, 0, 0, _SIGNAL),
        (_JUMP_EQUAL, 1, 0, signal.SIGTTOU),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
    program = _Program(len(instructions), ctypes.addressof(code))
    if (
        _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0
        and ctypes.get_errno() != errno.EINVAL
    ):
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
