"""What a model's answer may be: anything, and still nothing breaks."""

from __future__ import annotations

import datetime as dt

import pytest

from edvac.control import Intent
from edvac.control.context import assemble, read_answer
from edvac.core.errors import ModelOutputError, OperandError
from edvac.core.label import PROGRAM, Label
from edvac.core.signature import NO_ACCESS, overlap
from edvac.core.value import Cell, lift, plain
from edvac.device import CATALOGUE
from edvac.program import Evaluator, Fuel, StepCall, parse

RECORD = "class A:\n    name: str | None\n    total: Decimal | None\n\n"


def intent(text: str = "a document") -> Intent:
    """The intent of an extraction."""
    call = reached(RECORD + 'x = llm.extract("text", A)\n')
    operands = {"data": lift(text, Label.of(["file:a"])), "hint": lift("", PROGRAM)}
    return Intent(call, operands, NO_ACCESS)


def choice(options: list[str]) -> Intent:
    """The intent of a choice whose options the program computes."""
    call = reached("kinds = ['a', 'b'] + []\nx = llm.choose('Which?', kinds, 'text')\n")
    operands = {name: lift(value, PROGRAM) for name, value in
                {"question": "Which?", "options": options, "data": ["text"]}.items()}  # fmt: skip
    return Intent(call, operands, NO_ACCESS)


def reached(text: str) -> StepCall:
    """The first step of a program, reached by the real evaluator."""
    found: list[StepCall] = []

    class Host:
        def step(self, call: StepCall) -> Cell:
            found.append(call)
            return Cell(call.slot)

        def open_region(self, order: object, access: object) -> int:
            return 0

        def close_region(self, token: int) -> None: ...

        def passed(self, order: object, access: object, decider: object) -> None: ...

        def undecided(self, branch: object) -> None: ...

        def decided(self, condition: object, taken: bool) -> None: ...

        def handled(self, failed: object) -> None: ...

    Evaluator(parse(text, CATALOGUE), Host(), {}, dt.date(2026, 1, 1), Fuel()).start()
    return found[0]


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


def test_a_choice_is_one_of_its_options_wherever_they_come_from() -> None:
    asked = choice(["rent", "food", "rent"])
    schema = assemble(asked, "run", 1).schema
    assert schema is not None and schema["properties"]["answer"] == {"enum": ["rent", "food"]}
    value = read_answer(asked, '{"answer": "food"}', "stop", "m")
    assert plain(value) == "food" and value.label.bits == 1
    with pytest.raises(ModelOutputError, match="'fuel' is none of 'rent', 'food'"):
        read_answer(asked, '{"answer": "fuel"}', "stop", "m")


def test_of_nothing_nothing_is_chosen() -> None:
    with pytest.raises(OperandError, match="nothing to choose from"):
        assemble(choice([]), "run", 1)


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
