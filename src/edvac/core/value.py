"""The values that a program computes with, each part carrying its label.

`Scalar`, `Sequence`, `Mapping` and `Instance` form a tree. A container's own label is its *shape*
(length, keys, order: rule 3); its elements carry their own. `Failed` stands where a step did not
succeed: failure is data. `Cell`
stands where a value is still being computed; a tree without cells is *complete*. Values are
immutable.

Knows nothing of evaluation: what wakes when a cell resolves is the waiter's business.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, TypeAlias

from edvac.core.errors import InternalError
from edvac.core.label import Label, combine

Atom: TypeAlias = bool | int | float | Decimal | str | dt.date | None


class _Recent:
    """The large texts read last, so that a run over very many holds only some of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()  # a value may be read wherever it is needed

    def get(self, ref: str, load: Callable[[str], str]) -> str:
        with self._lock:
            found = self._texts.get(ref)
            if found is not None:
                self._texts.move_to_end(ref)
                return found
        found = load(ref)
        with self._lock:
            if ref not in self._texts:
                self._texts[ref] = found
                self._size += len(found)
            while self._size > self._limit and len(self._texts) > 1:
                self._size -= len(self._texts.popitem(last=False)[1])
        return found


_recent = _Recent(16 * 1024 * 1024)  # characters


class LazyText:
    """Text over the inline limit, kept by its blob until somebody reads it."""

    __slots__ = ("_load", "ref", "size")

    def __init__(self, ref: str, size: int, load: Callable[[str], str]) -> None:
        self.ref = ref
        self.size = size
        self._load = load

    def text(self) -> str:
        return _recent.get(self.ref, self._load)


@dataclass(frozen=True, slots=True)
class Scalar:
    """One atom. `raw` may be lazy text; `data` never is. `origin` is the slot of the step that
    returned it."""

    raw: Atom | LazyText
    label: Label
    origin: str | None = field(default=None, compare=False)

    @property
    def data(self) -> Atom:
        return self.raw.text() if isinstance(self.raw, LazyText) else self.raw


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list or, with `fixed`, a tuple; `items` never changes: a tuple or a `Prefix`."""

    items: Items[Any]
    label: Label
    fixed: bool = False
    origin: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A dict with scalar keys, in insertion order."""

    entries: dict[Any, Any]
    label: Label
    origin: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Instance:
    """A record: the name of its class and a value for each field, in declared order."""

    record: str
    fields: dict[str, Any]
    label: Label
    origin: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """What stands where a value could not be made.

    `slot` is the step at the root of the failure; a *blocked* value names the step that failed
    upstream.
    """

    slot: str
    code: str
    what: str
    label: Label
    origin: str | None = field(default=None, compare=False)


class Cell:
    """A value still being computed. Resolves once; waiters run in the order in which they asked."""

    __slots__ = ("_value", "_waiters", "origin")

    def __init__(self, origin: str | None = None) -> None:
        self.origin = origin
        self._value: Value | None = None
        self._waiters: list[Callable[[Value], None]] = []

    @property
    def value(self) -> Value | None:
        return self._value

    def when_resolved(self, waiter: Callable[[Value], None]) -> None:
        if self._value is None:
            self._waiters.append(waiter)
        else:
            waiter(self._value)

    def resolve(self, value: Value) -> None:
        if self._value is not None:
            raise InternalError(
                "cell_resolved_twice", f"a value was computed twice ({self.origin})"
            )
        self._value = value
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter(value)


Value: TypeAlias = Scalar | Sequence | Mapping | Instance | Failed
Operand: TypeAlias = Value | Cell
_LEAVES = (Scalar, Failed)  # values without parts


def settle(operand: Operand) -> Operand:
    """The operand itself, or what its cell has become."""
    while isinstance(operand, Cell) and operand.value is not None:
        operand = operand.value
    return operand


def children(value: Value) -> Iterator[Operand]:
    """The direct parts of a container, in order."""
    match value:
        case Sequence():
            yield from value.items
        case Mapping():
            yield from value.entries.values()
        case Instance():
            yield from value.fields.values()


def open_cells(operand: Operand) -> list[Cell]:
    """Every cell that is still pending anywhere inside; empty when the operand is complete."""
    if isinstance(operand, _LEAVES):
        return []
    found: list[Cell] = []
    todo: list[Operand] = [operand]
    while todo:
        here = settle(todo.pop())
        if isinstance(here, Cell):
            found.append(here)
        elif not isinstance(here, _LEAVES):
            todo.extend(children(here))
    return found


def completed(operand: Operand) -> Value:
    """The same tree with every resolved cell replaced by its value.

    Raises:
        InternalError: a cell inside is still pending.
    """
    here = settle(operand)
    match here:
        case Cell():
            raise InternalError("value_pending", "a pending value was read")
        case Sequence():
            items = tuple(completed(item) for item in here.items)
            return Sequence(items, here.label, here.fixed, here.origin)
        case Mapping():
            return replace(here, entries={k: completed(v) for k, v in here.entries.items()})
        case Instance():
            return replace(here, fields={k: completed(v) for k, v in here.fields.items()})
    return here


