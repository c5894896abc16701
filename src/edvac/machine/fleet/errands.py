"""The owner's side of the queue: offers steps, waits for what workers make of them, and forgets
each once its outcome is in the journal.

A step is named by its run, its slot and what is asked, so that an owner that was restarted finds
what it had offered and never takes the answer to another question for its own. Knows nothing of
what a step is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from edvac.control import Record
from edvac.core import event
from edvac.core.errors import EdvacError, StepError
from edvac.core.seams import Clock
from edvac.machine.fleet import wire
from edvac.machine.fleet.lack import Lack
from edvac.machine.ledger import Ledger
from edvac.store import Done, Enlisted, Lease, Offer, Queue, Store

LISTEN_S = 1.0  # that one wait for a call lasts, and so the end of a run at most
LOOK_S = 3.0  # how soon it is noticed that no worker lives
_DIGEST = 16  # characters of what names a question


@dataclass(slots=True)
class _Sent:
    """A step that is out, and how many executions wait for it."""

    offer: Offer
    run: str
    slot: str
    answer: asyncio.Future[wire.Outcome | None]
    since: float
    id: int = 0
    waiting: int = 0


@dataclass(slots=True)
class _Post:
    """What is to be told to the queue next."""

    offers: list[_Sent] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.offers or self.withdrawn or self.forgotten)


class Hearing(Protocol):
    """Waits for calls of the queue, from any thread."""

    def wait(self, timeout_s: float) -> bool:
        """See `Queue.wait`."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Fleet:
    """How a machine reaches its workers.

    Attributes:
        queue, listen: of the store, made on its thread.
        patience_s: that a step waits where no worker lives, until it is done here; 0 is for ever.
    """

    queue: Callable[[Store], Queue]
    listen: Callable[[Store], Hearing]
    patience_s: float = 0.0


