"""What labels and the policy cost: runs of the same programs with the guard on and off, in turns.

*On* is a policy with a rule that is asked about each step, and labels as they are. *Off* goes
through the same seams: a policy that allows everything at once, and every outcome labelled as
nobody's, so that there is nothing to join. What is left of the algebra then (looking that two
labels are one) counts as *off*. The model is scripted and answers at once; with a real one the
guard's share is smaller by as much as that takes.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edvac.bench.report import Document, Figure, median
from edvac.control import Intent, Outcome, Result
from edvac.core.label import PUBLIC
from edvac.core.value import Value, lift, plain
from edvac.guard import Verdict
from edvac.guard.policy import ALLOW
from edvac.machine import Job, Machine
from edvac.machine.driver import Execute
from edvac.machine.guarding import Guard
from edvac.processor import Processor, Request
from edvac.processor.scripted import ScriptedProcessor
from edvac.program import StepCall

SHARE: Final = 5.0  # per cent of wall time that the guard may cost
MICROSECONDS: Final = 50.0  # of CPU an instruction
RULES: Final = """\
[rule.write]
calls = "files.write"
branch = "any"
needs = { path = { by = ["any"] }, text = { by = ["any"] }, was = "trusted" }
[rule.model]
calls = "llm.*"
branch = "any"
needs."*" = "any"
"""
PROGRAMS: Final = {
    "chain": """\
last = files.read("in/0.txt")
for number in range({size}):
    last = llm.write("next", last, number)
""",
    "fan": """\
texts = [llm.write("one", files.read(f"in/{{number % 20}}.txt")) for number in range({size})]
""",
    "inbox": """\
for number in range({size}):
    letter = files.read(f"in/{{number % 20}}.txt")
    if llm.choose("Which?", ["yes", "no"], letter) == "yes":
        files.write(f"out/{{number}}.txt", llm.write("about it", letter))
""",
    "values": """\
words = files.read("in/0.txt").split()
counts = {{}}
for number in range({size}):
    word = words[number % len(words)]
    if len(word) > 3:
        counts[word] = counts.get(word, 0) + number
""",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Args:
        size: rounds of each program.
        repeats: pairs of runs; the median counts.
    """

    size: int = 400
    repeats: int = 7


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a run. `instructions` are its steps, or the rounds of its loop where those are more."""

    wall_s: float
    cpu_s: float
    instructions: int

    @property
    def cpu_us(self) -> float:
        """CPU of an instruction, in microseconds."""
        return self.cpu_s / self.instructions * 1e6


class Open(Guard):
    """A policy that allows everything, unseen."""

    def __call__(self, call: StepCall, operands: dict[str, Value]) -> Verdict:
        return ALLOW


def nobodys(execute: Execute) -> Execute:
    """What comes back is labelled as nobody's."""

    async def done(intent: Intent) -> Outcome:
        outcome = await execute(intent)
        if not isinstance(outcome, Result):
            return replace(outcome, seen=PUBLIC)
        files = tuple(replace(one, label=PUBLIC) for one in outcome.files)
        return replace(outcome, value=lift(plain(outcome.value), PUBLIC), files=files)

    return done


def measure(
    document: Document,
    wanted: Wanted,
    processor: Callable[[], Processor] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Add a row for each program: the share of wall time, and CPU for each instruction."""
    make = processor or (lambda: ScriptedProcessor(_answer, concurrency=16, local=True))
    for name, text in PROGRAMS.items():
        say(f"{name} …")
        _run(text, make, min(wanted.size, 20), guarded=True)  # what is imported late is by now
        pairs = []
        for at in range(wanted.repeats):
            # By turns which comes first: a machine that grows slower does so for both.
            order = (True, False) if at % 2 else (False, True)
            found = {on: _run(text, make, wanted.size, guarded=on) for on in order}
            pairs.append((found[True], found[False]))
        _add(document, name, pairs)
    document.notes.append(
        "off: a policy that allows everything, and outcomes labelled as nobody's, through the"
        " machine's own seams; CPU is of the whole process."
    )


def _add(document: Document, name: str, pairs: list[tuple[Cost, Cost]]) -> None:
    wall = median([on.wall_s / off.wall_s for on, off in pairs])
    cpu = median([on.cpu_us - off.cpu_us for on, off in pairs])
    spent = median([on.cpu_us for on, _ in pairs])
    document.figures += [
        Figure(f"wall time, {name}", (wall - 1) * 100, "% more with the guard", "lower", SHARE),
        Figure(f"CPU, {name}", cpu, "µs more an instruction", "lower", MICROSECONDS,
               note=f"of {spent:.0f} µs"),
    ]  # fmt: skip


def _run(text: str, make: Callable[[], Processor], size: int, *, guarded: bool) -> Cost:
    """One run in a workspace of its own."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "in").mkdir()
        for number in range(20):
            (place / "in" / f"{number}.txt").write_text(f"some words of letter {number}\n" * 5)
        (place / "policy.toml").write_text(RULES)
        with Machine(place, make()) as machine:
            if not guarded:
                machine.guard, machine.executes = Open, nobodys
            job = Job(text.format(size=size), roots={"in": place / "in"}, fresh=True, seed=1)
            return asyncio.run(_timed(machine, job, size))


async def _timed(machine: Machine, job: Job, rounds: int) -> Cost:
    try:
        await machine.processor.open()
        wall, cpu = time.perf_counter(), time.process_time()
        report = await machine.run(job)
        instructions = max(report.counts["finished"], rounds)
        cost = Cost(time.perf_counter() - wall, time.process_time() - cpu, instructions)
    finally:
        await machine.processor.close()
    assert report.state == "done", [step.failure for step in report.failures]
    return cost


def _answer(request: Request) -> str:
    return '{"answer": "yes"}' if request.schema is not None else "done"
