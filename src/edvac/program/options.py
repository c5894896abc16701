"""What may be said of a step beside its operands: how often it is tried again, how long it may
take or be waited for, and which other step takes its effect back.

They are words of the call (``mail.send(to, text, retries=2, timeout="90s")``), literal or a
parameter's name, and no part of a step's identity: with other numbers a step gives the same. A
device that has an operand of such a name keeps it. Knows nothing of how they are kept to.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edvac.core.errors import ProgramError
from edvac.core.signature import REQUIRED, Catalogue, Effect, Role, Signature
from edvac.core.span import LONGEST_S as LONGEST_WAIT_S
from edvac.core.span import seconds_of
from edvac.core.value import Operand, Scalar, settle
from edvac.program.refusal import refusal
from edvac.program.tree import dotted

MOST_RETRIES = 20
LEAST_S, LONGEST_S = 1.0, 7 * 86_400.0
RESULT = "result"  # the operand in which an undoing step is given what the step has returned
_USE = {
    "retries": f"Write retries=N, from 0 to {MOST_RETRIES}, or a parameter's name.",
    "timeout": 'Write timeout="90s", from 1 s to 7 d, or a parameter\'s name.',
    "within": 'Write within="2h", from 1 s to 3650 d, or a parameter\'s name.',
    "undo": 'Write undo="DEVICE.FUNCTION".',
}


@dataclass(frozen=True, slots=True)
class Options:
    """Attributes:
    retries: after a transient error; None leaves it to the run.
    timeout_s: of one attempt; 0 leaves it to the device.
    within_s: a person or a signal is waited for so long; 0 is for ever.
    undo: the op that takes the effect back, if somebody asks for that.
    wrong: why what was given is none of these, as a clause.
    """

    retries: int | None = None
    timeout_s: float = 0.0
    within_s: float = 0.0
    undo: str = ""
    wrong: str = ""


NONE = Options()


def is_option(name: str | None, signature: Signature) -> bool:
    """Is this word of a call an option, and no operand?"""
    return name in _USE and signature.param(str(name)) is None


def take_options(signature: Signature, words: dict[str, Any]) -> Options:
    """The options among the words of a call, which then holds operands alone."""
    found = {name: words.pop(name) for name in list(words) if is_option(name, signature)}
    return _read({name: _plain(value) for name, value in found.items()}) if found else NONE


def _plain(operand: Operand) -> Any:
    here = settle(operand)
    return here.data if isinstance(here, Scalar) else None


def _read(given: Mapping[str, Any]) -> Options:
    retries = given.get("retries")
    seconds, within = (_seconds(given.get(name)) for name in ("timeout", "within"))
    if "retries" in given and not _is_count(retries):
        return Options(wrong=f"retries={retries!r} is no number from 0 to {MOST_RETRIES}")
    if "timeout" in given and not LEAST_S <= seconds <= LONGEST_S:
        return Options(wrong=f"timeout={given['timeout']!r} is no time from 1 s to 7 d")
    if "within" in given and within < LEAST_S:
        return Options(wrong=f"within={given['within']!r} is no time from 1 s to 3650 d")
    return Options(retries, max(0.0, seconds), max(0.0, within), str(given.get("undo") or ""))


def _is_count(data: Any) -> bool:
    return isinstance(data, int) and not isinstance(data, bool) and 0 <= data <= MOST_RETRIES


def _seconds(data: Any) -> float:
    """A number is one of seconds; -1 for what is no time."""
    if isinstance(data, str):
        found = seconds_of(data)
        return -1.0 if found is None else found
    known = isinstance(data, int | float) and not isinstance(data, bool)
    return float(data) if known and 0 <= data <= LONGEST_WAIT_S else -1.0


def unfit_options(
    made: Iterable[ast.Call], catalogue: Catalogue, params: Mapping[str, object]
) -> Iterator[ProgramError]:
    """What is wrong with the options of a program's calls."""
    for call in made:
        signature = catalogue.signatures.get(dotted(call.func) or "") if call.keywords else None
        if signature is None:
            continue
        for word in call.keywords:
            if is_option(word.arg, signature):
                why = _unfit(str(word.arg), word.value, signature, catalogue, params)
                if why:
                    yield refusal(word.value, "option_unfit", why, "", _USE[str(word.arg)])


def _unfit(
    name: str,
    node: ast.expr,
    signature: Signature,
    catalogue: Catalogue,
    params: Mapping[str, object],
) -> str:
    waits = signature.person or signature.awaits == "signal"
    if name == "within" and not waits:
        return f"{signature.op} waits for nobody: it has no within="
    if name in ("retries", "timeout") and (waits or signature.awaits):
        instead = ": it waits, with within= for so long" if waits else ""
        return f"{signature.op} has no {name}={instead}"
    literal = isinstance(node, ast.Constant)
    if name == "undo":
        op = node.value if isinstance(node, ast.Constant) else None
        return _no_undo(op, signature, catalogue)
    if not literal and not (isinstance(node, ast.Name) and node.id in params):
        return f"{name}= is neither a literal nor a parameter"
    return _read({name: node.value}).wrong if isinstance(node, ast.Constant) else ""


def _no_undo(op: object, signature: Signature, catalogue: Catalogue) -> str:
    """Why the step cannot be undone by this one, as a clause."""
    undo = catalogue.signatures.get(op) if isinstance(op, str) else None
    if signature.effect is not Effect.EXTERNAL:
        return f"{signature.op} has no effect outside the run that could be undone"
    if undo is None or undo.effect is not Effect.EXTERNAL:
        return "undo= names no step with an effect outside the run"
    given = {param.name for param in signature.params if param.role is not Role.TYPE} | {RESULT}
    needed = [p for p in undo.params if p.default is REQUIRED and not p.variadic]
    missing = [p.name for p in needed if p.name not in given or p.role in (Role.TYPE, Role.CODE)]
    if missing:
        return f"{undo.op} needs {', '.join(missing)}, which {signature.op} does not have"
    return ""
