"""Operators on plain data, each checked for the size of its result before it runs.

Semantics are Python's. Knows nothing of labels, names or pending values.
"""

from __future__ import annotations

import ast
import datetime as dt
import math
import operator
from collections.abc import Callable
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import Any

from edvac.core.errors import OperandError
from edvac.program.fuel import Fuel
from edvac.program.limits import DECIMAL_EXPONENT, FORMAT_WIDTH, INT_BITS, TEXT_CHARS

# One fixed context: a caller's own settings must not change what a program computes.
ARITHMETIC = Context(prec=28, traps=[InvalidOperation, DivisionByZero, Overflow])

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def too_large(what: str) -> OperandError:
    return OperandError(
        "result_too_large",
        f"{what} would be too large",
        "Pure code works with numbers and texts of bounded size.",
        "Compute something smaller.",
    )


def binary(kind: type[ast.operator], left: Any, right: Any, fuel: Fuel, line: int) -> Any:
    """``left OP right`` for atoms and, for ``+`` and ``*``, for lists as Python has them."""
    if isinstance(left, int) and isinstance(right, int):
        _bound_int(kind, left, right)
    elif kind is ast.Mod and isinstance(left, str):
        raise OperandError(
            "operator_unfit", "`%` does not format text here", "", "Use an f-string."
        )
    elif kind is ast.Mult:
        size = repeated_size(left, right)
        fuel.make(size, line)
    elif kind is ast.Add and isinstance(left, str) and isinstance(right, str):
        _bound_text(len(left) + len(right))
        fuel.make(len(left) + len(right), line)
    return BINARY[kind](left, right)


def _bound_int(kind: type[ast.operator], left: int, right: int) -> None:
    a, b = left.bit_length(), right.bit_length()
    if kind is ast.Pow:
        bits = max(a, 1) * max(right, 0) if a > 1 else 1
        bits = max(bits, (a + 1) * -right if right < 0 else 0) if a > 1 else bits
    elif kind is ast.Mult:
        bits = a + b
    elif kind is ast.LShift:
        bits = a + max(right, 0)
    else:
        bits = max(a, b) + 1
    if bits > INT_BITS:
        raise too_large("this number")


def repeated_size(left: Any, right: Any) -> int:
    """Characters or items of ``left * right``; 0 where neither is repeated."""
    for body, times in ((left, right), (right, left)):
        if isinstance(body, str | list | tuple) and isinstance(times, int):
            size = len(body) * max(times, 0)
            if isinstance(body, str):
                _bound_text(size)
            return size if isinstance(body, str) else size * 16
    return 0


def _bound_text(size: int) -> None:
    if size > TEXT_CHARS:
        raise too_large("this text")


def unary(node: ast.unaryop, data: Any) -> Any:
    match node:
        case ast.USub():
            return -data
        case ast.UAdd():
            return +data
        case ast.Invert():
            return ~data
    return not data


def format_field(data: Any, conversion: int, spec: str) -> str:
    """One ``{data!r:spec}`` of an f-string."""
    digits = ""
    for sign in spec + " ":
        if sign.isdigit():
            digits += sign
        elif digits:
            if len(digits) > 4 or int(digits) > FORMAT_WIDTH:
                raise too_large("a formatted field")
            digits = ""
    bound_written(data)
    if conversion == ord("r"):
        data = repr(data)
    elif conversion == ord("s"):
        data = str(data)
    elif conversion == ord("a"):
        data = ascii(data)
    if isinstance(data, dt.date) and len(spec) > FORMAT_WIDTH:
        raise too_large("a formatted field")
    return format(data, spec)


def bound_written(data: Any) -> None:
    """Refuse numbers whose digits would fill memory when written out or made an int."""
    if isinstance(data, Decimal) and data.is_finite() and data:
        if abs(data.adjusted()) > DECIMAL_EXPONENT:
            raise too_large("this number, written out,")
    elif isinstance(data, float) and not math.isfinite(data):
        return
