"""A filter of system calls for engines: HAProxy needs CAP_SYS_ADMIN to enter network namespaces, and gets nothing else for it.

Called by `confined` in the child that becomes the engine, which ends where the filter cannot be had. Whatever the child turns
into or starts keeps it. libseccomp knows the numbers of each machine; it is loaded in the child alone, so that the launcher
stays small.
"""

import ctypes
import errno
import os
import signal

from crossns.netns import CLONE_NEWNET

_LIBRARY = "libseccomp.so.2"
# seccomp.h: actions, attributes of a filter, comparisons of arguments.
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_ATTRIBUTE_BAD_ARCHITECTURE, _ATTRIBUTE_OPTIMIZE = 2, 8
_BINARY_TREE = 2
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
# linux/sched.h: CLONE_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET.
_NEW_NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_INT = 0xFFFFFFFF

_REFUSED = (
    # Mounts and roots: a way to whatever a file system shows.
    *("mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "mount_setattr"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "swapon", "swapoff", "quotactl", "quotactl_fd", "acct"),
    # Files behind the back of their permissions.
    *("open_by_handle_at", "fanotify_init"),
    # Other namespaces, other processes, the kernel itself.
    *("unshare", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"),
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "iopl", "ioperm"),
    *("add_key", "request_key", "keyctl", "syslog"),
    # What the whole machine goes by.
    *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname"),
)
# The calls from Linux 6.5 on, up to the last number that is not x32's: as in a kernel before them, so that none has to be known.
_YOUNGER = range(451, 512)


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`: for _MASKED_EQUAL `one` is the mask, `other` the value."""

    _fields_ = (("argument", ctypes.c_uint), ("how", ctypes.c_int), ("one", ctypes.c_uint64), ("other", ctypes.c_uint64))


class _Filter:
    """`seccomp_init(3)`; each call raises OSError where libseccomp refuses."""

    def __init__(self, action: int) -> None:
        self._library = ctypes.CDLL(_LIBRARY)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(action))

    def set(self, attribute: int, value: int) -> None:
        self._check("seccomp_attr_set", self._library.seccomp_attr_set(self._context, attribute, value))

    def add(self, action: int, call: str | int, *comparisons: _Comparison) -> None:
        """Where all comparisons hold. A call that this machine does not have needs no rule: its number is a negative one."""
        number = self._library.seccomp_syscall_resolve_name(call.encode()) if isinstance(call, str) else call
        array = (_Comparison * len(comparisons))(*comparisons)
        result = self._library.seccomp_rule_add_array(self._context, action, number, len(comparisons), array)
        self._check(f"the rule for {call}", result)

    def load(self) -> None:
        """In force from here on. Sets no-new-privileges too."""
        self._check("seccomp_load", self._library.seccomp_load(self._context))

    def _check(self, what: str, result: int) -> None:
        if result < 0:
            raise OSError(-result, f"seccomp: {what}: {os.strerror(-result)}")


def confine() -> None:
    """This process and all that it becomes or starts."""
    rules = _Filter(_ALLOW)
    # Numbers of another architecture, and of x32, mean other calls.
    rules.set(_ATTRIBUTE_BAD_ARCHITECTURE, _FAIL | errno.EPERM)
    rules.set(_ATTRIBUTE_OPTIMIZE, _BINARY_TREE)
    for name in _REFUSED:
        rules.add(_FAIL | errno.EPERM, name)
    # One type, and not 0, which stands for any.
    rules.add(_FAIL | errno.EPERM, "setns", _Comparison(1, _NOT_EQUAL, CLONE_NEWNET))
    for flag in _NEW_NAMESPACES:
        rules.add(_FAIL | errno.EPERM, "clone", _Comparison(0, _MASKED_EQUAL, flag, flag))
    # Its flags are in memory, where no filter sees them: without it libc uses clone.
    rules.add(_FAIL | errno.ENOSYS, "clone3")
    for number in _YOUNGER:
        rules.add(_FAIL | errno.ENOSYS, number)
    _refuse_pausing(rules)
    rules.load()


def _refuse_pausing(rules: _Filter) -> None:
    """When HAProxy cannot open a new listener in a reload, it tells the running worker to pause all of its own (SIGTTOU) and
    tries again for two seconds: one port that somebody holds would stop everybody's traffic. Where the signal cannot be sent
    it gives up at once, and the worker goes on as it was."""
    for call, argument in (("kill", 1), ("tkill", 1), ("tgkill", 2)):
        rules.add(_FAIL | errno.EPERM, call, _Comparison(argument, _MASKED_EQUAL, _INT, signal.SIGTTOU))