class Errands:
    """Steps of one run that are with workers, as long as it is driven."""

    def __init__(
        self, fleet: Fleet, ledger: Ledger, lease: Lease, clock: Clock, emit: event.Emit
    ) -> None:
        self._ledger = ledger
        self._lease = lease
        self._fleet = fleet
        self._clock = clock
        self._lack = Lack(lease.run, fleet.patience_s, emit)
        self._queue: Queue | None = None
        self._out: dict[tuple[str, int], _Sent] = {}
        self._by_id: dict[int, _Sent] = {}
        self._post = _Post()
        self._heard: dict[tuple[str, str], list[int]] = {}  # not in the journal yet, by step
        self._tries: Counter[str] = Counter()  # that have come back, by name
        self._wake = asyncio.Event()
        self._looked = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._broken: BaseException | None = None
        self._hearing: Hearing | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edvac-listen")

    # -- the life of a drive ------------------------------------------------------------------

    async def begin(self, journalled: Collection[str]) -> None:
        """Take up what an earlier owner left: what is in the journal is forgotten, and so is what
        failed, since it is to be tried again."""

        def left(store: Store) -> Hearing:
            queue = self._of(store)
            found = queue.finished(self._lease.run)
            queue.forget(self._lease, [one.id for one in found if _stale(one, journalled)])
            return self._fleet.listen(store)

        self._hearing = await self._ledger.call(left)
        self._ledger.on_commit.append(self._committed)
        self._tasks = [
            asyncio.create_task(self._serve()),
            asyncio.create_task(self._listen(self._hearing)),
        ]

    async def end(self) -> None:
        """The run has stopped in good order: nobody is to do more for it. Answers that are not in
        the journal stay for who goes on with it."""
        await self.close()
        gone = self._post.forgotten

        def clear(store: Store) -> None:
            queue, run = self._of(store), self._lease.run
            queue.withdraw(self._lease)
            over = store.run(run).state != "open"
            ended = [one.id for one in queue.finished(run)] if over else gone
            queue.forget(self._lease, ended)

        await self._ledger.call(clear)

    async def close(self) -> None:
        """Let go, whatever the state of the store."""
        if self._committed in self._ledger.on_commit:
            self._ledger.on_commit.remove(self._committed)
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        hearing, self._hearing = self._hearing, None
        if hearing is not None:
            self._thread.submit(hearing.close)  # once its wait is over, which nobody waits for
        self._thread.shutdown(wait=False)

    # -- what executions ask ------------------------------------------------------------------

    async def send(
        self, run: str, slot: str, payload: bytes, needs: frozenset[str]
    ) -> wire.Outcome | None:
        """What a worker makes of a step; None where it is to be done here, for want of one.

        Raises:
            StepError: what came back cannot be read.
            LeaseError, StoreError: the queue cannot be reached, or the run has another owner.
        """
        if self._broken is not None:
            raise self._broken
        if needs in self._lack.given_up:
            return None
        name = f"{run}/{slot}/{hashlib.blake2b(payload).hexdigest()[:_DIGEST]}"
        key = (name, self._tries[name] + 1)
        sent = self._out.get(key)
        if sent is None:
            answer = asyncio.get_running_loop().create_future()
            offer = Offer(name, payload, needs, key[1])
            sent = self._out[key] = _Sent(offer, run, slot, answer, self._clock.now())
            self._post.offers.append(sent)
            self._wake.set()
        sent.waiting += 1
        try:
            return await asyncio.shield(sent.answer)
        finally:
            sent.waiting -= 1
            if not sent.waiting and not sent.answer.done():
                self._drop(sent)

    def _drop(self, sent: _Sent) -> None:
        """Nobody waits for it any more."""
        self._leave(sent)
        if sent in self._post.offers:
            self._post.offers.remove(sent)
        elif sent.id:
            self._post.withdrawn.append(sent.id)
        self._wake.set()

    def _leave(self, sent: _Sent) -> None:
        self._out.pop((sent.offer.slot, sent.offer.attempt), None)
        self._by_id.pop(sent.id, None)

    # -- the exchange with the queue ----------------------------------------------------------

    async def _serve(self) -> None:
        """Until it is cancelled; what goes wrong is told to everybody who waits."""
        try:
            while True:
                self._wake.clear()
                if self._out or self._post or self._lack.given_up:
                    await self._exchange()
                    await self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._wake.wait()
        except EdvacError as error:
            self._broken = error
            for sent in self._out.values():
                if not sent.answer.done():
                    sent.answer.set_exception(error)

    async def _listen(self, hearing: Hearing) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if await loop.run_in_executor(self._thread, hearing.wait, LISTEN_S):
                self._wake.set()

    async def _exchange(self) -> None:
        """Offer, withdraw and forget what is due; hear what is finished."""
        post, self._post = self._post, _Post()
        heard = [id_ for ids in self._heard.values() for id_ in ids]

        def told(store: Store) -> tuple[list[int], list[Done]]:
            queue, lease = self._of(store), self._lease
            offers = [sent.offer for sent in post.offers]
            ids = queue.offer(lease, offers) if offers else []
            if post.withdrawn:
                queue.withdraw(lease, post.withdrawn)
            if post.forgotten:
                queue.forget(lease, post.forgotten)
            return ids, queue.finished(lease.run, heard)

        ids, finished = await self._ledger.call(told)
        for sent, id_ in zip(post.offers, ids, strict=True):
            sent.id = id_
            if self._out.get((sent.offer.slot, sent.offer.attempt)) is sent:
                self._by_id[id_] = sent
            else:  # dropped while it was being offered
                self._post.withdrawn.append(id_)
        for done in finished:
            sent_ = self._by_id.get(done.id)
            if sent_ is not None:
                self._hear(sent_, done)

    def _hear(self, sent: _Sent, done: Done) -> None:
        self._leave(sent)
        self._tries[sent.offer.slot] += 1
        if sent.slot:
            self._heard.setdefault((sent.run, sent.slot), []).append(done.id)
        else:  # a question of no step, which no record will name
            self._post.forgotten.append(done.id)
        if sent.answer.done():
            return
        try:
            sent.answer.set_result(wire.read_outcome(done.outcome))
        except StepError as error:
            sent.answer.set_exception(error)

    def _committed(self, lease: Lease, records: Sequence[Record]) -> None:
        for record in records:
            if record.kind == "outcome":
                self._post.forgotten += self._heard.pop((lease.run, record.slot), [])

    async def _look(self) -> None:
        """Is there anybody who can do what waits?"""
        now = self._clock.now()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        since: dict[frozenset[str], float] = {}
        for sent in self._out.values():
            since[sent.offer.needs] = min(since.get(sent.offer.needs, now), sent.since)
        living: list[Enlisted] = await self._ledger.call(lambda store: self._of(store).workers())
        self._lack.look(since, living, now)
        given_up = [s for s in self._by_id.values() if s.offer.needs in self._lack.given_up]
        if given_up:
            await self._take_home(given_up)

    async def _take_home(self, found: list[_Sent]) -> None:
        """What nobody has finished meanwhile is done here."""
        ids = [sent.id for sent in found]
        taken = await self._ledger.call(lambda store: self._of(store).withdraw(self._lease, ids))
        for id_ in taken:
            sent = self._by_id[id_]
            self._leave(sent)
            if not sent.answer.done():
                sent.answer.set_result(None)

    def _of(self, store: Store) -> Queue:
        """On the store's thread."""
        if self._queue is None:
            self._queue = self._fleet.queue(store)
        return self._queue


def _stale(done: Done, journalled: Iterable[str]) -> bool:
    """Of an earlier owner: in the journal already, or a failure, which is tried again."""
    slot = done.slot.partition("/")[2][: -_DIGEST - 1]
    if slot in journalled:
        return True
    try:
        return isinstance(wire.read_outcome(done.outcome), wire.Error)
    except StepError:
        return True
