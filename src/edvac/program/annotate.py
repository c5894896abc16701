"""Annotations and record classes as types.

Knows nothing of values or of where a type is used.
"""

from __future__ import annotations

import ast
import difflib

from edvac.core.errors import ProgramError
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
    Field,
    ListOf,
    Maybe,
    Quoted,
    Record,
    TupleOf,
    Type,
)
from edvac.program.refusal import refusal

ATOMS: dict[str, Type] = {
    "any": ANY,
    "Any": ANY,
    "bool": BOOL,
    "int": INT,
    "float": FLOAT,
    "Decimal": DECIMAL,
    "str": STR,
    "date": DATE,
    "list": ListOf(ANY),
    "dict": DictOf(ANY),
}
GENERIC = ("list", "dict", "tuple", "Literal", "Quoted", "Optional")
OPTIONS = 1_000  # of one Literal


def read_type(node: ast.expr, records: dict[str, Record]) -> Type:
    """The type that an annotation writes.

    Raises:
        ProgramError: it is not a type of the language.
    """
    match node:
        case ast.Constant(value=None):
            return NONE
        case ast.Name() if node.id in records:
            return records[node.id]
        case ast.Name() if node.id in ATOMS:
            return ATOMS[node.id]
        case ast.BinOp(op=ast.BitOr()):
            return _maybe(node, records)
        case ast.Subscript(value=ast.Name() as head):
            return _generic(head.id, node, records)
    raise _unknown(node, records)


def is_type(node: ast.expr, records: dict[str, Record]) -> bool:
    """Does the expression look like a type rather than a value?"""
    match node:
        case ast.Name():
            return node.id in records or node.id in ATOMS
        case ast.Subscript(value=ast.Name() as head):
            return head.id in GENERIC
        case ast.BinOp(op=ast.BitOr()):
            return is_type(node.left, records)
    return False


def _maybe(node: ast.BinOp, records: dict[str, Record]) -> Type:
    left, right = read_type(node.left, records), read_type(node.right, records)
    if right == NONE:
        return left if isinstance(left, Maybe) else Maybe(left)
    if left == NONE:
        return right if isinstance(right, Maybe) else Maybe(right)
    raise _wrong(node, "only `T | None` is a union", "Use one type, or `any` and narrow it later.")


def _generic(head: str, node: ast.Subscript, records: dict[str, Record]) -> Type:
    inner = node.slice
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    match head, len(parts):
        case "list", 1:
            return ListOf(read_type(parts[0], records))
        case "dict", 2:
            return DictOf(read_type(parts[1], records), read_type(parts[0], records))
        case "tuple", _:
            return TupleOf(tuple(read_type(part, records) for part in parts))
        case "Optional", 1:
            return Maybe(read_type(parts[0], records))
        case "Quoted", 1:
            return Quoted(read_type(parts[0], records))
        case "Literal", _:
            return Choice(tuple(_option(part) for part in parts))
    raise _unknown(node, records)


def _option(node: ast.expr) -> str | int | bool:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int):
        return node.value
    raise _wrong(node, "a Literal holds only texts, ints and booleans", 'Write Literal["a", "b"].')


def _unknown(node: ast.expr, records: dict[str, Record]) -> ProgramError:
    text = ast.unparse(node)
    near = difflib.get_close_matches(text, [*records, *ATOMS, *GENERIC], n=1)
    if text in GENERIC:
        inside = '"one", "other"' if text == "Literal" else "str"
        return _wrong(node, f"{text} does not say of what", f"Write it as in {text}[{inside}].")
    fix = f"Did you mean {near[0]}?" if near else "Types are " + ", ".join([*ATOMS, *GENERIC]) + "."
    return _wrong(node, f"{text[:80]} is not a type", fix)


def _wrong(node: ast.expr, what: str, fix: str) -> ProgramError:
    return refusal(node, "type_unknown", what, "", fix)


def read_record(node: ast.ClassDef, records: dict[str, Record], comments: dict[int, str]) -> Record:
    """The record type that a class body with annotations declares; a field's trailing comment
    describes it.

    Raises:
        ProgramError: the body holds anything else.
    """
    fields: list[Field] = []
    for stmt in node.body:
        match stmt:
            case ast.AnnAssign(target=ast.Name() as target, value=None):
                if target.id.startswith("_") or any(f.name == target.id for f in fields):
                    raise _class(stmt, f"{node.name}.{target.id} is declared twice or is private")
                kind = read_type(stmt.annotation, records)
                fields.append(Field(target.id, kind, comments.get(stmt.end_lineno or 0, "")))
            case ast.Pass() | ast.Expr(value=ast.Constant(value=str())):
                continue
            case _:
                raise _class(stmt, f"class {node.name} holds something that is not a field")
    if not fields:
        raise _class(node, f"class {node.name} has no fields")
    return Record(node.name, tuple(fields))


def _class(node: ast.stmt, what: str) -> ProgramError:
    return refusal(
        node,
        "record_malformed",
        what,
        "A class is a record: a list of `name: type` lines, nothing else.",
        "Write functions outside the class and take the record as a parameter.",
    )
