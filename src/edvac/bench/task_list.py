"""LLMCompiler's rules, as they are described: a list of tasks with references, fetched by polling.

A line is a task; it depends on every earlier one whose number stands behind a `$` anywhere in the
text of its arguments. The fetching unit takes finished lines from a queue while the planner writes.
As long as it writes, the unit waits for the next line and then starts what is ready, so that what
depends on a finished task waits for the planner's words; once all lines are there it looks every
10 ms. References are replaced by the text that a task returned. The last line joins: it waits for
all tasks. Written from the description (Kim et al., An LLM Compiler for Parallel Function Calling),
not from the code.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from edvac.bench.parallel_plans import PLAN_END
from edvac.core.errors import DeviceError

POLL_S: Final = 0.010
_LINE = re.compile(r"\s*(\d+)\.\s*(\w+)\((.*)\)\s*$")
_REFERENCE = re.compile(r"\$\{?(\d+)\}?")
JOIN: Final = "join"

Use: TypeAlias = Callable[[int, str, Sequence[str | float]], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Task:
    """
    Attributes:
        raw: its arguments as they are written.
        needs: numbers of the tasks that it refers to.
    """

    number: int
    tool: str
    raw: str
    needs: frozenset[int]


def read_line(line: str) -> Task | None:
    """A task; None where the line is none."""
    found = _LINE.match(line)
    if found is None:
        return None
    number, tool, raw = int(found[1]), found[2], found[3]
    every = range(1, number)
    needs = every if tool == JOIN else {int(one) for one in _REFERENCE.findall(raw)} & {*every}
    return Task(number, tool, raw, frozenset(needs))


def arguments(raw: str, results: dict[int, str]) -> list[str | float]:
    """Arguments as Python's literals, or else all of it as one text; references in texts give way
    to results, the highest number first."""
    try:
        given = ast.literal_eval(f"[{raw}]")
    except (ValueError, SyntaxError):
        given = [raw]
    return [_replaced(one, results) if isinstance(one, str) else float(one) for one in given]


def _replaced(text: str, results: dict[int, str]) -> str:
    for number in sorted(results, reverse=True):
        for form in (f"${{{number}}}", f"${number}"):
            text = text.replace(form, results[number])
    return text


class Fetcher:
    """The task fetching unit.

    Args:
        use: calls a tool, given the task's place (its number less one), name and arguments.
    """

    def __init__(self, use: Use) -> None:
        self._use = use
        self._lines: asyncio.Queue[Task | None] = asyncio.Queue()
        self._waiting: dict[int, Task] = {}
        self._under_way: list[asyncio.Task[None]] = []
        self._rest = ""
        self.results: dict[int, str] = {}  # by number

    def hear(self, token: str) -> None:
        """A token of the plan; a finished line becomes a task."""
        self._rest += token
        *lines, self._rest = self._rest.split("\n")
        for line in lines:
            task = read_line(line)
            if task is not None:
                self._lines.put_nowait(task)
            elif line.strip() == PLAN_END:
                self._lines.put_nowait(None)

    async def fetch(self) -> dict[int, str]:
        """Run tasks until all of the plan have ended; the results by number.

        Raises:
            DeviceError: a tool failed, or a task waits for one that is not there.
        """
        while (task := await self._lines.get()) is not None:
            if task.tool != JOIN:
                self._waiting[task.number] = task
            self._start_ready()
        while self._waiting or len(self.results) < len(self._under_way):
            self._look()
            await asyncio.sleep(POLL_S)
        return self.results

    def _look(self) -> None:
        for task in self._under_way:
            if task.done():
                task.result()
        self._start_ready()
        if self._waiting and all(task.done() for task in self._under_way):
            raise DeviceError(
                "task_stuck", f"tasks {sorted(self._waiting)} wait for none that runs"
            )

    def _start_ready(self) -> None:
        for number, task in list(self._waiting.items()):
            if task.needs <= self.results.keys():
                del self._waiting[number]
                self._under_way.append(asyncio.ensure_future(self._run(task)))

    async def _run(self, task: Task) -> None:
        given = arguments(task.raw, self.results)
        self.results[task.number] = await self._use(task.number - 1, task.tool, given)
