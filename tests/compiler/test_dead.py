"""What nobody uses goes, and nothing else."""

from __future__ import annotations

import pytest

from edvac.compiler.dead import without_dead

KEEP = 'rows = csv.load(files.read("a.csv"))\nfiles.write("b.txt", str(len(rows)))\n'


@pytest.mark.parametrize(
    "dead",
    [
        "flag = True\n",
        "class Item:\n    name: str\n",
        "found = []\nfor row in rows:\n    found.append(row)\n",
        "found = {}\nfor row in rows:\n    if row:\n        found[row] = 1\n",
        "n = 0\nfor row in rows:\n    n += 1\n",
        "a = len(rows)\nb = a + 1\n",
    ],
)
def test_what_is_not_used_goes(dead: str) -> None:
    load, write = KEEP.splitlines(keepends=True)
    assert without_dead(load + dead + write) == KEEP


@pytest.mark.parametrize(
    "program",
    [
        KEEP,
        'for p in files.list("a/*"):\n    moved = files.move(p, "b/c")\n',
        "x = 1\nif x:\n    y = 1\nelse:\n    y = 2\n" + 'files.write("a", str(y))\n',
        'rows = []\nfor p in files.list("a/*"):\n    rows.append(p)\nfiles.write("a", str(rows))\n',
        "",
    ],
)
def test_what_is_used_or_acts_stays(program: str) -> None:
    assert without_dead(program) == program


def test_a_branch_is_not_left_empty() -> None:
    program = 'x = 1\nif x:\n    y = 1\nelse:\n    files.write("a", "b")\n'
    assert without_dead(program) == program


def test_only_the_dead_line_of_a_loop_goes() -> None:
    program = 'for p in files.list("a/*"):\n    n = 1\n    files.copy(p, "b/c")\n'
    assert without_dead(program) == program.replace("    n = 1\n", "")
