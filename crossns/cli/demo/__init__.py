"""`crossns demo`: the sandbox, the example topology with real clients and backends, and the proof that it does what it says.

`stage` builds what stands around the device, `picture` draws what the API says, `proof` tries to find a fault. Everything is
done with commands that the reader can repeat, and printed.
"""

from crossns.cli.demo.command import demo

__all__ = ["demo"]