def lazy_texts(value: Value) -> Iterator[LazyText]:
    """Every text inside that lies in a blob."""
    if isinstance(value, Scalar):
        if isinstance(value.raw, LazyText):
            yield value.raw
        return
    for child in map(settle, children(value)):
        if not isinstance(child, Cell):
            yield from lazy_texts(child)


def first_failure(operand: Operand) -> Failed | None:
    """The first failed part, in order, or None."""
    here = settle(operand)
    if isinstance(here, Failed):
        return here
    if isinstance(here, Cell | Scalar):
        return None
    for child in children(here):
        found = first_failure(child)
        if found is not None:
            return found
    return None


def total_label(value: Value) -> Label:
    """The label of everything inside, for a function that looks at all of it."""
    match value:
        case Scalar() | Failed():
            return value.label
    labels = [value.label]
    for child in children(value):
        here = settle(child)
        if isinstance(here, Cell):
            raise InternalError("value_pending", "the label of a pending value was read")
        labels.append(total_label(here))
    return combine(labels)


def steered(value: Value, decider: Label) -> Value:
    """The value as it stands after a decision labelled `decider`; containers are raised at their
    shape only,

    which is enough because every read of an element joins the shape of what holds it.
    """
    return _relabelled(value, value.label.steer(decider))


def _relabelled(value: Value, label: Label) -> Value:
    if label is value.label:
        return value
    if isinstance(value, Scalar):  # nearly every value is one, and `replace` is slow
        return Scalar(value.raw, label, value.origin)
    return replace(value, label=label)


def plain(value: Operand) -> Any:
    """Ordinary Python data without labels; records become dicts.

    Raises:
        InternalError: the value is pending or failed.
    """
    here = settle(value)
    match here:
        case Scalar():
            return here.data
        case Sequence():
            made = [plain(item) for item in here.items]
            return tuple(made) if here.fixed else made
        case Mapping():
            return {k: plain(v) for k, v in here.entries.items()}
        case Instance():
            return {k: plain(v) for k, v in here.fields.items()}
    raise InternalError("value_unusable", f"data was asked of {type(here).__name__}")


def lift(data: Any, label: Label) -> Value:
    """Python data as a value with the same label in every part.

    Raises:
        InternalError: something in it is not data of the language.
    """
    match data:
        case None | bool() | int() | float() | Decimal() | str() | dt.date():
            return Scalar(data, label)
        case list() | tuple():
            items = tuple(lift(item, label) for item in data)
            return Sequence(items, label, fixed=isinstance(data, tuple))
        case dict():
            return Mapping({k: lift(v, label) for k, v in data.items()}, label)
        case Scalar() | Sequence() | Mapping() | Instance():
            return data
    raise InternalError("not_a_value", f"{type(data).__name__} is not data of the language")


def digest(value: Value) -> str:
    """Identity of the data (not of its labels): 40 hex digits, equal exactly for equal data of
    equal type."""
    state = hashlib.blake2b(digest_size=20)
    _feed(state, value)
    return state.hexdigest()


def _feed(state: Any, value: Operand) -> None:
    here = settle(value)
    match here:
        case Scalar():
            tag, text = _atom_text(here.data)
            body = text.encode("utf-8", "surrogatepass")
            state.update(b"%s%d:" % (tag, len(body)) + body)
        case Sequence():
            state.update(b"%s%d:" % (b"t" if here.fixed else b"l", len(here.items)))
            for item in here.items:
                _feed(state, item)
        case Mapping():
            state.update(b"m%d:" % len(here.entries))
            for key, item in here.entries.items():
                _feed(state, Scalar(key, here.label))
                _feed(state, item)
        case Instance():
            name = here.record.encode()
            state.update(b"r%d:%d:" % (len(here.fields), len(name)) + name)
            for key, item in here.fields.items():
                _feed(state, Scalar(key, here.label))
                _feed(state, item)
        case Failed():
            state.update(b"x")
            _feed(state, Scalar(here.slot, here.label))
            _feed(state, Scalar(here.code, here.label))
        case Cell():
            raise InternalError("value_pending", "the digest of a pending value was read")


def _atom_text(data: Atom) -> tuple[bytes, str]:
    match data:
        case str():
            return b"s", data
        case None:
            return b"n", ""
        case bool():
            return b"b", str(int(data))
        case int():
            return b"i", format(data, "x")
        case float():
            return b"f", data.hex() if math.isfinite(data) else repr(data)
        case Decimal():
            return b"d", str(data)
        case dt.date():
            return b"y", data.isoformat()
    raise InternalError("not_a_value", f"{type(data).__name__} is not an atom")
