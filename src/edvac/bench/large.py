"""One program of very many instructions: compiled, begun, held in memory, cut off, taken up again.

Runs as a process of its own, so that the memory is the program's: ``python -m edvac.bench.large
INSTRUCTIONS DIRECTORY`` prints figures as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edvac.bench.report import Document, Figure, median
from edvac.core import event
from edvac.device import CATALOGUE
from edvac.machine import Job, Machine
from edvac.machine.driver import Driver
from edvac.machine.machine import Terminal
from edvac.processor.scripted import ScriptedProcessor
from edvac.program import parse

BACK = 10  # each instruction reads the one so many before it
CUT = 0.9  # of the steps are done when the run is stopped


def text_of(instructions: int) -> str:
    """A program of so many statements, each a step, in chains that run beside one another."""
    lines = ['part0 = "begin"'] + [
        f'part{at} = llm.write("part {at}", part{max(0, at - BACK)})'
        for at in range(1, instructions + 1)
    ]
    return "\n".join(lines) + "\n"


def measure(document: Document, instructions: int, repeats: int) -> None:
    """Add the medians of so many runs."""
    found: list[dict[str, float]] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="edvac-large-") as place:
            line = [sys.executable, "-m", "edvac.bench.large", str(instructions), place]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.strip().split("\n")[-1]))
    name = f"program of {instructions:,} instructions"
    for key, unit, better, target in _FIGURES:
        value = median([one[key] for one in found])
        document.figures.append(Figure(f"{name}: {key}", value, unit, better, target))


_FIGURES = (
    ("compiled and verified", "s", "lower", None),
    ("until steps begin", "s", "lower", 1.0),
    ("memory", "MB", "lower", 200.0),
    ("steps journalled", "steps/s", "higher", 2000.0),
    ("taken up again", "s", "lower", 1.0),
)


class _Drive:
    """One machine's way through the program."""

    def __init__(self, place: Path, stop_after: int) -> None:
        self._place = place
        self._left = stop_after
        self._driver: Driver | None = None
        self._start = time.perf_counter()
        self.begun = self.opened = 0.0
        self.ended = 0

    def see(self, happened: event.Event) -> None:
        now = time.perf_counter() - self._start
        match happened:
            case event.StepStarted() if not self.begun:
                self.begun = now
            case event.RunOpened():
                self.opened = now
            case event.StepFinished():
                self.ended += 1
                self._left -= 1
                if self._left == 0 and self._driver is not None:
                    self._driver.stop("interrupted")

    async def go(self, job: Job | None) -> Any:
        with Machine(self._place, ScriptedProcessor(lambda _: "done", concurrency=100)) as machine:
            self._start = time.perf_counter()
            terminal = Terminal(self.see, on_driver=self._own)
            if job is not None:
                return await machine.run(job, terminal)
            return await machine.resume(machine.find(None).id, terminal)

    def _own(self, driver: Driver) -> None:
        self._driver = driver


def _one(instructions: int, place: Path) -> dict[str, float]:
    text = text_of(instructions)
    start = time.perf_counter()
    parse(text, CATALOGUE)
    compiled = time.perf_counter() - start
    first = _Drive(place, int(instructions * CUT))
    start = time.perf_counter()
    asyncio.run(first.go(Job(text, fresh=True, seed=1)))
    seconds = time.perf_counter() - start - first.begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    again = _Drive(place, -1)
    report = asyncio.run(again.go(None))
    assert report.state == "done" and report.counts["finished"] == instructions
    return {
        "compiled and verified": compiled,
        "until steps begin": first.begun,
        "memory": memory,
        "steps journalled": first.ended / seconds,
        "taken up again": again.opened,
    }


if __name__ == "__main__":
    gc.set_threshold(100_000, 20, 100)  # as `edvac run` does
    sys.stdout.write(json.dumps(_one(int(sys.argv[1]), Path(sys.argv[2]))) + "\n")
