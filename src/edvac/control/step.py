"""One step on its way through the control unit, and what an execution can come back with."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

from edvac.core.errors import EdvacError, ModelOutputError, TransientError
from edvac.core.label import PUBLIC, Label, combine
from edvac.core.schema import Choice, Type
from edvac.core.signature import NO_ACCESS, Access, Effect
from edvac.core.value import Failed, Value, digest, plain, total_label

if TYPE_CHECKING:
    from edvac.guard import Verdict
    from edvac.processor import Answer, Price
    from edvac.program import StepCall


class StepState(enum.StrEnum):
    WAITING = "waiting"  # an operand is pending
    READY = "ready"  # operands are there; a hazard, a limit or its turn is missing
    HELD = "held"  # a person has to say yes first
    ISSUED = "issued"
    RETRYING = "retrying"  # a transient error; waiting for the next attempt
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"  # something upstream failed

    @property
    def ended(self) -> bool:
        return self in (StepState.DONE, StepState.FAILED, StepState.BLOCKED)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or more model calls; cached ones are part of the prompt's. `cost` is what they
    were charged at, in the run's currency."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    cost: Decimal = Decimal(0)

    @staticmethod
    def of(answer: Answer, price: Price) -> Usage:
        """Of one call."""
        cost = price.of(answer)
        return Usage(answer.prompt_tokens, answer.cached_tokens, answer.completion_tokens, cost)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.completion + other.completion,
            self.cost + other.cost,
        )


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A version of a file that a step made in the run's own store; `content` None deletes it."""

    path: str
    content: bytes | None
    label: Label

    def influenced(self, operands: Label, branch: Label) -> WrittenFile:
        """The version with who is in the step's operands, which make its name, and who decided
        that it is written: a listing tells as much as the content."""
        who = Label.of(operands.sources, operands.steered, operands.readers)
        return replace(self, label=self.label.join(who).steer(branch))


@dataclass(frozen=True, slots=True)
class Result:
    """A step succeeded.

    Attributes:
        value: complete and labelled with everything the execution added; the control unit joins
            operands and branch.
        prompt: the segments sent, `answer` what came back, for ``edvac show --prompt``.
        reuse_key: under which a later run may take this result; empty where it may not.
        model: identity of the model that made the value, `escalated` when that was the one asked
            after others had failed.
        notes: what a person should know (a repair, a fallback).
        read: input files that it has read, with the hashes of their content.
    """

    value: Value
    seconds: float = 0.0
    usage: Usage = Usage()
    files: tuple[WrittenFile, ...] = ()
    prompt: tuple[str, ...] = ()
    answer: str = ""
    reuse_key: str = ""
    reused: bool = False
    notes: tuple[str, ...] = ()
    model: str = ""
    escalated: bool = False
    read: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """A step failed.

    Attributes:
        retry: the same request may succeed later; `wait_s`: seconds to wait at least.
        suspect: the processor may be at fault, and not this step.
        away: it is: it answers nobody, so that the step has not been tried at all.
        seen: who may have decided that it fails, besides its operands.
    """

    code: str
    what: str
    why: str = ""
    fix: str = ""
    retry: bool = False
    suspect: bool = False
    away: bool = False
    repair: bool = False  # the model's answer did not fit: another try may, a little differently
    usage: Usage = Usage()
    seconds: float = 0.0
    prompt: tuple[str, ...] = ()
    answer: str = ""
    seen: Label = PUBLIC
    wait_s: float = 0.0
    model: str = ""

    @property
    def answered(self) -> bool:
        """Does it show that the processor is there? One that was suspected and is final has been
        followed by an answer to something harmless."""
        final = self.suspect and not self.retry and not self.away
        return final or self.repair or bool(self.model)

    @staticmethod
    def of(error: EdvacError, *, usage: Usage = Usage(), seconds: float = 0.0) -> Failure:
        return Failure(
            error.code,
            error.what,
            error.why,
            error.fix,
            retry=isinstance(error, TransientError),
            repair=isinstance(error, ModelOutputError),
            wait_s=error.wait_s if isinstance(error, TransientError) else 0.0,
            usage=usage,
            seconds=seconds,
        )


Outcome: TypeAlias = Result | Failure


@dataclass(frozen=True, slots=True)
class Intent:
    """What `execute` is asked to do: one attempt at one step, operands complete.

    Attributes:
        digest: identity of the operands, whatever their labels.
        attempt: counts from 1; part of a model step's seed, so that a repair is not the same again.
        last: no further attempt is made after a transient error.
        complaint: what was wrong with the previous answer.
        escalated: the escalate model is asked.
        question: key of the question, where the step asks a person.
        key: of an execution ahead of an undecided condition, which may never be the step's.
    """

    call: StepCall
    operands: dict[str, Value]
    access: Access
    digest: str = ""
    attempt: int = 1
    last: bool = False
    complaint: str = ""
    timeout_s: float = 600.0
    escalated: bool = False
    question: str = ""
    key: str = ""

    @property
    def slot(self) -> str:
        return self.call.slot

    @property
    def name(self) -> str:
        """Under which the execution runs, comes back and is aborted."""
        return self.key or self.call.slot


