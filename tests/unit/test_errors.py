"""The error tree: every error has a canonical code, and a reason that the registry in the protos knows."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from crossns import errors
from crossns.v1 import errors_pb2

ROOT = Path(__file__).parents[2]


def _tree(kind: type[errors.CrossnsError]) -> Iterator[type[errors.CrossnsError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


ALL = sorted(set(_tree(errors.CrossnsError)), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_canonical_code(kind: type[errors.CrossnsError]) -> None:
    assert kind.code in grpc.StatusCode.__members__


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_in_the_tree_of_the_docstring(kind: type[errors.CrossnsError]) -> None:
    assert errors.__doc__ is not None
    assert re.search(rf"\b{kind.__name__}\b", errors.__doc__)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_belongs_to_one_group_of_those_who_must_act(kind: type[errors.CrossnsError]) -> None:
    groups = (errors.RequestError, errors.TemporaryError, errors.PermanentError, errors.InvariantError)
    assert kind is errors.CrossnsError or sum(issubclass(kind, group) for group in groups) == 1


def test_metadata_is_text_and_keeps_every_variable() -> None:
    error = errors.NotFound("NOT_FOUND", "no such table", name="routeTables/a", index=7)
    assert (error.reason, str(error), error.metadata) == ("NOT_FOUND", "no such table", {"name": "routeTables/a", "index": "7"})


def test_invalid_spec_says_which_field() -> None:
    error = errors.InvalidSpec("spec.mtu", "must be 68..65535", value=1)
    assert error.reason == "INVALID_FIELD"
    assert error.message == "spec.mtu: must be 68..65535"
    assert error.metadata == {"field": "spec.mtu", "value": "1"}


def test_our_bug_and_a_silent_store_have_reasons_of_their_own() -> None:
    assert errors.InvariantError("x").reason == "INTERNAL"
    assert errors.StoreUnavailable("x").reason == "STORE_UNAVAILABLE"


def test_foreign_text_is_one_bounded_line() -> None:
    assert errors.bounded("a\n  b\tc") == "a b c"
    assert errors.bounded("x" * errors.FOREIGN_TEXT_MAX) == "x" * errors.FOREIGN_TEXT_MAX
    cut = errors.bounded("x" * (errors.FOREIGN_TEXT_MAX + 1))
    assert len(cut) == errors.FOREIGN_TEXT_MAX
    assert cut.endswith("…")


def _reasons_in_the_code() -> Iterator[tuple[str, str]]:
    """(reason, where) of every UPPER_SNAKE word that is given as a reason: first to most errors, by keyword elsewhere."""
    names = {kind.__name__ for kind in ALL}
    for path in sorted(p for folder in ("crossns", "services", "gateway") for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[:1] if name in names and name != "InvalidSpec" else []
            keywords = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            for word in (*first, *keywords):
                if isinstance(word, ast.Constant) and re.fullmatch(r"[A-Z][A-Z_]+", str(word.value)):
                    yield str(word.value), f"{path.relative_to(ROOT)}:{node.lineno}"


def test_every_reason_in_the_code_stands_in_the_registry() -> None:
    registry = {name.removeprefix("REASON_") for name in errors_pb2.Reason.keys()}  # noqa: SIM118 - no dict: an enum's wrapper.
    found = list(_reasons_in_the_code())
    assert found
    assert [(reason, where) for reason, where in found if reason not in registry] == []
