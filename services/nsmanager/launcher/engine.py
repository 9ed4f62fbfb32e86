"""One engine: its configuration checked before it counts, its process started, reloaded, watched and started again.

Called by the launcher. The invariant: the file beside the engine's directory is the last configuration that the engine
accepted, and while that file is there the engine runs; a refused one never touches it.
"""

import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from crossns import errors, operation, pidfd
from crossns.layout import Layout
from services.nsmanager.launcher import directive, exec, records, watch
from services.nsmanager.launcher.loop import Reactor, Timer

# A check that takes longer hangs: 5,000 vServices need less than a second.
_CHECK_MAX_S = 20.0
_log = logging.getLogger(__name__)

Done = Callable[[operation.Engine | errors.CrossnsError], None]
