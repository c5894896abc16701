"""Plans from the words of questions, and pages from which the published answers follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from parallel_kit import COMPARISONS, FILMS, SUMS, data_in, row, swapped

from edvac.bench.question import Call, Question, Ref, execute, run
from edvac.bench.question_sets import comparison, read_sets, recommendation
from edvac.bench.question_sums import sums
from edvac.cli.main import main
from edvac.core.errors import DeviceError, UsageError


def conclusion(question: Question) -> str:
    results = run(question.calls, question.pages)
    return question.conclude([results[place] for place in question.read])


SIZES = (1e-6, 1e12)


def with_page(question: Question, name: str, text: str) -> Question:
    return replace(question, pages={**question.pages, name: text})


def searched(question: Question) -> list[str]:
    return [str(call.args[0]) for call in question.calls if call.tool == "search"]


@pytest.mark.parametrize(("text", "answer", "names"), COMPARISONS)
def test_a_comparison_is_two_searches(text: str, answer: str, names: list[str]) -> None:
    question = comparison(row(text, answer))
    assert question is not None
    assert question.calls == tuple(Call("search", (name,)) for name in names)
    assert question.read == (0, 1)
    assert question.is_right(conclusion(question)) and conclusion(question) == answer
    if answer not in ("yes", "no"):
        assert not question.is_right(conclusion(swapped(question))), "it follows from the pages"


def test_the_pages_of_a_comparison_differ_where_the_answer_is_no() -> None:
    for number in range(40):
        for answer in ("yes", "no"):
            question = comparison(row("Are Ann Bee and Cod Dee alike?", answer, number))
            assert question is not None and conclusion(question) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("What trade do Anna Bell and Carl Dorn share?", "smith"),
        ("Are Ann Bee and Cod Dee and Eve Fox and Gus Hay alike?", "no"),
        ("Which is older, Oak Hall or Ash Hall?", "Elm Hall"),
    ],
)
def test_a_comparison_that_leaves_doubt_is_left_out(text: str, answer: str) -> None:
    assert comparison(row(text, answer)) is None


@pytest.mark.parametrize("answer", ["E Five", "F Six", "G", "H Eight"])
def test_a_recommendation_is_eight_searches(answer: str) -> None:
    for number in range(20):
        question = recommendation(row(FILMS, answer, number))
        assert question is not None
        assert searched(question) == list(question.pages) and len(question.pages) == 8
        assert not any(call.needs for call in question.calls)
        assert conclusion(question) == answer


def test_a_title_with_a_comma_is_left_out() -> None:
    assert recommendation(row(FILMS.replace("B Two", "B, Two"), "G")) is None


def test_every_liked_film_counts() -> None:
    """Nothing is known from the options alone, nor from three of eight pages."""
    question = recommendation(row(FILMS, "G"))
    assert question is not None
    marks = {name: text.rpartition(":")[2] for name, text in question.pages.items()}
    right, others = {*marks["G"].strip(". ").split(", ")}, ("E Five", "F Six", "H Eight")
    for film in ("A One", "B Two", "C Three", "D Four"):
        liked = {*marks[film].strip(". ").split(", ")}
        assert all(
            len(liked & right) > len(liked & {*marks[one].strip(". ").split(", ")})
            for one in others
        )


@pytest.mark.parametrize(("text", "answer", "wanted"), SUMS)
def test_sums_are_searches_and_calculations(text: str, answer: str, wanted: list[Any]) -> None:
    question = sums(row(text, answer))
    assert question is not None
    made = [call for call in question.calls if call.tool == "calculate"]
    assert [call.tool for call in question.calls[: -len(made)]] == ["search"] * len(question.pages)
    assert [
        (call.args[0], *(arg.call if isinstance(arg, Ref) else arg for arg in call.args[1:]))
        for call in made
    ] == wanted
    assert question.is_right(conclusion(question))
    others = [
        with_page(question, name, f"It is {size}") for name in question.pages for size in SIZES
    ]
    assert not all(one.is_right(conclusion(one)) for one in others), "it follows from the pages"


@pytest.mark.parametrize(
    "text",
    [
        "If Ashland and Elmland were to merge, what would be the difference in density to Oakland?",
        "Suppose Mount Ash shrinks by 3%, while the heights of Mount Elm and Mount Oak grow by 3% "
        "and 4% respectively. What would be the difference?",
        "If Mount Ash grew by 3% and Mount Elm by a growth of 4%, what would people say?",
    ],
)
def test_sums_that_leave_doubt_are_left_out(text: str) -> None:
    assert sums(row(text, "7")) is None


def test_what_changes_is_told_by_the_nearest_words() -> None:
    """A word of size farther away, or a thing that was spoken of before, says nothing."""
    text = (
        "If the larger Ash Sea shrank by 10% and, unlike the Ash Sea, the smaller Elm Sea grew by "
        "20%, which sea would be larger?"
    )
    question = sums(row(text, "Elm Sea"))
    assert question is not None and searched(question) == ["Ash Sea", "Elm Sea"]
    assert [call.args for call in question.calls[2:]] == [
        ("multiply", Ref(0), 0.9),
        ("multiply", Ref(1), 1.2),
    ]


def test_answers_are_compared_as_published_scorers_do() -> None:
    named = comparison(row(COMPARISONS[2][0], "Oak Hall"))
    number = sums(row(SUMS[4][0], "44.5"))
    assert named is not None and number is not None
    assert named.is_right("the OAK hall.") and not named.is_right("Oak")
    assert number.is_right("about 44.5 million") and number.is_right("44.52")
    assert not number.is_right("45") and not number.is_right("none")


def test_tools_refuse_what_they_do_not_know() -> None:
    pages = {"Ash": "The size of Ash is 2.5"}
    assert execute(pages, "calculate", ["multiply", pages["Ash"], 4]) == "10"
    for tool, args in (("search", ["Elm"]), ("calculate", ["root", 4]), ("find", ["Ash"])):
        with pytest.raises(DeviceError):
            execute(pages, tool, args)
    with pytest.raises(DeviceError):
        execute(pages, "calculate", ["sum", "nothing", 4])


def test_published_files_are_read_from_the_directory_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_in(tmp_path, monkeypatch)
    found = {one.name: one for one in read_sets()}
    assert {name: (one.published, len(one.questions)) for name, one in found.items()} == {
        "HotpotQA": (5, 4), "movies": (2, 1), "ParallelQA": (8, 7)
    }  # fmt: skip


def test_absent_data_are_an_error_that_says_where_they_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDVAC_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError) as caught:
        read_sets()
    assert caught.value.code == "bench_data"
    with pytest.raises(SystemExit) as ended:
        main(["bench", "parallel", "--quick"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert str(tmp_path / "nowhere") in told and "EDVAC_DATA" in told
