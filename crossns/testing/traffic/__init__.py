"""Backends, clients and attempts: the programs that run in the lab's hosts and tell what really came through.

`python -m crossns.testing.traffic serve|load|reach ...`; everything is printed as JSON lines. Nothing here retries: what is
lost is counted as lost.
"""
