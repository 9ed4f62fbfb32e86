"""The mutants' table fits the tree: each mutation has its one place, and a test that exists."""

import re
from pathlib import Path

import pytest

from tools import mutants

MUTANTS = [mutant for path in sorted(mutants.TABLES.glob("*.toml")) for mutant in mutants.parse(path.read_text(encoding="utf-8"))]


def _mutant(replace: str, by: str) -> mutants.Mutant:
    return mutants.Mutant("x.py", replace, by, "lint-imports")


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutation_has_its_one_place_in_the_tree(mutant: mutants.Mutant) -> None:
    mutants.mutated((mutants.ROOT / mutant.file).read_text(encoding="utf-8"), mutant)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutation_names_a_test_that_exists(mutant: mutants.Mutant) -> None:
    file, _, test = mutant.caught_by.partition("::")
    text = "lint-imports" if file == "lint-imports" else (mutants.ROOT / file).read_text(encoding="utf-8")
    assert not test or re.search(rf"def {test.split('[')[0]}\b", text)


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
    assert MUTANTS
    assert Path("tests/mutants/ground.toml") in [path.relative_to(mutants.ROOT) for path in mutants.TABLES.glob("*.toml")]
