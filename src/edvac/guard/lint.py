"""Tries every rule: trusted operands have to pass, others have to be stopped where it says so.

A policy that nobody has tried is a guess: in a well-known system one rule was inverted, one looked
at the wrong parameter and two could never pass. Knows nothing of files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from edvac.core.label import PROGRAM, UNBOUNDED, Label
from edvac.core.schema import ANY, Choice, DictOf, ListOf, Maybe, Plain, Record, TupleOf, Type
from edvac.core.signature import REQUIRED, WILD, Access, Catalogue, Effect, Signature
from edvac.core.value import Atom, Instance, Mapping, Scalar, Sequence, Value
from edvac.guard.policy import Allow, Verdict, decide
from edvac.guard.rules import TOLD, Rule, Rules
from edvac.program.host import StepCall

Sample: TypeAlias = tuple[StepCall, dict[str, Value]]
STRANGER = "stranger:lint"
HOSTILE = Label.of([STRANGER], bits=UNBOUNDED)
PRIVATE = Label.of(["user"], readers=["user"])
_ATOMS: dict[str, Atom] = {
    "str": "x",
    "int": 1,
    "float": 1.0,
    "bool": True,
    "None": None,
    "any": "x",
    "Decimal": 1,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a rule does otherwise than it says, or that is hardly meant.

    Attributes:
        wrong: it is a fault; else it is only worth a look.
    """

    rule: str
    call: str
    what: str
    wrong: bool = True


def lint(rules: Rules, catalogue: Catalogue) -> list[Finding]:
    """What is wrong with the policy, function by function."""
    found: list[Finding] = []
    for signature in catalogue.signatures.values():
        rule = rules.of(signature)
        if rule is not None:
            found += (Finding(rule.name, signature.op, *said) for said in _tried(rules, signature))
    return found


def _tried(rules: Rules, signature: Signature) -> Iterator[tuple[str, bool]]:
    rule = rules.of(signature)
    assert rule is not None
    trial = _Trial(rules, replace(rule, most=0), signature)
    if rule.answer == "allow":
        if not isinstance(trial.verdict(), Allow):
            yield "trusted operands do not pass", True
        yield from _hostile(trial)
        if rule.branch != ("*",) and isinstance(trial.verdict(branch=HOSTILE), Allow):
            yield "it passes where an outsider decided that the call is made", True
    elif isinstance(trial.verdict(), Allow):
        yield f"it passes, though its answer is {rule.answer}", True
    if _needs_nothing(rule, signature):
        yield "anybody may choose everything in it, and it cannot be undone", False


def _hostile(trial: _Trial) -> Iterator[tuple[str, bool]]:
    for param in trial.signature.params:
        need = trial.rule.need(param, trial.signature)
        floor = trial.rules.floor.need(param, trial.signature)
        passes = isinstance(trial.verdict(param.name, HOSTILE), Allow)
        if need.free and floor.free and not passes and param.name not in trial.rule.readers:
            yield f"{param.name} may be anybody's, and is refused", True
        kept = trial.signature.told and TOLD not in trial.rule.readers
        if kept and isinstance(trial.verdict(param.name, PRIVATE), Allow):
            yield f"{param.name} goes to whom it is not meant for", True
        if not need.free and passes:
            yield f"an outsider's {param.name} passes", True
        if need.bits is not None and floor.free:
            few = Label.of([STRANGER], bits=need.bits)
            many = Label.of([STRANGER], bits=math.nextafter(need.bits, math.inf))
            if not isinstance(trial.verdict(param.name, few), Allow):
                yield f"{param.name} with {need.bits:g} bits is refused", True
            if isinstance(trial.verdict(param.name, many), Allow):
                yield f"{param.name} with more than {need.bits:g} bits passes", True
            if isinstance(trial.verdict(param.name, few, branch=HOSTILE), Allow):
                yield f"{param.name} is accepted where an outsider decided", True


def _needs_nothing(rule: Rule, signature: Signature) -> bool:
    free = all(rule.need(param, signature).free for param in signature.params)
    loose = rule.branch == ("*",) and rule.answer == "allow"
    return free and loose and signature.effect is Effect.EXTERNAL


class _Trial:
    """Calls of one function whose operands are the program's own, but for one."""

    def __init__(self, rules: Rules, rule: Rule, signature: Signature) -> None:
        self.rules, self.rule, self.signature = rules, rule, signature

    def verdict(self, name: str = "", label: Label = PROGRAM, branch: Label = PROGRAM) -> Verdict:
        return decide(*self.sample(name, label, branch), self.rules)

    def sample(self, name: str, label: Label, branch: Label) -> Sample:
        operands: dict[str, Value] = {
            param.name: made(param.type, label if param.name == name else PROGRAM)
            for param in self.signature.params
            if param.default is REQUIRED or param.name == name or param.name in self.rule.readers
        }
        call = StepCall(
            slot="",
            op=self.signature.op,
            signature=self.signature,
            args={},
            types={},
            result=ANY,
            branch=branch,
            order=(),
            line=1,
            address=self.signature.function,
            static=Access(writes=(WILD,)),
        )
        return call, operands


def samples(rules: Rules, catalogue: Catalogue) -> Iterator[Sample]:
    """A call of every function, first with the program's own operands, then with a stranger's."""
    for signature in catalogue.signatures.values():
        trial = _Trial(rules, rules.of(signature) or rules.floor, signature)
        yield trial.sample("", PROGRAM, PROGRAM)
        for param in signature.params:
            yield trial.sample(param.name, HOSTILE, PROGRAM)


def made(kind: Type, label: Label) -> Value:
    """Any value of the type in which whoever the label names has as many bits as it says."""
    few = label.cap(0)
    match kind:
        case Choice():
            return Scalar(kind.options[0], label)
        case ListOf():
            return Sequence((made(kind.item, label),), few)
        case DictOf():
            return Mapping({"x": made(kind.item, label)}, few)
        case TupleOf() if kind.items:
            first, *rest = kind.items
            items = (made(first, label), *(made(one, few) for one in rest))
            return Sequence(items, few, fixed=True)
        case Record() if kind.fields:
            first_part, *others = kind.fields
            fields = {first_part.name: made(first_part.type, label)}
            fields |= {part.name: made(part.type, few) for part in others}
            return Instance(kind.name, fields, few)
        case Maybe():
            return made(kind.item, label)
        case Plain():
            return Scalar(_ATOMS.get(kind.name, "x"), label)
    return Scalar("x", label)
