"""The size check can fail, at the very line where it should begin to."""

from pathlib import Path

import pytest

from tools import sizes

HERE = Path("crossns/x.py")


def _module(body: str) -> str:
    return f'"""Why."""\n{body}'


def _function(lines: int) -> str:
    return "def long() -> None:\n" + "    pass\n" * (lines - 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        _module(""),
        _module("\n" * (sizes.MODULE_LINES - 1)),
        _module(_function(sizes.FUNCTION_LINES)),
        _module("class A:\n    def f(self, a, b, c, d, *e, f): pass\n    @classmethod\n    def g(cls, a, b, c, d, e, f): pass\n"),
    ],
    ids=["empty", "short", "as many lines as may be", "as long a function as may be", "as many parameters as may be"],
)
def test_what_is_within_bounds_is_not_complained_of(text: str) -> None:
    assert list(sizes.complaints(HERE, text)) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1\n", "no docstring"),
        (_module("\n" * sizes.MODULE_LINES), "401 lines"),
        (_module(_function(sizes.FUNCTION_LINES + 1)), "long has 51 lines"),
        (_module("class A:\n    async def f(self, a, b, c, d, *e, f, **g): pass\n"), "f has 7 parameters"),
        (_module("def f(a, /, b, c, d, e, f, g): pass\n"), "f has 7 parameters"),
    ],
)
def test_what_outgrows_them_is(text: str, complaint: str) -> None:
    (found,) = sizes.complaints(HERE, text)
    assert complaint in found


def test_tree_is_judged_by_its_median_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "crossns").mkdir()
    (tmp_path / "crossns/x.py").write_text(_module(_function(sizes.MEDIAN_FUNCTION_LINES)))
    assert sizes.main(tmp_path) == 0
    (tmp_path / "crossns/x.py").write_text(_module(_function(sizes.MEDIAN_FUNCTION_LINES + 1)))
    assert sizes.main(tmp_path) == 1
    assert "the median function has 11 lines" in capsys.readouterr().out
