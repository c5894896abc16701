"""Parts of a text by symbol or by lines, edits that must fit, the code in an answer."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from program_kit import run

from edvac.core.value import Failed, settle
from edvac.program.data import python

PYTHON = '''\
import os

LIMIT = 10


@cached
def first(
    a,
    b=1,
):
    """Add them."""
    return a + b


class Store:
    """Keeps things."""

    size: int = 0

    def add(self, thing):
        # one more
        def first():
            return 1

        return first()

    async def gone(self):
        pass


def last(): return 2
'''
SCRIPT = """\
export class Shop {
  constructor() {
    this.items = [];
  }

  static async load(path) {
    return path;
  }
}

const rate = {
  low: 1,
};

function sum(a, b) {
  return a + b;
}
"""


def made(expression: str, before: str = "") -> object:
    """What a program makes; a failure as it is."""
    evaluator, _ = run(f"{before}made = {expression}\n", lambda call, operands: "")
    found = settle(evaluator.bindings()["made"])
    return found if isinstance(found, Failed) else python(found)


def view(text: str, part: str) -> str:
    return str(made(f"text.view({text!r}, {part!r})"))


@pytest.mark.parametrize(
    ("part", "first", "last", "lines"),
    [
        ("first", "@cached", "    return a + b", 7),
        ("Store", "class Store:", "        pass", 14),
        ("Store.add", "    def add(self, thing):", "        return first()", 6),
        ("Store.gone", "    async def gone(self):", "        pass", 2),
        ("Store.size", "    size: int = 0", "    size: int = 0", 1),
        ("LIMIT", "LIMIT = 10", "LIMIT = 10", 1),
        ("last", "def last(): return 2", "def last(): return 2", 1),
        ("3-3", "LIMIT = 10", "LIMIT = 10", 1),
        ("31-900", "def last(): return 2", "def last(): return 2", 1),
    ],
)
def test_views_of_python(part: str, first: str, last: str, lines: int) -> None:
    found = view(PYTHON, part).split("\n")
    assert (found[0], found[-1], len(found)) == (first, last, lines)


def test_views_of_another_language() -> None:
    assert view(SCRIPT, "Shop").endswith("\n}") and view(SCRIPT, "Shop").count("\n") == 8
    assert view(SCRIPT, "rate") == "const rate = {\n  low: 1,\n};"
    assert view(SCRIPT, "sum").endswith("return a + b;\n}")
    assert view(SCRIPT, "outline") == "export class Shop {\nfunction sum(a, b) {"


def test_an_outline_has_signatures_and_what_they_say() -> None:
    assert view(PYTHON, "outline").split("\n") == [
        "def first( a, b=1, ):",
        '    """Add them."""',
        "class Store:",
        '    """Keeps things."""',
        "    def add(self, thing):",
        "        def first():",
        "    async def gone(self):",
        "def last(): return 2",
    ]


@pytest.mark.parametrize("part", ["nothing", "Store.nothing", "9-3", "0-3", "900-901"])
def test_what_is_not_there_says_so(part: str) -> None:
    found = made(f"text.view({PYTHON!r}, {part!r})")
    assert isinstance(found, Failed) and found.code == "value_unfit"
    assert ("first, Store" in found.what) == (part == "nothing")


@given(st.lists(st.sampled_from(["alpha", "beta", "gamma"]), unique=True, min_size=1))
def test_every_function_is_found_whole(names: list[str]) -> None:
    text = "\n\n".join(f"def {name}(x):\n    y = x\n\n    return y" for name in names)
    for name in names:
        assert (
            ast.unparse(ast.parse(view(text, name))) == f"def {name}(x):\n    y = x\n    return y"
        )


def patch(text: str, *edits: tuple[str, str]) -> object:
    record = "class Edit:\n    old: str\n    new: str\n"
    given = ", ".join(f"Edit({old!r}, {new!r})" for old, new in edits)
    return made(f"text.patch({text!r}, [{given}])", record)


def test_edits_are_made_in_order() -> None:
    assert patch("a b c", ("b", "x y"), ("x", "z")) == "a z y c"


@pytest.mark.parametrize(
    ("old", "says"), [("q", "does not occur"), ("a", "occurs 2 times"), ("", "does not occur")]
)
def test_an_edit_that_does_not_fit_is_refused(old: str, says: str) -> None:
    found = patch("a b a", (old, "x"))
    assert isinstance(found, Failed) and says in found.what


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("x = 1", "x = 1\n"),
        ("Here:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\na\n```\nand\n~~~js\nb\n~~~", "a\n\nb\n"),
        ("```python\nx = '```'\n```", "x = '```'\n"),
        ("```python\nx = 1\ny = 2", "x = 1\ny = 2\n"),
        ("````\n```\ninner\n```\n````", "```\ninner\n```\n"),
    ],
)
def test_the_code_in_an_answer(answer: str, code: str) -> None:
    assert made(f"text.fenced({answer!r})") == code
