"""The questions of `parallel` with a real model, which writes the programs and does their steps.

It plans under edvac's planner and grammar, and steps begin while it plans. What counts is whether a
program comes out, and whether what the program writes is the published answer.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edvac.bench.parallel import spread
from edvac.bench.parallel_arms import ToolDevice
from edvac.bench.parallel_plans import RESULT
from edvac.bench.question import Question, Tools
from edvac.bench.question_sets import read_sets
from edvac.bench.report import Document, Figure, median
from edvac.compiler import Planner
from edvac.core.errors import EdvacError
from edvac.core.event import Event
from edvac.machine import Job, Machine
from edvac.machine.history import read_history
from edvac.processor import Processor

_TASK: Final = (
    "{question}\n"
    "Search for each thing that the question speaks of with tool.search(topic).{numbers} Then let "
    "llm.write answer the question, in a word or a name, from all that came back, and write what "
    "it says to {result}."
)
_NUMBERS: Final = (
    " Do each step of the arithmetic with tool.calculate(kind, *values), which takes what a search "
    "returned as well as numbers; its kinds are multiply, divide, sum, difference, average, "
    "largest and smallest."
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Planned:
    """How one question went with a real model.

    Attributes:
        program: empty where none came out.
        why: it has no right answer; empty where it has.
    """

    question: Question
    program: str
    answer: str
    why: str
    wall_s: float


async def measure(
    document: Document, processor: Processor, questions: int, latency_s: float, say: Say
) -> None:
    """Add the figures of so many questions of each set.

    Raises:
        UsageError: the data are absent.
    """
    await processor.open()
    for one in read_sets():
        went = []
        for question in spread(one.questions, questions):
            went.append(await answer(question, processor, latency_s))
            say(f"{one.name}, {question.id}: {went[-1].why or 'right'}, {went[-1].wall_s:.1f} s")
        add_figures(document, one.name, went)


async def answer(question: Question, processor: Processor, latency_s: float) -> Planned:
    """Plan and run one question."""
    loop = asyncio.get_running_loop()
    tools = Tools(question, latency_s)
    task = task_of(question)
    text, why, start = "", "", loop.time()
    with tempfile.TemporaryDirectory(prefix="edvac-bench-") as place:
        devices = {"tool": ToolDevice(tools)}
        with Machine(Path(place), processor, devices=devices) as machine:
            planner = Planner(processor, machine.catalogue, _unheard)
            try:
                report = await machine.run_as_written(
                    Job("", task=task), lambda draft: planner.plan(task, draft)
                )
            except EdvacError as error:
                return Planned(question, "", "", f"no program: {error.what}", loop.time() - start)
            wall = loop.time() - start
            written = await machine.ledger.call(lambda store: read_history(store, report.run))
            files = await machine.ledger.call(lambda store: store.list_files(report.run))
            if any(one.path == RESULT for one in files):
                body = await machine.ledger.call(lambda s: s.read_file(report.run, RESULT))
                text = body.decode(errors="replace")
    if not text:
        why = f"the run is {report.state} and wrote no answer"
    elif not question.is_right(text):
        why = f"{text[:60]!r} instead of {question.answer!r}"
    return Planned(question, written.program, text, why, wall)


def task_of(question: Question) -> str:
    """The question as a task for edvac, with what the tools are for."""
    counts = any(call.tool == "calculate" for call in question.calls)
    numbers = _NUMBERS if counts else ""
    return _TASK.format(question=question.text, numbers=numbers, result=RESULT)


def add_figures(document: Document, name: str, went: Sequence[Planned]) -> None:
    """Valid plans, right answers, and the time of a question."""
    valid = sum(bool(one.program) for one in went)
    right = sum(not one.why for one in went)
    document.figures += [
        Figure(f"{name}: valid plans", 100 * valid / len(went), "%", "higher", note=str(len(went))),
        Figure(f"{name}: right answers", 100 * right / len(went), "%", "higher"),
        Figure(f"{name}: time", median([one.wall_s for one in went]), "s", "lower"),
    ]
    document.notes += [f"{name}, {one.question.id}: {one.why}" for one in went if one.why]


def _unheard(happened: Event) -> None:
    del happened
