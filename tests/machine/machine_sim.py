"""A whole machine in one thread on virtual time: driver, executor, children, files and store, with
faults at every seam, all drawn from one seed.

The loop jumps to the next timer instead of waiting, and does at once what real machines leave to
threads. The store is the one in dicts, which fails and dies where it is told to; the process, the
clock, the model, a device that cannot undo and the person do so by chance. What a step's result is
follows from its operands alone, so the calm life of the same program is the oracle.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import selectors
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from machine_kit import Post

from edvac.core import codec, event
from edvac.core.errors import DeviceError, LeaseError, ProcessorError, StoreError
from edvac.core.seams import CountingEntropy
from edvac.device import Call
from edvac.machine import Job, Machine
from edvac.machine import driver as driving
from edvac.machine import machine as mainboard
from edvac.machine.machine import Terminal
from edvac.machine.questions import write_answer
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor
from edvac.store.memory import MemoryStore
from edvac.store.owner import Process

FULL = StoreError("disk_full", "no room is left")
INPUTS = {f"in/{n}.txt": f"text {n} by {name}\n" for n, name in enumerate(["ann", "bo", "cy"])}


class Died(BaseException):
    """The process was killed here; nothing of it runs any more."""


class _Timeless(selectors.SelectSelector):
    """Waits for nothing: the time moves instead."""

    loop: Loop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing runs, nothing is timed, and it is not over"
        self.loop.moment += timeout
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """An event loop on virtual time, in which threads are no threads."""

    def __init__(self, chance: random.Random) -> None:
        self.moment = 0.0
        selector = _Timeless()
        selector.loop = self
        super().__init__(selector)
        self._chance = chance
        self._free = 0.0  # when the thread that answers is free again

    def time(self) -> float:
        return self.moment

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        done = self.create_future()
        try:
            found, problem = func(*args), None
        except Exception as error:
            found, problem = None, error
        self._free = max(self._free, self.moment) + self._chance.choice([0.0, 0.0, 0.01, 0.2])

        def tell() -> None:
            if not done.done():
                done.set_result(found) if problem is None else done.set_exception(problem)

        self.call_at(self._free, tell)
        return done


class Clock:
    """The loop's time, and a wall clock that somebody may set."""

    def __init__(self) -> None:
        self.loop: Loop | None = None
        self.before = 0.0  # of earlier lives
        self.off = 1_800_000_000.0

    def now(self) -> float:
        return self.before + (self.loop.moment if self.loop is not None else 0.0)

    def wall(self) -> float:
        return self.off + self.now()


class Life:
    """The process table: each life is another process, and only the last one lives."""

    def __init__(self) -> None:
        self.number = 0

    def me(self) -> Process:
        return Process("here", "boot", "space", self.number, "0")

    def alive(self, process: Process) -> bool | None:
        return process.pid == self.number


@dataclass
class World:
    """What outlives a process."""

    seed: int
    place: Path
    chance: random.Random
    clock: Clock = field(default_factory=Clock)
    life: Life = field(default_factory=Life)
    mails: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)  # faults, by kind
    trouble: int = 0  # faults left to this world
    log: list[str] = field(default_factory=list)
    run: str = ""

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock, owners=self.life, fault=self._fault)
        self.calm = not self.trouble
        self.dead = False
        self._full = 0  # so many changes fail from now on

    def open(self, clock: Any) -> MemoryStore:
        """Where machines find the store."""
        return self.store

    def strikes(self, kind: str, often: float) -> bool:
        """Whether a fault of this kind happens now."""
        if self.trouble <= 0 or self.chance.random() >= often:
            return False
        self.trouble -= 1
        self.met[kind] += 1
        return True

    def _fault(self, name: str) -> None:
        if self.dead:
            raise Died
        if self._full > 0 and name.endswith(".before"):
            self._full -= 1
            raise FULL
        if self.strikes(f"killed {name.rpartition('.')[2]}", 0.02):
            self.dead = True
            raise Died
        if name.endswith(".before") and self.strikes("disk full", 0.02):
            self._full = self.chance.choice([0, 0, 2])
            raise FULL

    def durable(self) -> dict[str, int]:
        """How many outcomes each step of the run has."""
        return Counter(one.slot for one in self.store.records(self.run, {"outcome"}))


