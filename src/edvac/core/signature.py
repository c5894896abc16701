"""What a device function looks like from outside: parameters, result, effect, and what it touches.

Declared by devices, read by the verifier (types, effects), the planner (grammar), the control unit
(hazards) and the guard (which operand is an address). Knows nothing of how a function does its
work.
"""

from __future__ import annotations

import enum
import fnmatch
import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from edvac.core.label import PROGRAM
from edvac.core.schema import STR, Type
from edvac.core.value import Value, lift


class Effect(enum.StrEnum):
    """The four classes of design 2."""

    PURE = "pure"
    READ = "read"
    WRITE = "write"  # into the run's own file store
    EXTERNAL = "external"  # cannot be undone


class Role(enum.StrEnum):
    """What an operand is for; decides which label it needs."""

    DATA = "data"
    INSTRUCTION = "instruction"  # goals, hints, questions: needs a trusted label
    ADDRESS = "address"  # names a resource; what data may have made of it is the guard's to say
    TYPE = "type"  # a record or another type, known at verify
    CODE = "code"  # a string literal in the program's own text


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = _Required()
# What a step can wait for, though nothing executes it.
Awaited: TypeAlias = Literal["", "signal", "time"]


@dataclass(frozen=True, slots=True)
class Param:
    """One operand. `wrong` says why a plain value of its type is none for it, as a clause; an empty
    text where it is one. `given` is what a program that says nothing of it passes."""

    name: str
    type: Type
    default: Any = REQUIRED
    role: Role = Role.DATA
    variadic: bool = False  # takes all further positional operands
    glob: bool = False  # of an address: wildcards in it are not characters of a name
    keyword_only: bool = False
    doc: str = ""
    wrong: Callable[[Any], str] | None = None
    given: Value | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.default is not REQUIRED and self.role is not Role.TYPE and not self.variadic:
            object.__setattr__(self, "given", lift(self.default, PROGRAM))


