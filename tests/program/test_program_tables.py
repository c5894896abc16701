"""Tables: reading, grouping and joining agree with SQLite; what is missing counts as nothing."""

from __future__ import annotations

import csv
import io
import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from program_kit import run, shown

cells = st.sampled_from(["", "0", "3", "4.5", "-2", "17"])
names = st.sampled_from(["a", "b", "c"])
rows = st.lists(st.tuples(names, cells), min_size=1, max_size=12)


def told(program: str) -> dict[str, Any]:
    return shown(run(program, lambda call, args: None)[0])


def written(header: str, found: list[tuple[str, str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header.split(","), *found])
    return out.getvalue()


@given(rows)
def test_groups_are_those_of_sql(found: list[tuple[str, str]]) -> None:
    if not any(cell for _, cell in found):
        return  # a column without any number is one of texts
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (k TEXT, n NUMERIC)")
    database.executemany("INSERT INTO t VALUES (?, nullif(?, ''))", found)
    wanted = database.execute(
        "SELECT k, count(*), sum(n), min(n), max(n), avg(n) FROM t GROUP BY k ORDER BY k"
    ).fetchall()
    database.close()
    made = told(
        f"rows = csv.table({written('k,n', found)!r})\n"
        "sums = group(rows, by=['k'], rows=count(), sum=sum_of('n'), least=min_of('n'),"
        " most=max_of('n'), mean=mean_of('n'))\n"
        "sums = sort_by(sums, 'k')\n"
    )["sums"]
    assert [(row["k"], row["rows"]) for row in made] == [row[:2] for row in wanted]
    for row, expected in zip(made, wanted, strict=True):
        values = [row[name] for name in ("sum", "least", "most", "mean")]
        assert [one is None for one in values] == [one is None for one in expected[2:]]
        assert [float(one) for one in values if one is not None] == pytest.approx(
            [one for one in expected[2:] if one is not None]
        )


@given(rows, rows, st.sampled_from(["inner", "left"]))
def test_joins_are_those_of_sql(
    left: list[tuple[str, str]], right: list[tuple[str, str]], how: str
) -> None:
    database = sqlite3.connect(":memory:")
    for name, table in (("l", left), ("r", right)):
        database.execute(f"CREATE TABLE {name} (k TEXT, {name}n TEXT)")
        database.executemany(f"INSERT INTO {name} VALUES (?, ?)", table)
    wanted = database.execute(f"SELECT l.k, ln, rn FROM l {how} JOIN r USING (k)").fetchall()
    database.close()
    made = told(
        f"l = csv.load({written('k,ln', left)!r})\nr = csv.load({written('k,rn', right)!r})\n"
        f"both = join(l, r, on='k', how={how!r})\n"
    )["both"]
    found = [(row["k"], row["ln"], row["rn"]) for row in made]
    assert sorted(found, key=repr) == sorted(wanted, key=repr)


def test_a_text_among_numbers_is_not_passed_over() -> None:
    text = written("a,n", [("x", "1"), ("x", "two")])
    made = told(f"s = group(csv.table({text!r}), by=['a'], n=sum_of('n'))\n")
    assert made["s"] == "failed: sum_unfit"
