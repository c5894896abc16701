"""The error tree is the one that its module draws; an error is whole wherever it arrives."""

from __future__ import annotations

import ast
import copy
import importlib.util
import pickle
import re
import sys
from pathlib import Path

import pytest
from core_kit import texts
from hypothesis import given
from hypothesis import strategies as st

from edvac.core import errors
from edvac.core.errors import EdvacError

ROOT = Path(__file__).parents[2]
CLASSES: list[type[EdvacError]] = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, EdvacError)
]


def drawn() -> dict[str, tuple[str, int | None]]:
    """Class -> its parent and the exit code beside it, as the docstring has them."""
    tree: dict[str, tuple[str, int | None]] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^( +)(\w+)(?:  .*?)?(?: exit (\d+))?$", line)
        if found is None or found[2] not in vars(errors):
            continue
        depth = len(found[1])
        above = [one for one in above if one[0] < depth]
        tree[found[2]] = (above[-1][1] if above else "Exception", found[3] and int(found[3]))
        above.append((depth, found[2]))
    return tree


def test_the_tree_is_as_it_is_drawn() -> None:
    tree = drawn()
    assert {kind.__name__: kind.__base__.__name__ for kind in CLASSES} == {  # type: ignore[union-attr]
        name: parent for name, (parent, _) in tree.items()
    }

    def code(name: str) -> int:
        parent, found = tree[name]
        return found if found is not None else code(parent) if parent in tree else 1

    assert {kind.__name__: kind.exit_code for kind in CLASSES} == {n: code(n) for n in tree}


def test_only_what_is_transient_is_tried_again() -> None:
    again = {kind for kind in CLASSES if kind.retryable}
    assert again == {kind for kind in CLASSES if kind.exit_code == errors.EXIT_TRANSIENT}
    assert errors.ProcessorError in again and errors.StepError not in again


def codes() -> dict[str, tuple[str, str]]:
    """Every code with its class, as the documentation's generator finds them in the source."""
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found: dict[str, tuple[str, str]] = module.error_codes()
    return found


def raised() -> list[tuple[str, str, str]]:
    """Place, class and code of every error that is made with its code written out."""
    names = {kind.__name__ for kind in CLASSES}
    made = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            first = node.args[0] if node.args else None
            if node.func.id in names and isinstance(first, ast.Constant):
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                made.append((place, node.func.id, str(first.value)))
    return made


def test_a_code_names_one_case_of_one_class() -> None:
    """So that the code alone says what the exit code is."""
    listed = codes()
    for place, kind, code in raised():
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", code), place
        assert code in listed, f"{place}: {code} is not documented"
        assert listed[code][0] == kind, f"{place}: {code} is also a {listed[code][0]}"


places = st.none() | st.integers(1, 9999)


@given(st.sampled_from(CLASSES), st.lists(texts, min_size=4, max_size=4), places, places)
def test_an_error_is_whole_after_it_crossed(
    kind: type[EdvacError], said: list[str], line: int | None, column: int | None
) -> None:
    """To another process by pickle, within one by copy."""
    code, what, why, fix = said
    error = kind(code, what, why, fix, line=line, column=column)
    for found in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(found) is kind and str(found) == str(error)
        assert found.as_dict() == error.as_dict()
        assert (found.line, found.column) == (line, column)
    assert error.as_dict().keys() >= {"code", "what", "why", "fix"}
    assert ("line" in error.as_dict()) is (line is not None)


@pytest.mark.parametrize(
    ("place", "head"),
    [
        ({}, "it broke"),
        ({"line": 3}, "line 3: it broke"),
        ({"line": 3, "column": 7}, "line 3, column 7: it broke"),
    ],
)
def test_an_error_says_what_why_and_what_to_do(place: dict[str, int], head: str) -> None:
    error = EdvacError("code", "it broke", "It was old.", "Buy another.", **place)
    assert str(error).splitlines() == [head, "It was old.", "Buy another."]
    assert str(EdvacError("code", "it broke", fix="Buy another.")).splitlines()[1:] == [
        "Buy another."
    ]
