"""The lines that a line of a program depends on, by the names that they assign and use.

A static backward slice (Weiser 1981), blind to order: it may name a line too many, never one too
few. Knows nothing of runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from edvac.program.tree import assigned, walk


def lines_behind(text: str, line: int) -> frozenset[int]:
    """Every line whose values may have gone into `line`, itself included; the line alone where it
    holds no statement.

    Raises:
        SyntaxError: the text is no program.
    """
    module = ast.parse(text)
    found = _Statements()
    found.walk(module.body, ())
    here = [one for one in found.all if line in _own_lines(one)]
    todo, seen = list(here), set(here)
    while todo:
        for one in found.behind(todo.pop()):
            if one not in seen:
                seen.add(one)
                todo.append(one)
    return frozenset({line}.union(*(_own_lines(one) for one in seen)))


class _Statements:
    """The statements of a program, who encloses each, and who gives each name its value."""

    def __init__(self) -> None:
        self.all: list[ast.stmt] = []
        self._outer: dict[ast.stmt, tuple[ast.stmt, ...]] = {}
        self._givers: dict[str, list[ast.stmt]] = {}

    def walk(self, block: list[ast.stmt], outer: tuple[ast.stmt, ...]) -> None:
        for stmt in block:
            self.all.append(stmt)
            self._outer[stmt] = outer
            for name in _given(stmt):
                self._givers.setdefault(name, []).append(stmt)
            for part in ("body", "orelse"):
                self.walk(getattr(stmt, part, []), (*outer, stmt))

    def behind(self, stmt: ast.stmt) -> Iterator[ast.stmt]:
        yield from self._outer[stmt]
        for name in _used(stmt):
            yield from self._givers.get(name, ())
        if isinstance(stmt, ast.FunctionDef):  # what it returns, and what it is called with
            yield from (one for one in self.all if stmt in self._outer[one])
            yield from (one for one in self.all if stmt.name in _used(one))


def _given(stmt: ast.stmt) -> Iterator[str]:
    if isinstance(stmt, ast.FunctionDef | ast.ClassDef):
        yield stmt.name
    else:
        yield from assigned([stmt])


def _header(stmt: ast.stmt) -> list[ast.AST]:
    match stmt:
        case ast.For():
            return [stmt.iter]
        case ast.If():
            return [stmt.test]
        case ast.FunctionDef():
            return [stmt.args]
    return [stmt]


def _used(stmt: ast.stmt) -> set[str]:
    nodes = walk(*_header(stmt))
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def _own_lines(stmt: ast.stmt) -> range:
    """Of a block, those of its head."""
    body = getattr(stmt, "body", None)
    if body:
        return range(stmt.lineno, max(body[0].lineno, stmt.lineno + 1))
    return range(stmt.lineno, (stmt.end_lineno or stmt.lineno) + 1)
