"""Keys of rows that a program makes itself are known without any data."""

from __future__ import annotations

import ast

import pytest

from edvac.compiler.shapes import refuse_unknown_keys
from edvac.core.errors import ProgramError

MADE = "rows = []\nfor x in xs:\n    rows.append({'a': x, 'b': 1})\n"
GROUPED = "rows = group(xs, by=['a'], n=count())\n"


@pytest.mark.parametrize(
    ("program", "what"),
    [
        (MADE + "y = [r['a'] for r in rows]\n", ""),
        (MADE + "y = [r['c'] for r in rows]\n", "no 'c'"),
        (MADE + "for r in rows:\n    y = r['c']\n", "no 'c'"),
        (MADE + "kept = [r for r in rows if r['a']]\ny = [r['c'] for r in kept]\n", "no 'c'"),
        (MADE + "y = [r['c'] for r in sort_by(rows, 'a')]\n", ""),
        (MADE + "s = sort_by(rows, 'a')\ny = [r['c'] for r in s]\n", "no 'c'"),
        (MADE + "y = [r['c'] for r in rows[:3]]\n", ""),
        (MADE + "top = rows[:3]\ny = [r['c'] for r in top]\n", "no 'c'"),
        (MADE + "for r in rows:\n    r['c'] = 1\n    y = r['c']\n", ""),
        (MADE + "rows.extend(others)\ny = [r['c'] for r in rows]\n", ""),
        (MADE + "rows.append({'c': 1})\ny = [r['c'] for r in rows]\n", ""),
        (MADE + "y = rows['a']\n", "list of rows"),
        (MADE + "y = rows[other['a']]\n", "list of rows"),
        (MADE + "y = rows[0]['a']\n", ""),
        (GROUPED + "y = [r['n'] for r in rows]\n", ""),
        (GROUPED + "y = [r['b'] for r in rows]\n", "no 'b'"),
        ("rows = csv.load(text)\ny = [r['b'] for r in rows]\n", ""),
        ("rows = [{'a': x} for x in xs]\ny = {r['b']: 1 for r in rows}\n", "no 'b'"),
        ("rows = [{'a': x, **more} for x in xs]\ny = [r['b'] for r in rows]\n", ""),
        ("rows = [x for x in xs]\ny = [r['b'] for r in rows]\n", ""),
        ("for rows in parts:\n    y = [r['b'] for r in rows]\n", ""),
    ],
)
def test_keys(program: str, what: str) -> None:
    tree = ast.parse(program)
    if not what:
        refuse_unknown_keys(tree)
        return
    with pytest.raises(ProgramError, match=what) as refused:
        refuse_unknown_keys(tree)
    assert refused.value.code == "plan_unmeant" and refused.value.fix
