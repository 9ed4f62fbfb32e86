"""What a process can still do that the launcher confined as it confines HAProxy: enter network namespaces, and ordinary work."""

import json
import platform
import sys

import pytest

from crossns import proc
from tests.kernel.privileged import LAYOUT, Tree, running_for_a_module, tree

__all__ = ["running_for_a_module", "tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

REFUSED = (
    *("mount", "umount2", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "pivot_root"),
    *("chroot", "unshare", "bpf", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kexec_load"),
    *("kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "swapon", "swapoff", "open_by_handle_at"),
    *("perf_event_open", "keyctl", "add_key", "request_key", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("userfaultfd", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname", "quotactl"),
    *("quotactl_fd", "acct", "fanotify_init", "syslog"),
)
X86_ONLY = ("iopl", "ioperm")
# Starts it exactly as the launcher starts HAProxy.
_START = """
import os, sys
from crossns.layout import Layout
from services.nsmanager.launcher import confined
program = confined.Program(["/usr/bin/python3", "-c", *sys.argv[2:]], int(sys.argv[1]), output=1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(confined.start(program, Layout()), 0)[1]))
"""
# Prints {what was tried: name of the error, "" where it went well}. Arguments of -1 harm nobody where nothing refuses the call.
_TRY = """
import ctypes, errno, json, mmap, os, signal, socket, subprocess, sys, threading
libc, seccomp = ctypes.CDLL(None, use_errno=True), ctypes.CDLL("libseccomp.so.2")
libc.syscall.restype = ctypes.c_long
number = lambda name: seccomp.seccomp_syscall_resolve_name(name.encode())
named = lambda code: errno.errorcode[code] if code else ""

def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments))
    if result == 0 and number == seccomp.seccomp_syscall_resolve_name(b"clone"):
        os._exit(0)
    return named(ctypes.get_errno() if result < 0 else 0)

tried = {name: call(number(name), *[-1] * 6) for name in json.loads(sys.argv[1])}
net, mounts, types = os.open("/proc/self/ns/net", 0), os.open("/proc/self/ns/mnt", 0), (0, 0x20000, 0x40020000, 0x140000000)
tried |= {f"setns {kind:#x}": call(number("setns"), mounts if kind == 0x20000 else net, kind) for kind in types}
tried["enter"] = call(number("setns"), net, 0x40000000)
flags = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
tried |= {f"clone {flag:#x}": call(number("clone"), flag | signal.SIGCHLD, 0, 0, 0, 0) for flag in flags}
tried |= {"clone3": call(number("clone3"), -1, -1), "open_tree_attr": call(467, *[-1] * 5), "highest": call(511)}
me, signals = os.getpid(), (signal.SIGTTOU, 1 << 32 | signal.SIGTTOU)
tried |= {f"kill {each:#x}": call(number("kill"), me, each) for each in signals}
tried |= {"tkill": call(number("tkill"), me, signal.SIGTTOU), "tgkill": call(number("tgkill"), me, me, signal.SIGTTOU)}
tried["signal"] = call(number("kill"), me, signal.SIGURG)
if os.uname().machine == "x86_64":
    tried["x32"] = call(0x40000000 | number("getpid"))
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # mov eax, 20 (getpid of i386); int 0x80; ret
    code.write(bytes.fromhex("b814000000cd80c3"))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    tried["i386"] = named(-function())
thread = threading.Thread(target=lambda: socket.create_server(("", 0)).close())
thread.start()
thread.join()
tried["work"] = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
print(json.dumps(tried))
"""


async def attempts() -> dict[str, str]:
    """What came of each attempt; `work` is the status of a child's child."""
    names = [*REFUSED, *(X86_ONLY if platform.machine() == "x86_64" else ())]
    uid = str(LAYOUT.uid("haproxy"))
    done = await proc.run([sys.executable, "-c", _START, uid, _TRY, json.dumps(names)])
    assert done.status == 0, done.stdout + done.stderr
    tried = json.loads(done.stdout)
    assert isinstance(tried, dict)
    return tried


async def test_what_an_engine_has_sys_admin_for_is_entering_network_namespaces_and_nothing_else(tree: Tree) -> None:
    tried = await attempts()
    assert "Seccomp:\t2\n" in tried.pop("work")
    assert [tried.pop(name) for name in ("enter", "signal")] == ["", ""]
    # What a filter cannot look into, and what came later than the filter, is not there.
    assert {tried.pop(name) for name in ("clone3", "open_tree_attr", "highest")} == {"ENOSYS"}
    assert {name: error for name, error in tried.items() if error != "EPERM"} == {}
    assert tried.keys() >= {*REFUSED, "setns 0x0", "setns 0x20000", "clone 0x10000000", "tgkill"}
