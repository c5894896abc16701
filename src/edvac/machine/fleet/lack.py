"""Whether a worker lives that can do what waits, and what is said where none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edvac.core import event
from edvac.machine.fleet.wire import KINDS, VERSION
from edvac.store import Enlisted

TOLD_AFTER_S, TOLD_EVERY_S = 5.0, 60.0
_MOST = 3  # workers that a note names

Needs = frozenset[str]


class Lack:
    """Of one run.

    Attributes:
        given_up: what steps need that are done here for want of a worker, until one is seen again.
    """

    def __init__(self, run: str, patience_s: float, emit: event.Emit) -> None:
        self.given_up: set[Needs] = set()
        self._run = run
        self._patience_s = patience_s
        self._emit = emit
        self._since: dict[Needs, float] = {}  # nobody has been there
        self._told: dict[Needs, float] = {}

    def look(self, waiting: Mapping[Needs, float], living: Sequence[Enlisted], now: float) -> None:
        """`waiting`: what steps need that are out, and since when the first of each is."""
        for needs in {*waiting, *self.given_up}:
            if any(needs <= set(one.capabilities) for one in living):
                self._since[needs] = now
                self._told.pop(needs, None)
                if needs in self.given_up:
                    self.given_up.discard(needs)
                    self._say(f"{_doing(needs)} go to workers again")
            elif needs not in self.given_up:
                since = max(self._since.get(needs, 0.0), waiting[needs])
                self._missing(needs, living, now, now - since)

    def _missing(self, needs: Needs, living: Sequence[Enlisted], now: float, waited: float) -> None:
        if self._patience_s and waited >= self._patience_s:
            self.given_up.add(needs)
            self._say(f"no worker for {waited:.0f} s: {_doing(needs)} are done here", "warning")
            return
        told = self._told.get(needs)
        if waited < TOLD_AFTER_S or (told is not None and now - told < TOLD_EVERY_S):
            return
        self._told[needs] = now
        why = "; ".join(unfit(one, needs) for one in living[:_MOST])
        text = f"waiting for a worker: for {waited:.0f} s none has asked for {_doing(needs)}"
        self._say(f"{text} ({why})" if why else text, "warning")

    def _say(self, text: str, level: str = "info") -> None:
        self._emit(event.Note(run=self._run, text=text, level=level))


def _doing(needs: Needs) -> str:
    return f"{next(kind for kind in KINDS if kind in needs)} steps"


def unfit(worker: Enlisted, needs: Needs) -> str:
    """Why a worker gets no steps that need this."""
    who = f"{worker.name} on {worker.host}"
    missing = needs - set(worker.capabilities)
    if VERSION in missing:
        return f"{who} is {worker.version or 'another version'}, and this is {VERSION}"
    kinds = sorted(missing & set(KINDS))
    if kinds:
        return f"{who} does no {', '.join(kinds)} steps"
    return f"{who} has not {', '.join(sorted(missing))}"
