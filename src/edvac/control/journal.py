"""What the control unit writes down, and what it needs to go on after a crash.

A `Record` is data; how it is stored is the store's business. The kinds are the closed set of design
3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from edvac.control.question import asked_body, shown_operands
from edvac.control.step import Failure, Result, Usage, WrittenFile
from edvac.core.errors import InternalError
from edvac.core.event import Question
from edvac.core.schema import show
from edvac.core.signature import Effect
from edvac.core.value import Failed, Value
from edvac.guard import Deny, Verdict, logged

if TYPE_CHECKING:
    from edvac.control.step import Intent, Step


RecordKind: TypeAlias = Literal[
    "opened", "program", "extended", "intent", "outcome", "blocked", "approved", "closed"
]


@dataclass(frozen=True, slots=True)
class Record:
    """One journal record of a step, or of a run's beginning or end.

    Attributes:
        body: small plain data (address, op, digest of the operands, error, usage, timing).
        value: what the step returned, labelled; a `Failed` for a failure.
    """

    kind: RecordKind
    slot: str
    body: Mapping[str, Any]
    value: Value | None = None
    files: tuple[WrittenFile, ...] = ()
    prompt: tuple[str, ...] = ()
    reuse_key: str = ""

    @staticmethod
    def intent(intent: Intent, verdict: Verdict | None = None) -> Record:
        body: dict[str, Any] = {
            "at": intent.call.address,
            "op": intent.call.op,
            "digest": intent.digest,
            "attempt": intent.attempt,
            "external": intent.call.signature.effect is Effect.EXTERNAL,
            "key": intent.question,
            "type": show(intent.call.result) if intent.call.signature.awaits == "signal" else "",
            "undo": intent.call.options.undo,
            "policy": logged(verdict),
        }
        told = intent.question or intent.call.signature.names or intent.call.options.undo
        shown = shown_operands(intent.operands) if told else None
        return Record("intent", intent.slot, _present(body), shown)

    @staticmethod
    def escalation(step: Step) -> Record:
        """From now on this step is the escalate model's, in a resumed run too."""
        body = {"at": step.call.address, "op": step.call.op, "digest": step.digest}
        return Record("intent", step.slot, body | {"attempt": step.attempt, "escalated": True})

    @staticmethod
    def approved(step: Step, verdict: str) -> Record:
        body = {"at": step.call.address, "verdict": verdict, "digest": step.digest}
        return Record("approved", step.slot, body)

    @staticmethod
    def asked(step: Step, question: Question, *, doubt: bool) -> Record:
        body = asked_body(step, question.text, question.options, doubt=doubt)
        if said := logged(step.verdict):
            body["policy"] = said
        return Record("approved", step.slot, body, shown_operands(step.values))

    @staticmethod
    def refused_signal(name: str, why: str) -> Record:
        """A signal that came and was of no use: nothing waits for it any more."""
        return Record("approved", "", {"verdict": "signal_refused", "signal": name, "why": why})

    def with_deadline(self, deadline: Deadline) -> Record:
        """An intent that says until when it is waited for."""
        return replace(self, body=dict(self.body) | {"until": [deadline.until, deadline.span]})

    @staticmethod
    def retry(slots: Iterable[str]) -> Record:
        """Somebody wants these failures tried again: from now on, however often the process dies,
        the run goes on without their outcomes."""
        return Record("approved", "", {"verdict": "retry", "slots": list(slots)})

    @staticmethod
    def result(step: Step, value: Value, result: Result) -> Record:
        body = _head(step, result.seconds) | {
            "answer": result.answer,
            "reused": result.reused,
            "notes": list(result.notes),
            "model": result.model,
            "escalated": result.escalated,
            "read": dict(result.read) or None,
            "policy": None if step.acts else logged(step.verdict),  # else its intent says it
        }
        return Record(
            "outcome",
            step.slot,
            _present(body),
            value,
            result.files,
            result.prompt,
            result.reuse_key,
        )

    @staticmethod
    def failure(step: Step, value: Failed, failure: Failure) -> Record:
        body = _head(step, failure.seconds) | {
            "answer": failure.answer,
            "why": failure.why,
            "fix": failure.fix,
            "model": failure.model,
            "policy": None
            if step.acts and not isinstance(step.verdict, Deny)
            else logged(step.verdict),
        }
        return Record("outcome", step.slot, _present(body), value, prompt=failure.prompt)

    @staticmethod
    def blocked(step: Step, cause: Failed) -> Record:
        return Record("blocked", step.slot, {"at": step.call.address, "op": step.call.op}, cause)


def _head(step: Step, seconds: float) -> dict[str, Any]:
    usage, retries = step.usage, step.call.options.retries
    return {
        "at": step.call.address,
        "op": step.call.op,
        "line": step.call.line,
        "digest": step.digest,
        "seconds": round(seconds, 3),
        "attempts": step.attempt,
        "retries": None if retries is None else str(retries),
        "limit_s": step.call.options.timeout_s or None,
        "tokens": [usage.prompt, usage.cached, usage.completion] if any_tokens(usage) else None,
        "cost": str(usage.cost) if usage.cost else None,
    }


def any_tokens(usage: Usage) -> bool:
    return bool(usage.prompt or usage.completion)


def _present(body: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing: a journal of thousands of steps is read and synced often."""
    return {key: item for key, item in body.items() if item not in (None, "", [], False)}


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    value: Value
    digest: str  # of the operands that it was computed from


@dataclass(frozen=True, slots=True)
class Deadline:
    """Until when a step waits, fixed when it began to.

    Attributes:
        until: by the wall clock, in UTC seconds.
        span: so many seconds at most in any case; 0 where the clock alone counts.
        digest: of the operands that it belongs to.
    """

    until: float
    span: float
    digest: str


@dataclass(frozen=True, slots=True)
class Replay:
    """What the journal knows about a run.

    Attributes:
        outcomes: by slot; the last one counts.
        unknown: slots of external steps of which nobody knows whether they took effect: the intent
            is durable and the outcome is not, or the outcome was given up.
        approved: slots to which a person has said yes, with the digest of the operands shown.
        blocked: slots whose being blocked is in the journal already.
        escalated: slots whose turn at the escalate model has come, with the digest of their
            operands.
        answered: how many answers of a person each slot has had.
        asked: keys of the guard's questions that are in the journal already.
        deadlines: of steps that wait, and have no outcome.
        accepted: bits of outsiders that the policy has accepted, by slot and operands.
        edited: a retry forgot outcomes, so others may rest on operands that differ now.
    """

    outcomes: Mapping[str, StoredOutcome] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    approved: Mapping[str, str] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()
    escalated: Mapping[str, str] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    answered: Mapping[str, int] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    edited: bool = False
    deadlines: Mapping[str, Deadline] = field(default_factory=dict)
    accepted: Mapping[str, float] = field(default_factory=dict)


def diverged(address: str) -> InternalError:
    """A step in the journal does not follow from what comes before it."""
    return InternalError(
        "replay_diverged",
        f"{address} was computed from other operands than it has now",
        "The same journal must give the same operands.",
        "Run `edvac doctor`, and please report this with the program.",
    )


# Failures after which an external effect may have happened all the same.
DOUBTFUL = frozenset({"step_timeout", "denied_by_person", "app_in_doubt", "app_result_misfit"})


def given_up(known: StoredOutcome) -> bool:
    """Did the step end without anybody knowing whether it took effect?"""
    return isinstance(known.value, Failed) and known.value.code in DOUBTFUL
