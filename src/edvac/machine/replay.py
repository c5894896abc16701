"""What a control unit needs of a journal to go on: the records of a run, folded in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from edvac.control import Usage
from edvac.control.journal import Deadline, Replay, StoredOutcome, given_up
from edvac.core.value import Failed

if TYPE_CHECKING:
    from edvac.machine.entry import Entry


def replayed(entries: Iterable[Entry]) -> Replay:
    """The state after the last of these records."""
    fold = _Fold()
    for entry in entries:
        fold.take(entry)
    return Replay(
        fold.outcomes,
        frozenset(fold.begun),
        fold.approved,
        frozenset(fold.blocked),
        fold.escalated,
        fold.usage,
        fold.answered,
        frozenset(fold.asked),
        fold.edited,
        fold.deadlines,
        fold.accepted,
    )


@dataclass(slots=True)
class _Fold:
    """See `Replay` for what is named alike."""

    outcomes: dict[str, StoredOutcome] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)  # external effects whose outcome is not known
    approved: dict[str, str] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    escalated: dict[str, str] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    answered: Counter[str] = field(default_factory=Counter)
    asked: set[str] = field(default_factory=set)
    edited: bool = False
    deadlines: dict[str, Deadline] = field(default_factory=dict)
    accepted: dict[str, float] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)  # begun, and given up without knowing
    personal: set[str] = field(default_factory=set)  # steps that ask a person

    def take(self, entry: Entry) -> None:
        self.blocked.discard(entry.slot)
        if entry.body.get("policy"):
            self._accept(entry)
        match entry.kind:
            case "intent":
                self._intent(entry)
            case "outcome" if entry.value is not None:
                self._outcome(entry, StoredOutcome(entry.value, _digest(entry)))
            case "blocked":
                self.blocked.add(entry.slot)
            case "approved":
                self._approved(entry)

    def _accept(self, entry: Entry) -> None:
        """What was accepted once is counted once, however often the step was begun."""
        found = entry.body["policy"].get("accepted", ())
        if bits := sum(bits or 0.0 for _, bits, _ in found):
            self.accepted[f"{entry.slot} {_digest(entry)}"] = bits

    def _intent(self, entry: Entry) -> None:
        self.outcomes.pop(entry.slot, None)
        if "key" in entry.body:
            self.personal.add(entry.slot)
        if entry.body.get("external"):
            self.begun.add(entry.slot)
        if entry.body.get("escalated"):
            self.escalated[entry.slot] = _digest(entry)
        if "until" in entry.body:
            until, span = entry.body["until"]
            self.deadlines[entry.slot] = Deadline(until, span, _digest(entry))

    def _outcome(self, entry: Entry, known: StoredOutcome) -> None:
        self.lost.discard(entry.slot)
        self.deadlines.pop(entry.slot, None)
        if entry.slot in self.begun and given_up(known):
            self.lost.add(entry.slot)
        self.begun.discard(entry.slot)
        self.escalated.pop(entry.slot, None)
        if entry.slot in self.personal and not isinstance(known.value, Failed):
            self.answered[entry.slot] += 1
        self.usage = self.usage + _usage(entry)
        self.outcomes[entry.slot] = known

    def _approved(self, entry: Entry) -> None:
        match entry.body.get("verdict"):
            case "asked":
                self.asked.add(entry.body["key"])
            case "retry":
                self._retry(entry.body["slots"])
            case "signal_refused":
                pass
            case verdict:
                self.answered[entry.slot] += 1
                self.approved.pop(entry.slot, None)
                if verdict == "yes":
                    self.approved[entry.slot] = _digest(entry)

    def _retry(self, slots: Iterable[str]) -> None:
        """What was given up without knowing whether it took effect is unknown again."""
        self.edited = True
        self.blocked.clear()
        for slot in slots:
            self.outcomes.pop(slot, None)
            if slot in self.lost:
                self.begun.add(slot)


def _digest(entry: Entry) -> str:
    return str(entry.body.get("digest", ""))


def _usage(entry: Entry) -> Usage:
    tokens = entry.body.get("tokens") or (0, 0, 0)
    prompt, cached, completion = tokens
    return Usage(prompt, cached, completion, Decimal(entry.body.get("cost", "0")))
