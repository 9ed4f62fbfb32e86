"""Keeps what clients want: each write of a resource is one transaction with its claims and references.

Called by the servicers of the owning service, and by its loop to remove what every service has cleared. A write reads, decides
on what it read, and commits under compares that nothing of it changed; a conflict starts it over. So two racing creators never
both win, and a target never vanishes under one that refers to it. Nothing here touches the device.
"""

from crossns.registry import check
from crossns.registry.check import contention, not_found
from crossns.registry.options import Options, options_of
from crossns.registry.prepared import Prepared, commit
from crossns.registry.registry import ATTEMPTS, Registry

__all__ = ["ATTEMPTS", "Options", "Prepared", "Registry", "check", "commit", "contention", "not_found", "options_of"]
