"""Real networks and real traffic without touching the machine: the sandbox, the lab in it, clients and backends.

Called by `crossns up --sandbox`, `crossns demo`, the kernel and end-to-end tests and the benchmarks. Everything made here
lives in private namespaces and is gone when the outermost process is gone, however it went.
"""
