"""A socket that listens in a route table, made there by its agent for a process that may not enter it.

Pure values, of the closed set that `operation` describes.
"""

from crossns.message import Message


class OpenListener(Message, frozen=True):
    """Make a TCP socket that listens at an address of the namespace, or at all of them (`0.0.0.0`, `::`), under the fsuid of
    `owner_uid`; port 0 lets the kernel choose. Refused where no link has the address. -> None, with the file descriptor beside
    the reply"""

    address: str
    port: int
    owner_uid: int = 0
