"""What runs inside a route table: one small process per namespace that observes it, changes it and makes sockets in it.

Forked by the zygote (`python -m services.nsmanager.agent`) at the launcher's request. It takes the closed set of operations
of `crossns.operation` and touches only what carries our mark.
"""

from services.nsmanager.agent import lean

__all__ = ["lean"]
