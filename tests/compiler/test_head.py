"""How a plan begins where the task leaves no choice."""

from __future__ import annotations

import pytest

from edvac.compiler.brief import read_brief
from edvac.compiler.examples import library
from edvac.compiler.grammar import reserved
from edvac.compiler.head import head, headed
from edvac.device import CATALOGUE
from edvac.program import parse

TAKEN = reserved(CATALOGUE)


@pytest.mark.parametrize(
    ("task", "lines"),
    [
        (
            "From sales.csv (shop, pieces) and old/prices.csv (item, price) make a.csv.",
            [
                'sales = csv.table(files.read("sales.csv"))\n',
                'prices = csv.table(files.read("old/prices.csv"))\n',
            ],
        ),
        ("text.csv has the columns a and n.", ['rows_1 = csv.table(files.read("text.csv"))\n']),
        ("From for.csv make a.csv.", ['rows_1 = csv.table(files.read("for.csv"))\n']),
        (
            "From a/x.csv and b/x.csv make y.csv.",
            [
                'x = csv.table(files.read("a/x.csv"))\n',
                'rows_2 = csv.table(files.read("b/x.csv"))\n',
            ],
        ),
        ("Count the lines of app.log.", ['app = text.lines(files.read("app.log"))\n']),
        ("Summarise notes/ in a.md.", []),
        ("Shorten letter.txt in a.txt.", []),
    ],
)
def test_tables_are_loaded_first(task: str, lines: list[str]) -> None:
    assert head(read_brief(task), TAKEN) == lines
    parse("".join(lines) or "x = 1\n", CATALOGUE)


def test_examples_begin_the_same_way() -> None:
    changed = 0
    for example in library():
        made = headed(example.program, read_brief(example.task), TAKEN)
        parse(made, CATALOGUE)
        changed += made != example.program
        assert made.count("csv.load(files.read(") <= example.program.count("csv.load(files.read(")
    assert changed > 10


def test_a_name_that_means_something_else_is_not_taken() -> None:
    program = 'sales = 1\nrows = csv.load(files.read("sales.csv"))\n'
    assert headed(program, read_brief("From sales.csv (a, b) make c.csv."), TAKEN) == program
