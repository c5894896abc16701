"""The talk about a plan: what a person says, and what becomes of the plan."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edvac.cli import ui
from edvac.cli.approve import Approval, Plan
from edvac.core.errors import PolicyError, ProgramError


class Person:
    """Answers in turn, then is gone."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)

    async def line(self, question: str) -> str | None:
        return self._answers.pop(0) if self._answers else None


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "is_terminal", lambda: True)


def talk(*answers: str, replan: Any = None) -> tuple[Plan, list[str]]:
    """The plan that is agreed on, and every text that was shown."""
    shown: list[str] = []

    def describe(plan: Plan, with_text: bool) -> list[str]:
        shown.append(plan.text)
        return []

    def check(text: str) -> Plan:
        if "illegal" in text:
            raise ProgramError("name_unknown", "there is no such name")
        return Plan(text, {})

    person: Any = Person(*answers)
    approval = Approval(person, describe, check, replan)
    return asyncio.run(approval.agreed(Plan("first", {}), with_text=True)), shown


async def better(text: str, remark: str) -> str:
    if remark == "fail":
        raise ProgramError("plan_failed", "the model wrote no legal program")
    return f"{text} but {remark}"


def test_a_remark_makes_another_plan() -> None:
    plan, shown = talk("w", "shorter", "wrong", "nicer", "y", replan=better)
    assert plan.text == "first but shorter but nicer"
    assert shown == ["first", "first but shorter", plan.text]


@pytest.mark.parametrize("remark", ["", "fail", "illegal"])
def test_what_brings_no_better_plan_keeps_the_one_there_is(
    remark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, shown = talk("w", remark, "", replan=better)
    assert (plan.text, shown) == ("first", ["first"])
    assert bool(capsys.readouterr().err) is bool(remark), "and says why"


def test_without_a_task_nobody_can_plan_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert talk("w", "y")[0].text == "first"
    assert "Please answer one of: y, e, s, n." in capsys.readouterr().err


def test_a_sample_of_so_many() -> None:
    assert talk("s", "")[0].sample == 3
    assert talk("sample", "none", "0", "7")[0].sample == 7


@pytest.mark.parametrize("answers", [("n",), ("no",), ("w",), ()])
def test_no_is_no(answers: tuple[str, ...]) -> None:
    with pytest.raises(PolicyError) as refused:
        talk(*answers)
    assert refused.value.code == "not_approved"
