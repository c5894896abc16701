"""Queues of runs: so many at a time, so many in a period, again where one failed, and no more when
that does not help. One server a workspace; everything it knows is in the store.

A queued program is started as `every` starts one: as a detached run whose first record names what
it was started for, so that a server that was killed in between finds it there. A run whose process
died goes on; one that needs a person, a signal or a time waits without taking a place.

=========== ======================================================================================
waiting     its turn has not come, or its next attempt is not due
running     its run goes on
asking      its run waits for a person, a signal or a time
done        its run ended well
dead        given up, and why: too many failed attempts, too many deaths of its process, stopped by
            a person, or never started. It stays until somebody retries or drops it.
=========== ======================================================================================

Knows nothing of terminals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edvac.core.errors import UsageError
from edvac.core.seams import Clock
from edvac.machine.every import SAID, Spec, Started, occurrence_key, start_detached
from edvac.machine.questions import answered, questions
from edvac.machine.wakes import is_due, resume_detached, waits
from edvac.store import QueuedRun, RunInfo, RunQueue, Store

LOCK = "queues.lock"
LOOK_S = 1.0  # how soon the end of a run is noticed
BACK_OFF_S = 10.0  # before the second attempt; each further one waits twice as long
LONGEST_S = 3600.0
_RATE = re.compile(r"(\d{1,6})/(\d{0,4}) ?(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


class Rules(msgspec.Struct, frozen=True):
    """How a queue is served.

    Attributes:
        at_once: runs that go on at the same time.
        starts, period_s: so many starts in a period; 0 is no such limit.
        attempts: runs and retries of one entry before it is given up.
        recoveries: how often the process of one may die.
        most: entries that may wait.
    """

    at_once: int = 1
    starts: int = 0
    period_s: float = 0.0
    attempts: int = 3
    recoveries: int = 10
    most: int = 1000


def read_rules(queue: RunQueue) -> Rules:
    return msgspec.json.decode(queue.spec, type=Rules)


def write_rules(rules: Rules) -> str:
    return msgspec.json.encode(rules).decode()


def parse_rate(text: str) -> tuple[int, float]:
    """``10/h``, ``3/10min`` as a number of starts and a period in seconds; ``0`` is no limit.

    Raises:
        UsageError: it is none.
    """
    if text.strip() == "0":
        return 0, 0.0
    found = _RATE.fullmatch(text.strip())
    if found is None or not int(found[1]) or found[2] == "0":
        raise UsageError(
            "rate_malformed",
            f"{text[:40]!r} is no rate",
            "It is how many runs may begin in which time.",
            "Such as 10/h, 3/10min, or 0 for as many as like.",
        )
    return int(found[1]), float(int(found[2] or 1) * _SECONDS[found[3]])


@dataclass(frozen=True, slots=True)
class Seams:
    """What the server does to the world; each is replaced in tests.

    Attributes:
        start: starts a program anew, for an occurrence; resume goes on with a run, or retries what
            failed in it.
        approved: why a program may not be started, as a clause; empty where it may.
        say: is told what happens, a line each.
    """

    start: Callable[[Spec, str], Started] = start_detached
    resume: Callable[[Path, str, bool], Started] = resume_detached
    approved: Callable[[Spec], str] = lambda _: ""
    say: Callable[[str], None] = lambda _: None


class Server:
    """Looks what has ended and what may begin."""

    def __init__(self, store: Store, clock: Clock, seams: Seams, only: Iterable[str] = ()) -> None:
        self._store = store
        self._clock = clock
        self._seams = seams
        self._only = frozenset(only)

    def look(self) -> bool:
        """See to every queue once; whether anything there still goes on or waits."""
        busy = False
        for queue in self._store.queues():
            if not self._only or queue.name in self._only:
                busy |= self._serve(queue, read_rules(queue))
        return busy

    def _serve(self, queue: RunQueue, rules: Rules) -> bool:
        items = self._store.queued(queue.name)
        for item in items:
            if item.state in ("running", "asking"):
                self._watch(item, rules)
        now = self._clock.wall()  # before they are looked at: what is put off meanwhile is not due
        items = self._store.queued(queue.name)
        free = rules.at_once - sum(item.state == "running" for item in items)
        if rules.starts:
            begun = sum(item.started > now - rules.period_s for item in items)
            free = min(free, rules.starts - begun)
        for item in items:
            if free > 0 and item.state == "waiting" and item.due <= now:
                free -= 1
                self._begin(item, rules)
        return any(item.state in ("waiting", "running") for item in items)

    # -- what goes on

    def _watch(self, item: QueuedRun, rules: Rules) -> None:
        try:
            run = self._store.run(item.run)
        except UsageError:
            self._give_up(item, f"its run {item.run} was removed")
            return
        match run.state:
            case "done":
                self._end(replace(item, state="done", said=""))
            case "cancelled":
                self._give_up(item, f"run {run.id} was stopped")
            case "partial" | "failed":
                self._failed(item, run, rules)
            case _ if run.owner is None:
                self._stands_still(item, rules)
            case _ if item.state == "asking":  # somebody went on with it
                self._store.keep_queued(replace(item, state="running", said=""))

    def _failed(self, item: QueuedRun, run: RunInfo, rules: Rules) -> None:
        why = f"run {run.id} ended {run.state}"
        if item.attempts >= rules.attempts:
            self._give_up(item, f"{why} after {_times(item.attempts)}")
            return
        wait_s = min(LONGEST_S, BACK_OFF_S * 2 ** (item.attempts - 1))
        due = self._clock.wall() + wait_s
        self._store.keep_queued(replace(item, state="waiting", due=due, said=why))
        self._say(item, f"{why}; again in {wait_s:.0f} s")

    def _stands_still(self, item: QueuedRun, rules: Rules) -> None:
        """Nobody works on the run: it waits for a person, was answered, or its process died."""
        run = self._store.run(item.run)
        due = is_due(self._store, run, self._clock.wall())
        if due and item.state == "asking":
            self._go_on(item, retry=False)
            return
        asks = bool(questions(self._store, item.run))
        if asks or (waits(run) and not due):
            if item.state != "asking":
                said = f"it asks something: edvac answer {item.run}" if asks else "it waits"
                self._store.keep_queued(replace(item, state="asking", said=said))
                self._say(item, said)
            return
        died = not answered(self._store, item.run)
        if died and item.recoveries >= rules.recoveries:
            self._give_up(item, f"its process died {item.recoveries + 1} times")
            return
        item = replace(item, recoveries=item.recoveries + died)
        self._go_on(item, retry=False)

    # -- what begins

    def _begin(self, item: QueuedRun, rules: Rules) -> None:
        if item.run:
            item = replace(item, attempts=item.attempts + 1)
            self._go_on(item, retry=True)
            return
        occurrence = f"queue {item.queue} {item.id}"
        known = self._store.reuse_get(occurrence_key(occurrence))
        if known is not None:  # begun by a server that ended before it could write that down
            started = Started(run=known.run)
        else:
            spec = msgspec.json.decode(item.spec, type=Spec)
            problem = self._seams.approved(spec)
            started = Started(problem=problem) if problem else self._seams.start(spec, occurrence)
        if started.problem:
            self._give_up(item, f"it was not started: {started.problem}")
            return
        self._running(replace(item, run=started.run, attempts=1))

    def _go_on(self, item: QueuedRun, *, retry: bool) -> None:
        started = self._seams.resume(self._store.workspace, item.run, retry)
        if started.problem:
            self._give_up(item, f"it did not go on: {started.problem}")
        else:
            self._running(item)

    def _running(self, item: QueuedRun) -> None:
        now = self._clock.wall()
        self._store.keep_queued(replace(item, state="running", started=now, said=""))
        self._say(item, f"run {item.run}, attempt {item.attempts}")

    def _give_up(self, item: QueuedRun, why: str) -> None:
        self._end(replace(item, state="dead", said=why[:SAID]))

    def _end(self, item: QueuedRun) -> None:
        self._store.keep_queued(replace(item, ended=self._clock.wall()))
        self._say(item, item.state + (f": {item.said}" if item.said else ""))

    def _say(self, item: QueuedRun, what: str) -> None:
        self._seams.say(f"{item.queue} {item.id}: {what}")


def _times(attempts: int) -> str:
    return "one attempt" if attempts == 1 else f"{attempts} attempts"


def again(store: Store, item: QueuedRun, now: float) -> None:
    """A person gives a dead entry another life: its attempts count anew.

    Raises:
        UsageError: it is not dead.
    """
    if item.state != "dead":
        raise UsageError(
            "queued_alive",
            f"entry {item.id} of {item.queue!r} was not given up",
            f"It is {item.state}.",
            "Wait for it, or stop its run: edvac kill RUN.",
        )
    store.keep_queued(replace(item, state="waiting", attempts=0, recoveries=0, due=now, ended=0.0))