@dataclass(frozen=True, slots=True)
class Signature:
    """One function of a device.

    Attributes:
        op: dotted name, ``files.read``.
        result: type of the result; None means that it is the operand of role `TYPE`.
        reads, writes: parameters whose value is a path or glob (or list of them) that the call
        reads or writes.
        contacts: parameters of role `ADDRESS` that say who is connected to.
        person: answered by a person; journalled before it is asked, never reused in another run.
        limit: how many calls may run at once; 0 means no limit of its own.
        planned: is it shown to the model that writes programs?
        journal: does a call keep one of its own, as a worker does?
        names: parameters that name something of the run, such as a signal; calls with one name take
            their turns in the program's order.
        turn: something that the device has one of, such as the page of a browser: all calls with
            one turn take theirs in the program's order.
        awaits: nothing is executed: the step ends when a signal comes, or when its time has.
        yields: a program that calls none of the device's functions may use its name for a value.
        done_by: the device that does it, where that is not the one which it is named after.
        barrier: all that comes later and is not pure waits for it.
        in_turn: it begins only when all that is above it has ended: what the world sees happens in
            the order in which it is written.
        noted: it is durable that a call begins, before it does.
        turns: the name of what it takes its turn at, as `Access.names` has it; empty for nothing.
        told: principals who learn the operands: they have to be among the readers of all of them.
        sources: principals who influence the result, beside its operands and what it reads.
    """

    op: str
    params: tuple[Param, ...]
    result: Type | None
    effect: Effect
    doc: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    person: bool = False
    limit: int = 0
    timeout_s: float = 600.0
    planned: bool = True
    journal: bool = False
    names: tuple[str, ...] = ()
    awaits: Awaited = ""
    yields: bool = False
    contacts: tuple[str, ...] = ()
    turn: str = ""
    done_by: str = ""
    told: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    # Asked for at every step, so they are worked out once:
    namespace: str = field(init=False, repr=False)  # the name before the dot
    function: str = field(init=False, repr=False)  # and the one behind it
    device: str = field(init=False, repr=False)
    barrier: bool = field(init=False, repr=False)
    in_turn: bool = field(init=False, repr=False)
    noted: bool = field(init=False, repr=False)
    turns: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        namespace, _, function = self.op.partition(".")
        device = self.done_by or namespace
        external, writes = self.effect is Effect.EXTERNAL, self.effect is Effect.WRITE
        barrier = self.awaits == "time"
        derived = {
            "namespace": namespace,
            "function": function,
            "device": device,
            "barrier": barrier,
            "in_turn": external or barrier or (writes and bool(self.names)),
            "noted": external or writes or self.person or bool(self.awaits or self.told),
            "turns": (f"{device}:{self.turn}",) if self.turn else (),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def param(self, name: str) -> Param | None:
        return next((found for found in self.params if found.name == name), None)


WILD = "**"  # the pattern of an address that is not known yet

# To the last place in a name where a class may end: at a bracket, or in a part that is not known.
_BRACKETS = re.compile(r"\[(?:[^/]*[\]*])?")
# The same where the part that is not known may have opened it.
_OPENED = re.compile(r"\*(?=[^/*])[^/]*[\]*]")


def unbracketed(glob: str) -> str:
    """The glob with a star for what stands in brackets: a class of characters to who matches with
    it, itself in a path; and with an unknown part inside it would be the class of a star."""
    return _BRACKETS.sub("*", glob)


def unopened(glob: str) -> str:
    """A glob whose stars stand for parts of a pattern, with a star for all that may be in the
    brackets that they open."""
    return glob if glob == WILD else _OPENED.sub("*", glob)


@dataclass(frozen=True, slots=True)
class Access:
    """Which paths a call (or an undecided region of the program) reads and writes, as globs.

    Attributes:
        names: of the run's signals and events that it takes or sets, as ``signal:NAME``, and of
            what it takes its turn at, as ``browser:page``.
        barrier: whatever comes later and is `outside` waits for it.
        outside: it may come to something else at another time: it is not pure.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    external: bool = False
    names: tuple[str, ...] = ()
    barrier: bool = False
    outside: bool = False

    @property
    def wide(self) -> bool:
        """Whether one of the paths may be any."""
        return WILD in self.reads or WILD in self.writes

    def conflicts(self, later: Access) -> bool:
        """Must a later step wait for this one? RAW, WAR and WAW on paths; external effects stay in
        order."""
        if (self.external and later.external) or (self.barrier and later.outside):
            return True
        return (
            _meet(self.writes, later.reads)
            or _meet(self.reads, later.writes)
            or _meet(self.writes, later.writes)
            or _meet(self.names, later.names)
        )

    def union(self, other: Access) -> Access:
        return Access(
            tuple(dict.fromkeys(self.reads + other.reads)),
            tuple(dict.fromkeys(self.writes + other.writes)),
            self.external or other.external,
            tuple(dict.fromkeys(self.names + other.names)),
            self.barrier or other.barrier,
            self.outside or other.outside,
        )

    @property
    def empty(self) -> bool:
        """Need nothing later wait for it?"""
        return not (self.reads or self.writes or self.external or self.names or self.barrier)


NO_ACCESS = Access()


def _meet(left: Iterable[str], right: Iterable[str]) -> bool:
    return any(overlap(a, b) for a in left for b in right)


@functools.lru_cache(maxsize=65_536)
def overlap(left: str, right: str) -> bool:
    """Can one path match both globs? May say yes too often, never no wrongly; a directory covers
    what is in it."""
    if left == right or WILD in (left, right):
        return True
    left_wild, right_wild = _wild(left), _wild(right)
    if left_wild is None and right_wild is None:
        return left.startswith(right + "/") or right.startswith(left + "/")
    if left_wild is None:
        return _covers(right, right_wild or 0, left)
    if right_wild is None:
        return _covers(left, left_wild, right)
    a, b = left[:left_wild], right[:right_wild]
    return a.startswith(b) or b.startswith(a)


def _wild(glob: str) -> int | None:
    places = [place for place in map(glob.find, "*?[") if place >= 0]
    return min(places) if places else None


def _covers(glob: str, wild: int, path: str) -> bool:
    shorter = glob.replace("**/", "")  # ** may stand for no directory at all
    globs = (glob, shorter)
    if any(fnmatch.fnmatchcase(path, g) for g in globs) or glob[:wild].startswith(path + "/"):
        return True
    return _reaches_below(glob, path)


def _reaches_below(glob: str, path: str) -> bool:
    """Can the glob match something inside `path`, were that a directory?"""
    parts, directories = glob.split("/"), path.split("/")
    for place, directory in enumerate(directories):
        if place >= len(parts) or parts[place] == "**":
            return place < len(parts)
        if not fnmatch.fnmatchcase(directory, parts[place]):
            return False
    return len(parts) > len(directories)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every device function that a program may name.

    Attributes:
        left_out: functions of devices that have yielded their name, see `called`.
    """

    signatures: dict[str, Signature] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    devices: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        named = dict.fromkeys(found.namespace for found in self.signatures.values())
        object.__setattr__(self, "devices", tuple(named))

    @staticmethod
    def of(signatures: Iterable[Signature]) -> Catalogue:
        return Catalogue({found.op: found for found in signatures})

    def functions(self, device: str) -> tuple[Signature, ...]:
        return tuple(found for found in self.signatures.values() if found.namespace == device)

    def called(self, ops: Iterable[str]) -> Catalogue:
        """Without the devices that yield their name, where a program calls none of their
        functions."""
        used = {op.partition(".")[0] for op in ops if op in self.signatures}
        found = self.signatures.items()
        kept = {op: one for op, one in found if not one.yields or one.namespace in used}
        return Catalogue(kept, tuple(op for op in self.signatures if op not in kept))


def address_param(name: str = "path", doc: str = "", *, glob: bool = False) -> Param:
    """The usual parameter for a path."""
    return Param(name, STR, role=Role.ADDRESS, doc=doc, glob=glob)
