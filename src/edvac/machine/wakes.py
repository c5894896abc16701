"""Going on with runs that wait for a time that has come, or for a signal that has.

A run that only waits has no process. Whoever serves schedules or queues looks after it; everything
that is known of it is in the store. Knows nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edvac.core.seams import Clock
from edvac.machine.every import Started, detached
from edvac.machine.signals import awaited, signals
from edvac.store import RunInfo, Store

AGAIN_S = 60.0  # before a run that could not go on is tried again
MOST = 10_000  # open runs that are looked at


def waits(info: RunInfo) -> bool:
    """Does an open run wait for a signal or a time?"""
    return bool(info.counts.get("signals") or info.counts.get("due"))


def is_due(store: Store, info: RunInfo, wall: float) -> bool:
    """Has what it waits for come?"""
    due = info.counts.get("due", 0)
    if due and due <= wall:
        return True
    if not info.counts.get("signals"):
        return False
    come = {one.name for one in signals(store, info.id)}
    return bool(come) and any(one.name in come for one in awaited(store, info.id))


def resume_detached(place: Path, run: str, retry: bool) -> Started:
    """``edvac resume --detach``."""
    return detached(["resume", run, "--detach", "--json", *["--retry"] * retry], place)


class Waker:
    """Looks which runs may go on.

    Args:
        resume: goes on with one; replaced in tests.
        say: is told what happens, a line each.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        resume: Callable[[Path, str, bool], Started] = resume_detached,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._resume = resume
        self._say = say
        self._not_before: dict[str, float] = {}
        self._idle: dict[str, tuple[int, int]] = {}  # as runs stood when nothing had come for them

    def look(self) -> None:
        """Go on with every run that nobody works on and whose wait is over."""
        now, wall = self._clock.now(), self._clock.wall()
        waiting = [info for info in self._store.runs(MOST, ("open",)) if waits(info)]
        for info in waiting:
            tried = self._not_before.get(info.id, now)
            if info.owner is None and tried <= now and self._may_go_on(info, wall):
                self._not_before[info.id] = now + AGAIN_S
                started = self._resume(self._store.workspace, info.id, False)
                why = f"does not go on: {started.problem}" if started.problem else "goes on"
                self._say(f"run {info.id} {why}")
        known = {info.id for info in waiting}
        self._not_before = {run: at for run, at in self._not_before.items() if run in known}
        self._idle = {run: stood for run, stood in self._idle.items() if run in known}

    def _may_go_on(self, info: RunInfo, wall: float) -> bool:
        """A long journal is read again only when something is new."""
        if 0 < info.counts.get("due", 0) <= wall:
            return True
        inbox = self._store.inbox(info.id)
        stands = (info.last_seq, inbox[-1].id if inbox else 0)
        if self._idle.get(info.id) == stands:
            return False
        if is_due(self._store, info, wall):
            return True
        self._idle[info.id] = stands
        return False
