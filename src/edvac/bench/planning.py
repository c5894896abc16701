"""How many tasks does the planner turn into programs that do them?

Plans are made in batches with a real model; each program is then run by a real machine in a fresh
workspace, where the oracle answers the model steps. What counts is the files that come out.
"""

from __future__ import annotations

import asyncio
import fnmatch
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edvac.bench.planset import Task
from edvac.bench.report import Document, Figure
from edvac.compiler import Planner
from edvac.compiler.planner import PLANS
from edvac.core.errors import EdvacError
from edvac.core.event import Event
from edvac.device import CATALOGUE
from edvac.machine import Job, Machine
from edvac.processor import Answer, OnText, Processor, Request
from edvac.processor.scripted import ScriptedProcessor

RUN_S = 60.0  # no program of the set takes longer with the oracle
AIMS = {"easy": 80.0, "hard": 50.0}


@dataclass(slots=True)
class Result:
    """What became of a task. `kind` names the failure, and is empty where all checks passed."""

    task: Task
    program: str = ""
    kind: str = ""
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    samples: int = 0
    read: int = 0  # tokens of prompts that were not cached
    written: int = 0

    @property
    def passed(self) -> bool:
        return not self.kind


class Cost(Protocol):
    """What is counted: answers, tokens read and not cached, tokens written."""

    samples: int
    read: int
    written: int


class Counted:
    """A processor that counts what is asked of it, and may hide that it decodes under grammars."""

    def __init__(self, inner: Processor, result: Cost, *, grammar: bool = True) -> None:
        self._inner = inner
        self._result = result
        self.has_grammar = grammar and inner.has_grammar

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        heard = 0

        def listen(text: str, tokens: int) -> None:
            nonlocal heard
            heard += tokens
            if on_text is not None:
                on_text(text, tokens)

        self._result.samples += 1
        try:
            answer = await self._inner.complete(request, listen)
            self._result.read += answer.prompt_tokens - answer.cached_tokens
            return answer
        finally:
            self._result.written += heard


async def evaluate(
    tasks: Iterable[Task],
    processor: Processor,
    *,
    worker: Processor | None = None,
    at_once: int = 4,
    plans: int = PLANS,
    way: str = "both",
    shown: int | None = None,
    rules: bool = True,
    on_result: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Plan and run each task.

    Args:
        worker: what answers the model steps of a run; the oracle where it is None.
        at_once: tasks that are planned side by side.
        plans: programs that are written for each, of which one is taken.
        way: outline, free, both, or whole: freely in one piece, without a grammar.
        shown: examples in each prompt.
        rules: with rules in the prompt?
    """
    await processor.open()
    turn = asyncio.Semaphore(at_once)

    async def one(task: Task) -> Result:
        async with turn:
            result = await _plan(task, processor, plans=plans, way=way, shown=shown, rules=rules)
            if result.program:
                await _run(result, worker or ScriptedProcessor(task.world.oracle))
            on_result(result)
            return result

    return list(await asyncio.gather(*(one(task) for task in tasks)))


async def _plan(task: Task, processor: Processor, way: str, **options: Any) -> Result:
    result = Result(task)
    start = time.perf_counter()
    try:
        counted: Any = Counted(processor, result, grammar=way != "whole")
        ways = {"outlines": way in ("outline", "both"), "free": way != "outline"}
        sight = Documents(task.world.documents)
        planner = Planner(counted, CATALOGUE, _unheard, sight=sight, **ways, **options)
        result.program = await planner.plan(task.text)
    except EdvacError as error:
        result.kind = "no plan"
        result.problems = [str(error)]
    result.seconds = time.perf_counter() - start
    return result


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a world, which somebody who plans has there."""

    documents: Mapping[str, str]

    def names(self, pattern: str) -> list[str]:
        return sorted(fnmatch.filter(self.documents, pattern))

    def text(self, path: str) -> str | None:
        return self.documents.get(path)


def _unheard(happened: Event) -> None:
    del happened


async def _run(result: Result, worker: Processor) -> None:
    """Run the plan and look at its files."""
    try:
        state, files = await asyncio.wait_for(execute(result.program, result.task, worker), RUN_S)
    except TimeoutError:
        result.kind, result.problems = "does not end", [f"still running after {RUN_S:.0f} s"]
        return
    except EdvacError as error:
        result.kind, result.problems = "does not start", [str(error)]
        return
    result.problems = result.task.problems(files)
    if not result.problems:
        return
    absent = any(problem.endswith("is missing") for problem in result.problems)
    result.kind = "a step failed" if state != "done" else "file missing" if absent else "wrong"


async def execute(program: str, task: Task, worker: Processor) -> tuple[str, dict[str, str]]:
    """Run a program on a task's documents; how it ended, and the files that it wrote.

    Raises:
        ProgramError: the program is not legal.
    """
    with tempfile.TemporaryDirectory() as directory:
        inputs, work = Path(directory) / "in", Path(directory) / "work"
        work.mkdir()
        for path, text in task.world.documents.items():
            (inputs / path).parent.mkdir(parents=True, exist_ok=True)
            (inputs / path).write_text(text, encoding="utf-8")
        with Machine(work, worker) as machine:
            report = await machine.run(Job(program, task=task.text, roots={"": inputs}, seed=1))
            files = await machine.ledger.call(
                lambda store: {
                    one.path: store.read_file(report.run, one.path).decode(errors="replace")
                    for one in store.list_files(report.run)
                }
            )
    return report.state, files


def add_figures(document: Document, results: list[Result]) -> None:
    """Pass rates, cost, and the failures by kind."""
    for level, aim in AIMS.items():
        own = [result for result in results if result.task.level == level]
        if own:
            passed = sum(result.passed for result in own)
            note = f"{passed} of {len(own)} tasks"
            rate = 100 * passed / len(own)
            document.figures.append(Figure(level, rate, "% passed", "higher", aim, note=note))
    for name, unit, values in (
        ("time of a plan", "s", [result.seconds for result in results]),
        ("samples of a plan", "calls", [result.samples for result in results]),
        ("tokens written for a plan", "tokens", [result.written for result in results]),
    ):
        document.figures.append(Figure(name, statistics.median(values), unit, "lower"))
    kinds = Counter(result.kind for result in results if result.kind)
    document.notes += [f"{kind}: {count}" for kind, count in kinds.most_common()]
    document.notes += [
        f"{result.task.id}: {result.kind}: {'; '.join(result.problems)}"
        for result in results
        if result.kind
    ]
