"""Decisions: may a step happen? A pure function of the rules, the call and the labels.

The floor is looked at first, then the rule that is closest to the function (see `rules`). An
operand holds where those who influenced it may, or where its rule accepts as many bits as outsiders
could choose in it and nobody else decided that the call is made (rule 7). What is accepted so, and
what is released to readers, stands in the verdict and from there in the journal.

An address may be *chosen* by untrusted data (a branch, a filter) but not *made* of it: explicit and
implicit influence are kept apart in the label for this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from edvac.core.errors import PolicyError
from edvac.core.label import Label, combine
from edvac.core.signature import Param, Role
from edvac.core.value import Value, plain, total_label
from edvac.guard.load import shipped
from edvac.guard.rules import TOLD, TRUSTED, Answer, Need, Rule, Rules

if TYPE_CHECKING:
    from edvac.program import StepCall


BRANCH = "branch"  # stands for a parameter where outsiders decided that a call is made


@dataclass(frozen=True, slots=True)
class Accepted:
    """Something that the labels forbid and the policy names: an endorsement, an outsider's
    decision, or a release.

    Attributes:
        param: whose operand it is; `BRANCH` where it is that the call is made at all.
        bits: what outsiders could choose in it; None for a release to readers.
        who: the outsiders, or the readers.
    """

    param: str
    bits: float | None
    who: tuple[str, ...]

    def __str__(self) -> str:
        names = _some(frozenset(self.who))
        if self.bits is None:
            return f"{self.param} released to {names}"
        unit = "bit" if self.bits == 1 else "bits"
        return f"{self.bits:g} {unit} of {names} accepted in {self.param}"


@dataclass(frozen=True, slots=True)
class Allow:
    rule: str = ""
    accepted: tuple[Accepted, ...] = ()

    @property
    def bits(self) -> float:
        """What outsiders chose in all that is accepted."""
        return sum(one.bits or 0.0 for one in self.accepted)


@dataclass(frozen=True, slots=True)
class Ask:
    """A person may allow what the policy alone does not; `text` says what and why."""

    text: str
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    error: PolicyError
    rule: str = ""


Verdict: TypeAlias = Allow | Ask | Deny
Policy: TypeAlias = "Callable[[StepCall, dict[str, Value]], Verdict]"

ALLOW = Allow()


def logged(verdict: Verdict | None) -> dict[str, Any] | None:
    """What the journal says of a decision; None where no rule but the floor was looked at."""
    if verdict is None or not verdict.rule:
        return None
    said: dict[str, Any] = {"rule": verdict.rule}
    if isinstance(verdict, Allow) and verdict.accepted:
        said["accepted"] = [[one.param, one.bits, list(one.who)] for one in verdict.accepted]
    return said


def decide(
    call: StepCall,
    operands: dict[str, Value],
    rules: Rules | None = None,
    used: Callable[[Rule], int] = lambda _: 0,
    spent: float = 0.0,
) -> Verdict:
    """May this step be issued?

    Args:
        used: how many calls a rule has let through in this run.
        spent: bits that outsiders have chosen in what this run has accepted of them.
    """
    rules = rules or shipped()
    labels = {name: total_label(operand) for name, operand in operands.items()}
    floor = _Look(rules, rules.floor, call, operands, labels)
    for param in call.signature.params:
        if param.name in labels and floor.strange(param, rules.floor.need(param, call.signature)):
            return Deny(_denied(call, param, floor.left), "floor")
    rule = rules.of(call.signature)
    if rule is None:
        return ALLOW
    return _decided(_Look(rules, rule, call, operands, labels), used, spent)


class _Look:
    """One look at one call under one rule; `left` are the strangers that were met."""

    def __init__(
        self,
        rules: Rules,
        rule: Rule,
        call: StepCall,
        operands: dict[str, Value],
        labels: dict[str, Label],
    ) -> None:
        self.rules, self.rule, self.call = rules, rule, call
        self.operands, self.labels = operands, labels
        self.accepted: list[Accepted] = []
        self.left: frozenset[str] = frozenset()
        self.unmet: set[str] = set()  # parameters

    def strange(self, param: Param, need: Need) -> frozenset[str]:
        """Who influenced the operand and may not; what the rule accepts is noted."""
        if need.free:
            return frozenset()
        label = self.labels[param.name]
        who = label.sources if need.made_of else label.integrity
        found = self.rules.strange(who, need.by)
        if not found or (need.in_directory and self._stays_in_directory(param)):
            return frozenset()
        if need.bits is not None and label.bits <= need.bits and not self.misled():
            self.accepted.append(Accepted(param.name, label.bits, tuple(sorted(found))))
            return frozenset()
        self.left |= found
        self.unmet.add(param.name)
        return found

    def misled(self) -> frozenset[str]:
        """Whoever decided that the call is made and is not trusted."""
        return self.rules.strange(self.call.branch.integrity, ())

    def let_decide(self) -> None:
        """Note who decided that the call is made, where the rule lets them: one call is one bit."""
        who = self.misled()
        if who:
            bits = min(1.0, self.call.branch.bits)
            self.accepted.append(Accepted(BRANCH, bits, tuple(sorted(who))))

    def unheard(self) -> frozenset[str]:
        """Readers who would see what they may not. Asked when all operands have been looked at:
        nothing is released to whom somebody named who may not (rule 7)."""
        named = set(self.call.signature.told)
        for name in self.rule.readers:
            if name in self.operands:
                named |= _names(plain(self.operands[name]))
        allowed = combine([*self.labels.values(), self.call.branch]).readers
        outside = frozenset() if allowed is None else frozenset(named) - allowed
        held = not self.unmet & set(self.rule.readers) and not self.misled()
        told = TOLD in self.rule.readers or not outside & set(self.call.signature.told)
        if outside and self.rule.release and held and told:
            self.accepted.append(Accepted("operands", None, tuple(sorted(outside))))
            return frozenset()
        return outside

    def _stays_in_directory(self, param: Param) -> bool:
        """May data make this address? In ``people/{name}.csv`` it gives a file its name, but cannot
        leave the directory, make another below it or hide the file: every part stands where the
        program has one, and the first is the program's own."""
        parts = str(plain(self.operands[param.name])).split("/")
        hidden = (part.startswith(".") or not part.strip() for part in parts)
        if any(hidden) or not all(part.isprintable() for part in parts):
            return False
        spelled = (pattern.split("/") for pattern in self.call.static.writes)
        return any(
            len(own) == len(parts) > 1 and own[0] == parts[0] and not set(own[0]) & set("*?[")
            for own in spelled
        )


