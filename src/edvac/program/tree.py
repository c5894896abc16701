"""Small questions about syntax trees: which names a piece assigns, reads, mutates.

Knows nothing of devices, types or values.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import TypeAlias

MUTATORS = frozenset(
    [
        "append",
        "extend",
        "insert",
        "remove",
        "pop",
        "clear",
        "sort",
        "reverse",
        "update",
        "setdefault",
        "popitem",
    ]
)
_PLAIN = frozenset({"id", "attr", "arg", "name", "ctx", "kind", "type_comment", "conversion"})
_fields: dict[type[ast.AST], tuple[str, ...]] = {ast.Constant: ()}  # those that may hold nodes
# Names that no program can write: of a function's result, and of what `program.extend` has decided.
RETURNED = "$return"
LINES = "$lines"

Comprehension: TypeAlias = ast.ListComp | ast.GeneratorExp | ast.DictComp


def targets(node: ast.expr) -> Iterator[str]:
    """Names that an assignment target binds; for ``xs[0]`` the name whose version changes."""
    match node:
        case ast.Name():
            yield node.id
        case ast.Tuple() | ast.List():
            for part in node.elts:
                yield from targets(part)
        case ast.Subscript():
            found = root(node)
            if found is not None:
                yield found


def root(node: ast.expr) -> str | None:
    """The name at the start of ``xs[0].append`` or ``d.setdefault(k, [])``, if there is one."""
    while True:
        match node:
            case ast.Name():
                return node.id
            case ast.Subscript() | ast.Attribute():
                node = node.value
            case ast.Call(func=ast.Attribute(attr="setdefault") as func):
                node = func.value
            case _:
                return None


def is_param(node: ast.expr) -> bool:
    """Is this ``param(default)``?"""
    return isinstance(node, ast.Call) and dotted(node.func) == "param"


def mutation(node: ast.expr) -> ast.Attribute | None:
    """The ``xs.append`` of a call that changes a container in place."""
    match node:
        case ast.Call(func=ast.Attribute() as func) if func.attr in MUTATORS:
            return func if root(func.value) is not None else None
    return None


def assigned(block: Iterable[ast.stmt], outside: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Every name that the block may give a new version, in order; `outside` are names that hold no
    value, such as devices and namespaces."""
    found: dict[str, None] = {}
    for stmt in block:
        for name in _assigned(stmt, outside):
            if name not in outside:
                found[name] = None
    return tuple(found)


def _assigned(stmt: ast.stmt, outside: frozenset[str]) -> Iterator[str]:
    match stmt:
        case ast.Assign():
            for target in stmt.targets:
                yield from targets(target)
            yield from _mutated(stmt.value)
        case ast.AnnAssign() if stmt.value is not None:
            yield from targets(stmt.target)
            yield from _mutated(stmt.value)
        case ast.AugAssign():
            yield from targets(stmt.target)
        case ast.Expr():
            yield from _mutated(stmt.value)
        case ast.For():
            yield from targets(stmt.target)
            yield from assigned(stmt.body, outside)
        case ast.If():
            yield from assigned([*stmt.body, *stmt.orelse], outside)
        case ast.Return():
            yield RETURNED


def _mutated(node: ast.expr) -> Iterator[str]:
    found = mutation(node)
    if found is not None:
        name = root(found.value)
        if name is not None:
            yield name


def definite(block: Iterable[ast.stmt]) -> frozenset[str]:
    """Names that are certainly bound after the block, whatever its conditions turn out to be."""
    found: set[str] = set()
    for stmt in block:
        if isinstance(stmt, ast.If):
            found |= definite(stmt.body) & definite(stmt.orelse)
        elif not isinstance(stmt, ast.For):
            found.update(assigned([stmt]))
    return frozenset(found)


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes directly below, in source order. Contexts (load, store) are left out: they are
    nothing that a program writes."""
    found: list[ast.AST] = []
    kind = type(node)
    fields = _fields.get(kind)
    if fields is None:
        fields = _fields[kind] = tuple(field for field in kind._fields if field not in _PLAIN)
    for field in fields:
        inner = getattr(node, field, None)
        if type(inner) is list:
            found += [one for one in inner if isinstance(one, ast.AST)]
        elif isinstance(inner, ast.AST):
            found.append(inner)
    return found


def walk(*nodes: ast.AST) -> Iterator[ast.AST]:
    """The pieces and everything below, level by level. The standard library's takes more than
    twice as long, and a program of ten thousand lines has a hundred thousand nodes."""
    todo = list(nodes)
    for node in todo:
        todo += children(node)
        yield node


def names(node: ast.AST) -> frozenset[str]:
    """Every name that occurs in the piece."""
    return frozenset(here.id for here in walk(node) if isinstance(here, ast.Name))


def pieces(stmt: ast.stmt) -> Iterator[ast.AST]:
    """The parts of a statement that are its own: of a compound one only the header."""
    match stmt:
        case ast.If():
            yield stmt.test
        case ast.For():
            yield stmt.target
            yield stmt.iter
        case ast.FunctionDef():
            yield from stmt.args.defaults
        case ast.ClassDef():
            return
        case _:
            yield stmt


def statements(block: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement of a body in source order, headers before what they hold."""
    for stmt in block:
        yield stmt
        match stmt:
            case ast.If():
                yield from statements([*stmt.body, *stmt.orelse])
            case ast.For():
                yield from statements(stmt.body)


def calls(node: ast.AST) -> Iterator[ast.Call]:
    """Every call in the piece, in source order."""
    todo = [node]
    while todo:
        here = todo.pop()
        if isinstance(here, ast.Call):
            yield here
        todo += reversed(children(here))


def dotted(node: ast.expr) -> str | None:
    """``files.read`` for an attribute of a plain name, ``len`` for a name."""
    if type(node) is ast.Name:
        return node.id
    if type(node) is ast.Attribute and type(node.value) is ast.Name:
        return f"{node.value.id}.{node.attr}"
    return None


def header(stmt: ast.stmt) -> str:
    """The statement's text in one normal form, without its block: what its steps are named by."""
    match stmt:
        case ast.If():
            return f"if {ast.unparse(stmt.test)}:"
        case ast.For():
            return f"for {ast.unparse(stmt.target)} in {ast.unparse(stmt.iter)}:"
    return ast.unparse(stmt)
