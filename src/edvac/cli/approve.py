"""The talk about a plan before it runs: yes, edit it, say what is wrong, try a sample, no."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click

from edvac.cli import ui
from edvac.cli.ask import Asker
from edvac.core.errors import EdvacError, PolicyError

SAMPLE = 3  # elements, where no other number is given


@dataclass(frozen=True, slots=True)
class Plan:
    """A program that may run: legal, with the directories that it reads."""

    text: str
    roots: dict[str, Path]
    sample: int = 0


@dataclass(slots=True)
class Approval:
    """Talks with the person at the terminal until they say yes.

    Args:
        describe: lines that say what a plan will do.
        check: makes a plan of a text that a person has edited; raises where it is not legal.
        replan: writes the program again, given the present one and a remark; None where nobody
            knows what it is for.
    """

    asker: Asker
    describe: Callable[[Plan, bool], list[str]]
    check: Callable[[str], Plan]
    replan: Callable[[str, str], Awaitable[str]] | None

    async def agreed(self, plan: Plan, *, with_text: bool) -> Plan:
        """The plan as it may run.

        Raises:
            PolicyError: the person said no, or nobody is there.
        """
        self._show(plan, with_text)
        if not ui.is_terminal():
            raise PolicyError(
                "approval_needed",
                "nobody is there to approve this program",
                "Standard input or error is not a terminal.",
                "Repeat with --yes, or look first with --plan-only.",
            )
        while True:
            match await self._choice():
                case "yes":
                    return plan
                case "sample":
                    return replace(plan, sample=await self._how_many())
                case "edit":
                    plan = self._edited(plan)
                case "wrong" if self.replan is not None:
                    plan = await self._replanned(plan)
                case _:
                    raise PolicyError(
                        "not_approved",
                        "the program was not approved; nothing ran",
                        "",
                        "Say the task in other words, or edit the program: --plan-only prints it.",
                    )

    def _show(self, plan: Plan, with_text: bool) -> None:
        for line in self.describe(plan, with_text):
            ui.err(line)

    async def _choice(self) -> str:
        choices = {"y": "yes", "e": "edit", "s": "sample", "n": "no"}
        offer = "[Y]es, [e]dit, [s]ample, [n]o"
        if self.replan is not None:
            choices["w"] = "wrong"
            offer = "[Y]es, [e]dit, say what is [w]rong, [s]ample, [n]o"
        while True:
            answer = await self.asker.line(f"Run it? {offer}")
            if answer is None:
                return "no"
            word = answer.strip().lower() or "y"
            for key, choice in choices.items():
                if word in (key, choice):
                    return choice
            ui.err(f"Please answer one of: {', '.join(choices)}.")

    async def _how_many(self) -> int:
        while True:
            answer = await self.asker.line(f"How many items? [{SAMPLE}]")
            if not answer:
                return SAMPLE
            if answer.isdecimal() and int(answer) > 0:
                return int(answer)
            ui.err("Please give a number above zero.")

    def _edited(self, plan: Plan) -> Plan:
        """What a person made of it; the plan as it was where that is not legal."""
        try:
            text = click.edit(plan.text, extension=".edv")
        except click.ClickException as problem:
            ui.err(f"the editor could not be used: {problem.format_message()}")
            return plan
        if text is None or text == plan.text:
            ui.err("the program was not changed")
            return plan
        return self._taken(plan, text)

    async def _replanned(self, plan: Plan) -> Plan:
        assert self.replan is not None
        remark = await self.asker.line("What is wrong with it?")
        if not remark:
            return plan
        try:
            text = await self.replan(plan.text, remark)
        except EdvacError as problem:
            ui.err(f"no better plan came out: {problem}")
            return plan
        return self._taken(plan, text)

    def _taken(self, plan: Plan, text: str) -> Plan:
        try:
            made = self.check(text)
        except EdvacError as problem:
            ui.err(f"this is not a legal program, and the one before is kept: {problem}")
            return plan
        self._show(made, True)
        return made
