"""The queue of steps for workers on other machines: what it holds, what it promises, and a plain
version in dicts that the real one is compared with.

A step is offered by the owner of its run, taken by one worker at a time under a lease with a
fencing number, and finished once: only by the holder of the latest lease. It may be *executed* more
often, where a worker was lost; what counts is the one outcome. An outcome stays until the owner of
the run has journalled it and forgets the step. Knows nothing of what a step is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from edvac.core.errors import InternalError, LeaseError
from edvac.core.seams import Clock
from edvac.store.memory import MemoryStore
from edvac.store.model import Lease
from edvac.store.seal import seal


@dataclass(frozen=True, slots=True)
class Offer:
    """A step to be done. `needs` are the capabilities that its worker must have; `attempt` tells a
    step that is to be done again from the one that was offered before."""

    slot: str
    payload: bytes = field(repr=False)
    needs: frozenset[str] = frozenset()
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """A step under lease. `fence` rises each time that the step is taken."""

    id: int
    run: str
    slot: str
    attempt: int
    payload: bytes = field(repr=False)
    worker: str
    fence: int
    expires: float


@dataclass(frozen=True, slots=True)
class Done:
    """A finished step, until the owner of its run forgets it."""

    id: int
    slot: str
    attempt: int
    outcome: bytes = field(repr=False)
    worker: str
    fence: int


LIVES_S = 30.0  # after a worker was heard of last, it is taken to be gone


@dataclass(frozen=True, slots=True)
class Enlisted:
    """A worker as it says what it is. Nothing is decided by this: steps are held by leases.

    Attributes:
        id: of this process alone, since two workers may bear one name.
        slots: steps that it does at the same time; `doing` those that it does now.
        seen: when it was heard of last, by the database's clock; `silent_s` how long ago that is.
    """

    id: str
    name: str
    host: str = ""
    version: str = ""
    capabilities: tuple[str, ...] = ()
    slots: int = 1
    doing: int = 0
    started: float = 0.0
    seen: float = 0.0
    silent_s: float = 0.0


class Queue(Protocol):
    """Every method is one durable transaction."""

    def offer(self, lease: Lease, steps: Sequence[Offer]) -> list[int]:
        """Put steps of a run into the queue; their numbers. One that was offered already, by this
        owner or an earlier one, keeps its number and is not offered twice.

        Raises:
            LeaseError: the run has another owner; nothing was offered.
        """
        ...

    def take(
        self, worker: str, count: int, capabilities: Collection[str], ttl_s: float
    ) -> list[Taken]:
        """Up to `count` steps, oldest first, that wait or whose lease has ended, and that need no
        capability beyond these. Nobody else gets them for `ttl_s` seconds."""
        ...

    def renew(self, held: Sequence[Taken], ttl_s: float) -> list[Taken]:
        """Prolong leases: those that are still held, also where their time had run out. A step that
        is missing from the answer was taken by another worker or withdrawn: stop doing it."""
        ...

    def hand_back(self, held: Sequence[Taken]) -> int:
        """Give up steps that are not done, so that others need not wait until their leases end; how
        many of them were still held."""
        ...

    def finish(self, held: Taken, outcome: bytes) -> None:
        """Store a step's outcome. Doing it twice is doing it once.

        Raises:
            LeaseError: another worker has taken the step since, or it was withdrawn; this outcome
                does not count.
        """
        ...

    def expired(self, run: str) -> list[int]:
        """The steps of a run whose lease has ended and that nobody has taken since."""
        ...

    def finished(self, run: str, but: Collection[int] = ()) -> list[Done]:
        """The outcomes that wait to be journalled, in the order of offering, without those of the
        steps `but`."""
        ...

    def forget(self, lease: Lease, steps: Sequence[int]) -> int:
        """Remove finished steps once their outcomes are in the journal; how many there were.

        Raises:
            LeaseError: the run has another owner.
        """
        ...

    def withdraw(self, lease: Lease, steps: Collection[int] | None = None) -> list[int]:
        """Remove steps of a run that are not finished, all of them or these; which there were.
        Their workers learn of it when they renew or finish.

        Raises:
            LeaseError: the run has another owner.
        """
        ...

    def enlist(self, worker: Enlisted) -> None:
        """Say that a worker lives, again every few seconds. `seen` is set here."""
        ...

    def dismiss(self, worker: str) -> None:
        """A worker, by its id, has ended."""
        ...

    def workers(self) -> list[Enlisted]:
        """Those that were heard of in the last `LIVES_S` seconds, by name."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Until somebody offers or finishes steps, or the time is over. True: look again. It may
        wake for nothing, and where the database cannot call, it is the time that wakes."""
        ...


def check_offers(steps: Sequence[Offer]) -> None:
    """
    Raises:
        InternalError: two of them would be one step.
    """
    if len({(step.slot, step.attempt) for step in steps}) < len(steps):
        raise InternalError("step_doubled", "one step was offered twice in one call")


def step_mark(run: str, step: Offer) -> bytes:
    """The checksum of a step that is not finished."""
    return seal("step", run, step.slot, step.attempt, step.payload)


def outcome_mark(id_: int, fence: int, outcome: bytes) -> bytes:
    """The checksum of a finished one."""
    return seal("outcome", id_, fence, outcome)


def refuse_late(held: Taken) -> LeaseError:
    return LeaseError(
        "step_lease_lost",
        f"step {held.slot!r} of run {held.run} is not this worker's any more",
        "Its lease ended and another worker took it, it is finished already, or its run was"
        " stopped.",
        "Drop the outcome: it does not count.",
    )


@dataclass(slots=True)
class _Entry:
    taken: Taken
    needs: frozenset[str]
    state: str = "waiting"
    outcome: bytes = b""


class MemoryQueue:
    """See `Queue`. Runs and their owners are those of a `MemoryStore`."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._entries: dict[int, _Entry] = {}
        self._workers: dict[str, Enlisted] = {}
        self._count = 0

    def offer(self, lease: Lease, steps: Sequence[Offer]) -> list[int]:
        check_offers(steps)
        self._store._owned(lease)
        known = {(entry.taken.slot, entry.taken.attempt): id_ for id_, entry in self._of(lease.run)}
        found = []
        for step in steps:
            id_ = known.get((step.slot, step.attempt))
            if id_ is None:
                self._count = id_ = self._count + 1
                taken = Taken(id_, lease.run, step.slot, step.attempt, step.payload, "", 0, 0.0)
                self._entries[id_] = _Entry(taken, step.needs)
            found.append(id_)
        return found

    def take(
        self, worker: str, count: int, capabilities: Collection[str], ttl_s: float
    ) -> list[Taken]:
        now = self._clock.wall()
        found: list[Taken] = []
        gone = [id_ for id_, e in self._entries.items() if e.taken.run not in self._store._runs]
        self._remove(gone)
        for entry in self._entries.values():
            free = entry.state == "waiting" or (
                entry.state == "taken" and entry.taken.expires <= now
            )
            if len(found) < count and free and entry.needs <= set(capabilities):
                fence = entry.taken.fence + 1
                entry.taken = replace(entry.taken, worker=worker, fence=fence, expires=now + ttl_s)
                entry.state = "taken"
                found.append(entry.taken)
        return found

    def renew(self, held: Sequence[Taken], ttl_s: float) -> list[Taken]:
        found = []
        for one in held:
            entry = self._entries.get(one.id)
            if entry and entry.state == "taken" and entry.taken.fence == one.fence:
                entry.taken = replace(entry.taken, expires=self._clock.wall() + ttl_s)
                found.append(entry.taken)
        return found

    def hand_back(self, held: Sequence[Taken]) -> int:
        count = 0
        for one in held:
            entry = self._entries.get(one.id)
            if entry and entry.state == "taken" and entry.taken.fence == one.fence:
                entry.state = "waiting"
                count += 1
        return count

    def finish(self, held: Taken, outcome: bytes) -> None:
        entry = self._entries.get(held.id)
        if entry is None or entry.taken.fence != held.fence:
            raise refuse_late(held)
        if entry.state == "waiting" or (entry.state == "finished" and entry.outcome != outcome):
            raise refuse_late(held)
        entry.state, entry.outcome = "finished", outcome

    def expired(self, run: str) -> list[int]:
        now = self._clock.wall()
        return [
            id_
            for id_, entry in self._of(run)
            if entry.state == "taken" and entry.taken.expires <= now
        ]

    def finished(self, run: str, but: Collection[int] = ()) -> list[Done]:
        return [
            Done(
                id_,
                entry.taken.slot,
                entry.taken.attempt,
                entry.outcome,
                entry.taken.worker,
                entry.taken.fence,
            )
            for id_, entry in self._of(run)
            if entry.state == "finished" and id_ not in but
        ]

    def forget(self, lease: Lease, steps: Sequence[int]) -> int:
        self._store._owned(lease)
        found = self._of(lease.run)
        return len(
            self._remove([id_ for id_, e in found if e.state == "finished" and id_ in steps])
        )

    def withdraw(self, lease: Lease, steps: Collection[int] | None = None) -> list[int]:
        self._store._owned(lease)
        open_ = [id_ for id_, e in self._of(lease.run) if e.state != "finished"]
        return self._remove([id_ for id_ in open_ if steps is None or id_ in steps])

    def enlist(self, worker: Enlisted) -> None:
        self._workers[worker.id] = replace(worker, seen=self._clock.wall())

    def dismiss(self, worker: str) -> None:
        self._workers.pop(worker, None)

    def workers(self) -> list[Enlisted]:
        now = self._clock.wall()
        every = [replace(one, silent_s=now - one.seen) for one in self._workers.values()]
        found = [one for one in every if one.silent_s < LIVES_S]
        return sorted(found, key=lambda one: (one.name, one.id))

    def wait(self, timeout_s: float) -> bool:
        return True

    def _of(self, run: str) -> list[tuple[int, _Entry]]:
        self._store.run(run)
        return [(id_, entry) for id_, entry in self._entries.items() if entry.taken.run == run]

    def _remove(self, ids: list[int]) -> list[int]:
        for id_ in ids:
            del self._entries[id_]
        return ids
