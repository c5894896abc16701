"""Volatile events: what terminal, console, logs and traces read. Never stored; losing one loses
nothing.

Everything shown to a person during a run comes from here or from the journal. Knows nothing of who
listens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec


class Event(msgspec.Struct, frozen=True, tag_field="event", kw_only=True):
    run: str = ""


class RunOpened(Event, frozen=True, kw_only=True, tag="run_opened"):
    task: str = ""
    program: str
    resumed: bool = False
    replayed: int = 0  # steps whose result was already there


class PlanLine(Event, frozen=True, kw_only=True, tag="plan_line"):
    """A line of the program was accepted by the verifier while the planner is writing."""

    text: str
    number: int


class Stage(Event, frozen=True, kw_only=True, tag="stage"):
    """A long wait, with its stage and how far it is; `unit` of done and total."""

    name: str
    done: float = 0
    total: float = 0
    unit: str = ""


class StepWaiting(Event, frozen=True, kw_only=True, tag="step_waiting"):
    """A step was discovered: its operands or its turn are still missing."""

    slot: str
    address: str
    op: str


class StepStarted(Event, frozen=True, kw_only=True, tag="step_started"):
    slot: str
    address: str
    op: str
    attempt: int = 1


class StepText(Event, frozen=True, kw_only=True, tag="step_text"):
    """A piece of a model's answer as it is decoded; `tokens` is the number in this piece."""

    slot: str
    text: str
    tokens: int = 1


class StepFinished(Event, frozen=True, kw_only=True, tag="step_finished"):
    slot: str
    address: str
    op: str
    seconds: float
    preview: str = ""
    reused: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class StepFailed(Event, frozen=True, kw_only=True, tag="step_failed"):
    slot: str
    address: str
    op: str
    code: str
    what: str
    why: str = ""
    fix: str = ""
    blocked_by: str = ""  # address of the step that failed upstream, for a blocked one


class StepRetried(Event, frozen=True, kw_only=True, tag="step_retried"):
    slot: str
    address: str
    attempt: int
    code: str
    what: str
    wait_s: float
    escalated: bool = False  # the escalate model is asked next


class Question(Event, frozen=True, kw_only=True, tag="question"):
    """A person is asked: by a program, by the guard, or about an effect whose outcome is
    unknown."""

    slot: str
    address: str
    text: str
    options: list[str] = []


class FileWritten(Event, frozen=True, kw_only=True, tag="file_written"):
    path: str
    size: int


class Note(Event, frozen=True, kw_only=True, tag="note"):
    """Something a person should know: a repair, a fallback, an assumption."""

    text: str
    level: str = "info"


class WorkerState(Event, frozen=True, kw_only=True, tag="worker_state"):
    """A worker of other runs' steps began or ended: ready, finishing, stopped."""

    name: str
    state: str
    slots: int


class StepTaken(Event, frozen=True, kw_only=True, tag="step_taken"):
    """A worker took a step from the queue; `times` that it has been taken, this one included."""

    slot: str
    times: int = 1


class StepReturned(Event, frozen=True, kw_only=True, tag="step_returned"):
    """It is done with it: finished, failed, handed back, lost (to another) or late (and so in
    vain)."""

    slot: str
    how: str
    seconds: float


class RunClosed(Event, frozen=True, kw_only=True, tag="run_closed"):
    state: str  # done, partial, failed, cancelled, interrupted
    seconds: float
    finished: int
    failed: int
    blocked: int
    reused: int
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    bits: int = 0  # that outsiders chose in what the policy accepted, at most
    actions: list[str] = []  # what a run that only reads would do next
    endpoints: list[str] = []


Emit: TypeAlias = Callable[[Event], None]


def encode(event: Event) -> bytes:
    """One JSON line."""
    return msgspec.json.encode(event)
