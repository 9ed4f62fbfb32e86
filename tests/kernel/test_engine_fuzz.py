"""Whatever a client sends, HAProxy takes the very file that is written for it: with the namespaces in it, which are made here."""

import contextlib
import subprocess
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossns.v1 import v_service_pb2
from tests.unit.proxy import fuzz

pytestmark = [pytest.mark.kernel, pytest.mark.needs("haproxy")]

# Where HAProxy looks for them: that is compiled in.
NAMESPACES = Path("/run/netns")


@contextlib.contextmanager
def namespaces() -> Iterator[Callable[[Collection[str]], None]]:
    """Yields what makes those that are not there yet."""
    made: set[str] = set()

    def make(names: Collection[str]) -> None:
        for name in sorted(set(names) - made):
            (NAMESPACES / name).touch()
            made.add(name)
            subprocess.run(["unshare", f"--net={NAMESPACES / name}", "true"], check=True)

    NAMESPACES.mkdir(exist_ok=True)
    try:
        yield make
    finally:
        for name in made:
            subprocess.run(["umount", str(NAMESPACES / name)], check=True)
            (NAMESPACES / name).unlink()


def test_the_real_haproxy_takes_the_very_file_of_what_the_model_takes(tmp_path: Path, count: Callable[[int, int], int]) -> None:
    path = tmp_path / "haproxy.cfg"
    with namespaces() as make:

        @settings(max_examples=count(100, 1000))
        @given(several=st.lists(fuzz.messages(), min_size=10, max_size=10))
        def takes(several: list[v_service_pb2.VService]) -> None:
            services = fuzz.taken(several)
            make(fuzz.tables_of(*services).values())
            path.write_text(fuzz.rendered(*services), encoding="ascii")
            fuzz.check(path)

        takes()
