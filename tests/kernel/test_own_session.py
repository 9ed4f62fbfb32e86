"""The operator's own session is cut by no command, whatever it is called, unless he says so."""

from pathlib import Path
from typing import Any

import pytest

from crossns.testing.device import Device, doc
from crossns.testing.lab import Cable, Lab
from tests.e2e.terminal import ENVIRON, crossns
from tests.kernel.things import TABLES, things, without_dad
from tests.kernel.view import do, link

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]
OWN = {**ENVIRON, "SSH_CONNECTION": "10.0.0.6 50000 10.0.0.1 22"}
OTHER = {**ENVIRON, "SSH_CONNECTION": "127.0.0.1 50000 127.0.0.1 22"}


async def is_refused(*words: str) -> bool:
    """By name, with the words that would allow it, and nothing has changed."""
    before = await things(*TABLES)
    said = crossns(*words, environ=OWN)
    assert "interfaces/a-lan carries the session" in said.stderr or "routeTables/a carries the session" in said.stderr, said
    assert await things(*TABLES) == before
    return said.returncode == 1 and "--cut-my-session" in said.stderr


async def test_no_command_cuts_ones_own_session_without_an_explicit_word(device: Device, lab: Lab, tmp_path: Path) -> None:
    await lab.host("h", Cable("card-a"), ["10.0.0.6/24"])
    await device.apply(doc("routeTables/a"), doc("routeTables/b"))
    await without_dad("a", "b")
    file = tmp_path / "card.json"

    def written(**other: Any) -> str:
        spec = {"physical": {"linkName": "card-a"}, "addresses": ["10.0.0.1/24"], "routeTable": "routeTables/a", **other}
        file.write_text(doc("interfaces/a-lan", linkName="lan", **spec))
        return str(file)

    # The card that he came in by is the device's own yet.
    await do("ip", "address", "add", "10.0.0.1/24", "dev", "card-a")
    for card in ({"linkName": "card-a"}, {"macAddress": await mac()}):
        assert await is_refused("apply", "-f", written(physical=card))
    assert crossns("apply", "-f", written(), "--cut-my-session", environ=OWN).returncode == 0
    for change in ({"routeTable": "routeTables/b"}, {"addresses": ["10.0.0.2/24"]}, {"enabled": False}):
        assert await is_refused("apply", "-f", written(**change))
    assert await is_refused("delete", "interfaces/a-lan")
    assert await is_refused("table", "delete", "a", "--evacuate")
    assert crossns("apply", "-f", written(mtu=1400), environ=OWN).returncode == 0
    assert crossns("apply", "-f", written(routeTable="routeTables/b"), environ=OTHER).returncode == 0
    assert crossns("delete", "interfaces/a-lan", "--cut-my-session", environ=OWN).returncode == 0
    assert await link("card-a") is not None


async def mac() -> str:
    found = await link("card-a")
    assert found is not None
    return str(found["address"])
