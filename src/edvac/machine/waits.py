"""What a run waits for beside its steps: signals that are sent to it, and times.

A time is fixed when the wait for it begins, and durable before it does: a run that is resumed waits
for the rest. What a clock does meanwhile makes no wait longer than it was meant to be: the wall
clock ends it, and where a length of time was given, so does the time that has really passed.

A signal is a row in the run's inbox: durable before it is sent, taken out in the transaction that
holds what it led to, by the first wait for its name. Knows nothing of where signals come from.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edvac.control import Failure, Intent, Outcome, Record, Result
from edvac.control.journal import Deadline
from edvac.control.outlook import Parked
from edvac.core.label import PROGRAM
from edvac.core.seams import Clock
from edvac.core.span import moment_of, spelt
from edvac.core.value import Scalar, plain
from edvac.device.waiting import UNITS
from edvac.machine.every import local_zone
from edvac.machine.signals import Signal, read_signal, signal_value
from edvac.store import Message

SOON_S = 60.0  # so long a process is kept for a time that is about to come


@dataclass(frozen=True, slots=True)
class Ended:
    """A wait is over, or a signal was of no use.

    Attributes:
        slot: of the step that ends; empty for such a signal.
        taken: messages that leave the inbox with it.
        note: what a person should know.
    """

    slot: str = ""
    outcome: Outcome | None = None
    taken: tuple[int, ...] = ()
    records: tuple[Record, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Wait:
    intent: Intent
    deadline: Deadline | None
    ends: float  # by the clock that never goes back

    @property
    def name(self) -> str:
        """Of the signal that it waits for; empty where it waits for none."""
        awaits = self.intent.call.signature.awaits == "signal"
        return str(plain(self.intent.operands["name"])) if awaits else ""

    def is_over(self, clock: Clock) -> bool:
        due = self.deadline is not None and clock.wall() >= self.deadline.until
        return due or clock.now() >= self.ends

    def failed(self) -> Failure:
        """It was waited for in vain."""
        call = self.intent.call
        asked = "no answer" if call.signature.person else f"no signal {self.name}"
        within = spelt(call.options.within_s)
        what = f"{asked} came within {within}"
        fix = "attempt(..., default) goes on without; `edvac resume --retry` waits again."
        return Failure("answer_deadline", what, "", fix)


class Waits:
    """Of one run, as long as it is driven.

    Args:
        known: times that were fixed in an earlier drive.
    """

    def __init__(self, known: Mapping[str, Deadline], clock: Clock) -> None:
        self._known = known
        self._clock = clock
        self._fixed: dict[str, Deadline] = {}
        self._open: dict[str, _Wait] = {}
        self._come: defaultdict[str, deque[Signal]] = defaultdict(deque)

    def fixed(self, records: Sequence[Record], intents: Iterable[Intent]) -> list[Record]:
        """The records with the times of waits that begin."""
        for intent in intents:
            deadline = self._deadline(intent)
            if deadline is not None:
                self._fixed[intent.slot] = deadline
        return [
            record.with_deadline(self._fixed[record.slot])
            if record.kind == "intent" and record.slot in self._fixed
            else record
            for record in records
        ]

    def _deadline(self, intent: Intent) -> Deadline | None:
        op, within = intent.call.op, intent.call.options.within_s
        known = self._known.get(intent.slot)
        if not within and intent.call.signature.awaits != "time":
            return None
        if known is not None and known.digest == intent.digest:
            return known
        if op == "wait.until":
            moment = moment_of(plain(intent.operands["when"]), local_zone())
            return Deadline(moment or 0.0, 0.0, intent.digest)
        span = within or float(plain(intent.operands["number"])) * UNITS[op]
        return Deadline(self._clock.wall() + span, span, intent.digest)

    def begin(self, intent: Intent) -> bool:
        """Take note of a step; whether it only waits, so that nothing is executed."""
        awaits, deadline = intent.call.signature.awaits, self._fixed.pop(intent.slot, None)
        if awaits or deadline is not None:
            ends = math.inf
            if deadline is not None and deadline.span:
                left = min(deadline.until - self._clock.wall(), deadline.span)
                ends = self._clock.now() + left
            self._open[intent.slot] = _Wait(intent, deadline, ends)
        return bool(awaits)

    def end(self, slot: str) -> bool:
        """The step has ended, or is to be stopped; whether only a wait did."""
        wait = self._open.pop(slot, None)
        return wait is not None and bool(wait.intent.call.signature.awaits)

    def sort(self, message: Message) -> None:
        """A signal that was found in the inbox."""
        signal = read_signal(message)
        self._come[signal.name].append(signal)

    def is_late(self, slot: str, posted: float) -> bool:
        """Was an answer given after its time?"""
        wait = self._open.get(slot)
        return wait is not None and wait.deadline is not None and posted > wait.deadline.until

    def next(self) -> Ended | None:
        """The first that is over now: a signal that came in time counts before its deadline."""
        for slot, wait in self._open.items():
            if self._has_come(slot, wait):
                return self._heard(slot, wait)
            if wait.is_over(self._clock):
                timed = wait.intent.call.signature.awaits == "time"
                return Ended(slot, Result(Scalar(None, PROGRAM)) if timed else wait.failed())
        return None

    @property
    def ready(self) -> bool:
        """Is any over now?"""
        return any(
            self._has_come(slot, wait) or wait.is_over(self._clock)
            for slot, wait in self._open.items()
        )

    def _has_come(self, slot: str, wait: _Wait) -> bool:
        """Is there a signal for it? One that came after its deadline is the next wait's."""
        come = self._come.get(wait.name)
        return come is not None and len(come) > 0 and not self.is_late(slot, come[0].posted)

    def _heard(self, slot: str, wait: _Wait) -> Ended:
        """What the next signal of its name makes of a wait."""
        signal = self._come[wait.name].popleft()
        value, why = signal_value(signal, wait.intent.call.result)
        if value is None:
            note = f"a signal {signal.name} is not used: {why}"
            refused = Record.refused_signal(signal.name, why)
            return Ended("", None, (signal.message,), (refused,), note)
        return Ended(slot, Result(value), (signal.message,))

    # -- what is still waited for

    @property
    def wake_at(self) -> float | None:
        """When the next wait ends, by the clock that never goes back."""
        now, wall = self._clock.now(), self._clock.wall()
        times = [
            min(wait.ends, now + wait.deadline.until - wall)
            for wait in self._open.values()
            if wait.deadline is not None
        ]
        return min(times, default=None)

    @property
    def soon(self) -> bool:
        """Does a wait end so soon that the process is worth keeping?"""
        wake_at = self.wake_at
        return wake_at is not None and wake_at - self._clock.now() <= SOON_S

    @property
    def parked(self) -> Parked:
        signals = sum(bool(wait.name) for wait in self._open.values())
        due = min(
            (wait.deadline.until for wait in self._open.values() if wait.deadline is not None),
            default=0.0,
        )
        return Parked(signals, math.ceil(due))
