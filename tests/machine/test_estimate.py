"""Estimates before a run: counted on the real names and sizes, without opening a file."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_kit import Bench

from edvac.device import CATALOGUE, Roots
from edvac.machine import rates
from edvac.machine.estimate import Estimate, Range, estimate, selected
from edvac.processor import Price
from edvac.program import parse

NOTES = """
class Note:
    word: str

rows = [llm.extract(files.read(p), Note) for p in files.list("inbox/*")]
files.write("all.csv", csv.dump(rows))
files.write("end.md", llm.write("Sum up", rows))
"""


def guess(text: str, inbox: Path, task: str = "") -> Estimate:
    return estimate(parse(text, CATALOGUE), {"inbox": inbox}, task=task)


def test_steps_are_counted_on_the_files_that_are_there(bench: Bench) -> None:
    for number in range(7):
        bench.file(f"inbox/n{number}.txt", f"word=x{number} and more\n" * 20)
    found = guess(NOTES, bench.work / "inbox")
    report = bench.run(NOTES)
    with bench.open() as machine:
        entries = machine.history(report.run).entries
    done = [entry for entry in entries if entry.kind == "outcome"]
    assert sum(found.steps.values()) == len(done)
    assert found.steps["llm.extract"] == 10 and found.steps["llm.write"] == 1
    assert not found.guessed


def test_no_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("x" * 36_000)
    monkeypatch.delattr(Roots, "read")
    found = guess(NOTES, tmp_path)
    assert 5_000 < found.read.low < 10_000 < found.read.high < 20_000, "a token is about 3.6 signs"


def test_large_listings_are_scaled_up(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number}.txt").write_text("word=x\n")
    found = guess(NOTES, tmp_path)
    assert found.steps["llm.extract"] == pytest.approx(1000, rel=0.01)
    assert found.steps["llm.write"] == 1


def test_what_contents_decide_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("payee,sum\n" + "Ann,3\nBob,4\n" * 20)
    text = 'xs = [llm.write("Who?", r["payee"]) for r in csv.load(files.read("inbox/a.csv"))]\n'
    assert guess(text, tmp_path).guessed
    named = guess(text, tmp_path, "inbox/a.csv has the columns payee and sum.")
    assert not named.guessed and named.steps["llm.write"] >= 1


def test_a_program_without_a_model_costs_nothing(tmp_path: Path) -> None:
    found = guess('files.write("a.txt", "x")\n', tmp_path)
    assert not found.asks_model
    assert found.cost(Price(Decimal(1), Decimal(1), Decimal(1))) == Range(0, 0)


def test_the_price_is_that_of_the_tokens() -> None:
    found = Estimate(read=Range(1_000_000, 2_000_000), written=Range(500_000, 1_000_000))
    assert found.cost(Price(Decimal("2"), Decimal(0), Decimal("10"))) == Range(7.0, 14.0)


# -- rates ---------------------------------------------------------------------------------------

counts = st.integers(200, 50_000)


@given(
    st.floats(1e-4, 1e-2),
    st.floats(1.5, 12.0),
    st.lists(st.tuples(counts, counts), min_size=8, max_size=15),
)
def test_a_machine_that_keeps_its_pace_is_understood(
    read_s: float, ratio: float, runs: list[tuple[int, int]]
) -> None:
    model = [[read_s * r + read_s * ratio * w, r, w] for r, w in runs]
    found = rates._fit(model)
    for seconds, read, written in model:
        guessed = found.seconds(read, written)
        assert guessed / found.spread <= seconds * 1.001
        assert guessed * found.spread >= seconds * 0.999
    assert found.runs == len(runs)


def test_runs_are_remembered_by_model_and_only_so_many(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rates.json"
    assert rates.measured("m", path) is None
    for number in range(rates.KEPT + 5):
        rates.note("m", 10.0 + number, 5_000, 500, path)
    rates.note("m", 1.0, 10, 2, path)  # too short to say anything
    rates.note("other", 10.0, 5_000, 500, path)
    found = rates.measured("m", path)
    assert found is not None and found.runs == rates.KEPT
    assert json.loads(path.read_text())["m"][0][0] == 15.0


@pytest.mark.parametrize(
    "text", ["", "[]", '{"m": 3}', '{"m": [[0, 1, 2], "x", [1, 0, 0]]}', "\xff"]
)
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rates.json"
    path.write_text(text, encoding="latin-1")
    assert rates.measured("m", path) is None
    rates.note("m", 10.0, 5_000, 500, path)
    assert rates.measured("m", path) is not None


def test_figures_know_two_digits() -> None:
    from edvac.cli.plan import _tokens

    assert [_tokens(n) for n in (0, 7, 1234, 98_765)] == ["0", "7", "1,200", "99,000"]
    assert re.fullmatch(r"[\d,]+", _tokens(1e9))


def test_rows_of_a_database_are_guessed_from_its_size(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_bytes(bytes(3_000_000))
    text = (
        'rows = sql.query("inbox/t.db", "SELECT id, substr(a, 1, 9) AS b, t.c FROM t")\n'
        'said = [llm.write("Sum up", r["b"], r["c"]) for r in rows]\n'
        'sql.update("inbox/t.db", "t", [{"id": r["id"], "c": s} for r, s in zip(rows, said)])\n'
    )
    found = guess(text, tmp_path)
    assert found.steps["llm.write"] == 10_000 and found.steps["sql.update"] == 1
    assert found.guessed, "nobody has looked into it"
    assert guess(text, tmp_path / "..").steps["llm.write"] == 0


def test_columns_are_read_off_a_query() -> None:
    assert selected("SELECT id, count(*) AS n, t.x, max(a, (b)) m FROM t") == ["id", "n", "x", "m"]
    assert selected("select distinct a from (select b from c)") == ["a"]
    assert selected("SELECT *") == [] and selected("") == []
