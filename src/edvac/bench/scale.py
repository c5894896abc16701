"""Very many items in one run, with an idle processor: memory, resuming, and looking at it."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edvac.bench.report import Document, Figure
from edvac.core import event
from edvac.machine import Job, Machine
from edvac.machine.driver import Driver
from edvac.machine.machine import Terminal
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor

PROGRAM = """
class Mail:
    kind: Literal["a", "b"]
    text: str

mails = [llm.extract(files.read(p), Mail) for p in files.list("inbox/*")]
files.write("a.csv", csv.dump([m for m in mails if m.kind == "a"]))
"""
CUT = 0.95  # of the steps are done when the run is stopped, to be resumed


def measure(document: Document, steps: int) -> None:
    """A small run and a large one, which is cut short, looked at and resumed; half of the steps
    are model steps, half read a file."""
    with tempfile.TemporaryDirectory(prefix="edvac-scale-") as small:
        run = _Run(Path(small), steps // 5)
        asyncio.run(run.begin(cut=False))
        before = _peak_mb()
    with tempfile.TemporaryDirectory(prefix="edvac-scale-") as large:
        run = _Run(Path(large), steps)
        seconds = asyncio.run(run.begin(cut=True))
        after = _peak_mb()
        document.figures += [
            Figure("steps journalled", steps * CUT / seconds, "steps/s", "higher"),
            Figure(f"memory at {steps // 5:,} steps", before, "MB", "lower"),
            Figure(f"memory at {steps:,} steps", after, "MB", "lower"),
        ]
        for command in ("ps", "show", "answer"):
            took = _look(Path(large), command)
            document.figures.append(Figure(f"edvac {command}", took, "s", "lower", target=1.0))
        began = time.process_time()
        opened = asyncio.run(run.resume())
        cpu = time.process_time() - began
        document.figures += [
            Figure("resume until steps begin", opened, "s", "lower", target=5.0),
            Figure("resume to the end, CPU", cpu, "s", "lower"),
        ]


class _Run:
    """One run in a directory of its own."""

    def __init__(self, place: Path, steps: int) -> None:
        self._place = place
        self._steps = steps
        self._inbox = place / "inbox"
        self._inbox.mkdir()
        self._driver: Driver | None = None
        for number in range(steps // 2):
            text = f"mail {number} " + "lorem ipsum dolor " * 20
            (self._inbox / f"{number:06}.txt").write_text(text, encoding="utf-8")

    async def begin(self, *, cut: bool) -> float:
        """Run it, to the end or until `CUT` of it is done; how long that took, in seconds."""
        left = int(self._steps * CUT) if cut else -1

        def count(happened: event.Event) -> None:
            nonlocal left
            left -= isinstance(happened, event.StepFinished)
            if left == 0 and self._driver is not None:
                self._driver.stop("interrupted")

        start = time.monotonic()
        with Machine(self._place, ScriptedProcessor(_answer)) as machine:
            job = Job(PROGRAM, roots={"inbox": self._inbox}, seed=1)
            await machine.run(job, Terminal(count, on_driver=self._own))
        return time.monotonic() - start

    def _own(self, driver: Driver) -> None:
        self._driver = driver

    async def resume(self) -> float:
        """Go on to the end; seconds until it is known what was there already."""
        opened = [0.0]
        start = time.monotonic()

        def see(happened: event.Event) -> None:
            if isinstance(happened, event.RunOpened):
                opened[0] = time.monotonic() - start

        with Machine(self._place, ScriptedProcessor(_answer)) as machine:
            await machine.resume(machine.find(None).id, Terminal(see))
        return opened[0]


def _answer(request: Request) -> str:
    kind = "ab"[len(request.messages[-1].text) % 2]
    return json.dumps({"kind": kind, "text": "a short text of about eight words here"})


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _look(place: Path, command: str) -> float:
    """Wall seconds of a command, its start included; the best of three."""
    took = []
    for _ in range(3):
        start = time.monotonic()
        line = [sys.executable, "-m", "edvac", command]
        subprocess.run(line, cwd=place, capture_output=True, check=True)
        took.append(time.monotonic() - start)
    return min(took)
