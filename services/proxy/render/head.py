"""The top of HAProxy's configuration: what holds for all vServices, and what each protocol begins with.

Called by `config`.
"""

from collections.abc import Mapping

from services.proxy import access, model

# Files that a HAProxy process needs beside connections and listeners: control sockets, polls, what the old worker hands over.
_FILES_RESERVED = 256
# Where the limit of files is none in effect: HAProxy allocates tables for all connections that it may have.
_CONNECTIONS_MAX = 50_000

# A worker that is told to stop closes its namespaces at the end of this time (HAProxy 2.6 to 3.4, namespace.c), and could not
# connect to members any more. The driver ends it long before: as soon as it has no connection left.
_GRACE = "24h"

LOG_FORMATS: Mapping[model.Protocol, str] = {"tcp": access.TCP_FORMAT, "http": access.HTTP_FORMAT}

_TEXT = """\
# Made by crossns from its vServices; what is changed here is overwritten.
global
    description {structure}
    maxconn {connections}
    grace {grace}
    # A quarter more throughput than with the usual 16 KiB; only a busy connection holds buffers.
    tune.bufsize 65536
    # For a person who wants to look; with it the file is valid even while no frontend can be in it.
    stats socket {directory}/stats.sock mode 660 level user
    # HAProxy has an HTTP client of its own, which nobody here uses, and would read all certificates of the device for it at each
    # start and reload: three times what a small file takes.
    httpclient.ssl.verify none
    log {directory}/log.sock len {line_bytes} format raw local0 info

defaults tcp
    mode tcp
    # Where a frontend has no limit of its own: whoever takes all that he can get leaves as much to the others.
    maxconn {share}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout client-fin 30s
    timeout server-fin 30s
    # A peer that is gone without a word is noticed by the kernel.
    option clitcpka
    option srvtcpka
    # A member that refuses costs a client nothing: the next one has its turn at once.
    retries 3
    option redispatch 1
    # Shows each listener by itself, with its namespace for a name.
    option socket-stats
    # Counts the bytes of a connection while it lasts.
    option contstats

defaults http
    mode http
    maxconn {share}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-request 10s
    timeout http-keep-alive 60s
    option clitcpka
    option srvtcpka
    retries 3
    option redispatch 1
    option socket-stats
    option contstats
    # A worker that ends answers once more on each kept connection, and says that it was the last time.
    option idle-close-on-response
"""


def render(connections: int, directory: str, structure: str) -> str:
    """`directory` is where the sockets are; `structure` the digest by which the running text is known."""
    return _TEXT.rstrip().format(
        connections=connections,
        share=max(connections // 2, 1),
        grace=_GRACE,
        directory=directory,
        structure=structure,
        line_bytes=access.LINE_MAX_BYTES,
    )


def max_listeners(open_files: int) -> int:
    """Half of the files, so that the other half is always there for connections."""
    return max((open_files - _FILES_RESERVED) // 2, 0)


def max_connections(open_files: int, listeners: int) -> int:
    """A connection takes two files, a listener one. HAProxy does not start with more than its limit of files lets it have."""
    return min(max((open_files - _FILES_RESERVED - listeners) // 2, 1), _CONNECTIONS_MAX)
