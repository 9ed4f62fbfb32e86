"""`python -m services.nsmanager.agent FD`: the zygote; FD is its end of the launcher's socket pair.

Started by the launcher alone.
"""

import os
import socket
import sys

from crossns import settings, telemetry
from services.nsmanager.agent import zygote

if __name__ == "__main__":
    configured = settings.from_environ(os.environ)
    telemetry.setup_logging("agent", configured.log_level)
    zygote.run(socket.socket(fileno=int(sys.argv[1])), configured.layout)
