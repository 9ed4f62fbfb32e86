"""The command line, `crossns`: people and scripts use the device through it.

All but `up`, `down`, `demo` and `exec` talk to the gateway only, by the same API that everybody has. Exit status: 0 done,
1 failed, 2 wrong usage, 3 time is up, 130 interrupted. Nothing heavy is imported before the command that needs it is known.
"""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The console script."""
    from crossns.cli import root  # noqa: PLC0415 - whoever imports the package to look at it does not need click

    sys.exit(root.run(sys.argv[1:]))
