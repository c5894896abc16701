"""Running ahead of undecided conditions: what it saves, and what it throws away.

A program goes through rounds; in each a model step decides a condition, and another follows on one
of two sides. Both take as long. How far the conditions can be foretold is set: in the first family
they go one way with a given share, in the second each goes as the one three rounds before did, with
that share, so that over all they are even. Each is run without looking ahead, looking ahead for the
first time, and again by a run that has the history of three before it. Side by side stand simpler
rules, by how often they guess right.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edvac.bench.report import Document, Figure, median
from edvac.control.predictor import Predictor
from edvac.machine import Job, Machine, Report
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor

SHARES: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FAMILIES: Final = ("one way", "as three before")
HISTORY: Final = 3  # runs before the one that has a history
BACK: Final = 3
_RULES: Final = ("always", "last", "two bits", "share", "sparse")

PROGRAM: Final = """\
last = "start"
for number in range({rounds}):
    kind = llm.choose(f"round {{number}}", ["yes", "no"], last)
    if kind == "yes":
        last = llm.write(f"first {{number}}", last[:8], number)
    else:
        last = llm.write(f"second {{number}}", last[:8], number)
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Args:
        rounds: of one run.
        delay_s: of each model step.
        repeats: runs of each kind; the median counts.
    """

    rounds: int = 60
    delay_s: float = 0.03
    repeats: int = 3


def outcomes(family: str, share: float, chance: random.Random) -> Iterator[bool]:
    """How the condition goes, round by round, without end."""
    made: list[bool] = []
    while True:
        if family == "one way":
            now = chance.random() < share
        elif len(made) < BACK:
            now = len(made) == 1  # not all alike
        else:
            now = made[-BACK] is (chance.random() < share)
        made.append(now)
        yield now


def measure(document: Document, wanted: Wanted) -> None:
    """Add the figures of all families and shares."""
    for family in FAMILIES:
        for share in SHARES:
            _measure(document, family, share, wanted)
    for family in FAMILIES:
        for share in SHARES:
            right = hits(family, share, 2000)
            said = ", ".join(f"{rule} {right[rule]:.1%}" for rule in _RULES)
            document.notes.append(f"guesses right, {family}, {share:.0%}: {said}")


def _measure(document: Document, family: str, share: float, wanted: Wanted) -> None:
    without, first, later, used, wasted = [], [], [], 0, 0
    for repeat in range(wanted.repeats):
        chance = random.Random(f"{family} {share} {repeat}")  # noqa: S311
        went = outcomes(family, share, chance)
        rounds = [[next(went) for _ in range(wanted.rounds)] for _ in range(HISTORY + 1)]
        with tempfile.TemporaryDirectory() as place:
            without.append(_run(Path(place), rounds[-1], wanted, ahead=False).seconds)
        with tempfile.TemporaryDirectory() as place:
            reports = [_run(Path(place), each, wanted, ahead=True) for each in rounds]
        first.append(reports[0].seconds)
        later.append(reports[-1].seconds)
        used += reports[-1].counts["ahead"]
        wasted += reports[-1].counts["wasted"]
    name = f"{family}, {share:.0%}"
    for kind, seconds in (("first run", first), ("with history", later)):
        took = median(seconds)
        figure = Figure(f"{name}: {kind}", took, "s", "lower", None, "not ahead", median(without))
        document.figures.append(figure)
    thrown = wasted / (2 * wanted.rounds * wanted.repeats)
    note = f"{used / wanted.repeats:.0f} steps taken over of {2 * wanted.rounds}"
    document.figures.append(
        Figure(f"{name}: thrown away", thrown * 100, "% of steps", "lower", note=note)
    )


def _run(place: Path, went: list[bool], wanted: Wanted, *, ahead: bool) -> Report:
    def script(request: Request) -> str:
        text = request.messages[-1].text
        head, _, rest = text.partition(" ")
        if head != "round":
            return f"{head} {rest.split()[0]}"
        return '{"answer": "%s"}' % ("yes" if went[int(rest.split()[0])] else "no")

    processor = ScriptedProcessor(script, delay_s=wanted.delay_s, concurrency=8, local=True)
    with Machine(place, processor, ahead=ahead) as machine:
        job = Job(PROGRAM.format(rounds=len(went)), name="rounds", fresh=True)
        report = asyncio.run(machine.run(job))
    assert report.state == "done" and report.counts["finished"] == 2 * len(went)
    return report


def hits(family: str, share: float, count: int) -> dict[str, float]:
    """How often each rule guesses right, over so many rounds of one program."""
    chance = random.Random(f"{family} {share}")  # noqa: S311
    went = outcomes(family, share, chance)
    rules: dict[str, Callable[[list[bool]], bool]] = {
        "always": lambda _: True,
        "last": lambda past: past[-1] if past else True,
        "two bits": _TwoBits(),
        "share": lambda past: 2 * sum(past) >= len(past),
    }
    right = dict.fromkeys(_RULES, 0)
    predictor = Predictor()
    past: list[bool] = []
    for number in range(count):
        now = next(went)
        for name, rule in rules.items():
            right[name] += rule(past) is now
        right["sparse"] += predictor.guess("condition", (number,), 0.5).taken is now
        predictor.decided("condition", (number,), now)
        past.append(now)
    return {name: found / count for name, found in right.items()}


class _TwoBits:
    """A saturating counter, as in the first branch predictors (Smith 1981)."""

    def __init__(self) -> None:
        self._count = 2

    def __call__(self, past: list[bool]) -> bool:
        if past:
            self._count = min(3, self._count + 1) if past[-1] else max(0, self._count - 1)
        return self._count >= 2
