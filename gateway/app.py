"""The gateway, wired: one private server per identity, the relay that leads clients there, TLS beyond loopback."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from crossns import cache, names, rpc, settings, store
from crossns.etcd.client import EtcdStore
from crossns.rpc import identity
from gateway import auth, relay, router
from gateway.settings import Settings

# Running calls may take this long to end before they are cancelled. Watches never end by themselves.
STOP_GRACE_S = 1.0
# gRPC service -> the process that owns its resources.
FORWARDED = {
    "crossns.v1.RouteTables": "nsmanager",
    "crossns.v1.Interfaces": "nsmanager",
    "crossns.v1.Routes": "nsmanager",
    "crossns.v1.VServices": "proxy",
}

_log = logging.getLogger(__name__)
