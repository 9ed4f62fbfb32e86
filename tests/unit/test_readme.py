"""Every command of the README is run by a test, and every link of the documentation leads somewhere."""

import re
from pathlib import Path

import pytest

from tests import readme

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "services/**/README.md", "gateway/README.md", "examples/**/*.md", "deploy/**/*.md")
    for path in readme.ROOT.glob(pattern)
)

SAMPLE = """
```console
$ make demo
output
# .venv/bin/crossns table list   # all of them
$ .venv/bin/crossns apply \\
    -f examples/two-tenants.yaml
```
```sh
# a comment
curl http://127.0.0.1
```
```yaml
kind: RouteTable
```
"""


def test_commands_are_found_in_their_blocks() -> None:
    assert readme.commands(SAMPLE) == [
        "make demo",
        ".venv/bin/crossns table list",
        ".venv/bin/crossns apply -f examples/two-tenants.yaml",
        "curl http://127.0.0.1",
    ]


def test_command_that_no_test_runs_is_noticed() -> None:
    assert readme.uncovered(SAMPLE) == ["curl http://127.0.0.1"]


def test_every_command_of_the_readme_is_run_by_a_test() -> None:
    assert readme.uncovered(readme.README.read_text(encoding="utf-8")) == []


def test_the_two_commands_stand_in_the_readme() -> None:
    assert {"make demo", "make up"} <= set(readme.commands(readme.README.read_text(encoding="utf-8")))


@pytest.mark.parametrize("place", sorted(set(readme.ELSEWHERE.values())))
def test_place_where_a_command_is_tested_exists(place: str) -> None:
    file, _, test = place.partition("::")
    assert test in (readme.ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(readme.ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert broken == []
