"""The sysctls of a route table that services may set: closed lists, so that no other file below /proc/sys can be named.

Pure values, of the closed set that `operation` describes.
"""

from typing import Literal

from crossns.message import Message

Name = Literal[
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.ip_nonlocal_bind",
    "net.ipv6.ip_nonlocal_bind",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.arp_announce",
    "net.ipv4.conf.all.arp_filter",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.arp_ignore",
    "net.ipv4.conf.default.arp_announce",
    "net.ipv4.conf.default.arp_filter",
    "net.ipv4.conf.default.rp_filter",
]
# Of one link. The first four hold where `all` has no higher value: the kernel takes the higher one of both.
LinkName = Literal["arp_ignore", "arp_announce", "arp_filter", "rp_filter", "proxy_ndp"]


class SetSysctl(Message, frozen=True):
    """Set one of the table's own sysctls. -> None"""

    name: Name
    value: str


class SetLinkSysctl(Message, frozen=True):
    """Set a sysctl of one link of the table. -> None"""

    link: str
    name: LinkName
    value: str


Operation = SetSysctl | SetLinkSysctl