def _decided(look: _Look, used: Callable[[Rule], int], spent: float) -> Verdict:
    call, rule = look.call, look.rule
    answers: list[Answer] = []
    for param in call.signature.params:
        need = rule.need(param, call.signature)
        if param.name in look.labels and look.strange(param, need):
            answers.append(need.otherwise or rule.otherwise)
    misled = look.rules.strange(call.branch.integrity, rule.branch)
    unheard = look.unheard()
    if misled or unheard:
        answers.append(rule.otherwise)
    if rule.most and used(rule) >= rule.most:
        return _refused(rule, _over(call, rule))
    answer = strictest([*answers, rule.answer])
    if answer == "allow":
        look.let_decide()
        verdict = Allow(rule.name, tuple(look.accepted))
        most = look.rules.bits_per_run
        within = not verdict.bits or spent + verdict.bits <= most
        return verdict if within else _too_many(call, rule, spent + verdict.bits, most)
    why = _why(look.left | misled, unheard)
    if answer == "ask":
        return Ask(f"{call.address} ({call.op}) {_reason(rule, why)} Do it?", rule.name)
    return _refused(rule, _dry(call) if answer == "dry_run" else _against(call, rule, why))


def strictest(answers: Iterable[Answer]) -> Answer:
    order: tuple[Answer, ...] = ("allow", "ask", "dry_run", "deny")
    return max(answers, key=order.index)


def _refused(rule: Rule, error: PolicyError) -> Deny:
    return Deny(error, rule.name)


def _names(data: Any) -> set[str]:
    """The readers that an operand names."""
    if isinstance(data, list | tuple):
        return set().union(*map(_names, data))
    return set() if data is None else {str(data)}