def answer_kind(call: StepCall, operands: Mapping[str, Value]) -> Type:
    """The type that an answer must have: of a choice one of its options, wherever the program had
    them from. Whoever chooses can choose no more than that; the options are the user's (the
    guard's floor)."""
    if call.op == "llm.choose" and not isinstance(call.result, Choice):
        return Choice(tuple(dict.fromkeys(plain(operands["options"]))))
    return call.result


def operand_digest(operands: dict[str, Value]) -> str:
    """Identity of a step's operands, whatever their labels."""
    state = hashlib.blake2b(digest_size=20)
    for name in sorted(operands):
        state.update(f"{name}={digest(operands[name])};".encode())
    return state.hexdigest()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may use.

    Attributes:
        tokens: of model steps altogether (prompt without cached, plus completion); 0 is no limit.
        at_once: how many steps of a device may run at the same time, by device;
            `default_at_once` for others.
        slow_start: model steps in flight until the first one has ended, so that something can be
            shown before a whole batch of prompts has been read; 0 is no such limit.
        attempts: of a step with a transient error; `repairs` of one whose answer did not fit.
        backoff_s: wait before the second attempt; doubled before each further one, up to
            `longest_wait_s`.
        patience_s: how long steps are tried again after the last answer of a processor that is
            away; then, or where it has not answered yet, they are held back.
        escalate: a model step whose answers did not fit its type goes once to another model.
        money: of model steps altogether, in the run's currency; None is no limit.
        sample: elements of each outermost loop whose steps are done before somebody says that the
            run may go on; 0 does all.
        read_only: steps that write, leave the machine or ask a person are held back.
        ahead: devices that may be used ahead of undecided conditions; none switches that off.
        seconds: that the run may be driven; 0 is no limit. `before` of them were used by earlier
            drives.
        met: statements of a new run's program that are met before their steps begin, and so many
            before each look at what has happened meanwhile.
    """

    tokens: int = 0
    at_once: dict[str, int] = field(default_factory=dict)
    default_at_once: int = 16
    slow_start: int = 0
    attempts: int = 5
    repairs: int = 1
    backoff_s: float = 0.5
    longest_wait_s: float = 30.0
    patience_s: float = 300.0
    escalate: bool = False
    money: Decimal | None = None
    sample: int = 0
    seconds: float = 0.0
    before: float = 0.0
    ahead: frozenset[str] = frozenset()
    read_only: bool = False
    met: int = 500


@dataclass(slots=True, eq=False)
class Step:
    """The scoreboard's entry for one step."""

    call: StepCall
    state: StepState = StepState.WAITING
    values: dict[str, Value] = field(default_factory=dict)  # the operands, once complete
    digest: str = ""  # of the operands, once complete
    access: Access = NO_ACCESS
    attempt: int = 0
    repairs: int = 0
    complaint: str = ""
    escalated: bool = False  # the escalate model's turn
    usage: Usage = Usage()
    approved: bool = False
    verdict: Verdict | None = None  # of the guard, once it was asked
    question: str = ""  # key of the last one that was asked about it
    key: str = ""  # of the execution ahead that it has taken over
    failure: Failed | None = None

    @property
    def slot(self) -> str:
        return self.call.slot

    @property
    def order(self) -> tuple[int, ...]:
        return self.call.order

    @property
    def operand_label(self) -> Label:
        return combine([total_label(value) for value in self.values.values()])

    def release(self) -> None:
        """Let go of what only an open step needs: a run of many keeps no operands for each."""
        self.call = replace(self.call, args={})
        self.values = {}
        self.access = NO_ACCESS

    def may_repeat(self, limits: Limits) -> bool:
        """Is there another attempt after this one, where it comes to a transient error?"""
        own = self.call.options.retries
        return self.attempt < (limits.attempts if own is None else own + 1)

    @property
    def acts(self) -> bool:
        """Does it do more than observe and compute? Known once its operands are: a command whose
        sandbox lets it write nothing only observes."""
        signature = self.call.signature
        leaves = self.external or signature.person or bool(signature.awaits or signature.names)
        return leaves or bool(self.access.writes)

    @property
    def lasting(self) -> bool:
        """Does it leave a mark: a file of the run, an event, a signal that is taken, or with
        somebody who is told?"""
        signature = self.call.signature
        return signature.effect is Effect.WRITE or bool(signature.awaits or signature.told)

    @property
    def external(self) -> bool:
        return self.call.signature.effect is Effect.EXTERNAL
