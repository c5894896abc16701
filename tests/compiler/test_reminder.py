"""Comments between statements say which file is next, in the task's words."""

from __future__ import annotations

from edvac.compiler.idioms import idioms
from edvac.compiler.reminder import LENGTH, annotated
from edvac.compiler.statements import statements
from edvac.device import CATALOGUE

TASK = (
    "Count the rows of in.csv (name, n): the count to count.txt. - all names, one a line, go to"
    " names.txt; then copy in.csv to old/"
)
LOAD = 'rows = csv.load(files.read("in.csv"))\n'
COUNT = 'files.write("count.txt", str(len(rows)))\n'
NAMES = 'files.write("names.txt", "\\n".join([row["name"] for row in rows]))\n'
COPY = 'files.copy("in.csv", "old/in.csv")\n'


def test_what_is_next_stands_before_the_first_statement_and_behind_each_that_writes() -> None:
    text = annotated(TASK, [LOAD, COUNT, NAMES], CATALOGUE)
    assert text == (
        "# next: count.txt: Count the rows of in.csv (name, n): the count to count.txt.\n"
        + LOAD
        + COUNT
        + "# next: names.txt: all names, one a line, go to names.txt\n"
        + NAMES
        + "# next: old/: then copy in.csv to old/\n"
    )
    assert annotated(TASK, [LOAD, COUNT, NAMES, COPY], CATALOGUE) == text + COPY


def test_a_whole_program_has_its_own_order() -> None:
    text = annotated(TASK, [LOAD, NAMES, COUNT, COPY], CATALOGUE, whole=True)
    order = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("#")]
    assert order == ["names.txt", "count.txt", "old/"]


def test_a_task_that_names_nothing_is_not_reminded_of() -> None:
    assert annotated("Do something.", [LOAD], CATALOGUE) == LOAD


def test_a_long_sentence_is_cut() -> None:
    said = annotated("Write " + "very " * 100 + "much to a.txt.", [], CATALOGUE)
    assert len(said) < LENGTH + 30 and said.endswith("\n") and said.count("\n") == 1


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
