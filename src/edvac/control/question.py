"""Questions to a person, as the journal keeps them: each has a key, so that an answer fits exactly
one question that was asked once.

A question is asked again with another key: after a retry, or with other operands, an answer to the
earlier one counts no longer. Knows nothing of who is asked or how.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from edvac.core.event import Question
from edvac.core.label import PROGRAM
from edvac.core.value import Mapping, Value

if TYPE_CHECKING:
    from edvac.control.step import Step

# The program asks (`human.ask`), the guard asks, or an effect whose outcome is unknown is in doubt.
Asker: TypeAlias = Literal["program", "guard", "doubt"]


def question_key(step: Step, asker: Asker, answered: int) -> str:
    """Names one asking of one question; `answered` counts the answers that this step had before."""
    text = f"{step.slot}\n{step.digest}\n{asker}\n{answered}"
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def asked_body(step: Step, text: str, options: list[str], *, doubt: bool) -> dict[str, Any]:
    """What the journal says of a question of the guard, beside its operands."""
    return {
        "at": step.call.address,
        "op": step.call.op,
        "verdict": "asked",
        "digest": step.digest,
        "key": step.question,
        "text": text,
        "options": options,
        "doubt": doubt,
    }


def shown_operands(operands: dict[str, Value]) -> Value:
    """The operands as one value, so that whoever answers can see what it is about."""
    return Mapping(dict(operands), PROGRAM)


def approval(step: Step, text: str, *, doubtful: bool) -> Question:
    """Yes or no to a step; `text` says why the guard asks, `doubtful` that it was begun before."""
    address = step.call.address
    if doubtful:
        begun = f"{address} ({step.call.op}) was begun before"
        doubt = f"{begun}, and nobody knows whether it took effect. Do it (again)?"
        text = f"{doubt} {text}".rstrip()
    return Question(slot=step.slot, address=address, text=text, options=["yes", "no"])
