"""Types of operators and what certainly does not fit: local and gradual, `any` where unknown.

Knows nothing of names or of devices.
"""

from __future__ import annotations

import ast

from edvac.core.schema import (
    ANY,
    BOOL,
    DATE,
    DECIMAL,
    FLOAT,
    INT,
    NONE,
    STR,
    Choice,
    DictOf,
    ListOf,
    Maybe,
    Plain,
    Quoted,
    Record,
    TupleOf,
    Type,
)

NUMBERS = (BOOL, INT, FLOAT, DECIMAL)


def widened(kind: Type) -> Type:
    """The atomic type of a choice; other types unchanged."""
    if isinstance(kind, Choice):
        found = {type(option) for option in kind.options}
        return {str: STR, int: INT, bool: BOOL}.get(found.pop(), ANY) if len(found) == 1 else ANY
    return kind


def joined(left: Type, right: Type) -> Type:
    """The type of a value that is one of two."""
    if left == right:
        return left
    if NONE in (left, right):
        other = right if left == NONE else left
        return other if other == ANY or isinstance(other, Maybe) else Maybe(other)
    if isinstance(left, Maybe) or isinstance(right, Maybe):
        inner = joined(_sure(left), _sure(right))
        return inner if inner == ANY else Maybe(inner)
    if isinstance(left, ListOf) and isinstance(right, ListOf):
        return ListOf(joined(left.item, right.item))
    if isinstance(left, DictOf) and isinstance(right, DictOf):
        return DictOf(joined(left.item, right.item), joined(left.key, right.key))
    left, right = widened(left), widened(right)
    return left if left == right else ANY


def _sure(kind: Type) -> Type:
    return kind.item if isinstance(kind, Maybe) else kind


def clashes(kind: Type, wanted: Type) -> bool:
    """Is a value of `kind` certainly not one of `wanted`?"""
    if ANY in (kind, wanted) or kind == wanted:
        return False
    if isinstance(kind, Maybe):
        return clashes(kind.item, wanted) and clashes(NONE, wanted)
    match wanted:
        case Maybe():
            return kind != NONE and clashes(kind, wanted.item)
        case Choice():
            if isinstance(kind, Choice):
                return not set(kind.options) & set(wanted.options)
            return all(type(o).__name__ != getattr(kind, "name", "") for o in wanted.options)
        case ListOf():
            if isinstance(kind, TupleOf):
                return False
            return not isinstance(kind, ListOf) or clashes(kind.item, wanted.item)
        case DictOf():
            return not isinstance(kind, DictOf) or clashes(kind.item, wanted.item)
        case TupleOf():
            return not isinstance(kind, TupleOf | ListOf)
        case Record() | Quoted():
            return type(kind) is not type(wanted) or kind != wanted
    kind = widened(kind)
    if kind == wanted:
        return False
    if kind in NUMBERS and wanted in NUMBERS:
        return (wanted == INT and kind in (FLOAT, DECIMAL)) or wanted == BOOL
    return kind != ANY


def compatible_numbers(left: Type, right: Type) -> Type | None:
    """The number type of an operation on two number types; None where Python refuses it."""
    pair = {left, right} - {BOOL}
    if pair == {DECIMAL, FLOAT}:
        return None
    for kind in (DECIMAL, FLOAT):
        if kind in pair:
            return kind
    return INT


def binary_type(op: ast.operator, left: Type, right: Type) -> Type | str:
    """The type of ``left OP right``, or a text that says what is wrong with it."""
    left, right = widened(left), widened(right)
    if isinstance(left, Maybe) or isinstance(right, Maybe) or ANY in (left, right):
        return ANY
    if left in NUMBERS and right in NUMBERS:
        found = compatible_numbers(left, right)
        if found is None:
            return 'Decimal and float do not mix; write Decimal("0.19") for the float'
        if isinstance(op, ast.Div) and found == INT:
            return FLOAT
        return ANY if isinstance(op, ast.Pow) and found == INT else found
    match op:
        case ast.Add():
            return _sum_type(left, right)
        case ast.Mult():
            for body, times in ((left, right), (right, left)):
                if times in (INT, BOOL) and (body == STR or isinstance(body, ListOf | TupleOf)):
                    return body if not isinstance(body, TupleOf) else ANY
        case ast.BitOr() if isinstance(left, DictOf) and isinstance(right, DictOf):
            return DictOf(joined(left.item, right.item), joined(left.key, right.key))
        case ast.Mod() if left == STR:
            return "`%` does not format text here; write an f-string"
        case ast.Sub() if DATE in (left, right):
            return "dates are not subtracted; write date.days(a, b) or date.add(d, days=n)"
    return "these types do not go together"


def _sum_type(left: Type, right: Type) -> Type | str:
    if left == right and (left == STR or isinstance(left, ListOf)):
        return left
    if isinstance(left, ListOf) and isinstance(right, ListOf):
        return ListOf(joined(left.item, right.item))
    if isinstance(left, TupleOf) and isinstance(right, TupleOf):
        return TupleOf(left.items + right.items)
    if STR in (left, right):
        return 'text and something else are not added; write an f-string: f"{name}: {total}"'
    return "these types do not go together"


def compare_clash(op: ast.cmpop, left: Type, right: Type) -> str | None:
    """What is certainly wrong with a comparison."""
    left, right = widened(left), widened(right)
    if isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
        if isinstance(left, Maybe) or isinstance(right, Maybe) or ANY in (left, right):
            return None
        both = left in NUMBERS and right in NUMBERS
        listed = isinstance(left, ListOf | TupleOf) and isinstance(right, ListOf | TupleOf)
        ordered = left == right and not isinstance(left, Record | DictOf | Quoted)
        if not (both or listed or ordered) or left == NONE:
            return "these types have no order"
    if isinstance(op, ast.In | ast.NotIn) and right in (*NUMBERS, NONE, DATE):
        return "`in` needs a text, a list or a dict on its right"
    return None


def mutable(kind: Type) -> bool:
    """May a value of this type be a list or dict, or hold one?"""
    match kind:
        case Plain():
            return kind == ANY
        case Choice():
            return False
        case Maybe() | Quoted():
            return mutable(kind.item)
        case Record():
            return any(mutable(part.type) for part in kind.fields)
        case TupleOf():
            return any(map(mutable, kind.items))
    return True
