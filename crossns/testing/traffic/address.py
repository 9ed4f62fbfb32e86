"""`ADDRESS:PORT` as text and as a pair; IPv6 addresses stand in brackets (RFC 3986)."""

import argparse


def parse(text: str) -> tuple[str, int]:
    """(address, port); ArgumentTypeError for text without a port."""
    address, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not ADDRESS:PORT: write 192.0.2.1:80 or [2001:db8::1]:80")
    return address.strip("[]"), int(port)


def render(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
