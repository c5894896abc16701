"""What code reads out of a task."""

from __future__ import annotations

import time

import pytest

from edvac.compiler.brief import is_named, read_brief
from edvac.compiler.examples import similar


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("Write x to a.csv with the columns b and c.", {"a.csv": ("b", "c")}),
        ("Write x to a.csv (columns b, c, d).", {"a.csv": ("b", "c", "d")}),
        ("a.csv has the columns b (the first), c and d.", {"a.csv": ("b", "c", "d")}),
        ("Sum up a.csv. Then b.csv has c and d.", {"b.csv": ("c", "d")}),
        ("Write name and sum to a.csv and b.txt.", {"a.csv": ("name", "sum")}),
        ("Write the name and the sum to a.csv.", {}),
        ("a.json is a list of objects with b, c and d.", {"a.json": ("b", "c", "d")}),
        ("Each line of a.jsonl is a JSON object with b and c.", {"a.jsonl": ("b", "c")}),
        ("Keep all columns in a.csv.", {}),
        ("Columns b and c go to people/NAME.csv.", {"people/NAME.csv": ("b", "c")}),
        ("The columns matter.", {}),
    ],
)
def test_columns(task: str, columns: dict[str, tuple[str, ...]]) -> None:
    assert dict(read_brief(task).columns) == columns


def test_files_folders_inputs_and_marks() -> None:
    brief = read_brief(
        "sums.csv holds last year. "
        "Take the lines with ERROR from logs/app.log, and/or all in old/, and put them into "
        "out/KIND/ and into report.md. "
        "Write their file names to names.txt."
    )
    assert brief.files == ("sums.csv", "logs/app.log", "report.md", "names.txt")
    assert brief.folders == ("old",)
    assert brief.inputs == ("sums.csv", "logs/app.log")
    assert "ERROR" in brief.marks and brief.names_files
    assert "ERROR" in brief.sample("logs/app.log")


def test_a_placeholder_stands_for_each_of_something() -> None:
    assert is_named("people/NAME.csv", "people/Ann.csv")
    assert not is_named("people/NAME.csv", "pets/Ann.csv")
    assert is_named("a.csv", "a.csv") and not is_named("a.csv", "b.csv")


@pytest.mark.parametrize(
    "task",
    [
        "x.csv with the columns " + "a, " * 30_000,
        "write " + "a, " * 30_000 + "b c",
        "columns " + "a (" * 30_000,
        "columns " + "a and " * 20_000,
        "A" * 100_000 + "/",
        "a/" * 50_000,
        "-a" * 50_000,
        "a." * 50_000,
        ". A" * 30_000,
    ],
)
def test_a_hostile_task_is_read_in_bounded_time(task: str) -> None:
    begun = time.process_time()
    read_brief.__wrapped__(task)
    similar(task)
    assert time.process_time() - begun < 15  # what is not bounded takes minutes
