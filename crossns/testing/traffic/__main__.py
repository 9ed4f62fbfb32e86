"""The command line of the lab's programs; run in a host's namespace by `lab.Host`."""

import argparse
import json
import sys

import uvloop

from crossns.testing.traffic import backend, load, reach


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m crossns.testing.traffic", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="an HTTP/1.1 backend that answers who it is and whom it sees")
    serve.add_argument("--listen", action="append", required=True, metavar="ADDRESS:PORT", help="may be given several times")
    serve.add_argument("--name", required=True, help="what it calls itself")
    serve.add_argument("--table", default="", help="the route table it stands behind")
    serve.add_argument(
        "--proxy-protocol", action="store_true", help="expect a PROXY header on each connection; it tells who the client is"
    )
    client = commands.add_parser("load", help="a client that counts what it gets; prints one JSON object at its end")
    client.add_argument("--target", required=True, metavar="ADDRESS:PORT")
    client.add_argument("--connections", type=int, default=1, help="kept open, a request after the other on each")
    client.add_argument("--rate", type=float, default=0, help="requests per second on all of them; 0 is as fast as they go")
    client.add_argument("--rate-new", type=float, default=0, help="further requests per second, each on a connection of its own")
    client.add_argument("--requests", type=int, default=0, help="end after this many; 0 is no limit")
    client.add_argument("--seconds", type=float, default=10, help="end after this time, or on SIGTERM")
    client.add_argument("--timeout", type=float, default=5, help="seconds after which a request has failed")
    attempt = commands.add_parser("reach", help="try once to reach each target, all at once; exit status 0 when all answered")
    attempt.add_argument(
        "targets", nargs="+", metavar="ADDRESS[:PORT]", help="with a port a TCP connection, without one an ICMP echo"
    )
    attempt.add_argument("--timeout", type=float, default=1, help="seconds")
    return parser


async def _run(options: argparse.Namespace) -> int:
    if options.command == "serve":
        await backend.serve(options.listen, backend.Identity(options.name, options.table, options.proxy_protocol))
        return 0
    if options.command == "load":
        plan = load.Plan(
            target=options.target,
            connections=options.connections,
            rate=options.rate,
            rate_new=options.rate_new,
            requests=options.requests,
            seconds=options.seconds,
            timeout_s=options.timeout,
        )
        print(json.dumps(await load.run(plan)), flush=True)
        return 0
    outcomes = await reach.attempt_all(options.targets, options.timeout)
    for outcome in outcomes:
        print(json.dumps(outcome.as_json()), flush=True)
    return 0 if all(outcome.reached for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(uvloop.run(_run(_parser().parse_args())))
