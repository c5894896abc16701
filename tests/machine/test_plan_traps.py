"""Ways in which planners that run steps while they plan are known to break.

Each was found by running the parser and the scheduler of the public LLMCompiler with stub tools
(field notes on control, section 2); here each must come out right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from edvac.core import event
from edvac.core.errors import DeviceError
from edvac.core.label import PROGRAM
from edvac.core.schema import STR
from edvac.core.signature import Effect, Param, Signature
from edvac.core.value import Scalar
from edvac.device import Call, Reply
from edvac.machine import Job, Machine, Report
from edvac.machine.machine import Terminal
from edvac.processor.scripted import ScriptedProcessor


class Tool:
    """Says what it was given, or what it was told to say; fails on the word `bad`."""

    version = "1"
    signatures = (
        Signature("tool.find", (Param("query", STR),), STR, Effect.READ, ""),
        Signature("tool.join", (Param("a", STR), Param("b", STR)), STR, Effect.READ, ""),
    )

    def __init__(self, say: Callable[[str], str] = str) -> None:
        self.say = say
        self.given: list[tuple[str, ...]] = []

    async def call(self, call: Call) -> Reply:
        given = tuple(call.text(name) for name in call.operands)
        self.given.append(given)
        if "bad" in given:
            raise DeviceError("tool_broken", "the tool is broken")
        return Reply(Scalar(self.say("+".join(given)), PROGRAM))

    async def read_version(self, call: Call) -> str | None:
        return None


def run(place: Path, program: str, tool: Tool) -> tuple[Report, str]:
    with Machine(place, ScriptedProcessor(str), devices={"tool": tool}) as machine:
        report = asyncio.run(asyncio.wait_for(machine.run(Job(program)), 20))
        files = machine.ledger.call_now(lambda store: store.list_files(report.run))
        text = (
            machine.ledger.call_now(lambda store: store.read_file(report.run, "out.txt")).decode()
            if files
            else ""
        )
    return report, text


def test_a_failing_tool_ends_its_step_and_not_the_run(tmp_path: Path) -> None:
    """There: the run hangs for ever."""
    program = (
        'a = tool.find("good")\n'
        'b = tool.find("bad")\n'
        "c = tool.join(a, b)\n"
        'files.write("out.txt", a)\n'
    )
    report, text = run(tmp_path, program, Tool())
    assert report.state == "partial" and text == "good"
    assert [step.state.value for step in report.failures] == ["failed", "blocked"]


def test_text_that_looks_like_a_reference_is_text(tmp_path: Path) -> None:
    """There: `$2` in an argument is replaced by the output of task 2."""
    program = (
        'first = tool.find("one")\n'
        'second = tool.find("two")\n'
        'files.write("out.txt", tool.join("the price is $2 more, {first}, ${1}", second))\n'
    )
    _, text = run(tmp_path, program, Tool())
    assert text == "the price is $2 more, {first}, ${1}+two"


def test_what_a_tool_returns_is_never_substituted_into(tmp_path: Path) -> None:
    """There: an output that holds `$1` pulls in the output of task 1."""
    tool = Tool(lambda text: text.replace("page", "see $1 and {secret} and ${secret}"))
    program = (
        'secret = tool.find("hidden")\n'
        'page = tool.find("page")\n'
        'files.write("out.txt", tool.join(f"read: {page}", secret))\n'
    )
    _, text = run(tmp_path, program, tool)
    assert text.startswith("read: see $1 and {secret} and ${secret}+hidden")
    assert ("read: see $1 and {secret} and ${secret}", "hidden") in tool.given


def test_a_line_break_in_an_argument_is_part_of_it(tmp_path: Path) -> None:
    """There: the task is dropped, and the next that depends on it crashes."""
    program = (
        'a = tool.find("""two\nlines, and 3. join(x)\n4. find(y)""")\n'
        'files.write("out.txt", tool.join(a, "end\\nof it"))\n'
    )
    report, text = run(tmp_path, program, Tool())
    assert report.state == "done"
    assert text == "two\nlines, and 3. join(x)\n4. find(y)+end\nof it"


def grown(place: Path, tool: Tool, drafts: list[str], until: list[str]) -> list[str]:
    """Write a program draft by draft, each after the step named in `until` has ended."""
    ended: list[str] = []
    news = asyncio.Event()

    def emit(happened: event.Event) -> None:
        if isinstance(happened, event.StepFinished):
            ended.append(happened.address)
            news.set()

    async def write(draft: Callable[[str], None]) -> str:
        for text, awaited in zip(drafts, until, strict=True):
            draft(text)
            while awaited and awaited not in ended:
                news.clear()
                await asyncio.wait_for(news.wait(), 10)
        return drafts[-1]

    processor = ScriptedProcessor(lambda _: "said")
    with Machine(place, processor, devices={"tool": tool}) as machine:
        report = asyncio.run(machine.run_as_written(Job("", task="t"), write, Terminal(emit)))
    assert report.state == "done"
    return ended


def test_dependents_do_not_wait_for_the_planners_next_line(tmp_path: Path) -> None:
    """There: what depends on a finished task waits until the planner has written on."""
    first = 'a = tool.find("x")\nb = tool.join(a, "y")\nc = tool.join(b, "z")\n'
    whole = first + 'files.write("out.txt", c)\n'
    ended = grown(tmp_path, Tool(), [first, whole], ["c", "c"])
    assert ended[:3] == ["a", "b", "c"]


def test_lines_added_later_refer_to_earlier_results(tmp_path: Path) -> None:
    """There: numbers begin anew with each plan, so that earlier results cannot be named."""
    tool = Tool()
    first = 'a = tool.find("x")\n'
    second = first + 'b = tool.join(a, "later")\n'
    third = second + 'c = tool.join(a, b)\nfiles.write("out.txt", c)\n'
    grown(tmp_path, tool, [first, second, third], ["a", "b", "c"])
    assert tool.given == [("x",), ("x", "later"), ("x", "x+later")]


def test_a_later_plan_builds_on_the_results_of_an_earlier_one(tmp_path: Path) -> None:
    """There: numbers of tasks begin again with each plan, so that no earlier result can be named,
    and an answer ends at its first bracket."""
    plans = [
        'b = tool.join(a, "x (not the end) y")\nprogram.extend("Join them in out.txt.")\n',
        'files.write("out.txt", tool.join(a, b))\n',
    ]
    plan = ScriptedProcessor(lambda _: plans.pop(0))
    plan.has_grammar = False
    program = 'a = tool.find("one")\nprogram.extend("Join it and go on.")\n'
    with Machine(tmp_path, ScriptedProcessor(str), plan=plan, devices={"tool": Tool()}) as machine:
        report = asyncio.run(machine.run(Job(program)))
        text = machine.ledger.call_now(lambda store: store.read_file(report.run, "out.txt"))
    assert report.state == "done" and text == b"one+one+x (not the end) y"
