"""`python -m services.nsmanager.launcher`: the privileged process; with `--down`, the end of everything that it made.

Configured by the CROSSNS_* variables alone. SIGTERM ends the process and leaves the data plane.
"""

import argparse
import os
import sys

from crossns import errors, settings, telemetry
from services.nsmanager.launcher.app import Launcher


def main() -> int:
    parser = argparse.ArgumentParser(prog="crossns-launcher", description=__doc__)
    parser.add_argument("--down", action="store_true", help="end agents and engines, remove namespaces, give network cards back")
    arguments = parser.parse_args()
    try:
        configured = settings.from_environ(os.environ)
        telemetry.setup_logging("launcher", configured.log_level)
        if os.geteuid() != 0:
            raise errors.PermissionDenied("PERMISSION_DENIED", "the launcher makes namespaces: run it as root")
        if arguments.down:
            # It needs rtnetlink, which this program never loads.
            argv = [sys.executable, "-m", "services.nsmanager.agent.teardown"]
            os.execv(sys.executable, argv)
        Launcher(configured.layout).run()
    except errors.CrossnsError as error:
        print(f"crossns-launcher: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
