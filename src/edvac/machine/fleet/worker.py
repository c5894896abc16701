"""A worker: takes steps from a store's queue, does them, and gives back what they came to.

It holds each step by a lease that it renews. A store that is away is waited for; a step whose lease
was lost is dropped; a step that it does not finish is handed back. Knows nothing of runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from edvac.core import event
from edvac.core.errors import LeaseError, UnreachableError
from edvac.core.seams import Clock
from edvac.machine.fleet import wire
from edvac.machine.fleet.doing import AwayError, Doer
from edvac.machine.fleet.errands import Hearing
from edvac.machine.ledger import Ledger
from edvac.store import Enlisted, Queue, Store, Taken

LEASE_S = 30.0
IDLE_S = 1.0  # until it looks for steps again that nobody called for
GRACE_S = 30.0  # that steps under way get, once it is to stop
AWAY_S = 10.0  # until a model that answered nobody is asked again
GONE_S = 60.0  # after which it is said again that the store is away
# A step that is taken so often has killed its workers, or will outlast every lease.
MOST_TAKEN = 10

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Held:
    """A step under way, with the latest lease of it."""

    taken: Taken
    task: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        return self.task is None or self.task.done()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class Ways:
    """How a worker reaches the store.

    Attributes:
        queue: of the store, made on its thread.
    """

    ledger: Ledger
    queue: Callable[[Store], Queue]
    hearing: Hearing


class Worker:
    """Takes steps until it is stopped.

    Args:
        about: what it says that it is; its capabilities are what it is given.
        lease_s: after which its steps are others', should it die.
    """

    def __init__(
        self,
        ways: Ways,
        doer: Doer,
        about: Enlisted,
        clock: Clock,
        emit: event.Emit,
        *,
        lease_s: float = LEASE_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self._ways = ways
        self._doer = doer
        self._about = about
        self._clock = clock
        self._emit = emit
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._queue: Queue | None = None
        self._held: dict[int, _Held] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._at_once = False
        self._beat_at = 0.0
        self._ask_at = 0.0  # whether the model is back
        self._told_gone = -GONE_S
        self._broken: asyncio.Task[None] | None = None

    def stop(self, *, at_once: bool = False) -> None:
        """Take nothing more; finish what is under way, or hand it back at once."""
        self._stopping = True
        self._at_once = self._at_once or at_once
        self._wake.set()

    @property
    def stopping(self) -> bool:
        return self._stopping

    async def run(self) -> None:
        """Until it is stopped.

        Raises:
            UnreachableError: the store was away when it was to stop: its steps come free when
                their leases end.
            StoreError: the store is damaged or refuses.
        """
        listening = asyncio.create_task(self._listen())
        try:
            self._say("ready")
            while not self._stopping:
                self._wake.clear()
                await self._beat()
                await self._fill()
                self._raise_broken()
                await self._pause(IDLE_S)
            await self._drain()
        finally:
            listening.cancel()
            tasks = [held.task for held in self._held.values() if held.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(listening, *tasks, return_exceptions=True)
        self._say("stopped")

    async def _listen(self) -> None:
        while True:
            if await asyncio.to_thread(self._ways.hearing.wait, IDLE_S):
                self._wake.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _ask(self, function: Callable[[Queue], T]) -> T:
        """Of the queue, however long its store is away.

        Raises:
            UnreachableError: it is away, and this worker is to stop.
        """
        while True:
            try:
                found = await self._ways.ledger.call(lambda store: function(self._of(store)))
            except UnreachableError as error:
                if self._stopping:
                    raise
                self._tell_gone(error)
                await asyncio.sleep(0.2)
            else:
                if self._told_gone > 0:
                    self._told_gone = -GONE_S
                    self._note("the store is there again")
                return found

    def _of(self, store: Store) -> Queue:
        if self._queue is None:
            self._queue = self._ways.queue(store)
        return self._queue

    def _tell_gone(self, error: UnreachableError) -> None:
        now = self._clock.now()
        if now - self._told_gone >= GONE_S:
            self._told_gone = now
            self._note(f"waiting for the store: {error.what}", "warning")

    # -- leases -------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Prolong what is held, and say that it lives."""
        now = self._clock.now()
        if now < self._beat_at:
            return
        self._beat_at = now + self._lease_s / 3
        held = [one.taken for one in self._held.values()]
        about = replace(self._about, doing=len(held))

        def renewed(queue: Queue) -> list[Taken]:
            queue.enlist(about)
            return queue.renew(held, self._lease_s) if held else []

        kept = {one.id: one for one in await self._ask(renewed)}
        for taken in held:
            one = self._held.get(taken.id)
            if one is None or one.taken.fence != taken.fence or one.over:
                continue  # finished meanwhile
            if taken.id in kept:
                one.taken = kept[taken.id]
            else:
                one.cancel()
                self._returned(taken, "lost")

    async def _fill(self) -> None:
        """Take as many steps as there are places for."""
        await self._look_after_model()
        free = self._about.slots - len(self._held)
        if free <= 0:
            return
        able = self._about.capabilities
        name, lease_s = self._about.name, self._lease_s
        for taken in await self._ask(lambda queue: queue.take(name, free, able, lease_s)):
            known = self._held.get(taken.id)
            if known is not None and not known.over:  # its lease ended unnoticed: nobody took it
                known.taken = taken
                continue
            self._emit(event.StepTaken(run=taken.run, slot=taken.slot, times=taken.fence))
            held = self._held[taken.id] = _Held(taken)
            held.task = asyncio.create_task(self._do(held))
            held.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        for id_ in [id_ for id_, held in self._held.items() if held.task is task]:
            del self._held[id_]
        if not task.cancelled() and task.exception() is not None:
            self._broken = self._broken or task
        self._wake.set()

    def _raise_broken(self) -> None:
        """A fault of edvac's own, or a store that refuses: the worker ends with it."""
        if self._broken is not None:
            self._broken.result()

    # -- steps --------------------------------------------------------------------------------

    async def _do(self, held: _Held) -> None:
        start = self._clock.now()
        outcome: wire.Outcome
        if held.taken.fence > MOST_TAKEN:
            outcome = _lost_often(held.taken)
        else:
            try:
                outcome = await self._doer.do(held.taken.payload)
            except AwayError as error:
                self._went_away(error)
                await self._ask(lambda queue: queue.hand_back([held.taken]))
                self._returned(held.taken, "handed back")
                return
        data = wire.encode(outcome)
        how = "failed" if isinstance(outcome, wire.Error) else "finished"
        try:
            await self._ask(lambda queue: queue.finish(held.taken, data))
        except LeaseError:
            how = "late"
        self._returned(held.taken, how, self._clock.now() - start)

    def _returned(self, taken: Taken, how: str, seconds: float = 0.0) -> None:
        told = event.StepReturned(run=taken.run, slot=taken.slot, how=how, seconds=seconds)
        self._emit(told)

    def _went_away(self, error: AwayError) -> None:
        """Take no steps of a model that answers nobody, or for a sandbox that is none."""
        left = tuple(one for one in self._about.capabilities if one not in error.kinds)
        if left != self._about.capabilities:
            self._about = replace(self._about, capabilities=left)
            self._beat_at = 0.0
            kinds = ", ".join(sorted(error.kinds))
            self._note(f"{kinds} steps are left alone, since {error.what}", "warning")
        self._ask_at = self._clock.now() + AWAY_S

    async def _look_after_model(self) -> None:
        gone = self._doer.processor is not None and wire.MODEL not in self._about.capabilities
        if not gone or self._clock.now() < self._ask_at:
            return
        if await self._doer.away():
            self._ask_at = self._clock.now() + AWAY_S
            return
        able = tuple(sorted({*self._about.capabilities, wire.MODEL}))
        self._about = replace(self._about, capabilities=able)
        self._beat_at = 0.0
        self._note("the model answers again")

    # -- the end ------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Finish what is under way, for a while; hand back the rest."""
        until = self._clock.now() + self._grace_s
        if self._held and not self._at_once:
            self._say("finishing")
        while self._held and not self._at_once and self._clock.now() < until:
            self._wake.clear()
            await self._beat()
            self._raise_broken()
            await self._pause(min(IDLE_S, max(0.0, until - self._clock.now())))
        left = [held.taken for held in self._held.values()]
        for held in list(self._held.values()):
            held.cancel()
        me = self._about.id

        def leave(queue: Queue) -> None:
            if left:
                queue.hand_back(left)
            queue.dismiss(me)

        await self._ask(leave)
        for taken in left:
            self._returned(taken, "handed back")

    def _say(self, state: str) -> None:
        about = self._about
        self._emit(event.WorkerState(name=about.name, state=state, slots=about.slots))

    def _note(self, text: str, level: str = "info") -> None:
        self._emit(event.Note(text=text, level=level))


def _lost_often(taken: Taken) -> wire.Error:
    return wire.Error(
        "StepError",
        "step_lost_often",
        f"this step was taken by {taken.fence - 1} workers, and none finished it",
        "It may end the processes that do it, or take longer than they live.",
        "Look at the workers' logs; without --workers it is done here.",
    )
