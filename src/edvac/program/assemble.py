"""From a syntax tree to a `Program`: records, functions, parameters, sites, uses.

Refuses what cannot be assembled; whether the rest is legal is decided in `verify`.
"""

from __future__ import annotations

import ast
from dataclasses import replace

from edvac.core.label import PROGRAM
from edvac.core.schema import (
    ANY,
    BOOL,
    DATE,
    DECIMAL,
    FLOAT,
    INT,
    NONE,
    STR,
    DictOf,
    ListOf,
    Record,
    Type,
)
from edvac.core.signature import Catalogue
from edvac.core.value import Value, lift
from edvac.program.annotate import read_record, read_type
from edvac.program.facts import Facts
from edvac.program.lower import lower
from edvac.program.patterns import known_patterns
from edvac.program.program import Function, ParamInfo, Program
from edvac.program.refusal import refusal
from edvac.program.sites import find_sites
from edvac.program.source import Source
from edvac.program.uses import find_uses


def assemble(source: Source, catalogue: Catalogue, name: str) -> Program:
    """The program that a text writes.

    Raises:
        ProgramError: a record, a type or a parameter is malformed.
    """
    body = source.tree.body
    records: dict[str, Record] = {}
    for stmt in body:
        if isinstance(stmt, ast.ClassDef):
            records[stmt.name] = read_record(stmt, records, source.comments)
    defs = {stmt.name: stmt for stmt in body if isinstance(stmt, ast.FunctionDef)}
    functions = {key: _function(node, records) for key, node in defs.items()}
    plain = [stmt for stmt in body if not isinstance(stmt, ast.ClassDef | ast.FunctionDef)]
    facts = Facts(catalogue, functions, {})
    bodies = {"": plain, **{key: node.body for key, node in defs.items()}}
    sites, conditions = find_sites(
        bodies,
        lambda call: facts.signature(call) is not None or facts.function(call) is not None,
    )
    params = {found.name: found for found in map(_param, plain) if found is not None}
    made = Program(
        name,
        source.text,
        tuple(lower(plain)),
        functions,
        records,
        params,
        catalogue,
        sites,
        conditions,
        find_uses,
    )
    return replace(made, patterns=known_patterns(made, {}))


def _function(node: ast.FunctionDef, records: dict[str, Record]) -> Function:
    args = node.args.args + node.args.kwonlyargs
    defaults: dict[str, ast.expr] = {}
    if node.args.defaults:
        last = node.args.args[-len(node.args.defaults) :]
        defaults.update(zip((arg.arg for arg in last), node.args.defaults, strict=True))
    for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if default is not None:
            defaults[arg.arg] = default
    types = {
        arg.arg: read_type(arg.annotation, records) for arg in args if arg.annotation is not None
    }
    result = read_type(node.returns, records) if node.returns is not None else None
    body = tuple(lower(_without_docstring(node.body)))
    names = tuple(arg.arg for arg in args)
    return Function(node.name, names, defaults, body, node.lineno, types, result)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
    return body


def _param(stmt: ast.stmt) -> ParamInfo | None:
    match stmt:
        case ast.Assign(
            targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name("param")) as call
        ):
            _check_doc(stmt, call)
        case _:
            return None
    try:
        data = literal(call.args[0])
    except (ValueError, IndexError):
        raise refusal(
            stmt,
            "param_default",
            f"the default of parameter {name} is not a plain value",
            "Whoever runs the program may set a parameter, so its default must be readable.",
            'Write param(1000), param("inbox/*") or param(["a", "b"]).',
        ) from None
    value = lift(data, PROGRAM)
    return ParamInfo(name, value, type_of(value), stmt.lineno)


def _check_doc(stmt: ast.stmt, call: ast.Call) -> None:
    """Refuse what many would write, `limit = param("limit", 500)`: its default would be a name."""
    texts = [*call.args[1:], *(word.value for word in call.keywords if word.arg == "doc")]
    match [*texts, *(word for word in call.keywords if word.arg != "doc")]:
        case [] | [ast.Constant(value=str())]:
            return
    raise refusal(
        stmt,
        "param_operands",
        "a parameter takes its default, then at most a text that explains it",
        "Its name is the one that it is assigned to.",
        'Write name = param(1000) or name = param(1000, doc="how many").',
    )


def literal(node: ast.expr) -> object:
    """The data that a literal writes, `Decimal("...")` included.

    Raises:
        ValueError: it is not a literal.
    """
    match node:
        case ast.Call(func=ast.Name("Decimal"), args=[ast.Constant(value=str() | int() as text)]):
            from decimal import Decimal, InvalidOperation

            try:
                return Decimal(text)
            except InvalidOperation:
                raise ValueError("not a decimal") from None
    found: object = ast.literal_eval(node)
    if isinstance(found, bytes | complex | set | frozenset):
        raise ValueError("not data of the language")
    return found


def type_of(value: Value) -> Type:
    """The narrowest type that shows from a literal value."""
    import datetime as dt
    from decimal import Decimal

    from edvac.core.value import Mapping, Scalar, Sequence

    match value:
        case Scalar():
            kinds: list[tuple[type, Type]] = [
                (bool, BOOL),
                (int, INT),
                (float, FLOAT),
                (Decimal, DECIMAL),
                (str, STR),
                (dt.date, DATE),
            ]
            found = (kind for raw, kind in kinds if isinstance(value.data, raw))
            return next(found, NONE)
        case Sequence():
            inner = {type_of(item) for item in value.items}
            return ListOf(inner.pop() if len(inner) == 1 else ANY)
        case Mapping():
            inner = {type_of(item) for item in value.entries.values()}
            return DictOf(inner.pop() if len(inner) == 1 else ANY)
    return ANY
