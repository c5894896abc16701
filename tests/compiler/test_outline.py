"""Outlines: what a line means, that the examples are right, and that a model fills one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from llguidance import LLMatcher

from edvac.compiler import Planner, examples, outline_grammar
from edvac.compiler.brief import read_brief
from edvac.compiler.clauses import result
from edvac.compiler.outline import Outline, negated
from edvac.compiler.outliner import library
from edvac.compiler.rehearsal import rehearse
from edvac.compiler.review import refuse_astray, review
from edvac.compiler.wanted import read_task
from edvac.core import event
from edvac.core.errors import ProgramError
from edvac.device import CATALOGUE
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor
from edvac.program import parse

TASKS = {example.name: example.task for example in examples.library()}
OUTLINES = pytest.mark.parametrize("name", sorted(library()))


def parts(name: str) -> tuple[str, list[str], list[tuple[str, str]]]:
    """First line, decisions, and path with clause of each result."""
    lines = library()[name].strip().split("\n")
    at = lines.index(outline_grammar.RESULTS)
    results = [line.partition(": ") for line in lines[at + 1 :]]
    return lines[0], lines[1:at], [(path, clause) for path, _, clause in results]


def decide(outline: Outline, line: str) -> str:
    if line.startswith("only "):
        return outline.only(line.removeprefix("only "))
    return outline.decide(line)


def begun(task: str) -> Outline:
    wanted = read_task(task).results
    keeps = any(one.path.endswith((".md", "/FILE")) for one in wanted)
    return Outline(read_brief(task), keeps_text=keeps)


@OUTLINES
def test_an_outline_says_what_its_task_wants_and_makes_a_program_of_it(name: str) -> None:
    task, (first, decisions, results) = TASKS[name], parts(name)
    assert [path for path, _ in results] == [one.path for one in read_task(task).results]
    outline = begun(task)
    text = outline.begin(first) + "".join(decide(outline, line) for line in decisions)
    text += "".join(result(outline, path, clause) for path, clause in results)
    program = parse(text, CATALOGUE)
    rehearse(program, read_brief(task))
    refuse_astray(program, task)
    review(program, task)


@OUTLINES
def test_every_grammar_is_one(name: str) -> None:
    reading, (first, decisions, results) = read_task(TASKS[name]), parts(name)
    outline = begun(TASKS[name])
    outline.begin(first)
    grammars = [outline_grammar.decision(outline, reading), outline_grammar.only(outline, reading)]
    if not outline_grammar.automatic(reading):
        grammars.append(outline_grammar.first_line(reading))
    for line in decisions:
        decide(outline, line)
    for wanted, (path, clause) in zip(reading.results, results, strict=True):
        grammars.append(outline_grammar.clause(outline, reading, wanted))
        result(outline, path, clause)
    for grammar in grammars:
        assert not LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(grammar)), grammar


def rows(**columns: tuple[str, ...]) -> Outline:
    outline = Outline(read_brief("From t.csv (columns who, when, km) write x.csv."))
    outline.begin('each row of "t.csv": km number, when day')
    return outline


@pytest.mark.parametrize(
    ("clause", "part"),
    [
        ("table who, km where km > 3", 'if row["km"] > 3'),
        ("table who as name", '{"name": row["who"]} for row in rows'),
        ("table who sorted by km descending", 'sort_by(rows, "km", reverse=True)'),
        ("groups by who with km sum of km", 'group(rows, by=["who"], km=sum_of("km"))'),
        ("groups by who with n count having n > 2", 'by=["who"], n=count()) if one["n"] > 2'),
        ("table who where when > 2026-01-02", 'row["when"] > date.parse("2026-01-02")'),
        ('table who where who is not "Ann"', 'row["who"] != "Ann"'),
        ('table who where who starts with "A"', 'row["who"].startswith("A")'),
    ],
)  # fmt: skip
def test_a_clause_says(clause: str, part: str) -> None:
    assert part in result(rows(), "x.csv", clause)


@pytest.mark.parametrize(
    ("path", "clause"),
    [
        ("x.csv", "table wage"),
        ("x.csv", "table who where who > 3"),
        ("x.csv", "table who where when is on holiday"),
        ("x.csv", "groups by who with n sum of when"),
        ("x.csv", "table who sorted by age"),
        ("x.txt", "list of who in y.csv"),
        ("x/NAME.csv", "table who"),
        ("x/FILE", "table who"),
        ("x.md", "dance"),
    ],
)
def test_what_cannot_be_meant_is_refused(path: str, clause: str) -> None:
    with pytest.raises(ProgramError) as caught:
        result(rows(), path, clause)
    assert caught.value.code == "outline_illegal"


def test_a_condition_turned_round() -> None:
    for test, other in [
        ("paid", "not paid"),
        ("has end", "no end"),
        ("km > 3", "km <= 3"),
        ('kind is "a"', 'kind is not "a"'),
    ]:
        assert (negated(test), negated(other)) == (other, test)
    assert negated("paid and km > 3") == negated("") == negated('line contains "x"') == ""


TASK = (
    "Write vendor and total of each bill in bills/ that is paid to paid.csv, and the sum of these "
    "to sum.txt."
)


def planned(answers: list[str], **options: Any) -> tuple[str, list[event.Event], list[Request]]:
    seen: list[event.Event] = []
    asked: list[Request] = []
    left = iter(answers)

    def script(request: Request) -> str:
        asked.append(request)
        return next(left)

    planner = Planner(ScriptedProcessor(script), CATALOGUE, seen.append, outlines=True, **options)
    return asyncio.run(planner.plan(TASK)), seen, asked


def test_a_model_fills_line_after_line_and_the_program_grows() -> None:
    first = 'each document in "bills/": vendor text, total number, paid yes/no\n'
    answers = [first, "table vendor, total where paid\n", "sum of total where paid\n"]
    program, seen, asked = planned(answers, free=False)
    assert 'files.write("paid.csv"' in program and "sum(values)" in program
    shown = [one.text for one in seen if isinstance(one, event.PlanLine)]
    assert "\n".join(shown).split() == program.split()
    assert asked[1].prefill == f"{first}results\npaid.csv: "
    assert all(request.lark for request in asked)


def test_a_line_that_is_refused_is_asked_for_again_with_the_reason() -> None:
    first = 'each document in "bills/": vendor text, total number, paid yes/no\n'
    bad, good = "table vendor, wage\n", "table vendor, total where paid\n"
    _, _, asked = planned([first, bad, bad, bad, good, "sum of total where paid\n"], free=False)
    assert "# an item has no wage" in asked[2].prefill
    assert [request.temperature for request in asked[1:5]] == [0.0, 0.3, 0.5, 0.7]


def test_what_fits_no_outline_is_planned_freely() -> None:
    free = [
        'paid = [p for p in files.list("bills/*") if "PAID" in doc.text(p)]\n',
        'rows = [{"vendor": doc.text(p), "total": 1} for p in paid]\n',
        'files.write("paid.csv", csv.dump(rows))\n',
        'files.write("sum.txt", str(sum([len(doc.text(p)) for p in paid])))\n',
        "```",
    ]
    refused = ["each document\n"] * 4
    program, seen, _ = planned([*refused, *free])
    assert program == "".join(free[:4])
    assert any("planned freely" in one.text for one in seen if isinstance(one, event.Note))
    with pytest.raises(ProgramError) as caught:
        planned(refused, free=False)
    assert caught.value.code == "outline_illegal"


@pytest.mark.parametrize(
    "task",
    [
        "Write " + "a, " * 3_000 + "and whether it is b for x.csv",
        "into " + "a/" * 4_000 + " x.csv",
        "(" + "a, " * 2_600 + "a or b",
        "a or " * 2_000 + "x.csv",
        "x.csv " + "and the " * 1_000 + "y.csv",
        "each " + "A" * 8_000 + "/ x.csv",
        "x.csv" * 1_600,
    ],
    ids=lambda task: task[:12],
)
def test_no_task_is_long_to_read(task: str) -> None:
    start = time.process_time()
    read_task(task)
    assert time.process_time() - start < 5
