"""Statements of a program, and the turns of phrase that it consists of."""

from __future__ import annotations

from edvac.compiler.idioms import idioms
from edvac.compiler.statements import statements


def test_statements_of_a_program() -> None:
    pieces = [
        "rows = []\n",
        "for x in [1]:\n    rows.append(x)\n",
        "if rows:\n    y = 1\nelse:\n    y = 2\n",
    ]
    assert statements("\n" + "\n".join(pieces)) == pieces
    assert statements("") == []


def test_idioms_tell_ways_of_writing_apart() -> None:
    grouped = idioms('x = group(rows, by=["a", "b"], n=count())\n')
    assert {"group()", "group by", "group by 2", "group aggregate", "count()"} <= grouped
    assert "sort_by reverse" in idioms('x = sort_by(rows, "n", reverse=True)\n')
    assert "sort_by reverse" not in idioms('x = sort_by(rows, "n")\n')
    each = idioms('for n in unique(names):\n    files.write(f"{n}.txt", "\\n".join(lines))\n')
    assert {"for each of unique", "write to JoinedStr", "write .join"} <= each
    assert {"field date?", "field str"} <= idioms("class A:\n    a: date | None\n    b: str\n")
    assert idioms("x = a + 1\n") != idioms("x = a - 1\n")
    assert idioms("x = other_name + 1\n") == idioms("y = a + 1\n"), "whatever things are called"
