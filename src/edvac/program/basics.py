"""Python's builtins, those of them that are pure: the same results as CPython's.

Functions that only move elements about keep each element's own label and raise the shape.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Sequence as Items
from decimal import Decimal
from typing import Any

from edvac.core.label import PROGRAM
from edvac.core.schema import (
    ANY,
    BOOL,
    DECIMAL,
    FLOAT,
    INT,
    STR,
    DictOf,
    ListOf,
    Maybe,
    TupleOf,
    Type,
)
from edvac.core.value import (
    Failed,
    Mapping,
    Operand,
    Scalar,
    Sequence,
    Value,
    children,
    first_failure,
    steered,
)
from edvac.program.containers import elements, truth
from edvac.program.data import key_refused, python
from edvac.program.limits import LITERAL_DIGITS
from edvac.program.native import Mode, Registry, Work
from edvac.program.operate import binary, bound_written, too_large

BASICS = Registry()
_put = BASICS.add


class _Missing:
    """The default of a parameter that may be left out; shown as … in signatures."""

    def __repr__(self) -> str:
        return "…"


MISSING: Any = _Missing()


def item_type(kind: Type) -> Type:
    """Type of the elements that a loop over this type visits."""
    match kind:
        case ListOf():
            return kind.item
        case DictOf():
            return kind.key
        case TupleOf():
            return kind.items[0] if len(set(kind.items)) == 1 else ANY
    return STR if kind == STR else ANY


def same_items(args: Items[Type]) -> Type:
    """A list of what the first operand holds."""
    return ListOf(item_type(args[0]) if args else ANY)


def one_item(args: Items[Type]) -> Type:
    """An element of the first operand, or one of several operands."""
    if len(args) == 1:
        return item_type(args[0])
    return args[0] if args and len(set(args)) == 1 else ANY


@_put("len", "Number of elements or characters.", mode=Mode.SHAPE, result=INT)
def _len(work: Work, value: Value, /) -> Value:
    match value:
        case Sequence():
            return Scalar(len(value.items), work.label)
        case Mapping():
            return Scalar(len(value.entries), work.label)
    return Scalar(len(python(value)), work.label)


@_put("list", "List of the elements.", mode=Mode.SHAPE, result=same_items, consumes=True)
def _list(work: Work, value: Value = MISSING, /) -> Value:
    items = [] if value is MISSING else elements(value)
    work.make(16 * len(items))
    return Sequence(tuple(items), work.label if value is not MISSING else PROGRAM)


@_put("tuple", "Tuple of the elements.", mode=Mode.SHAPE, consumes=True)
def _tuple(work: Work, value: Value = MISSING, /) -> Value:
    items = [] if value is MISSING else elements(value)
    work.make(16 * len(items))
    return Sequence(tuple(items), work.label if value is not MISSING else PROGRAM, fixed=True)


@_put(
    "reversed",
    "The elements from the last to the first.",
    mode=Mode.SHAPE,
    result=same_items,
    iterator="stream",
)
def _reversed(work: Work, value: Value, /) -> Value:
    items = elements(value)
    work.make(16 * len(items))
    return Sequence(tuple(reversed(items)), work.label)


@_put(
    "enumerate",
    "Pairs of a counter and an element.",
    mode=Mode.SHAPE,
    iterator="stream",
    consumes=True,
    result=lambda args: ListOf(TupleOf((INT, item_type(args[0]) if args else ANY))),
)
def _enumerate(work: Work, value: Value, start: Value = MISSING) -> Value:
    first = 0 if start is MISSING else python(start)
    items = elements(value)
    work.make(64 * len(items))
    pairs = (
        Sequence((Scalar(at, PROGRAM), one), PROGRAM, fixed=True)
        for at, one in enumerate(items, first)
    )
    return Sequence(tuple(pairs), work.label)


@_put(
    "zip",
    "Tuples of elements at the same place, as many as the shortest has.",
    mode=Mode.SHAPE,
    iterator="stream",
    consumes=True,
    result=lambda args: ListOf(TupleOf(tuple(map(item_type, args)))),
)
def _zip(work: Work, *values: Value) -> Value:
    rows = list(zip(*map(elements, values), strict=False))
    work.make(32 * len(rows))
    return Sequence(tuple(Sequence(row, PROGRAM, fixed=True) for row in rows), work.label)


@_put(
    "range",
    "Whole numbers from start up to, not including, stop.",
    iterator="view",
    result=ListOf(INT),
)
def _range(work: Work, start: int, stop: int = MISSING, step: int = MISSING, /) -> Any:
    bounds = [one for one in (start, stop, step) if one is not MISSING]
    found = range(*bounds)
    if max(map(abs, bounds), default=0) > 1 << 62:
        raise too_large("this range")
    work.make(64 * len(found))
    return list(found)


@_put(
    "sum",
    "Sum of the elements.",
    consumes=True,
    result=lambda args: item_type(args[0]) if args else ANY,
)
def _sum(work: Work, values: Any, /, start: Any = 0) -> Any:
    if isinstance(start, str):
        raise TypeError("sum() can't sum strings [use ''.join(seq) instead]")
    total = start
    for one in values:
        if isinstance(total, list | tuple):
            work.make(16 * len(total))
        total = binary(ast.Add, total, one, work.fuel, work.line)
    return total


def _extreme(work: Work, values: tuple[Value, ...], key: Any, default: Any, best: Any) -> Value:
    items: list[Any] = elements(values[0]) if len(values) == 1 else list(values)
    if not items:
        if default is MISSING:
            raise ValueError("there is no smallest or largest element of nothing")
        return steered(default, work.label)
    if len(values) > 1 and default is not MISSING:
        raise TypeError("`default` is for one list of elements")
    rank = [python(key(one) if key is not None else one) for one in items]
    at = best(range(len(items)), key=rank.__getitem__)
    return steered(items[at], work.label)


@_put(
    "min",
    "Smallest element; `key` says what to compare.",
    mode=Mode.VALUE,
    result=one_item,
    calls=("key",),
    consumes=True,
)
def _min(work: Work, *values: Value, key: Any = None, default: Any = MISSING) -> Value:
    return _extreme(work, values, _key(key), default, min)


@_put(
    "max",
    "Largest element; `key` says what to compare.",
    mode=Mode.VALUE,
    result=one_item,
    calls=("key",),
    consumes=True,
)
def _max(work: Work, *values: Value, key: Any = None, default: Any = MISSING) -> Value:
    return _extreme(work, values, _key(key), default, max)


def _key(key: Any) -> Callable[[Any], Any] | None:
    """A key function; `key=None` is none."""
    return key if callable(key) else None


def ordered(work: Work, items: list[Any], key: Any, reverse: Any) -> list[Any]:
    """The elements in order, stable as Python's sort is."""
    work.spend(len(items) * max(len(items).bit_length(), 1))
    chosen = _key(key)
    rank = [python(chosen(one) if chosen is not None else one) for one in items]
    turned = False if reverse is MISSING else truth(reverse)
    places = sorted(range(len(items)), key=rank.__getitem__, reverse=turned)
    return [items[at] for at in places]


