"""Methods of lists, tuples and dicts: those that read, and in `CHANGES` those that make a new
version.

A changing method takes the old container and gives the new one; `pop` and `setdefault` give the
pair of what they return and the new container.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Any

from edvac.core.prefix import grown, to_copy
from edvac.core.schema import ANY, INT, DictOf, ListOf, TupleOf, Type
from edvac.core.value import Mapping, Operand, Scalar, Sequence, Value
from edvac.program.basics import MISSING, atom_key, item_type, ordered
from edvac.program.containers import bound, elements, item
from edvac.program.data import python
from edvac.program.native import Mode, Raised, Registry, Work

READS = Registry()
CHANGES = Registry()
_read, _change = READS.add, CHANGES.add
ITEM = ("item",)


def _values_type(kind: Type) -> Type:
    return kind.item if isinstance(kind, DictOf) else ANY


@_read("list.index", "Place of the first equal element.", result=INT)
@_read("tuple.index", "Place of the first equal element.", result=INT)
def _index(work: Work, self: Any, item: Any, start: int = 0, /) -> int:
    return self.index(item, start)  # type: ignore[no-any-return]


@_read("list.count", "Number of equal elements.", result=INT)
@_read("tuple.count", "Number of equal elements.", result=INT)
def _count(work: Work, self: Any, item: Any, /) -> int:
    return self.count(item)  # type: ignore[no-any-return]


@_read("list.copy", "The list itself: containers are values.", mode=Mode.SHAPE)
@_read("dict.copy", "The dict itself: containers are values.", mode=Mode.SHAPE)
def _copy(work: Work, self: Value, /) -> Value:
    return self


@_read(
    "dict.get",
    "The value under a key, or `default`.",
    mode=Mode.SHAPE,
    lazy=("default",),
    result=lambda args: (
        _values_type(args[0]) if len(args) > 2 and _values_type(args[0]) == args[2] else ANY
    ),
)
def _get(work: Work, self: Value, key: Value, default: Operand = MISSING, /) -> Raised:
    assert isinstance(self, Mapping)
    none = Scalar(None, work.label)
    found = self.entries.get(atom_key(key), none if default is MISSING else default)
    return Raised(found)


@_read(
    "dict.keys",
    "The keys.",
    mode=Mode.SHAPE,
    iterator="view",
    result=lambda args: ListOf(item_type(args[0])),
)
def _keys(work: Work, self: Value, /) -> Value:
    return Sequence(tuple(elements(self)), work.label)


@_read(
    "dict.values",
    "The values.",
    mode=Mode.SHAPE,
    iterator="view",
    result=lambda args: ListOf(_values_type(args[0])),
)
def _values(work: Work, self: Value, /) -> Value:
    assert isinstance(self, Mapping)
    return Sequence(tuple(self.entries.values()), work.label)


@_read(
    "dict.items",
    "Pairs of key and value.",
    mode=Mode.SHAPE,
    iterator="view",
    result=lambda args: ListOf(TupleOf((item_type(args[0]), _values_type(args[0])))),
)
def _items(work: Work, self: Value, /) -> Value:
    assert isinstance(self, Mapping)
    work.make(64 * len(self.entries))
    pairs = (
        Sequence((Scalar(key, self.label), one), self.label, fixed=True)
        for key, one in self.entries.items()
    )
    return Sequence(tuple(pairs), work.label)


# -- new versions


def _list(self: Value) -> Items[Any]:
    assert isinstance(self, Sequence)
    return self.items


def _rebuilt(work: Work, size: int) -> None:
    """Charge for a new version that copies `size` elements of the old one."""
    work.spend(size >> 6)


def _grown(work: Work, self: Value, more: Items[Operand]) -> Value:
    items = _list(self)
    _rebuilt(work, to_copy(items))
    return Sequence(grown(items, more), work.label)


@_change("list.append", "Put one element at the end.", mode=Mode.SHAPE, lazy=ITEM)
def _append(work: Work, self: Value, item: Operand, /) -> Value:
    return _grown(work, self, (item,))


@_change("list.extend", "Put the elements at the end.", mode=Mode.SHAPE, consumes=True)
def _extend(work: Work, self: Value, items: Value, /) -> Value:
    more = elements(items)
    work.make(16 * len(more))
    return _grown(work, self, more)


@_change("list.insert", "Put an element before a place.", mode=Mode.SHAPE, lazy=ITEM)
def _insert(work: Work, self: Value, place: Value, item: Operand, /) -> Value:
    assert isinstance(self, Sequence)
    if not isinstance(place, Scalar):
        raise TypeError("an index is an int")
    at = bound(self, place, inserting=True)
    _rebuilt(work, len(self.items))
    return Sequence((*self.items[:at], item, *self.items[at:]), work.label)


@_change("list.remove", "Take the first equal element out.", mode=Mode.VALUE)
def _remove(work: Work, self: Value, item: Value, /) -> Value:
    at = [python(one) for one in _list(self)].index(python(item))
    return Sequence((*_list(self)[:at], *_list(self)[at + 1 :]), work.label)


@_change("list.clear", "Take everything out.", mode=Mode.SHAPE)
def _clear(work: Work, self: Value, /) -> Value:
    return Sequence((), work.label)


@_change("list.reverse", "Turn the order round.", mode=Mode.SHAPE)
def _reverse(work: Work, self: Value, /) -> Value:
    _rebuilt(work, len(_list(self)))
    return Sequence(tuple(reversed(_list(self))), work.label)


@_change("list.sort", "Put the elements in order.", mode=Mode.VALUE, calls=("key",))
def _sort(work: Work, self: Value, /, *, key: Any = None, reverse: Any = MISSING) -> Value:
    return Sequence(tuple(ordered(work, elements(self), key, reverse)), work.label)


@_change("list.pop", "Take one element out and give it.", mode=Mode.SHAPE)
def _pop(work: Work, self: Value, place: Value = MISSING, /) -> Value:
    assert isinstance(self, Sequence)
    if not self.items:
        raise IndexError("pop from empty list")
    at = len(self.items) - 1
    if place is not MISSING:
        item(self, place)
        assert isinstance(place, Scalar)
        at = bound(self, place)
    _rebuilt(work, len(self.items))
    rest = Sequence((*self.items[:at], *self.items[at + 1 :]), work.label)
    return Sequence((self.items[at], rest), work.label)


@_change("dict.pop", "Take a key out and give its value.", mode=Mode.SHAPE, lazy=("default",))
def _dict_pop(work: Work, self: Value, key: Value, default: Operand = MISSING, /) -> Value:
    assert isinstance(self, Mapping)
    data = atom_key(key)
    if data not in self.entries and default is MISSING:
        raise KeyError(data)
    _rebuilt(work, 2 * len(self.entries))
    found = self.entries.get(data, default)
    rest = {name: one for name, one in self.entries.items() if name != data}
    return Sequence((found, Mapping(rest, work.label)), work.label)


@_change(
    "dict.setdefault",
    "Put a value under a key that has none; gives what is there.",
    mode=Mode.SHAPE,
    lazy=("default",),
)
def _setdefault(work: Work, self: Value, key: Value, default: Operand = MISSING, /) -> Value:
    assert isinstance(self, Mapping)
    data = atom_key(key)
    given = Scalar(None, work.label) if default is MISSING else default
    found = self.entries.get(data, given)
    _rebuilt(work, 2 * len(self.entries))
    return Sequence((found, Mapping({**self.entries, data: found}, work.label)), work.label)


@_change("dict.update", "Put in what another dict holds.", mode=Mode.SHAPE)
def _update(work: Work, self: Value, other: Value = MISSING, /, **words: Operand) -> Value:
    assert isinstance(self, Mapping)
    if other is not MISSING and not isinstance(other, Mapping):
        raise TypeError("update() takes another dict")
    more = {} if other is MISSING else other.entries
    _rebuilt(work, 2 * len(self.entries))
    work.make(32 * (len(more) + len(words)))
    return Mapping({**self.entries, **more, **words}, work.label)


@_change("dict.clear", "Take everything out.", mode=Mode.SHAPE)
def _dict_clear(work: Work, self: Value, /) -> Value:
    return Mapping({}, work.label)
