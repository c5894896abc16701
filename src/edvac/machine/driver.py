"""The loop that drives the control unit: commit first, then act, then wait for what happens next.

One asyncio loop per run. Only here do tasks get made. Knows nothing of what a step does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from edvac.control import ControlUnit, Failure, Intent, Outcome, Work
from edvac.core import event
from edvac.core.errors import Interrupted
from edvac.core.seams import Clock, durability_point
from edvac.machine.ledger import Ledger
from edvac.store import Lease, Message, Store

LEASE_S = 30.0
INBOX_S = 0.5  # how soon a kill or an answer from another process is noticed

Execute = Callable[[Intent], Awaitable[Outcome]]
Answer = Callable[[event.Question], Awaitable[bool | None]]


class Driver:
    """Runs one control unit to its end.

    Args:
        answer: asks the person at the terminal; None when there is none, then answers may still
            come through the run's inbox.
    """

    def __init__(
        self,
        unit: ControlUnit,
        ledger: Ledger,
        lease: Lease,
        execute: Execute,
        clock: Clock,
        emit: event.Emit,
        answer: Answer | None = None,
    ) -> None:
        self._unit = unit
        self._ledger = ledger
        self._lease = lease
        self._execute = execute
        self._clock = clock
        self._emit = emit
        self._answer = answer
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._outcomes: asyncio.Queue[tuple[str, Outcome]] = asyncio.Queue()
        self._answers: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._stop = ""
        self._renew_at = 0.0
        self._inbox_at = 0.0
        self._seen = 0

    def stop(self, reason: str = "interrupted") -> None:
        """Ask for a clean end: abort what runs, keep what is finished."""
        self._stop = self._stop or reason
        self._wake.set()

    async def run(self) -> str:
        """Drive to the end; returns done, partial, cancelled, interrupted or waiting.

        Raises:
            LeaseError, StoreError: the journal could not be written; nothing unacknowledged counts.
        """
        try:
            work = self._unit.start(self._clock.now())
            while True:
                await self._act(work)
                if work.closed:
                    return work.closed
                if self._unit.waits_for_person and self._answer is None and not self._stop:
                    return "waiting"
                work = await self._next(work.wake_at)
        finally:
            await self._end_tasks()

    async def _act(self, work: Work) -> None:
        if work.records:
            durability_point("driver.before_commit")
            await self._ledger.commit(self._lease, work.records)
            durability_point("driver.after_commit")
        for happened in work.events:
            self._emit(msgspec.structs.replace(happened, run=self._lease.run))
        for slot in work.aborts:
            task = self._tasks.get(slot)
            if task is not None:
                task.cancel()
        for intent in work.intents:
            self._tasks[intent.slot] = asyncio.create_task(self._one(intent))
        for question in work.questions:
            if self._answer is not None:
                self._asking[question.slot] = asyncio.create_task(self._ask(question))

    async def _one(self, intent: Intent) -> None:
        try:
            outcome = await self._execute(intent)
        except asyncio.CancelledError:
            outcome = Failure("aborted", f"{intent.call.op} was stopped")
        await self._outcomes.put((intent.slot, outcome))
        self._wake.set()

    async def _ask(self, question: event.Question) -> None:
        assert self._answer is not None
        answer = await self._answer(question)
        if answer is None:
            self.stop("waiting")
        else:
            await self._answers.put((question.slot, answer))
            self._wake.set()

    async def _next(self, wake_at: float | None) -> Work:
        """Wait until something happens and tell the unit."""
        while True:
            self._wake.clear()
            now = self._clock.now()
            await self._housekeep(now)
            if self._stop:
                return self._stopped(now)
            if not self._answers.empty():
                slot, yes = self._answers.get_nowait()
                return self._unit.answer(slot, yes, now)
            if not self._outcomes.empty():
                return self._unit.finished(self._drain(), now)
            if wake_at is not None and wake_at <= now:
                return self._unit.tick(now)
            for task in self._tasks.values():
                if task.done() and not task.cancelled() and task.exception() is not None:
                    task.result()
            await self._sleep(wake_at, now)

    def _stopped(self, now: float) -> Work:
        reason, self._stop = self._stop, ""
        return self._unit.cancel(now, reason)

    async def _sleep(self, wake_at: float | None, now: float) -> None:
        until = min(self._renew_at, self._inbox_at, wake_at if wake_at is not None else 1e18)
        try:
            async with asyncio.timeout(max(0.0, until - now)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _drain(self) -> list[tuple[str, Outcome]]:
        found = []
        while not self._outcomes.empty():
            slot, outcome = self._outcomes.get_nowait()
            self._tasks.pop(slot, None)
            found.append((slot, outcome))
        return found

    async def _housekeep(self, now: float) -> None:
        if now >= self._renew_at:
            self._lease = await self._ledger.call(
                lambda store: store.renew(self._lease, LEASE_S, self._clock.wall())
            )
            self._renew_at = now + LEASE_S / 3
        if now >= self._inbox_at:
            for message in await self._ledger.call(self._read_inbox):
                self._heed(message)
            self._inbox_at = now + INBOX_S

    def _read_inbox(self, store: Store) -> list[Message]:
        found = store.inbox(self._lease.run, self._seen)
        for message in found:
            self._seen = message.id
            store.ack(self._lease.run, message.id)
        return found

    def _heed(self, message: Message) -> None:
        if message.kind == "kill":
            self.stop("cancelled")
        elif message.kind == "answer":
            slot, yes = msgspec.msgpack.decode(message.payload, type=tuple[str, bool])
            self._answers.put_nowait((slot, yes))

    async def _end_tasks(self) -> None:
        left = [*self._tasks.values(), *self._asking.values()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def interrupted(run: str) -> Interrupted:
    return Interrupted(
        "interrupted",
        f"run {run} was interrupted",
        "What was finished is kept.",
        f"Go on with `edvac resume {run}`.",
    )
