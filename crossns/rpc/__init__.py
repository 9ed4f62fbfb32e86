"""gRPC for every service and client: servers with trace, caller, policy, deadlines and errors of the tree; channels; the mapping.

Knows no service. Above it nobody handles grpc's own exceptions.
"""

from crossns.rpc.client import Tls, channel
from crossns.rpc.guard import Context
from crossns.rpc.identity import ANONYMOUS, Identity, caller
from crossns.rpc.policy import Policy, by_role
from crossns.rpc.server import Server, Service
from crossns.rpc.socketfile import SocketFile
from crossns.rpc.status import error_of, read, status_of, translated

__all__ = [
    "ANONYMOUS",
    "Context",
    "Identity",
    "Policy",
    "Server",
    "Service",
    "SocketFile",
    "Tls",
    "by_role",
    "caller",
    "channel",
    "error_of",
    "read",
    "status_of",
    "translated",
]
