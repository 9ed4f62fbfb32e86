"""What import-linter cannot see: what a process has really loaded once all of its code is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOAD_ALL = """
import importlib, pkgutil, sys
for package in sys.argv[1].split(","):
    for found in pkgutil.walk_packages([package.replace(".", "/")], f"{package}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def _loaded(packages: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", LOAD_ALL, packages], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("packages", "unwanted"),
    [
        ("services.nsmanager.launcher", {"asyncio", "grpc", "google", "pyroute2", "aetcd", "opentelemetry", "ssl"}),
        # What the zygote has loaded costs memory in each of its children.
        ("services.nsmanager.agent", {"asyncio", "grpc", "google", "aetcd", "opentelemetry", "sqlite3", "ssl", "subprocess"}),
        # It starts processes, and a process that has loaded gRPC must not fork.
        ("crossns.supervisor", {"grpc", "aetcd", "opentelemetry"}),
    ],
)
def test_process_loads_nothing_that_it_must_not(packages: str, unwanted: set[str]) -> None:
    assert _loaded(packages) & unwanted == set()


def test_the_probe_sees_what_is_loaded() -> None:
    assert "grpc" in _loaded("crossns.rpc")
