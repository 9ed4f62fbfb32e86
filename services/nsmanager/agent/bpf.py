"""A filter in the kernel for the agent's netlink socket: of neighbours only those pass that are permanent or carry our mark.

Called by `events`. What the kernel learns and forgets by itself (an ARP scan is thousands of it) wakes nobody. Classic BPF
(Documentation/networking/filter) loads the first byte as the highest, so numbers of two bytes are compared in network order.
"""

import ctypes
import socket
import struct

from pyroute2.netlink.rtnl import RTM_DELNEIGH, RTM_NEWNEIGH
from pyroute2.netlink.rtnl.ndmsg import NUD_PERMANENT

from crossns import entry
from services.nsmanager.agent.entries import NDA_PROTOCOL

# asm-generic/socket.h; linux/filter.h and linux/bpf_common.h
_SO_ATTACH_FILTER = 26
_LD_HALF, _LD_BYTE, _LD_WORD, _LD_NUMBER = 0x28, 0x30, 0x20, 0x00
_LDX_NUMBER, _LD_BYTE_AT_X, _TAX = 0x01, 0x50, 0x07
_EQUALS, _HAS_BITS, _RETURN = 0x15, 0x45, 0x06
# Ancillary load: A becomes the offset of the attribute of type X, looked for from offset A on; 0 where there is none.
_NETLINK_ATTRIBUTE = (-0x1000 + 12) & 0xFFFFFFFF
# Offsets of struct nlmsghdr and, behind it, struct ndmsg (linux/netlink.h, linux/neighbour.h).
_TYPE, _FAMILY, _STATE, _ATTRIBUTES = 4, 16, 24, 28
_WHOLE = 0xFFFFFFFF
_INSTRUCTION = struct.Struct("HBBI")

# (code, jump if true, jump if false, number); jumps count from the next instruction.
_PROGRAM = (
    (_LD_HALF, 0, 0, _TYPE),
    (_EQUALS, 1, 0, socket.htons(RTM_NEWNEIGH)),
    (_EQUALS, 0, 13, socket.htons(RTM_DELNEIGH)),
    (_LD_BYTE, 0, 0, _FAMILY),
    # A bridge tells of its ports' addresses in the same words.
    (_EQUALS, 1, 0, socket.AF_INET),
    (_EQUALS, 0, 9, socket.AF_INET6),
    (_LD_HALF, 0, 0, _STATE),
    (_HAS_BITS, 8, 0, socket.htons(NUD_PERMANENT)),
    (_LD_NUMBER, 0, 0, _ATTRIBUTES),
    (_LDX_NUMBER, 0, 0, NDA_PROTOCOL),
    (_LD_WORD, 0, 0, _NETLINK_ATTRIBUTE),
    (_EQUALS, 3, 0, 0),
    (_TAX, 0, 0, 0),
    # Behind the attribute's own four bytes.
    (_LD_BYTE_AT_X, 0, 0, 4),
    (_EQUALS, 1, 0, entry.PROTOCOL),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _WHOLE),
)


def attach(listener: socket.socket) -> None:
    """From now on; what is in the socket's queue stays there."""
    program = b"".join(_INSTRUCTION.pack(*instruction) for instruction in _PROGRAM)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many, and where; the kernel copies them.
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_PROGRAM), ctypes.addressof(code)))
