"""The processes of a run that waits: one drives it, others send it signals; any may be killed, and
the clock of the machine may be set between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edvac.core.errors import UsageError
from edvac.core.seams import SystemClock
from edvac.machine import Job, Machine
from edvac.machine.signals import post_signal
from edvac.processor.scripted import ScriptedProcessor
from edvac.store import Store

PROGRAM_TEXT = """
for n in [1, 2]:
    early = attempt(signal.wait("a", int, within="50min"), 0)
    event.set("a", early)
    files.write(f"a{n}.txt", f"{early}")
    late = signal.wait("b", int)
    files.write(f"b{n}.txt", f"{late}")
wait.hours(1)
asked = attempt(human.ask("Done?", ["yes"], within="50min"), "nobody")
files.write("asked.txt", asked)
"""


class SetClock(SystemClock):
    """A clock that somebody has put forward or back; kept over processes as the machine's is."""

    def __init__(self, work: Path) -> None:
        kept = work / "clock"
        self._by = float(kept.read_text()) if kept.exists() else 0.0

    def wall(self) -> float:
        return super().wall() + self._by


def note(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, line.encode() + b"\n")
    os.fsync(descriptor)
    os.close(descriptor)


def drive(order: dict[str, Any], work: Path) -> str:
    processor = ScriptedProcessor(lambda request: "x")
    with Machine(work, processor, clock=SetClock(work)) as machine:
        begun = [i for i in machine.ledger.call_now(lambda store: store.runs()) if i.last_seq]
        if not begun:
            return asyncio.run(machine.run(Job(PROGRAM_TEXT, seed=7))).state
        if begun[0].state == "done":
            return "done"
        return asyncio.run(machine.resume(begun[0].id)).state


def send(order: dict[str, Any], work: Path) -> str:
    """One signal; what is tried and what is acknowledged is noted."""
    with Store(work, clock=SetClock(work)) as store:
        begun = [info for info in store.runs(5) if info.last_seq and info.state == "open"]
        for info in begun[:1]:
            said = f"{order['name']} {order['number']}"
            note(work / "tried", said)
            try:
                post_signal(store, info.id, order["name"], str(order["number"]), sender="test")
            except UsageError as error:
                note(work / "refused", error.code)
            else:
                note(work / "acknowledged", said)
    return "sent"


ORDERS: dict[str, Callable[[dict[str, Any], Path], str]] = {"wait": drive, "send": send}
