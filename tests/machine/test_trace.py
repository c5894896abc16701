"""`trace`: what is recorded and what is found, on whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from machine_kit import Bench

from edvac.core.errors import UsageError
from edvac.machine import delivery
from edvac.machine.trace import Trace, trace
from edvac.program.slicing import lines_behind
from edvac.store import Store

TABLE = """\
class Bill:
    vendor: str
    total: Decimal
    note: str

bills = [llm.extract(files.read(p), Bill) for p in files.list("inbox/*")]
other = llm.write("Greet", "ann")
files.write("bills.csv", csv.dump(bills))
files.write("sum.txt", f"Sum: {total(bills, 'total')}\\nFirst: {bills[0].vendor} of {other}\\n")
"""
ANSWERS = {
    "Acme": {"vendor": "Acme Ltd", "total": 1234.5, "note": "made up"},
    "Bolt": {"vendor": "Bolt, Inc", "total": 88, "note": "late"},
}


@pytest.fixture
def bills(tmp_path: Path) -> tuple[Bench, str]:
    bench = Bench(tmp_path)
    bench.file("inbox/a.txt", "Invoice\nfrom Acme Ltd\nTotal: 1,234.50 EUR\n")
    bench.file("inbox/b.txt", "Bolt, Inc\n\nlate fee\nsum 88\n")

    def answer(request: object) -> str:
        text = request.messages[-1].text  # type: ignore[attr-defined]
        for word, made in ANSWERS.items():
            if word in text:
                return json.dumps(made)
        return "hello"

    bench._answer = answer  # type: ignore[method-assign,assignment]
    report = bench.run(TABLE)
    assert report.state == "done", report.failures
    return bench, report.run


def ask(bench: Bench, file: str | Path, line: int = 0, run: str | None = None) -> Trace:
    with Store(bench.work) as store:
        return trace(store, run, Path(file), line)


def places(made: Trace) -> dict[str, list[str]]:
    return {
        part.cell: [f"{place.path}:{place.line}" for place in part.places]
        for origin in made.origins
        for part in origin.parts
    }


def test_a_row_leads_to_its_step_and_to_the_lines_of_its_source(bills: tuple[Bench, str]) -> None:
    bench, run = bills
    made = ask(bench, "bills.csv", 2)
    assert (made.run, made.writer_op, made.writer_line) == (run, "files.write", 8)
    assert [origin.step for origin in made.origins] == ["bills[0]"]
    assert made.origins[0].prompt
    assert [part.name for part in made.origins[0].parts] == ["vendor", "total", "note"]
    assert {part.sources for part in made.origins[0].parts} == {("inbox/a.txt",)}
    found = places(made)
    assert found["Acme Ltd"] == ["inbox/a.txt:2"]
    assert found["1234.5"] == ["inbox/a.txt:3"], "a number, however it is written"


def test_what_no_document_states_is_said_to_be_in_none(bills: tuple[Bench, str]) -> None:
    assert places(ask(bills[0], "bills.csv", 2))["made up"] == []


def test_each_row_has_its_own_step(bills: tuple[Bench, str]) -> None:
    made = ask(bills[0], "bills.csv", 3)
    assert [origin.step for origin in made.origins] == ["bills[1]"]
    assert places(made) == {
        "Bolt, Inc": ["inbox/b.txt:1"],
        "88": ["inbox/b.txt:4"],
        "late": ["inbox/b.txt:3"],
    }


def test_a_header_is_the_programs_own(bills: tuple[Bench, str]) -> None:
    made = ask(bills[0], "bills.csv", 1)
    assert made.origins == []
    assert made.elsewhere["vendor"][0] == 2


def test_a_text_of_two_steps_names_both(bills: tuple[Bench, str]) -> None:
    made = ask(bills[0], "sum.txt", 2)
    assert {(o.step, part.cell) for o in made.origins for part in o.parts} == {
        ("bills[0]", "Acme Ltd"),
        ("other", "hello"),
    }
    assert {origin.step: origin.parts[0].sources for origin in made.origins}["other"] == ()


def test_a_sum_is_computed_and_in_no_steps_value(bills: tuple[Bench, str]) -> None:
    made = ask(bills[0], "sum.txt", 1)
    assert made.origins == []
    assert made.elsewhere == {"Sum: 1322.5": []}


def test_a_step_that_does_not_lead_to_the_file_is_not_named(bills: tuple[Bench, str]) -> None:
    whole = ask(bills[0], "bills.csv")
    assert whole.steps == {"files.list": 1, "files.read": 2, "llm.extract": 2}
    assert whole.sources == ["inbox/a.txt", "inbox/b.txt"]


def test_a_delivered_file_that_was_changed_is_said_to_differ(bills: tuple[Bench, str]) -> None:
    bench, run = bills
    target = bench.work / "out"
    target.mkdir()
    with Store(bench.work) as store:
        delivery.apply(store, run, target)
    assert ask(bench, target / "bills.csv", 2).delivered == ""
    (target / "bills.csv").write_text("vendor,total,note\nother\n")
    made = ask(bench, target / "bills.csv", 2)
    assert "differs" in made.delivered
    assert made.text.startswith("Acme Ltd"), "the line is the one that the run wrote"
    (target / "bills.csv").unlink()
    assert "gone" in ask(bench, target / "bills.csv", 2).delivered


def test_a_run_that_wrote_nothing_since_does_not_hide_the_file(bills: tuple[Bench, str]) -> None:
    bench, run = bills
    later = bench.run('files.write("else.txt", "x")\n').run
    assert ask(bench, "bills.csv", 2).run == run
    with pytest.raises(UsageError, match="has not written"):
        ask(bench, "bills.csv", 2, run=later)


@pytest.mark.parametrize(
    ("file", "line", "code"),
    [("no.csv", 1, "trace_unknown_file"), ("bills.csv", 9, "trace_no_line")],
)
def test_what_cannot_be_traced_is_an_error(
    bills: tuple[Bench, str], file: str, line: int, code: str
) -> None:
    with pytest.raises(UsageError) as refused:
        ask(bills[0], file, line)
    assert refused.value.code == code


def test_a_line_of_a_written_text_and_a_line_copied_by_code(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.file("inbox/a.txt", "word=ann\nsecond line\n")
    bench._answer = lambda _: "brief"  # type: ignore[method-assign,assignment]
    bench.run(
        't = files.read("inbox/a.txt")\nn = llm.write("Shorten", t)\n'
        'files.write("n.md", f"# Notes\\n{n}\\n{text.lines(t)[1]}\\n")\n'
    )
    written = ask(bench, "n.md", 2)
    assert [origin.step for origin in written.origins] == ["n"]
    copied = ask(bench, "n.md", 3)
    assert [(origin.op, places(copied)) for origin in copied.origins] == [
        ("files.read", {"second line": ["inbox/a.txt:2"]})
    ]


def test_a_quote_is_what_is_looked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.file("inbox/a.txt", "Dear all,\nwe pay on the third of May.\n")
    quoted = {"day": {"value": "2026-05-03", "quote": "the third of May"}}
    bench._answer = lambda _: json.dumps(quoted)  # type: ignore[method-assign,assignment]
    report = bench.run(
        "class Due:\n    day: Quoted[date]\n\n"
        'd = llm.extract(files.read("inbox/a.txt"), Due)\n'
        'files.write("d.csv", csv.dump([{"day": d.day.value}]))\n'
    )
    assert report.state == "done", report.failures
    part = ask(bench, "d.csv", 2).origins[0].parts[0]
    assert part.quoted
    assert [(place.line, place.text) for place in part.places] == [
        (2, "we pay on the third of May.")
    ]


def test_the_slice_follows_names_loops_conditions_and_functions() -> None:
    text = """\
a = 1
b = 2
def f(x):
    y = x
    return y
c = f(a)
rows = []
for i in [c]:
    if b:
        rows.append(i)
unused = 3
out = rows
"""
    assert lines_behind(text, 12) == {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12}
    assert lines_behind(text, 6) == {1, 3, 4, 5, 6}
    assert lines_behind(text, 4) == {1, 3, 4, 5, 6}, "a parameter is what a call gives"
    assert lines_behind(text, 11) == {11}