def words(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


class Model(ScriptedProcessor):
    """Answers by what it is asked; how long that takes, and what fails for a while, by chance."""

    def __init__(self, world: World) -> None:
        super().__init__(self._say, concurrency=world.chance.choice([1, 2, 8]), local=True)
        self._world = world
        self._failed: Counter[str] = Counter()

    async def complete(self, request: Request, on_text: Any = None) -> Any:
        world = self._world
        await asyncio.sleep(world.chance.choice([0.0, 0.1, 3.0, 40.0]) * world.chance.random())
        key = f"{request.run} {request.slot}"
        if self._failed[key] < 2 and world.strikes("model away", 0.05):
            self._failed[key] += 1
            raise ProcessorError("endpoint_busy", "come back later")
        return await super().complete(request, on_text)

    def _say(self, request: Request) -> str:
        text = _asked("\n".join(message.text for message in request.messages[1:]))
        key = f"{request.run} {request.slot}"
        if "unreadable" in text:
            raise DeviceError("unreadable", "this can never be read")
        if request.schema is None:
            return words(text)
        if self._failed[key] < 1 and self._world.strikes("answer does not fit", 0.05):
            self._failed[key] += 1
            return "no JSON"
        if "WorkerTurn" in str(request.schema) or "calls" in str(request.schema):
            return self._turn(request)
        return json.dumps(_filled(request.schema, words(text)))

    def _turn(self, request: Request) -> str:
        text = _asked(request.messages[-1].text)
        if "<result" in text:
            return json.dumps({"thought": "so", "answer": words(text)})
        call = {"name": "files.read", "arguments": {"path": "in/1.txt"}}
        return json.dumps({"thought": "so", "calls": [call]})


def _asked(text: str) -> str:
    """Without what is said of an earlier answer."""
    return text.partition("\n\nAn earlier answer was refused")[0]


def _filled(schema: dict[str, Any], word: str) -> Any:
    """The one value of this schema that belongs to the word."""
    if "enum" in schema:
        return schema["enum"][int(word, 16) % len(schema["enum"])]
    if "anyOf" in schema:
        return _filled(schema["anyOf"][0], word)
    match schema.get("type"):
        case "object":
            return {name: _filled(one, words(word + name)) for name, one in
                    schema["properties"].items()}  # fmt: skip
        case "integer":
            return int(word, 16) % 100
        case "boolean":
            return int(word, 16) % 2 == 0
        case "array":
            return [_filled(schema["items"], word)]
    return word


def mailbox(world: World) -> Post:
    """A device that cannot undo what it did."""

    async def act(call: Call) -> None:
        await asyncio.sleep(world.chance.random())
        if world.dead:
            raise Died
        if world.strikes("mail refused", 0.05):
            raise ProcessorError("refused", "the server is away")
        world.mails.append(call.text("text"))
        if world.strikes("killed after a mail", 0.05):
            world.dead = True
            raise Died

    return Post(act)


class Lives:
    """A run from its creation to its end, in as many lives as that takes."""

    def __init__(self, program: str, seed: int, place: Path, trouble: int) -> None:
        self.program = program
        self._at_work = False  # the run is open, and its end is not told of yet
        self.world = World(seed, place, random.Random(f"{seed} {trouble}"), trouble=trouble)

    def live(self) -> str:
        """To the end; the state of the run."""
        while True:
            try:
                state = self._one()
            except (Died, StoreError, LeaseError) as end:
                self.world.log.append(type(end).__name__)
                state = self._left()
            self.world.log.append(state)
            if state in ("done", "partial"):
                return state
            assert state in ("cancelled", "interrupted", "waiting"), state

    def _left(self) -> str:
        """The state that a process which ended badly has left; it may have died after the end."""
        if not self.world.run:
            return "interrupted"
        state = self.world.store.run(self.world.run).state
        return state if state in ("done", "partial") else "interrupted"

    def _one(self) -> str:
        world = self.world
        world.life.number += 1
        world.dead = self._at_work = False
        if world.run and world.strikes("stale kill", 0.2):
            world.store.post(world.run, "kill")
        loop = Loop(world.chance)
        world.clock.loop = loop
        loop.set_exception_handler(lambda *_: None)  # what dies with the process is not told of
        try:
            return loop.run_until_complete(self._drive())
        finally:
            world.dead = True
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
            world.clock.before += loop.moment
            world.clock.loop = None
            loop.close()

    async def _drive(self) -> str:
        world = self.world
        with Machine(
            world.place,
            Model(world),
            store=world,  # type: ignore[arg-type]
            clock=world.clock,
            entropy=_Entropy(world),
            at_once=world.chance.choice([0, 1, 3]),
            devices={"mail": mailbox(world)},
        ) as machine:
            work = asyncio.ensure_future(self._around(machine))
            try:
                if not world.run:
                    job = Job(self.program, roots={"in": world.place / "in"}, seed=1)
                    world.run = await machine.create(job)
                report = await machine.resume(world.run, self._terminal(machine))
            finally:
                work.cancel()
            if work.done():  # it goes on for ever, unless something was not as it must be
                work.result()
            return report.state

    def _terminal(self, machine: Machine) -> Terminal:
        world = self.world
        attended = world.chance.random() < 0.5

        def emit(happened: event.Event) -> None:
            self._at_work = isinstance(happened, event.RunOpened) or (
                self._at_work and not isinstance(happened, event.RunClosed)
            )
            if isinstance(happened, event.StepFinished) and happened.run == world.run:
                assert world.durable()[happened.slot] == 1, "told of before it was durable"
            if isinstance(happened, event.Question):
                world.asked[happened.slot] += 1
                if not attended:
                    machine.ledger.call_now(lambda store: _post(store, world.run, happened.slot))

        async def yes(_: event.Question) -> bool:
            await asyncio.sleep(world.chance.random())
            return True

        return Terminal(emit, answer=yes if attended else None)

    async def _around(self, machine: Machine) -> None:
        """What others do meanwhile: kill the run, set the clock, take its lease."""
        world = self.world
        while True:
            await asyncio.sleep(world.chance.random() * 5)
            if world.run and world.strikes("kill", 0.2):
                machine.kill(world.run)
            if world.strikes("clock set", 0.3):
                world.clock.off += world.chance.choice([-7200.0, -20.0, 20.0, 7200.0])
            if world.run and world.strikes("lease taken", 0.1):
                self._take()
            if self._at_work and world.calm:
                self._try()

    def _try(self) -> None:
        """A second owner is refused, however long the first one works."""
        world = self.world
        with pytest.raises(LeaseError):
            world.store.acquire(world.run, "another", driving.LEASE_S, world.clock.wall())

    def _take(self) -> None:
        """Another process finds the lease ended, and takes the run for a moment."""
        world = self.world
        world.clock.off += driving.LEASE_S * 2
        world.life.number += 1
        wall = world.clock.wall()
        lease = world.store.acquire(world.run, "another", driving.LEASE_S, wall)
        world.store.release(lease)


def _post(store: MemoryStore, run: str, slot: str) -> None:
    store.post(run, "answer", write_answer(slot, True))


class _Entropy(CountingEntropy):
    """Names that no other life has used."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._count = world.life.number * 1000


def result_of(world: World) -> dict[str, Any]:
    """What may be compared with a calm life."""
    files = {
        one.path: world.store.read_file(world.run, one.path)
        for one in world.store.list_files(world.run)
    }
    return {"files": files, "mails": sorted(set(world.mails))}


def shrunk(monkeypatch: Any) -> None:
    """Limits so small that runs meet them."""
    monkeypatch.setattr(codec, "INLINE_LIMIT", 6)
    for module in (driving, mainboard):
        monkeypatch.setattr(module, "LEASE_S", 4.0)