@_put(
    "sorted",
    "List of the elements in order.",
    mode=Mode.VALUE,
    result=same_items,
    calls=("key",),
    consumes=True,
)
def _sorted(work: Work, values: Value, /, *, key: Any = None, reverse: Any = MISSING) -> Value:
    return Sequence(tuple(ordered(work, elements(values), key, reverse)), work.label)


@_put(
    "map",
    "What the function makes of each element.",
    mode=Mode.VALUE,
    iterator="stream",
    calls=("function",),
    consumes=True,
    result=ListOf(ANY),
)
def _map(work: Work, function: Any, values: Value, /, *more: Value) -> Value:
    rows = zip(*map(elements, (values, *more)), strict=False)
    return Sequence(tuple(function(*row) for row in rows), work.label)


@_put(
    "filter",
    "The elements for which the function is true.",
    mode=Mode.VALUE,
    iterator="stream",
    calls=("function",),
    consumes=True,
    result=lambda args: ListOf(ANY),
)
def _filter(work: Work, function: Any, values: Value, /) -> Value:
    test = _key(function) or (lambda one: one)
    kept = [one for one in elements(values) if truth(test(one))]
    return Sequence(tuple(kept), work.label)


@_put("any", "Is any element true?", result=BOOL, consumes=True)
def _any(work: Work, values: Any, /) -> bool:
    return any(values)


@_put("all", "Are all elements true?", result=BOOL, consumes=True)
def _all(work: Work, values: Any, /) -> bool:
    return all(values)


@_put("abs", "Distance from zero.", result=one_item)
def _abs(work: Work, number: Any, /) -> Any:
    return abs(number)


