"""Three ways to answer a question with tools: edvac, LLMCompiler's rules, and a ReAct loop.

All have the same tools and a model that writes at the same speed: planner, answers and turns come
token by token. Reading takes the model no time here; what it reads is counted. Everything runs on
the clock of the loop, which may be a virtual one for the two that use no threads.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final, TypeAlias

from edvac.bench.parallel_plans import (
    RESULT,
    count,
    finish,
    finished,
    pieces,
    place,
    short_list,
    short_program,
    streams,
    turn,
)
from edvac.bench.question import Question, Tools
from edvac.bench.task_list import Fetcher
from edvac.compiler import examples, prompt
from edvac.compiler.statements import first_statement
from edvac.core.errors import DeviceError, InternalError
from edvac.core.label import UNBOUNDED, Label
from edvac.core.schema import ANY, STR
from edvac.core.signature import Effect, Param, Signature
from edvac.core.value import Scalar
from edvac.device import Call, Reply
from edvac.machine import Job, Machine
from edvac.processor import Answer, OnText, Request
from edvac.processor.scripted import ScriptedProcessor

_DATA = re.compile(r"<data \d+>\n(.*?)\n</data \d+>", re.DOTALL)
_ACTION = re.compile(r"Action: (\w+)\((.*)\)\s*$", re.DOTALL)
_FOUND = Label.of(["web:encyclopaedia"], bits=UNBOUNDED)

SEARCH: Final = "search(topic): the page of an encyclopaedia on a topic."
CALCULATE: Final = (
    "calculate(kind, *values): a number from numbers, or from texts that end with one. Kinds: "
    "multiply, divide, sum, difference, average, largest, smallest, ratio of extremes, average of "
    "extremes."
)
_LIST_RULES: Final = (
    f"Plan the question as numbered tasks that run at the same time where they can.\n{SEARCH}\n"
    f"{CALCULATE}\nWrite one task a line: a number, a point, a tool with its arguments. $N stands "
    "for the result of task N. End with join(). Write no comments and no other tools."
)
_JOIN_RULES: Final = (
    "Answer the question from the results of the tasks. Write a thought and then Finish(answer), "
    "or Replan(reason) where they are not enough."
)
_LOOP_RULES: Final = (
    f"Answer the question with these tools.\n{SEARCH}\n{CALCULATE}\nWrite a thought and an action; "
    "the observation is given to you. When you know the answer, the action is Finish(answer)."
)


@dataclass(frozen=True, slots=True)
class Setting:
    """
    Args:
        latency_s: of each call of a tool.
        rate: tokens a second that the model writes.
    """

    latency_s: float
    rate: float


@dataclass(frozen=True, slots=True)
class Ended:
    """One question, answered in one way.

    Attributes:
        wall_s: from the planner's first token, or the first turn's, until the answer is there.
        written, read: tokens of the model; `planned` are those written that are the plan.
        answer_s: seconds of the model's last words.
        lags: seconds for which each call was held up by more than its line and its operands.
    """

    answer: str
    wall_s: float
    written: int
    read: int
    answer_s: float
    planned: int = 0
    lags: tuple[float, ...] = field(default=())


Arm: TypeAlias = Callable[[Question, Setting], Awaitable[Ended]]


async def speak(tokens: Sequence[str], rate: float, hear: Callable[[str], None]) -> None:
    """Say tokens at a rate. A late one does not make the next ones late."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number, token in enumerate(tokens, 1):
        await asyncio.sleep(max(0.0, start + number / rate - loop.time()))
        hear(token)


def _lags(
    question: Question, tools: Tools, start: float, lines: Sequence[int], rate: float
) -> tuple[float, ...]:
    found = []
    for at, call in enumerate(question.calls):
        ready = max([start + lines[at] / rate, *(tools.ended[need] for need in call.needs)])
        found.append(tools.begun[at] - ready)
    return tuple(found)


# -- edvac -----------------------------------------------------------------------------------------


class ToolDevice:
    """The tools as a device. A search is told apart by its topic, a calculation by the variable
    that it is assigned to."""

    version = "1"
    signatures = (
        Signature("tool.search", (Param("topic", STR),), STR, Effect.READ, SEARCH),
        Signature(
            "tool.calculate",
            (Param("kind", STR), Param("values", ANY, default=None, variadic=True)),
            STR,
            Effect.READ,
            CALCULATE,
        ),
    )

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        calls = enumerate(tools.question.calls)
        self._topics = {call.args[0]: at for at, call in calls if call.tool == "search"}

    async def call(self, call: Call) -> Reply:
        """Raises DeviceError where the tool does."""
        function = call.signature.function
        if function == "search":
            given: list[str | float] = [call.text("topic")]
            at = self._topics.get(call.text("topic"), -1)
        else:
            at = place(call.address)
            values = call.data("values") if "values" in call.operands else []
            given = [call.text("kind"), *map(_argument, values or [])]
        return Reply(Scalar(await self._tools.use(at, function, given), _FOUND))

    async def read_version(self, call: Call) -> str | None:
        return None


def _argument(value: object) -> str | float:
    return float(value) if isinstance(value, int | float | Decimal) else str(value)


class SpokenProcessor(ScriptedProcessor):
    """Answers from the data that a request shows, word by word at the model's rate."""

    def __init__(self, question: Question, rate: float) -> None:
        super().__init__(lambda request: question.conclude(shown_data(request)))
        self._rate = rate
        self.written = 0
        self.read = 0

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        text = self._script(request)
        tokens = pieces(text)
        await speak(tokens, self._rate, lambda token: on_text(token, 1) if on_text else None)
        sent = tuple(part.text for message in request.messages for part in message.segments)
        read = sum(map(count, sent))
        self.written += len(tokens)
        self.read += read
        return Answer(text, "stop", read, 0, len(tokens), sent)


