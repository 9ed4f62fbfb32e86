"""The base of everything that goes between services and the privileged tree.

Pure. The messages themselves stand in `operation`, `entry` and `sysctl`.
"""

import msgspec


class Message(msgspec.Struct, frozen=True, tag=True, kw_only=True, omit_defaults=True):
    """Base of everything on the wire: a frozen value that knows its own tag."""