@_put("round", "The number rounded to `ndigits` places, half to even.", result=ANY)
def _round(work: Work, number: Any, ndigits: int | None = None) -> Any:
    if ndigits is not None and abs(ndigits) > LITERAL_DIGITS:
        raise too_large("the number of places")
    bound_written(number)
    return round(number) if ndigits is None else round(number, ndigits)


@_put("divmod", "Quotient and remainder.", result=ANY)
def _divmod(work: Work, left: Any, right: Any, /) -> Any:
    return divmod(left, right)


@_put("int", "Whole number; of text, read in base 10.", result=INT)
def _int(work: Work, value: Any = 0, /) -> int:
    bound_written(value)
    return int(value)


@_put("float", "Binary floating-point number.", result=FLOAT)
def _float(work: Work, value: Any = 0.0, /) -> float:
    return float(value)


@_put("str", "The value as text.", result=STR)
def _str(work: Work, value: Any = "", /) -> str:
    return str(value)


@_put("repr", "The value as it would be written in a program.", result=STR)
def _repr(work: Work, value: Any, /) -> str:
    return repr(value)


@_put("bool", "Is the value true: not zero, not empty, not None?", mode=Mode.SHAPE, result=BOOL)
def _bool(work: Work, value: Value = MISSING, /) -> Value:
    found = False if value is MISSING else truth(value)
    return Scalar(found, PROGRAM if value is MISSING else work.label.cap(1))


@_put("Decimal", "Decimal number, exact for money.", result=DECIMAL)
def _decimal(work: Work, value: Any = "0", /) -> Decimal:
    if isinstance(value, tuple):
        raise TypeError("a Decimal is made from text or a number")
    return Decimal(value)


@_put("ord", "Number of a character.", result=INT)
def _ord(work: Work, sign: str, /) -> int:
    return ord(sign)


@_put("chr", "Character with a number.", result=STR)
def _chr(work: Work, number: int, /) -> str:
    return chr(number)


@_put(
    "dict",
    "Dict of key-value pairs, of another dict, or of keywords.",
    mode=Mode.VALUE,
    consumes=True,
    result=DictOf(ANY, ANY),
)
def _dict(work: Work, pairs: Value = MISSING, /, **words: Operand) -> Value:
    entries: dict[Any, Operand] = {}
    if isinstance(pairs, Mapping):
        entries.update(pairs.entries)
    elif pairs is not MISSING:
        for pair in map(elements, elements(pairs)):  # type: ignore[arg-type]
            if len(pair) != 2:
                raise ValueError("dict() needs pairs of a key and a value")
            entries[atom_key(pair[0])] = pair[1]
    entries.update(words)
    work.make(32 * len(entries))
    return Mapping(entries, PROGRAM if pairs is MISSING and not words else work.label)


@_put(
    "attempt",
    "The value, or `default` where it or a part of it failed.",
    mode=Mode.LENIENT,
    result=lambda args: args[0] if args and args[0] == args[-1] else ANY,
)
def _attempt(work: Work, value: Value, default: Value, /) -> Value:
    failed = accept(work, value)
    return steered(default if failed else value, work.label.cap(1))


@_put("ok", "Did the value and every part of it succeed?", mode=Mode.LENIENT, result=BOOL)
def _ok(work: Work, value: Value, /) -> Value:
    return Scalar(not accept(work, value), work.label.cap(1))


@_put(
    "failure",
    "Why the value, or a part of it, failed: code and sentence; None where it did not.",
    mode=Mode.LENIENT,
    result=Maybe(STR),
)
def _failure(work: Work, value: Value, /) -> Value:
    found = first_failure(value)
    accept(work, value)
    return Scalar(None if found is None else f"{found.code}: {found.what}", work.label)


@_put(
    "param",
    "A value that whoever runs the program may set; only at top level.",
    result=lambda args: args[0] if args else ANY,
)
def _param(work: Work, default: Any, /, doc: str = "") -> Any:
    return default


def atom_key(key: Operand) -> Any:
    """The data of a dict key.

    Raises:
        OperandError: it is a container.
    """
    data = python(key)
    if isinstance(data, list | dict | tuple):
        raise key_refused(data)
    return data


def accept(work: Work, value: Value) -> bool:
    """Does the value hold failures? Each is told to the control unit as handled."""
    if first_failure(value) is None:
        return False
    todo: list[Any] = [value]
    while todo:
        here = todo.pop()
        if isinstance(here, Failed):
            work.handled(here)
        else:
            todo.extend(children(here))
    return True
