"""What every crossns service stands on; it knows no service."""

import os

# As pyproject.toml has it.
VERSION = "0.1.0"

# Read by gRPC once, when it is first imported, which is always behind this package. What it has to say comes back as a status;
# its own lines on stderr would stand between the JSON of a service and before the eyes of whoever uses the command line.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# It is on by mistake in some releases, costs threads, and no process of ours forks once it has imported gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
