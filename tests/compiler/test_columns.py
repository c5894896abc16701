"""The columns of tables, read from the ways in which people say them."""

from __future__ import annotations

import pytest

from edvac.compiler.columns import read_columns

ABC = ("kind", "mass", "n")


@pytest.mark.parametrize(
    "task",
    [
        "x.csv has the columns kind, mass and n.",
        "x.csv (kind, mass, n) is what we have.",
        "x.csv [kind, mass, n] is what we have.",
        "In x.csv (columns kind, mass, n; kind is like 2026-03) we keep all.",
        "Write x.csv with kind, mass and n.",
        "x.csv: kind, mass, n, where mass is a day.",
        "Please make x.csv, kind, mass and n (how many), the largest n first.",
        "x.csv holds our things: kind, mass, n. Count them.",
        "Read x.csv, whose columns are kind, mass and n: sum up n.",
        "Write kind, mass and n of each of them to x.csv.",
        "Give me kind, mass and n in x.csv.",
        "Write kind, mass (in grams) and whether it is n for every thing in box/ to x.csv.",
        "A row per thing goes to x.csv, with kind, mass and n.",
        "x.csv should tell, for all, this and that (kind, mass, n as columns; sorted by kind).",
        "x.csv (kind, mass in percent, n – yes or no)",
        "x.csv with the columns kind (what it is), mass and n, sorted by kind.",
        "x.csv gets kind, mass (how many) and n (the total), the most on top.",
        "x.csv with kind, mass and n, beginning with the largest.",
        "x.csv (columns kind, written like 2026-03, mass and n)",
    ],
)
def test_ways_of_saying_the_columns(task: str) -> None:
    assert read_columns(task).get("x.csv") == ABC


@pytest.mark.parametrize(
    ("task", "path"),
    [
        ("x.json is a list of JSON objects with kind, mass and n.", "x.json"),
        ("Split x.json (a JSON list of objects with kind, mass, n) by kind.", "x.json"),
        ("x.jsonl: a JSON object per line (kind, mass, n).", "x.jsonl"),
        ("The cards stand in x.jsonl, line by line as JSON with kind, mass, n.", "x.jsonl"),
        ("Every CSV in tables/ has kind, mass, n.", "tables/*"),
        ("There is a table for each day in tables/ (columns kind, mass, n).", "tables/*"),
        ("Look through tables/*.csv (kind,mass,n).", "tables/*.csv"),
        ("For each kind of x.csv write lists/NAME.csv with kind, mass and n.", "lists/NAME.csv"),
    ],
)
def test_objects_and_folders_of_tables(task: str, path: str) -> None:
    assert read_columns(task).get(path) == ABC


def test_two_tables_at_once() -> None:
    both = read_columns("Compare x.csv with y.csv, both with the columns kind, mass and n.")
    assert both == {"x.csv": ABC, "y.csv": ABC}
    own = read_columns(
        "Join x.csv (kind, mass, n) with y.csv (kind, d) into z.csv with kind and d."
    )
    assert own == {"x.csv": ABC, "y.csv": ("kind", "d"), "z.csv": ("kind", "d")}


@pytest.mark.parametrize(
    "task",
    [
        "x.csv (the one of last year) is old.",
        "Write all of them to x.csv, the newest first.",
        "Copy x.csv to y.csv and sort it.",
        "Which of the notes in notes/ are old, new or lost? Count them in x.csv.",
        "",
    ],
)
def test_what_is_no_list_of_columns(task: str) -> None:
    assert read_columns(task) == {}


@pytest.mark.parametrize(
    "task", ["x.csv (" + "a, " * 30_000, "x.csv has " + "(" * 30_000, "columns x.csv " * 5_000]
)
def test_a_long_task_is_read_in_time(task: str) -> None:
    read_columns(task[:8_000])
