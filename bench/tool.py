"""The load generators of others, as a host of the lab runs them: wrk for HTTP, iperf3 for a byte stream.

Called by `bench.vservice`. A run in which a single request failed is no measurement: it raises.
"""

import asyncio
import json
import re
from dataclasses import dataclass

from crossns import errors
from crossns.testing.lab import Host

CONNECTIONS = 32
SECONDS = 1
_RATE = re.compile(r"^Requests/sec:\s+([0-9.]+)$", re.MULTILINE)
_P99 = re.compile(r"^\s+99%\s+([0-9.]+)(us|ms|s)$", re.MULTILINE)
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
# wrk says nothing about what went well.
_FAILURE = re.compile(r"^\s*((?:Socket errors|Non-2xx).*)$", re.MULTILINE)
# A server that has just ended a test refuses the next one for a moment: nothing of that was measured yet.
_BUSY_S, _BUSY_TRIES = 0.05, 100


@dataclass(frozen=True, slots=True)
class Http:
    """Requests per second, and the time within which 99 of 100 were answered."""

    rate: float
    p99_ms: float


async def http(client: Host, target: str, *, is_kept: bool) -> Http:
    """One thread with CONNECTIONS, as fast as they go; unless `is_kept`, each request on a new connection."""
    header = [] if is_kept else ["--header", "Connection: close"]
    how = ["--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{SECONDS}s", "--latency"]
    return parse_http((await client.run(["wrk", *how, *header, f"http://{target}/"])).check().stdout)


def parse_http(text: str) -> Http:
    """What wrk prints; PermanentError where anything failed."""
    rate, p99, failure = _RATE.search(text), _P99.search(text), _FAILURE.search(text)
    if failure or not rate or not p99:
        raise errors.PermanentError("INTERNAL", f"wrk: {failure[1] if failure else errors.bounded(text)}")
    return Http(float(rate[1]), float(p99[1]) * _MS[p99[2]])


async def stream(client: Host, target: str) -> float:
    """Gbit per second that arrive at the client on one connection."""
    address, _, port = target.rpartition(":")
    argv = ["iperf3", "--client", address, "--port", port, "--time", str(SECONDS), "--reverse", "--json"]
    for _ in range(_BUSY_TRIES):
        told = json.loads((await client.run(argv)).stdout)
        if "error" not in told or told["intervals"]:
            break
        await asyncio.sleep(_BUSY_S)
    if "error" in told:
        raise errors.PermanentError("INTERNAL", f"iperf3: {errors.bounded(told['error'])}")
    return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9
