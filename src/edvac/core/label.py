"""Labels: where a value came from, who may see it, and how much of it an outsider could choose.

A label is a point in a product of four lattices (Denning 1976; the split into explicit and implicit
integrity follows the usual treatment of a program-counter label):

=========== ============================================= ========== =========
part        meaning                                        bottom     join
=========== ============================================= ========== =========
`sources`   principals whose data is *in* the value        empty      union
`steered`   principals who decided a branch it came from   empty      union
`readers`   who may see it; None stands for everyone       everyone   meet
`bits`      upper bound of what outsiders could choose     0          max
=========== ============================================= ========== =========

Knows nothing of policies: which principals are trusted is decided in `edvac.guard`.

Principals are strings: ``user``, ``program`` (text of the program), ``name:PATH`` (whoever named a
file), ``file:PATH`` (whoever wrote it), ``model:NAME``, ``shape:ROOT`` (whoever decides which files
exist under a root), ``sender:NAME`` (whoever sent a signal), ``site:ORIGIN`` (whoever made a page),
``seen:ORIGIN`` (the same, where two ways of looking at it agree), ``app:NAME`` (whoever published
an app), ``kept:NAME`` (whoever has told it something, in this run or before), ``run:RUN`` and
``others:many`` (so many that they are not named one by one).
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Iterable
from typing import Any

from edvac.core.errors import DamageError, InternalError

UNBOUNDED = math.inf
RECENT = 4096  # combinations remembered: a run of many files must not keep a label for each pair


class Label:
    """One interned label: equal labels are the same object, so comparing is free."""

    __slots__ = ("__weakref__", "bits", "readers", "sources", "steered")

    sources: frozenset[str]
    steered: frozenset[str]
    readers: frozenset[str] | None
    bits: float

    def __new__(cls, *_: object) -> Label:
        raise InternalError("label_made_by_hand", "labels come from Label.of, which interns them")

    @staticmethod
    def of(
        sources: Iterable[str] = (),
        steered: Iterable[str] = (),
        readers: Iterable[str] | None = None,
        bits: float = 0,
    ) -> Label:
        return _intern(
            frozenset(sources),
            frozenset(steered),
            None if readers is None else frozenset(readers),
            float(bits),
        )

    @property
    def integrity(self) -> frozenset[str]:
        """Everyone who influenced the value, by data or by control."""
        return self.sources | self.steered

    def join(self, other: Label) -> Label:
        """Least upper bound: what is true of a value that is one of two."""
        return self if self is other else _join(self, other)

    def steer(self, decider: Label) -> Label:
        """The label of a value that exists because a value labelled `decider` decided so (rule
        1)."""
        if not (decider.sources or decider.steered or decider.bits) and decider.readers is None:
            return self
        return _steer(self, decider)

    def cap(self, bits: float) -> Label:
        """The same label for a value that can hold at most `bits` bits (rule 8)."""
        return (
            self
            if self.bits <= bits
            else _intern(self.sources, self.steered, self.readers, float(bits))
        )

    def below(self, other: Label) -> bool:
        """The lattice's order: may a value labelled `self` be treated as one labelled `other`?"""
        return self.join(other) is other

    def stored(self) -> list[Any]:
        """The stored form: plain lists, canonical order."""
        return [
            sorted(self.sources),
            sorted(self.steered),
            None if self.readers is None else sorted(self.readers),
            None if self.bits == UNBOUNDED else self.bits,
        ]

    @staticmethod
    def restore(form: object) -> Label:
        """Read the stored form back.

        Raises:
            DamageError: the form is not a label; an unlabelled value is never given a default.
        """
        match form:
            case [
                list() as sources,
                list() as steered,
                None | list() as readers,
                None | int() | float() as bits,
            ] if _is_bound(bits) and _are_names([*sources, *steered, *(readers or ())]):
                return Label.of(sources, steered, readers, UNBOUNDED if bits is None else bits)
        raise DamageError(
            "unlabelled_value",
            "a stored value carries no label",
            "Labels say where data came from; without one nothing may be done with it.",
            "Run `edvac doctor` to verify the workspace.",
        )

    def __repr__(self) -> str:
        return f"Label{tuple(self.stored())}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Label.restore, (self.stored(),))


def _is_bound(bits: float | None) -> bool:
    return bits is None or (bits >= 0 and not isinstance(bits, bool))


def _are_names(principals: list[object]) -> bool:
    return all(isinstance(name, str) for name in principals)


_known: weakref.WeakValueDictionary[tuple[Any, ...], Label] = weakref.WeakValueDictionary()


def _intern(
    sources: frozenset[str], steered: frozenset[str], readers: frozenset[str] | None, bits: float
) -> Label:
    key = (sources, steered, readers, bits)
    found = _known.get(key)
    if found is None:
        found = object.__new__(Label)
        found.sources, found.steered, found.readers, found.bits = key
        _known[key] = found
    return found


def _meet(left: frozenset[str] | None, right: frozenset[str] | None) -> frozenset[str] | None:
    if left is None:
        return right
    return left if right is None else left & right


def _union(left: frozenset[str], right: frozenset[str]) -> frozenset[str]:
    """One of the two where it holds the other: most labels of a run share their sets."""
    if right <= left:
        return left
    return right if left <= right else left | right


def _both(left: Label, right: Label, bits: float) -> Label:
    return _intern(
        _union(left.sources, right.sources),
        _union(left.steered, right.steered),
        _meet(left.readers, right.readers),
        bits,
    )


@functools.lru_cache(maxsize=RECENT)
def _join(left: Label, right: Label) -> Label:
    return _both(left, right, max(left.bits, right.bits))


@functools.lru_cache(maxsize=RECENT)
def _steer(value: Label, decider: Label) -> Label:
    return _intern(
        value.sources,
        _union(value.steered, _union(decider.sources, decider.steered)),
        _meet(value.readers, decider.readers),
        value.bits + decider.bits,
    )


@functools.lru_cache(maxsize=RECENT)
def _add(left: Label, right: Label) -> Label:
    return _both(left, right, left.bits + right.bits)


class Gathering:
    """Labels that come one after another, combined without a label for each partial result."""

    def __init__(self) -> None:
        self._sources: set[str] = set()
        self._steered: set[str] = set()
        self._readers: frozenset[str] | None = None
        self._bits = 0.0

    def add(self, label: Label) -> None:
        self._sources |= label.sources
        self._steered |= label.steered
        self._readers = _meet(self._readers, label.readers)
        self._bits += label.bits

    def label(self, bits: float = UNBOUNDED) -> Label:
        """What `combine` gives for all of them."""
        return Label.of(self._sources, self._steered, self._readers, min(self._bits, bits))


_FEW = 4  # labels that are combined in pairs: of more, the partial sums would fill the memory


def combine(labels: Iterable[Label], bits: float = UNBOUNDED) -> Label:
    """The label of a function's result: everything that went in, at most `bits` bits of choice.

    Choice adds up over the operands (an outsider may choose each of them), which is why this is not
    a join.
    """
    given = list(labels)
    if not given:
        return PUBLIC
    first = given[0]
    if first.bits in (0.0, UNBOUNDED) and given.count(first) == len(given):
        return first.cap(bits)
    if len(given) <= _FEW:
        return functools.reduce(_add, given).cap(bits)
    gathering = Gathering()
    for label in given:
        gathering.add(label)
    return gathering.label(bits)


PUBLIC = Label.of()
PROGRAM = Label.of(sources=["program"])
USER = Label.of(sources=["user"])
