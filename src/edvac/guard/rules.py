"""The policy as data: which call needs what of its operands, and what is answered.

Knows nothing of files or of how a decision is taken: `load` reads rules, `policy` applies them.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Literal, TypeAlias

from edvac.core.signature import Effect, Param, Role, Signature

Answer: TypeAlias = Literal["allow", "ask", "deny", "dry_run"]
Check: TypeAlias = Literal["off", "rules", "model"]
Each: TypeAlias = Literal["event", "observation"]
ANY_BODY = ("*",)  # whoever it was
TRUSTED = frozenset({"user", "program"})
WRITTEN = "@written"  # of an address: what the call writes to
CONTACT = "@contact"  # of an address: who is connected to
TOLD = "@told"  # of readers: whoever learns the operands by what the function is, as an app does
REST = "*"  # every parameter that a rule does not name


@functools.lru_cache(maxsize=1024)
def _matcher(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, globs)) or r"(?!)")


@functools.lru_cache(maxsize=16_384)
def strangers(who: frozenset[str], globs: tuple[str, ...]) -> frozenset[str]:
    """Those that no glob names."""
    if globs == ANY_BODY:
        return frozenset()
    match = _matcher(globs).match
    return frozenset(one for one in who if not match(one))


@dataclass(frozen=True, slots=True)
class Workers:
    """How closely is looked at what workers read.

    Attributes:
        check: by rules (`guard.spans`); `model` asks a model too, which can only say no.
        each: at what: an event (the first use of a source, an answer that an effect will be made
            of), or every observation, which costs more.
    """

    check: Check = "rules"
    each: Each = "event"


@dataclass(frozen=True, slots=True)
class Need:
    """What an operand needs.

    Attributes:
        by: principals who may have influenced it, as globs.
        made_of: only whose data is *in* it counts, not who chose it.
        bits: so much choice of outsiders is accepted, and logged; None accepts none. 0 accepts
            what is labelled so that no outsider could choose anything in it.
        in_directory: data may name a file where the program spells the directory.
        otherwise: what is answered where it does not hold, if not what the rule says.
    """

    by: tuple[str, ...]
    made_of: bool = False
    bits: float | None = None
    in_directory: bool = False
    otherwise: Answer | None = None

    @property
    def free(self) -> bool:
        return self.by == ANY_BODY


ANYTHING = Need(ANY_BODY)


@dataclass(frozen=True, slots=True)
class Rule:
    """What one kind of call needs.

    Attributes:
        name: what the log calls it.
        calls: of device functions, as globs.
        effect: only calls of this class; None takes all.
        answer: where every need holds.
        otherwise: where one does not.
        branch: principals who may have decided that the call is made.
        most: calls in one run; 0 is no limit.
        needs: by parameter, by role (``@instruction``, ``@code``, ``@written``,
            ``@contact`` ...) or ``*``.
        readers: parameters that name who gets to see the operands; ``@told`` are those who do by
            what the function is.
        release: operands may go to readers that they were not labelled for, and that is logged.
        told: only calls whose operands somebody outside learns, as an app does.
        shipped: it came with edvac; a rule of the workspace goes before it.
    """

    name: str
    calls: tuple[str, ...]
    effect: Effect | None = None
    answer: Answer = "allow"
    otherwise: Answer = "ask"
    branch: tuple[str, ...] = ANY_BODY
    most: int = 0
    needs: dict[str, Need] = field(default_factory=dict)
    readers: tuple[str, ...] = ()
    release: bool = False
    shipped: bool = False
    told: bool = False

    def covers(self, signature: Signature) -> bool:
        of_class = self.effect is None or signature.effect is self.effect
        of_class = of_class and (bool(signature.told) or not self.told)
        return of_class and _matcher(self.calls).match(signature.op) is not None

    def need(self, param: Param, signature: Signature) -> Need:
        """What the operand of this parameter needs; a name goes before a role."""
        found = self.needs.get(param.name)
        if found is None and param.role is Role.ADDRESS and param.name in signature.writes:
            found = self.needs.get(WRITTEN)
        if found is None and param.name in signature.contacts:
            found = self.needs.get(CONTACT)
        if found is None:
            found = self.needs.get(f"@{param.role}")
        return found or self.needs.get(REST, ANYTHING)

    def rank(self, signature: Signature) -> tuple[int, int]:
        """How close the rule is to this function: the closest decides."""
        best = 0
        for glob in self.calls:
            if _matcher((glob,)).match(signature.op):
                best = max(best, 10_000 if glob == signature.op else len(glob.strip("*")))
        return (0 if self.shipped else 1, best)


@dataclass(frozen=True)
class Rules:
    """A whole policy.

    Attributes:
        floor: holds for every call and cannot be loosened.
        rules: of the others the closest to a function decides; where none is, nothing is needed.
        trusted: principals who may do what the user may, as globs.
        workers: how closely is looked at what they read.
        bits_per_run: so much may outsiders choose in all that one run accepts of them.
    """

    floor: Rule
    rules: tuple[Rule, ...] = ()
    trusted: tuple[str, ...] = tuple(sorted(TRUSTED))
    workers: Workers = Workers()
    bits_per_run: float = math.inf
    _known: dict[str, Rule | None] = field(default_factory=dict, repr=False, compare=False)

    def of(self, signature: Signature) -> Rule | None:
        """The rule that decides about a function, beside the floor."""
        if signature.op not in self._known:
            self._known[signature.op] = self._closest(signature)
        return self._known[signature.op]

    def _closest(self, signature: Signature) -> Rule | None:
        found = [rule for rule in self.rules if rule.covers(signature)]
        return max(found, key=lambda rule: rule.rank(signature), default=None)

    def ties(self, signature: Signature) -> list[Rule]:
        """Rules that are equally close to a function: they contradict each other."""
        found = [rule for rule in self.rules if rule.covers(signature)]
        best = max((rule.rank(signature) for rule in found), default=None)
        return [rule for rule in found if rule.rank(signature) == best]

    def strange(self, who: Iterable[str], by: tuple[str, ...]) -> frozenset[str]:
        """Those that neither `by` nor the policy's trust names."""
        return strangers(frozenset(who), by if by == ANY_BODY else (*self.trusted, *by))
