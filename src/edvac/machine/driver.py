"""The loop that drives the control unit: commit first, then act, then wait for what happens next.

One asyncio loop per run. Only here do tasks get made. Knows nothing of what a step does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from edvac.control import ControlUnit, Failure, Intent, Outcome, Record, Result, Work
from edvac.control.unit import ABORTED
from edvac.core import event
from edvac.core.label import PUBLIC, USER, Label
from edvac.core.seams import Clock, durability_point
from edvac.core.value import Scalar, plain
from edvac.machine.ledger import Ledger
from edvac.machine.questions import read_answer
from edvac.machine.waits import Ended, Waits
from edvac.program import Program
from edvac.store import Lease, Message, Store

LEASE_S = 30.0
INBOX_S = 0.5  # how soon a kill or an answer from another process is noticed

DURABILITY_POINTS = ("driver.after_commit", "driver.before_commit")

Execute = Callable[[Intent], Awaitable[Outcome]]
Answer = Callable[[event.Question], Awaitable[bool | None]]
Look = Callable[[], Awaitable[bool]]
# More lines of a program that writes itself, whether it is whole now, and who decided on them.
Grows = Callable[[], tuple[Program, bool, Label] | None]
_SAMPLE = "sample"  # stands for a slot where somebody looks at the sample


@dataclass(frozen=True, slots=True)
class Front:
    """What a run sees of its surroundings.

    Attributes:
        answer: asks the person at the terminal for an approval; None when there is none, then
            answers may still come through the run's inbox.
        asks: can somebody at the terminal answer the questions of the program?
        looks: shows the sample to the person at the terminal; may the run go on?
    """

    clock: Clock
    emit: event.Emit
    answer: Answer | None = None
    asks: bool = False
    looks: Look | None = None


@dataclass(frozen=True, slots=True)
class _Letter:
    """An answer from the inbox; it is taken out when what it led to is durable."""

    message: int
    slot: str
    answer: bool | str
    key: str = ""  # of the question that it answers; empty: whichever is open about the step
    posted: float = 0.0


class Driver:
    """Runs one control unit to its end."""

    def __init__(
        self,
        unit: ControlUnit,
        ledger: Ledger,
        lease: Lease,
        execute: Execute,
        front: Front,
        *,
        grows: Grows = lambda: None,
    ) -> None:
        self._grows = grows
        self._waits = Waits(unit.deadlines, front.clock)
        self._unit = unit
        self._ledger = ledger
        self._lease = lease
        self._execute = execute
        self._front = front
        self._tasks: dict[str, asyncio.Future[Outcome]] = {}
        self._broken: asyncio.Future[Outcome] | asyncio.Task[None] | None = None
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._looked = False  # at the sample, and the run may go on
        self._one_question = asyncio.Lock()
        self._outcomes: deque[tuple[str, Outcome]] = deque()
        self._answers: deque[tuple[str, bool]] = deque()
        self._letters: list[_Letter] = []
        self._read: list[int] = []  # messages to take out after the next commit
        self._wake = asyncio.Event()
        self._drafts: deque[tuple[Program, bool]] = deque()
        self._text = ""
        self._stop = ""
        self._halted = False
        self._renew_at = 0.0
        self._inbox_at = 0.0
        self._seen = 0
        self._told: dict[str, int] = {}  # how the run stood when `ps` was told last

    def stop(self, reason: str = "interrupted") -> None:
        """Ask for a clean end: abort what runs, keep what is finished."""
        self._stop = self._stop or reason
        self._wake.set()

    def grow(self, program: Program, *, whole: bool) -> None:
        """More of the program has been written; see `ControlUnit.extend`."""
        self._drafts.append((program, whole))
        self._wake.set()

    async def run(self, opened: Callable[[], None] = lambda: None) -> str:
        """Drive to the end; returns done, partial, cancelled, interrupted or waiting. `opened` is
        called once it is known what was already there.

        Raises:
            LeaseError, StoreError: the journal could not be written; nothing unacknowledged counts.
        """
        try:
            await self._housekeep(self._front.clock.now())
            if self._stop == "cancelled":
                self._stop = ""  # a kill meant for an owner that is gone
            work = self._unit.start(self._front.clock.now())
            opened()
            while True:
                await self._act(work)
                if work.closed:
                    return work.closed
                if not self._halted:
                    self._unit.parked = self._waits.parked
                self._show_sample()
                if self._waits_in_vain() and not await self._heard_meanwhile():
                    return "waiting"
                work = await self._next(work.wake_at)
        finally:
            await self._end_tasks()

    def _waits_in_vain(self) -> bool:
        """Only a person or a model can help, and none can be reached from here."""
        if self._stop or self._outcomes or self._answers or self._next_letter() is not None:
            return False
        if self._waits.soon or self._waits.ready:
            return False
        here = {
            "approval": self._front.answer is not None,
            "answer": self._front.asks,
            "sample": self._front.looks is not None,
        }
        awaited = self._unit.awaited
        return bool(awaited) and not any(here.get(kind, False) for kind in awaited)

    async def _heard_meanwhile(self) -> bool:
        """A last look before nobody reads the inbox any more: has something come since?"""
        self._inbox_at = self._front.clock.now()
        await self._housekeep(self._inbox_at)
        return not self._waits_in_vain()

    async def _act(self, work: Work) -> None:
        done, self._read = self._read, []
        if work.records:
            records = self._waits.fixed(work.records, work.intents)
            durability_point("driver.before_commit")
            await self._ledger.commit(self._lease, records, done)
            durability_point("driver.after_commit")
        elif done:
            await self._ledger.call(lambda store: self._take_out(store, done))
        for happened in work.events:
            self._front.emit(msgspec.structs.replace(happened, run=self._lease.run))
        for slot in work.aborts:
            task = self._tasks.get(slot)
            if task is not None:
                task.cancel()
            elif self._waits.end(slot):
                self._outcomes.append((slot, Failure(ABORTED, "it was stopped")))
        for intent in work.intents:
            if not self._waits.begin(intent):
                self._begin(intent)
        for question in work.questions:
            if self._front.answer is not None:
                self._asking[question.slot] = asyncio.create_task(self._ask(question))

    def _begin(self, intent: Intent) -> None:
        task = asyncio.ensure_future(self._execute(intent))
        self._tasks[intent.name] = task
        task.add_done_callback(lambda done: self._ended(intent, done))

    def _ended(self, intent: Intent, task: asyncio.Future[Outcome]) -> None:
        """A callback, not a part of the task: one cancelled before its first step runs nothing."""
        self._wake.set()
        if task.cancelled():
            aborted = Failure(ABORTED, f"{intent.call.op} was stopped")
            self._outcomes.append((intent.name, aborted))
        elif task.exception() is None:
            self._outcomes.append((intent.name, task.result()))
        else:
            self._broken = self._broken or task

    async def _ask(self, question: event.Question) -> None:
        """One question at a time: two prompts on one terminal cannot be read."""
        assert self._front.answer is not None
        async with self._one_question:
            if not self._unit.is_held(question.slot):
                return  # answered through the inbox meanwhile
            answer = await self._front.answer(question)
        if answer is None:
            self.stop("waiting")
        else:
            self._answers.append((question.slot, answer))
            self._wake.set()

    def _show_sample(self) -> None:
        looks = self._front.looks
        if looks is None or "sample" not in self._unit.awaited or _SAMPLE in self._asking:
            return

        async def ask() -> None:
            self._looked = await looks()
            if not self._looked:
                self.stop("waiting")
            self._wake.set()

        self._asking[_SAMPLE] = asyncio.create_task(ask())

    async def _next(self, wake_at: float | None) -> Work:
        """Wait until something happens and tell the unit."""
        while True:
            self._wake.clear()
            now = self._front.clock.now()
            await self._housekeep(now)
            self._raise_broken()
            if self._stop:
                return self._stopped(now)
            letter = self._next_letter()
            if letter is not None:
                return self._heed(letter, now)
            ended = self._waits.next()
            if ended is not None:
                return self._conclude(ended, now)
            if self._drafts:
                return self._extend(*self._drafts.popleft(), PUBLIC, now)
            more = self._grows()
            if more is not None:
                return self._extend(*more, now)
            if self._answers:
                return self._unit.answer(*self._answers.popleft(), now)
            if self._looked:
                self._looked = False
                return self._unit.go_on(now)
            if wake_at is not None and wake_at <= now:
                return self._unit.tick(now)
            if self._outcomes:
                return self._unit.finished(self._drain(), now)
            await self._sleep(wake_at, now)

    def _extend(self, program: Program, whole: bool, decided_by: Label, now: float) -> Work:
        """The added text is durable before any step of it begins."""
        added = program.text[len(self._text) :]
        self._text = program.text
        work = self._unit.extend(program, now, whole=whole, decided_by=decided_by)
        work.records.insert(0, Record("extended", "", {"text": added, "whole": whole}))
        return work

    def _stopped(self, now: float) -> Work:
        reason, self._stop = self._stop, ""
        self._halted = True  # what was waited for is waited for still
        return self._unit.cancel(now, reason)

    def _raise_broken(self) -> None:
        """A fault of edvac's own, which is no outcome: the run ends with it."""
        for task in self._asking.values():
            if task.done() and not task.cancelled() and task.exception() is not None:
                self._broken = task
        if self._broken is not None:
            self._broken.result()

    async def _sleep(self, wake_at: float | None, now: float) -> None:
        times = (self._renew_at, self._inbox_at, wake_at, self._waits.wake_at)
        until = min(time for time in times if time is not None)
        try:
            async with asyncio.timeout(max(0.0, until - now)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _drain(self) -> list[tuple[str, Outcome]]:
        found, self._outcomes = list(self._outcomes), deque()
        for slot, _ in found:
            self._tasks.pop(slot, None)
            self._waits.end(slot)
        return found

    # -- the lease and the inbox ----------------------------------------------------------------

    async def _housekeep(self, now: float) -> None:
        if now < self._renew_at and now < self._inbox_at:
            return
        renew = now >= self._renew_at
        standing = self._unit.standing()
        changed = None if standing == self._told else standing
        self._told = standing
        for message in await self._ledger.call(lambda store: self._visit(store, renew, changed)):
            self._seen = message.id
            self._sort(message)
        self._inbox_at = now + INBOX_S
        if renew:
            self._renew_at = now + LEASE_S / 3

    def _visit(self, store: Store, renew: bool, standing: dict[str, int] | None) -> list[Message]:
        if renew:
            self._lease = store.renew(self._lease, LEASE_S, self._front.clock.wall())
        if standing is not None:
            store.set_state(self._lease, "open", seconds=self._unit.seconds, counts=standing)
        found = store.inbox(self._lease.run, self._seen)
        self._take_out(store, [message.id for message in found if message.kind == "kill"])
        return found

    def _take_out(self, store: Store, messages: list[int]) -> None:
        for message in messages:
            store.ack(self._lease.run, message)

    def _sort(self, message: Message) -> None:
        if message.kind == "kill":
            self.stop("cancelled")
        elif message.kind == "answer":
            slot, answer, key = read_answer(message.payload)
            self._letters.append(_Letter(message.id, slot, answer, key, message.posted))
        elif message.kind == "signal":
            self._waits.sort(message)

    def _next_letter(self) -> _Letter | None:
        """The first answer whose question is open, or was closed without it; others wait, for a
        step not reached yet."""
        for letter in self._letters:
            step = self._unit.steps.get(letter.slot)
            if self._unit.question(letter.slot) is not None or (step and step.state.ended):
                return letter
        return None

    def _heed(self, letter: _Letter, now: float) -> Work:
        self._letters.remove(letter)
        self._read.append(letter.message)
        step = self._unit.question(letter.slot)
        held = self._unit.is_held(letter.slot)
        if step is None or letter.key not in ("", step.question):
            return self._refuse(letter, "it answers a question that is no longer open", now)
        if isinstance(letter.answer, bool) is not held:
            return self._refuse(letter, "it is no answer to this kind of question", now)
        if self._waits.is_late(letter.slot, letter.posted):
            return self._refuse(letter, "it came after its time", now)
        if isinstance(letter.answer, bool):
            return self._unit.answer(letter.slot, letter.answer, now)
        options = plain(step.values["options"]) if "options" in step.values else []
        if options and letter.answer not in options:
            return self._refuse(letter, f"it is none of {', '.join(options)}", now)
        return self._over(letter.slot, Result(Scalar(letter.answer, USER)), now)

    def _over(self, slot: str, outcome: Outcome, now: float) -> Work:
        """A step is over without what executes it, if anything does."""
        task = self._tasks.pop(slot, None)
        if task is not None:
            task.cancel()
        self._waits.end(slot)
        return self._unit.finished([(slot, outcome)], now)

    def _conclude(self, ended: Ended, now: float) -> Work:
        self._read += ended.taken
        if ended.note:
            note = event.Note(run=self._lease.run, text=ended.note, level="warning")
            self._front.emit(note)
        done = ended.outcome
        work = self._unit.tick(now) if done is None else self._over(ended.slot, done, now)
        work.records[:0] = ended.records
        return work

    def _refuse(self, letter: _Letter, why: str, now: float) -> Work:
        address = self._unit.steps[letter.slot].call.address
        text = f"{address}: the answer {letter.answer!r} is not used: {why}"
        self._front.emit(event.Note(run=self._lease.run, text=text, level="warning"))
        return self._unit.tick(now)

    async def _end_tasks(self) -> None:
        left: list[asyncio.Future[Any]] = [*self._tasks.values(), *self._asking.values()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
