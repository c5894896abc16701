"""A machine and workers in one process, on one queue in memory, with scripted models."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edvac.core import event
from edvac.core.seams import SystemClock
from edvac.machine import Job, Machine, Report
from edvac.machine.fleet import wire
from edvac.machine.fleet.doing import Doer
from edvac.machine.fleet.errands import Fleet
from edvac.machine.fleet.worker import Ways, Worker
from edvac.machine.machine import Terminal
from edvac.machine.storage import Storage
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor
from edvac.store import Enlisted, MemoryQueue, MemoryStore, Store

MODEL = "a scripted model"
PROGRAM = """\
notes = [llm.write("Say it", f"item {n}") for n in range(5)]
again = [llm.write("Say more", note) for note in notes]
files.write("notes.txt", "\\n".join(again))
"""
RUNS = (
    'outs = [shell.run("echo $n", data={"n": n}) for n in range(3)]\nfiles.write("o", str(outs))\n'
)


def item(request: Request) -> str:
    return request.messages[-1].text.partition("<data 1>")[2].split("</data")[0].strip()


def answer(request: Request) -> str:
    return f"<{item(request)}>"


async def until(true: Callable[[], bool], limit_s: float = 10.0) -> None:
    for _ in range(int(limit_s * 100)):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never happened")


class Memory(Storage):
    """A store in memory that outlives its machines."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        object.__setattr__(self, "kept", MemoryStore(clock=SystemClock()))

    __slots__ = ("kept",)

    def open(self, clock: Any = None) -> Store:
        kept: Any = self.kept  # type: ignore[attr-defined]
        kept.close = lambda: None
        return kept  # type: ignore[no-any-return]


@dataclass
class Yard:
    """One workspace.

    Attributes:
        script: what the workers' model says; `here` what the owner's own does.
        counted: executions by workers, by item.
    """

    work: Path
    script: Callable[[Request], str] = answer
    here: Callable[[Request], str] = answer
    counted: Counter[str] = field(default_factory=Counter)
    own: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    told: list[event.Event] = field(default_factory=list)
    patience_s: float = 0.0

    def __post_init__(self) -> None:
        self.storage = Memory(self.work)
        store: Any = self.storage.open()
        self.queue = MemoryQueue(store, SystemClock())

    def wait(self, timeout_s: float) -> bool:
        del timeout_s
        time.sleep(0.01)
        return True

    def close(self) -> None:
        return

    def fleet(self) -> Fleet:
        return Fleet(lambda _: self.queue, lambda _: self, self.patience_s)

    def machine(self, **more: Any) -> Machine:
        def say(request: Request) -> str:
            self.own[item(request)] += 1
            return self.here(request)

        options = {"store": self.storage, "workers": self.fleet()} | more
        return Machine(self.work, ScriptedProcessor(say, name=MODEL), **options)

    def worker(self, machine: Machine, name: str = "w", **more: Any) -> Worker:
        def say(request: Request) -> str:
            self.counted[item(request)] += 1
            return self.script(request)

        able = more.pop("able", wire.capabilities(frozenset(wire.KINDS), MODEL))
        about = Enlisted(name, name, "here", wire.VERSION, able, more.pop("slots", 2))
        doer = more.pop("doer", None) or Doer(ScriptedProcessor(say, name=MODEL))
        ways = Ways(machine.ledger, lambda _: self.queue, self)
        return Worker(ways, doer, about, SystemClock(), self.told.append, **more)

    @contextlib.asynccontextmanager
    async def working(self, *workers: Worker) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(one.run()) for one in workers]
        try:
            yield
        finally:
            for one in workers:
                one.stop()
            await asyncio.gather(*tasks)

    @property
    def terminal(self) -> Terminal:
        def emit(happened: event.Event) -> None:
            if isinstance(happened, event.Note):
                self.notes.append(happened.text)

        return Terminal(emit)

    async def run(self, program: str = PROGRAM, *workers: str, **more: Any) -> Report:
        """With workers of these names."""
        with self.machine() as machine:
            made = [self.worker(machine, name, **more) for name in workers]
            async with self.working(*made):
                return await machine.run(Job(program, seed=1), self.terminal)

    def file(self, run: str, path: str = "notes.txt") -> str:
        return self.storage.open().read_file(run, path).decode()

    def how(self) -> Counter[str]:
        return Counter(one.how for one in self.told if isinstance(one, event.StepReturned))


EXPECTED = "\n".join(f"<<item {n}>>" for n in range(5))
