"""What a model's answer may be: anything, and still nothing breaks."""

from __future__ import annotations

import datetime as dt

import pytest

from edvac.control import Intent
from edvac.control.context import assemble, read_answer
from edvac.core.errors import ModelOutputError
from edvac.core.label import PROGRAM, Label
from edvac.core.signature import NO_ACCESS, overlap
from edvac.core.value import Cell, lift, plain
from edvac.device import CATALOGUE
from edvac.program import Evaluator, Fuel, StepCall, parse

RECORD = "class A:\n    name: str | None\n    total: Decimal | None\n\n"


def intent(text: str = "a document") -> Intent:
    """The intent of an extraction, reached by the real evaluator."""
    found: list[StepCall] = []

    class Host:
        def step(self, call: StepCall) -> Cell:
            found.append(call)
            return Cell(call.slot)

        def open_region(self, order: object, access: object) -> int:
            return 0

        def close_region(self, token: int) -> None: ...

        def handled(self, failed: object) -> None: ...

    program = parse(RECORD + 'x = llm.extract("text", A)\n', CATALOGUE)
    Evaluator(program, Host(), {}, dt.date(2026, 1, 1), Fuel()).start()
    operands = {"data": lift(text, Label.of(["file:a"])), "hint": lift("", PROGRAM)}
    return Intent(found[0], operands, NO_ACCESS)


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "\\ud800", "total": null}',
        '{"name": "x"}',
        '{"name": "x", "total": "NaN"}',
        '{"name": "x", "total": null, "more": 1}',
        "[]",
        "nonsense",
        "",
    ],
)
def test_an_answer_that_does_not_fit_is_a_typed_failure(answer: str) -> None:
    with pytest.raises(ModelOutputError):
        read_answer(intent(), answer, "stop", "m")


def test_a_cut_answer_is_no_value() -> None:
    with pytest.raises(ModelOutputError, match="cap"):
        read_answer(intent(), '{"name": "x", "total": null}', "length", "m")


@pytest.mark.parametrize("absent", ["null", '"null"', '"not stated"', '""'])
def test_what_is_not_stated_is_none(absent: str) -> None:
    value = read_answer(intent(), f'{{"name": {absent}, "total": null}}', "stop", "m")
    assert plain(value) == {"name": None, "total": None}


def test_shared_parts_come_first_and_data_is_a_segment_of_its_own() -> None:
    one, two = (
        assemble(intent("first"), "r", 0, "a job"),
        assemble(intent("second"), "r", 0, "a job"),
    )
    texts = [[s.text for m in request.messages for s in m.segments] for request in (one, two)]
    place = texts[0].index("first")
    assert texts[0][:place] == texts[1][:place]
    assert texts[1][place] == "second"
    assert "a job" in texts[0][0]


def test_two_stars_may_stand_for_no_directory() -> None:
    assert overlap("b.txt", "**/b.txt")
    assert overlap("out/x.txt", "out/**/x.txt")
    assert not overlap("d/c.txt", "e/**/b.txt")


def test_a_directory_covers_what_a_glob_finds_in_it() -> None:
    assert overlap("a", "**/*.md")
    assert overlap("a/b", "*/b/*.md")
    assert overlap("a", "[ab]/x.md")
    assert not overlap("a/b", "*/c/*.md")
    assert not overlap("a/b.txt", "a/*.md"), "no glob without ** reaches deeper than it is long"