def shown_data(request: Request) -> list[str]:
    """The data that a step's prompt shows, in order; a list counts as its elements."""
    found: list[str] = _DATA.findall(request.messages[-1].text)
    lists = [json.loads(text) if text.startswith('["') else [text] for text in found]
    return [text for texts in lists for text in texts]


async def stream_program(tokens: Iterable[str], rate: float, draft: Callable[[str], None]) -> str:
    """A planner that writes a program token by token and hands over each statement when it is
    complete; the whole program."""
    begun = rest = ""

    def hear(token: str) -> None:
        nonlocal begun, rest
        rest += token
        while (statement := first_statement(rest)) is not None:
            begun, rest = begun + statement, rest[len(statement) :]
            draft(begun)

    await speak(list(tokens), rate, hear)
    return begun + rest


async def by_edvac(question: Question, setting: Setting) -> Ended:
    """A program, whose steps begin while it is being written.

    Raises:
        InternalError: the run did not end well.
    """
    made = streams(question)
    return await _run(question, setting, made.program, made.lines)


async def by_short_program(question: Question, setting: Setting) -> Ended:
    """The same, with a program of no more tokens than it needs; raises what that does."""
    return await _run(question, setting, *short_program(question))


async def _run(
    question: Question, setting: Setting, tokens: Sequence[str], lines: Sequence[int]
) -> Ended:
    tools = Tools(question, setting.latency_s)
    processor = SpokenProcessor(question, setting.rate)
    loop = asyncio.get_running_loop()
    began: list[float] = []

    async def write(draft: Callable[[str], None]) -> str:
        began.append(loop.time())
        return await stream_program(tokens, setting.rate, draft)

    with tempfile.TemporaryDirectory(prefix="edvac-bench-") as folder:
        devices = {"tool": ToolDevice(tools)}
        with Machine(Path(folder), processor, devices=devices) as machine:
            before = loop.time()
            report = await machine.run_as_written(Job("", task=question.text), write)
            wall = loop.time() - before
            if report.state != "done":
                raise InternalError("bench_run", f"a run ended {report.state}: {report.failures}")
            answer = await machine.ledger.call(lambda store: store.read_file(report.run, RESULT))
            asked = prompt.messages(
                question.text, examples.similar(question.text, None), machine.catalogue, begun=True
            )
    return Ended(
        answer.decode(),
        wall,
        len(tokens) + processor.written,
        sum(count(message.text) for message in asked) + processor.read,
        processor.written / setting.rate,
        len(tokens),
        _lags(question, tools, began[0], lines, setting.rate),
    )


# -- LLMCompiler's rules ---------------------------------------------------------------------------


async def by_task_list(question: Question, setting: Setting) -> Ended:
    """A list of tasks, fetched while it is being written, and a model that joins the results.

    Raises:
        DeviceError: a tool failed.
    """
    made = streams(question)
    return await _fetched(question, setting, made.tasks, made.lines)


async def by_short_list(question: Question, setting: Setting) -> Ended:
    """The same, with the list in no more tokens than it needs; raises what that does."""
    return await _fetched(question, setting, *short_list(question))


async def _fetched(
    question: Question, setting: Setting, tokens: Sequence[str], lines: Sequence[int]
) -> Ended:
    tools = Tools(question, setting.latency_s)
    loop = asyncio.get_running_loop()
    start = loop.time()
    fetcher = Fetcher(tools.use)
    fetching = asyncio.ensure_future(fetcher.fetch())
    await speak(tokens, setting.rate, fetcher.hear)
    results = await fetching
    text = finish(question.conclude([results[at + 1] for at in question.read]))
    heard: list[str] = []
    await speak(pieces(text), setting.rate, heard.append)
    wall = loop.time() - start
    seen = [f"{number}. {results[number]}" for number in sorted(results)]
    joined = "\n".join([_JOIN_RULES, question.text, *seen])
    return Ended(
        finished("".join(heard)),
        wall,
        len(tokens) + len(heard),
        count(_LIST_RULES) + count(question.text) + count(joined),
        len(heard) / setting.rate,
        len(tokens),
        _lags(question, tools, start, lines, setting.rate),
    )


# -- a ReAct loop ----------------------------------------------------------------------------------


async def by_turns(question: Question, setting: Setting) -> Ended:
    """One call a turn, each with all that was said before in view.

    Raises:
        DeviceError: a tool failed, or a turn has no action.
    """
    tools = Tools(question, setting.latency_s)
    loop = asyncio.get_running_loop()
    start = loop.time()
    said = f"{_LOOP_RULES}\nQuestion: {question.text}\n"
    results: dict[int, str] = {}
    written = read = 0
    while True:
        done = len(results)
        if done < len(question.calls):
            text = turn(question, done, results)
        else:
            text = finish(question.conclude([results[one] for one in question.read]))
        read += count(said)
        heard: list[str] = []
        await speak(pieces(text), setting.rate, heard.append)
        written += len(heard)
        said += "".join(heard)
        if answer := finished("".join(heard)):
            wall = loop.time() - start
            return Ended(answer, wall, written, read, len(heard) / setting.rate)
        tool, given = action("".join(heard))
        results[done] = await tools.use(done, tool, given)
        said += f"Observation: {results[done]}\n"


def action(text: str) -> tuple[str, list[str | float]]:
    """The tool that a turn calls, with its arguments.

    Raises:
        DeviceError: the turn calls none.
    """
    found = _ACTION.search(text)
    if found is None:
        raise DeviceError("action_missing", f"a turn has no action: {text[-80:]!r}")
    return found[1], list(ast.literal_eval(f"[{found[2]}]"))
