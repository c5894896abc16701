"""What a program computes and nobody uses is left out: a small model cannot take a line back."""

from __future__ import annotations

import ast

from edvac.compiler.review import unused_names

_ACTS = ("files.write(", "files.copy(", "files.move(")


def without_dead(program: str) -> str:
    """The program without variables and records that nothing reads, and without the loops and tests
    that are empty then. The lines that stay are unchanged; statements that act always stay."""
    while True:
        tree = ast.parse(program)
        dead = _dead(tree.body, set(unused_names(program)))
        if not dead:
            return program
        lines = program.split("\n")
        gone = {n for stmt in dead for n in range(stmt.lineno - 1, stmt.end_lineno or stmt.lineno)}
        program = "\n".join(line for n, line in enumerate(lines) if n not in gone)


def _dead(body: list[ast.stmt], unused: set[str]) -> list[ast.stmt]:
    """Statements that can go, the outermost of those within each other."""
    found: list[ast.stmt] = []
    for stmt in body:
        inner = [*getattr(stmt, "body", ()), *getattr(stmt, "orelse", ())]
        if isinstance(stmt, ast.For | ast.If):
            gone = _dead(stmt.body, unused) + _dead(stmt.orelse, unused)
            whole = len(gone) == len(inner)
            # A branch cannot be left empty while the other one stays.
            empty = any(
                part and all(one in gone for one in part) for part in (stmt.body, stmt.orelse)
            )
            found += [stmt] if whole else [] if empty else gone
        elif _fills(stmt) in unused and not any(act in ast.unparse(stmt) for act in _ACTS):
            found.append(stmt)
    return found


def _fills(stmt: ast.stmt) -> str:
    """The name that a statement gives a value to, or puts something into."""
    match stmt:
        case ast.ClassDef(name):
            return name
        case ast.Assign([ast.Name(name)]) | ast.Assign([ast.Subscript(ast.Name(name))]):
            return name
        case ast.AugAssign(ast.Name(name)):
            return name
        case ast.Expr(ast.Call(ast.Attribute(ast.Name(name), "append" | "extend"))):
            return name
    return ""