def _reason(rule: Rule, why: str) -> str:
    if rule.shipped:
        return f"{why}." if rule.told else f"cannot be undone and {why}."
    return f"{why or 'is to be asked about'}; the policy's rule {rule.name!r} wants a person."


def _why(strange: frozenset[str], unheard: frozenset[str]) -> str:
    parts = []
    if strange:
        parts.append(f"depends on data from {_some(strange)}")
    if unheard:
        parts.append(f"would show {_some(unheard)} what is not meant for them")
    return " and ".join(parts)


def _denied(call: StepCall, param: Param, strange: frozenset[str]) -> PolicyError:
    """The floor says no: by what the operand is for."""
    if param.role is Role.INSTRUCTION:
        return PolicyError(
            "untrusted_instruction",
            f"{call.address}: `{param.name}` of {call.op} would be made of untrusted data",
            f"It depends on {_some(strange)}, who could then instruct the model.",
            "Tell the planner what you vouch for (`trusted` in policy.toml names whom), or let "
            "llm.do find it out."
            if call.op == "program.extend"
            else "Keep the instruction in the program's own words and pass the data as an operand.",
            line=call.line,
        )
    if param.role is Role.CODE:
        return PolicyError(
            "untrusted_code",
            f"{call.address}: the code of {call.op} would be made of untrusted data",
            f"It depends on {_some(strange)}.",
            "Write the code as a literal and pass the data by name.",
            line=call.line,
        )
    if param.name in call.signature.contacts:
        return PolicyError(
            "untrusted_contact",
            f"{call.address}: `{param.name}` of {call.op} would be made of untrusted data",
            f"It contains data from {_some(strange)}, and what is asked for tells whoever answers.",
            "Spell the address in the program; data may choose among several.",
            line=call.line,
        )
    return PolicyError(
        "untrusted_address",
        f"{call.address}: `{param.name}` of {call.op} would be made of untrusted data",
        f"It contains data from {_some(strange)}, who could then choose the file.",
        "Make it of the input's own name (path.stem(p)), or put it into a directory that the "
        'program spells, as in f"people/{name}.csv"; a name holds no / and begins with no dot.',
        line=call.line,
    )


def _against(call: StepCall, rule: Rule, why: str) -> PolicyError:
    return PolicyError(
        "policy_denied",
        f"{call.address}: the policy forbids this {call.op}",
        f"It {why or 'is never allowed'} (rule {rule.name!r}).",
        "Change the program, or the rule in policy.toml.",
        line=call.line,
    )


def _over(call: StepCall, rule: Rule) -> PolicyError:
    return PolicyError(
        "policy_limit",
        f"{call.address}: the run has made its {rule.most} calls of {call.op}",
        f"Rule {rule.name!r} allows no more in one run.",
        "Raise `most` in policy.toml, or let the program do it in fewer calls.",
        line=call.line,
    )


def _too_many(call: StepCall, rule: Rule, bits: float, most: float) -> Verdict:
    """What a call would be answered that the run has no bits left for."""
    what = f"outsiders would have chosen {bits:g} bits of what this run does"
    if rule.otherwise == "ask":
        text = f"{call.address} ({call.op}): with it {what}; the policy's bits_per_run is {most:g}."
        return Ask(f"{text} Do it?", rule.name)
    error = PolicyError(
        "policy_bits",
        f"{call.address}: with this {call.op} {what}",
        f"The policy's bits_per_run is {most:g}.",
        "Raise it in policy.toml, or let the program take fewer decisions from what it reads.",
        line=call.line,
    )
    return _refused(rule, error)


def _dry(call: StepCall) -> PolicyError:
    return PolicyError(
        "policy_dry_run",
        f"{call.address}: {call.op} was not done, as the policy says",
        "Its rule's answer is dry_run: what it would do is recorded, and nothing happens.",
        'Set `answer = "allow"` in policy.toml to have it done.',
        line=call.line,
    )


def _some(principals: frozenset[str] | set[str], most: int = 3) -> str:
    shown = sorted(principals)
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest} more" if rest > 0 else "")


__all__ = [
    "ALLOW",
    "TRUSTED",
    "Accepted",
    "Allow",
    "Ask",
    "Deny",
    "Policy",
    "Verdict",
    "decide",
    "logged",
]
