"""Early `return` and `continue` as branches: what follows them moves into the other arm.

After this every body has one exit, so an undecided condition has one place where its arms join.
Knows nothing of devices or types.
"""

from __future__ import annotations

import ast

from edvac.core.errors import ProgramError
from edvac.program.refusal import fail, refusal

Exit = ast.Return | ast.Continue


def lower(body: list[ast.stmt], *, loop: bool = False) -> list[ast.stmt]:
    """The body with every early exit turned into an `else`.

    Raises:
        ProgramError: an exit is nested so that this would copy code.
    """
    made: list[ast.stmt] = []
    for at, stmt in enumerate(body):
        if isinstance(stmt, Exit):
            if stmt is not body[-1]:
                raise _unreachable(body[at + 1])
            if isinstance(stmt, ast.Return):
                made.append(stmt)
            return made
        if isinstance(stmt, ast.For):
            inner = lower(stmt.body, loop=True)
            made.append(_rebuilt(stmt, ast.For(stmt.target, stmt.iter, inner, [])))
        elif isinstance(stmt, ast.If) and _exits(stmt):
            made.append(_split(stmt, body[at + 1 :], loop))
            return made
        elif isinstance(stmt, ast.If):
            made.append(_branch(stmt, stmt.body, stmt.orelse, loop))
        else:
            made.append(stmt)
    return made


def _split(stmt: ast.If, rest: list[ast.stmt], loop: bool) -> ast.stmt:
    """An `if` that may leave the body: what follows belongs to the arm that goes on."""
    if not rest:
        return _branch(stmt, stmt.body, stmt.orelse, loop)
    if _leaves(stmt.body):
        return _branch(stmt, stmt.body, [*stmt.orelse, *rest], loop)
    if _leaves(stmt.orelse):
        return _branch(stmt, [*stmt.body, *rest], stmt.orelse, loop)
    fail(
        stmt,
        "exit_nested",
        "a `return` or `continue` is nested so that only some ways through this `if` leave",
        "One arm of an `if` must always leave, or none may.",
        "Give the result a name in every arm and return it at the end.",
    )


def _branch(stmt: ast.If, body: list[ast.stmt], orelse: list[ast.stmt], loop: bool) -> ast.stmt:
    made = ast.If(stmt.test, lower(body, loop=loop), lower(orelse, loop=loop))
    return _rebuilt(stmt, made)


def _rebuilt(old: ast.stmt, new: ast.stmt) -> ast.stmt:
    return ast.copy_location(new, old)


def _exits(stmt: ast.stmt) -> bool:
    """May this statement leave the body that it stands in?"""
    if isinstance(stmt, ast.If):
        return any(_exits(inner) for inner in [*stmt.body, *stmt.orelse])
    return isinstance(stmt, Exit)


def _leaves(block: list[ast.stmt]) -> bool:
    """Does this block leave on every way through it?"""
    if not block:
        return False
    last = block[-1]
    if isinstance(last, ast.If):
        return _leaves(last.body) and _leaves(last.orelse)
    return isinstance(last, Exit)


def _unreachable(stmt: ast.stmt) -> ProgramError:
    return refusal(
        stmt,
        "statement_unreachable",
        "this line can never run",
        "The line before it leaves the body.",
        "Delete it, or move it up.",
    )
