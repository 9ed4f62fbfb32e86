"""Sockets that listen in the namespace for somebody who may not enter it.

Called by the agent's `operations`. A table lets sockets bind to addresses that it does not have (`ip_nonlocal_bind`, for the
proxy's sake): whether the address is there is looked at here, so that nobody believes he can be reached.
"""

import errno
import ipaddress
import os
import socket

from crossns import errors
from crossns.listener import OpenListener
from services.nsmanager.agent import observe, privilege
from services.nsmanager.agent.rtnl import Rtnl

_BACKLOG = 128
_WORDS = {
    errno.EADDRNOTAVAIL: "no link of the table has the address",
    errno.EADDRINUSE: "something else listens there",
    errno.EACCES: "ports below 1024 are not given away",
}


def opened(rtnl: Rtnl, wanted: OpenListener) -> socket.socket:
    """Raises PermanentError KERNEL_REFUSED, which says what is in the way."""
    family = socket.AF_INET6 if ":" in wanted.address else socket.AF_INET
    with privilege.acting_as(wanted.owner_uid):
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _listen(rtnl, made, wanted)
    except OSError as error:
        made.close()
        code = error.errno or 0
        message = f"cannot listen on {wanted.address} port {wanted.port}: {_WORDS.get(code, os.strerror(code))}"
        raise errors.PermanentError("KERNEL_REFUSED", message, address=wanted.address, port=wanted.port) from error
    return made


def _listen(rtnl: Rtnl, made: socket.socket, wanted: OpenListener) -> None:
    if not _is_there(rtnl, ipaddress.ip_address(wanted.address)):
        raise OSError(errno.EADDRNOTAVAIL, "")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((wanted.address, wanted.port))
    made.listen(_BACKLOG)


def _is_there(rtnl: Rtnl, host: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if host.is_unspecified:
        return True
    by_index = {link.index: link.name for link in observe.links(rtnl)}
    return any(_holds(found.link, ipaddress.ip_interface(found.prefix), host) for found in observe.addresses(rtnl, by_index))


def _holds(
    link: str,
    interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface,
    host: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> bool:
    """All that is within an IPv4 prefix of `lo` is local (fib_add_ifaddr in net/ipv4/fib_frontend.c)."""
    return interface.ip == host or (link == "lo" and interface.version == 4 and host in interface.network)
