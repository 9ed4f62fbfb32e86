"""TAP devices: the kernel makes them by an ioctl on /dev/net/tun (Documentation/networking/tuntap.rst), not by rtnetlink."""

import fcntl
import os
import struct

from services.nsmanager.agent.rtnl import Refused

_DEVICE = "/dev/net/tun"
# linux/if_tun.h
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TAP, _IFF_NO_PI, _IFF_TUN_EXCL = 0x0002, 0x1000, 0x8000


def create(name: str, owner_uid: int) -> None:
    """A TAP in the calling thread's namespace that stays; until the last step it ends with this call. 0: only root opens it."""
    try:
        fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_TUN_EXCL))
            if owner_uid:
                fcntl.ioctl(fd, _TUNSETOWNER, owner_uid)
            fcntl.ioctl(fd, _TUNSETPERSIST, 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise Refused(error.errno or 0, str(error)) from error
