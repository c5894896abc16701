"""What travels, as bytes: a step's payload, and its outcome. Carries no key and no setting.

Everything that comes in is checked against its type; an error crosses as its class and its words.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import msgspec

from edvac import __version__
from edvac.control.context import TEMPLATE_VERSION
from edvac.core import errors
from edvac.core.errors import EdvacError, InternalError, StepError
from edvac.device.carried import Laid, Made, versions
from edvac.processor import Answer, Request
from edvac.sandbox import Completed

FORMAT = 1  # of the two forms below
# What a worker must be to be given steps: the same edvac, with the same prompts.
VERSION = f"edvac {__version__} template {TEMPLATE_VERSION} format {FORMAT}"
MODEL, PYTHON, SHELL = "llm", "python", "shell"
KINDS = (MODEL, PYTHON, SHELL)

_KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, EdvacError)
}


class ModelStep(msgspec.Struct, frozen=True, tag="model"):
    """A request, assembled; `model` is the identity of the one that it is for."""

    request: Request
    model: str


class SandboxStep(msgspec.Struct, frozen=True, tag="sandbox"):
    """A call with its directory: `files` by path below what it works in, `control` beside it."""

    op: str
    slot: str
    env: dict[str, str]
    before: dict[str, str]
    writes: list[str]
    timeout_s: float
    files: dict[str, bytes]
    control: dict[str, bytes]


Step: TypeAlias = ModelStep | SandboxStep


class Answered(msgspec.Struct, frozen=True, tag="answer"):
    answer: Answer
    endpoints: list[str]


class Carried(msgspec.Struct, frozen=True, tag="made"):
    status: int
    stdout: bytes
    stderr: bytes
    files: dict[str, bytes | None]
    notes: list[str]

    def made(self) -> Made:
        return Made(Completed(self.status, self.stdout, self.stderr), self.files, tuple(self.notes))


class Error(msgspec.Struct, frozen=True, tag="error"):
    """An error of edvac's tree; `wait_s` where the other side asked for it."""

    kind: str
    code: str
    what: str
    why: str
    fix: str
    wait_s: float = 0.0


Outcome: TypeAlias = Answered | Carried | Error


def needs_model(identity: str) -> frozenset[str]:
    """What a worker must have for a request to this model."""
    return frozenset({VERSION, MODEL, model_mark(identity)})


def needs_sandbox(op: str) -> frozenset[str]:
    if op.startswith("python."):
        return frozenset({VERSION, PYTHON, f"python {versions()}"})
    return frozenset({VERSION, SHELL})


def capabilities(kinds: frozenset[str], identity: str) -> tuple[str, ...]:
    """Of a worker that does these kinds of steps, with this model."""
    found = {VERSION, *kinds}
    if MODEL in kinds:
        found.add(model_mark(identity))
    if PYTHON in kinds:
        found.add(f"python {versions()}")
    return tuple(sorted(found))


def model_mark(identity: str) -> str:
    return f"model {identity}"


def sandbox_step(laid: Laid, files: dict[str, bytes], control: dict[str, bytes]) -> SandboxStep:
    before, writes = dict(laid.before), list(laid.writes)
    about = (laid.op, laid.slot, dict(laid.env), before, writes, laid.timeout_s)
    return SandboxStep(*about, files, control)


def carried(made: Made) -> Carried:
    done = made.done
    return Carried(done.status, done.stdout, done.stderr, dict(made.files), list(made.notes))


def encode(what: Step | Outcome) -> bytes:
    return msgspec.msgpack.encode(what)


def read_step(payload: bytes) -> Step:
    """
    Raises:
        StepError: it is none.
    """
    what = "a step that was offered cannot be read"
    found: Step = _read(payload, Step, "step_unreadable", what)
    return found


def read_outcome(data: bytes) -> Outcome:
    """
    Raises:
        StepError: it is none.
    """
    what = "what a worker answered cannot be read"
    found: Outcome = _read(data, Outcome, "outcome_unreadable", what)
    return found


def _read(data: bytes, kind: Any, code: str, what: str) -> Any:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError) as problem:
        raise unreadable(code, what, str(problem)) from problem


def unreadable(code: str, what: str, why: str) -> StepError:
    return StepError(code, what, why, "See that owner and workers are of one edvac.")


def error(problem: EdvacError) -> Error:
    wait_s = problem.wait_s if isinstance(problem, errors.TransientError) else 0.0
    kind = type(problem).__name__
    return Error(kind, problem.code, problem.what, problem.why, problem.fix, wait_s)


def raised(told: Error) -> EdvacError:
    """The error that a worker met, as if it had been met here."""
    made: type[EdvacError] = _KINDS.get(told.kind, StepError)
    # That the worker's store or edvac is at fault is no reason to think so of the ones here.
    if issubclass(made, errors.StoreError | InternalError):
        made = StepError
    code = told.code if re.fullmatch(r"[a-z0-9_]{1,60}", told.code) else "worker_failed"
    found = made(code, told.what, told.why, told.fix)
    if isinstance(found, errors.TransientError):
        found.wait_s = max(0.0, min(told.wait_s, 3600.0))
    return found
