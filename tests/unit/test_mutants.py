"""The mutants' table fits the tree: each mutation has its one place, and a test that exists."""

import re
from pathlib import Path

import pytest

from tools import mutants

TABLES = {path.stem: mutants.parse(path.read_text(encoding="utf-8")) for path in sorted(mutants.TABLES.glob("*.toml"))}


def _mutant(replace: str, by: str) -> mutants.Mutant:
    return mutants.Mutant("x.py", replace, by, "lint-imports")


def _complaint(mutant: mutants.Mutant) -> str:
    """Why the mutation does not fit the tree, "" where it does."""
    try:
        mutants.mutated((mutants.ROOT / mutant.file).read_text(encoding="utf-8"), mutant)
    except (ValueError, OSError) as error:
        return str(error)
    file, _, test = mutant.caught_by.partition("::")
    text = "lint-imports" if file == "lint-imports" else (mutants.ROOT / file).read_text(encoding="utf-8")
    is_there = not test or re.search(rf"def {test.split('[')[0]}\b", text)
    return "" if is_there else f"{mutant}: there is no test {mutant.caught_by}"


# A test for each of more than a thousand rows would cost more than looking at them.
@pytest.mark.parametrize("table", TABLES)
def test_each_mutation_has_its_one_place_in_the_tree_and_a_test_that_exists(table: str) -> None:
    assert not "\n".join(complaint for mutant in TABLES[table] if (complaint := _complaint(mutant)))


def test_mutation_that_does_not_fit_the_tree_is_told() -> None:
    here = "tests/unit/test_mutants.py"
    assert "is wanted" in _complaint(mutants.Mutant(here, "xx" + "yy", "", "lint-imports"))
    assert "no-such-file" in _complaint(mutants.Mutant("no-such-file", "a", "b", "lint-imports"))
    assert "no test" in _complaint(mutants.Mutant(here, "def _" + "complaint(", "", f"{here}::test_nowhere"))


def test_mutation_replaces_its_text() -> None:
    assert mutants.mutated("a < b", _mutant("<", "<=")) == "a <= b"


@pytest.mark.parametrize(("text", "replace", "by"), [("a", "x", "y"), ("a a", "a", "b"), ("a", "a", "a")])
def test_mutation_that_is_none_or_not_clear_is_refused(text: str, replace: str, by: str) -> None:
    with pytest.raises(ValueError, match="once is wanted"):
        mutants.mutated(text, _mutant(replace, by))


def test_row_with_a_field_that_nobody_knows_is_refused() -> None:
    with pytest.raises(TypeError):
        mutants.parse('[[mutant]]\nfile = "x"\nreplace = "a"\nby = "b"\ncaught_by = "t"\nwhy = "?"\n')


def test_tables_are_where_the_runner_looks() -> None:
    assert all(TABLES.values())
    assert Path("tests/mutants/ground.toml") in [path.relative_to(mutants.ROOT) for path in mutants.TABLES.glob("*.toml")]
