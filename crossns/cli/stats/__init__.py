"""`crossns stats`: what the kernel has counted in a route table, and how fast it grows.

`rate` makes rates of two looks, `screen` shows both as text, `live` does so on a terminal all the time, `command` is the command.
"""

from crossns.cli.stats.command import stats

__all__ = ["stats"]
