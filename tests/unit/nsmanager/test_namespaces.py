"""What the launcher looks at to find a namespace of its own: that one, however many there are."""

from pathlib import Path

import pytest

from crossns import netns
from crossns.layout import Layout
from services.nsmanager.launcher.namespace import Incarnation, Namespaces

TABLES = 50


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The mounts that are looked at, in order. Without privileges a file stands for each."""
    seen: list[Path] = []

    def is_namespace(path: Path) -> bool:
        seen.append(path)
        return path.exists()

    monkeypatch.setattr(netns, "is_namespace", is_namespace)
    return seen


@pytest.fixture
def namespaces(tmp_path: Path, looked_at: list[Path]) -> Namespaces:
    layout = Layout(run=tmp_path, netns=tmp_path / "names")
    layout.launcher_dir.mkdir()
    layout.incarnations.mkdir()
    for number in range(TABLES):
        (layout.incarnations / f"t{number}.{number + 1}").touch()
    (layout.incarnations / "default.99").touch()
    found = Namespaces(layout)
    found.recover()
    looked_at.clear()
    return found


def test_one_table_is_found_without_a_look_at_the_others(namespaces: Namespaces, looked_at: list[Path], tmp_path: Path) -> None:
    path = Layout(run=tmp_path).incarnations / "t7.8"
    assert namespaces.find("t7") == Incarnation("t7", 8, path)
    assert looked_at == [path]
    assert namespaces.find("none") is None
    assert looked_at == [path]


def test_all_are_those_that_were_made_by_table(namespaces: Namespaces, looked_at: list[Path]) -> None:
    assert [found.table for found in namespaces.all()] == sorted(f"t{number}" for number in range(TABLES))
    assert len(looked_at) == TABLES


def test_mount_that_somebody_took_off_is_no_namespace_any_more(namespaces: Namespaces, tmp_path: Path) -> None:
    (Layout(run=tmp_path).incarnations / "t7.8").unlink()
    assert namespaces.find("t7") is None
    assert len(namespaces.all()) == TABLES - 1
