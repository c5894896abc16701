"""The default policy (design 4), in force from the first version.

==================== =========================================================================
what                  needs
==================== =========================================================================
instruction to a model whoever influenced the operand is trusted: the user or the program
code                   the same
address of a write     sources trusted, or made by a fixed rule from an input's name; or a plain
                      file name in a directory that the program spells, as the plan shows it
address of a contact   sources trusted: data may choose among the program's own, never make one
external effect        operands and branch trusted, or a person says yes
anything else          nothing: untrusted data may be read, shown to a model and written to files
==================== =========================================================================

Whether the step is reached may depend on anything, but for an external effect.

An address may be *chosen* by untrusted data (a branch, a filter) but not *made* of it: explicit and
implicit influence are kept apart in the label for this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from edvac.core.errors import PolicyError
from edvac.core.label import Label
from edvac.core.signature import Effect, Role
from edvac.core.value import Value, plain, total_label

if TYPE_CHECKING:
    from edvac.program import StepCall

TRUSTED = frozenset({"user", "program"})
NAME_PREFIXES = ("name:", "shape:")  # who named an input file, who decided which files exist


@dataclass(frozen=True, slots=True)
class Allow:
    pass


@dataclass(frozen=True, slots=True)
class Ask:
    """A person may allow what the policy alone does not; `text` says what and why."""

    text: str


@dataclass(frozen=True, slots=True)
class Deny:
    error: PolicyError


Verdict: TypeAlias = Allow | Ask | Deny
Policy: TypeAlias = "Callable[[StepCall, dict[str, Value]], Verdict]"

ALLOW = Allow()


def decide(call: StepCall, operands: dict[str, Value]) -> Verdict:
    """May this step be issued?"""
    signature = call.signature
    doubtful: set[str] = set()
    for param in signature.params:
        operand = operands.get(param.name)
        if operand is None:
            continue
        label = total_label(operand)
        if param.role is Role.INSTRUCTION and not label.integrity <= TRUSTED:
            return _deny_instruction(call, param.name, label)
        if param.role is Role.CODE and not label.integrity <= TRUSTED:
            return _deny_code(call, param.name, label)
        if param.role is Role.ADDRESS and param.name in signature.writes:
            strangers = {source for source in label.sources if not _may_name(source)}
            if strangers and not _stays_in_directory(call, operand):
                return _deny_address(call, param.name, strangers)
        if param.name in signature.contacts and not label.sources <= TRUSTED:
            return _deny_contact(call, param.name, label)
        doubtful |= label.integrity - TRUSTED
    if signature.effect is Effect.EXTERNAL:
        doubtful |= call.branch.integrity - TRUSTED
        if doubtful:
            return Ask(
                f"{call.address} ({call.op}) cannot be undone and depends on data from "
                f"{_some(doubtful)}. Do it?"
            )
    return ALLOW


def _may_name(source: str) -> bool:
    return source in TRUSTED or source.startswith(NAME_PREFIXES)


def _stays_in_directory(call: StepCall, address: Value) -> bool:
    """May data make this address? In ``people/{name}.csv`` it gives a file its name, but cannot
    leave the directory, make another below it or hide the file: every part stands where the
    program has one, and the first is the program's own."""
    parts = str(plain(address)).split("/")
    if any(part.startswith(".") or not part.strip() or not part.isprintable() for part in parts):
        return False
    spelled = (pattern.split("/") for pattern in call.static.writes)
    return any(
        len(own) == len(parts) > 1 and own[0] == parts[0] and not set(own[0]) & set("*?[")
        for own in spelled
    )


def _deny_instruction(call: StepCall, name: str, label: Label) -> Deny:
    return Deny(
        PolicyError(
            "untrusted_instruction",
            f"{call.address}: `{name}` of {call.op} would be made of untrusted data",
            f"It depends on {_some(label.integrity - TRUSTED)}, who could then instruct the model.",
            "Keep the instruction in the program's own words and pass the data as an operand.",
            line=call.line,
        )
    )


def _deny_code(call: StepCall, name: str, label: Label) -> Deny:
    return Deny(
        PolicyError(
            "untrusted_code",
            f"{call.address}: the code of {call.op} would be made of untrusted data",
            f"It depends on {_some(label.integrity - TRUSTED)}.",
            "Write the code as a literal and pass the data by name.",
            line=call.line,
        )
    )


def _deny_address(call: StepCall, name: str, strangers: set[str]) -> Deny:
    return Deny(
        PolicyError(
            "untrusted_address",
            f"{call.address}: `{name}` of {call.op} would be made of untrusted data",
            f"It contains data from {_some(strangers)}, who could then choose the file.",
            "Make it of the input's own name (path.stem(p)), or put it into a directory that the "
            'program spells, as in f"people/{name}.csv"; a name holds no / and begins with no dot.',
            line=call.line,
        )
    )


def _deny_contact(call: StepCall, name: str, label: Label) -> Deny:
    return Deny(
        PolicyError(
            "untrusted_contact",
            f"{call.address}: `{name}` of {call.op} would be made of untrusted data",
            f"It contains data from {_some(label.sources - TRUSTED)}, and what is asked for tells "
            "whoever answers.",
            "Spell the address in the program; data may choose among several.",
            line=call.line,
        )
    )


def _some(principals: frozenset[str] | set[str], most: int = 3) -> str:
    shown = sorted(principals)
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest} more" if rest > 0 else "")
