"""Transactions of nftables by libnftables: text as nft(8) takes it, all of it or nothing.

Called by the agent's `budgets` and `holding`. Each runs in a child that ends with it: the library and what it leaves behind would
cost the agent one to two megabytes for good. Nothing that comes from outside of the agent enters the text but numbers.
"""

import contextlib
import ctypes
import errno
import os
import signal
import socket
from functools import cache
from typing import NoReturn

from crossns import errors, netns
from services.nsmanager.agent import privilege

_LIBRARY = "libnftables.so.1"
# The library's words; of a whole script's errors the first lines say enough.
_WORDS_MAX = 4096
# A transaction takes milliseconds; nobody else is served meanwhile.
_PATIENCE_S = 10
_STDERR = 2


class Refused(Exception):
    """`words` are the kernel's or the library's."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words

    @property
    def is_taken(self) -> bool:
        """Whether such a table is there: what another one owns may not even be looked at."""
        return any(os.strerror(code) in self.words for code in (errno.EEXIST, errno.EPERM))


def run(script: str, what: str) -> None:
    """Carry out one transaction in the namespace of the calling thread; PermanentError KERNEL_REFUSED says which words came back
    when it was to `what`."""
    made(script, what).close()


def made(script: str, what: str, *, in_new_namespace: bool = False) -> socket.socket:
    """`transact`, with the errors of `run`."""
    try:
        return transact(script, in_new_namespace=in_new_namespace)
    except Refused as refused:
        message = f"cannot {what}: {errors.bounded(' '.join(refused.words.split()))}"
        raise errors.PermanentError("KERNEL_REFUSED", message) from refused


def transact(script: str, *, in_new_namespace: bool = False) -> socket.socket:
    """The netlink socket that has carried out the transaction. A table with `flags owner` goes when that is closed (nft(8)), and
    so does a new namespace. Raises Refused. The calling process must have no threads."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _be_child(theirs.fileno(), script, in_new_namespace=in_new_namespace)
    theirs.close()
    with ours:
        words, fds, *_ = socket.recv_fds(ours, _WORDS_MAX, 1, socket.MSG_CMSG_CLOEXEC)
    # Those of the zygote are the kernel's to wait for.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    if not fds:
        raise Refused(words.decode(errors="replace") or f"{_LIBRARY} ended without a word")
    return socket.socket(fileno=fds[0])


def _be_child(out: int, script: str, *, in_new_namespace: bool) -> NoReturn:
    """Answer with a descriptor, or with words. Never returns into the agent's loop."""
    answer = socket.socket(fileno=out)
    try:
        _leave_the_agent(out)
        if in_new_namespace:
            netns.unshare(netns.CLONE_NEWNET)
        socket.send_fds(answer, [b"."], [_transacted(library(), script, out)])
    except (Refused, OSError) as error:
        answer.send(str(error).encode()[:_WORDS_MAX])
    finally:
        os._exit(0)


def _leave_the_agent(out: int) -> None:
    """What the agent holds is not held beyond its end, nor are its signals taken for it."""
    privilege.end_with_parent()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(_PATIENCE_S)
    os.closerange(_STDERR + 1, out)
    os.closerange(out + 1, os.sysconf("SC_OPEN_MAX"))


@cache
def library() -> ctypes.CDLL:
    """Loaded once: by the zygote, so that all agents share it. Raises Refused where the device has none."""
    try:
        loaded = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise Refused(f"this device has no {_LIBRARY}: install nftables") from error
    loaded.nft_ctx_new.restype = ctypes.c_void_p
    loaded.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    return loaded


def _transacted(library: ctypes.CDLL, script: str, out: int) -> int:
    """The descriptor of the context's socket: the only one that is there beside `out`. The context ends with the process."""
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    library.nft_ctx_buffer_output(context)
    library.nft_ctx_buffer_error(context)
    if library.nft_run_cmd_from_buffer(context, script.encode("ascii")) != 0:
        raise Refused(library.nft_ctx_get_error_buffer(context).decode(errors="replace"))
    open_fds = {int(name) for name in os.listdir("/proc/self/fd")} - {out}
    return next(fd for fd in sorted(open_fds) if fd > _STDERR and os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"))
