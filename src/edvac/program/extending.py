"""`program.extend`: lines that are decided at run time.

The call stands alone on its line, at top level or in an ``if`` there. It is read as one link of a
chain, so that several are decided in the program's order whatever their data wait for::

    $lines = []
    $lines = program.extend("sum up what was found", rows, so_far=$lines)

What the last link holds is put below the program once it is known, verified like the rest, and may
extend the program in turn. Knows nothing of who writes lines.
"""

from __future__ import annotations

import ast

from edvac.program.refusal import fail
from edvac.program.tree import LINES, calls, dotted

EXTEND = "program.extend"


def chained(tree: ast.Module) -> None:
    """Read every ``program.extend`` of a program as a link of one chain, in the tree itself.

    Raises:
        ProgramError: one stands where lines cannot be decided.
    """
    links = list(_links(tree.body))
    placed = {id(holder[at].value) for holder, at in links}  # type: ignore[attr-defined]
    for call in calls(tree):
        if dotted(call.func) == EXTEND and id(call) not in placed:
            fail(
                call,
                "extend_misplaced",
                f"{EXTEND} stands where it cannot add lines",
                "The lines go below the program: once, and not once for each element.",
                f"Put {EXTEND}(...) on a line of its own, at top level or in an `if` there.",
            )
    first = next((at for at, stmt in enumerate(tree.body) if any(_links([stmt]))), None)
    for holder, at in links:
        call = holder[at].value  # type: ignore[attr-defined]
        call.keywords.append(ast.keyword("so_far", ast.Name(LINES, ast.Load())))
        holder[at] = _assign(call, holder[at])
    if first is not None:
        begin = _assign(ast.List([], ast.Load()), tree.body[first])
        tree.body.insert(first, begin)


def without_extensions(text: str) -> str:
    """A legal program without the lines at the margin that ask for more, which bind nothing: a
    model that is shown them asks for more in turn."""
    body = ast.parse(text).body
    asking = [body[at] for holder, at in _links(body) if holder is body]
    gone = {n for stmt in asking for n in range(stmt.lineno - 1, stmt.end_lineno or stmt.lineno)}
    return "\n".join(line for n, line in enumerate(text.split("\n")) if n not in gone)


def _links(block: list[ast.stmt]) -> list[tuple[list[ast.stmt], int]]:
    """The places of those that stand on a line of their own."""
    found = []
    for at, stmt in enumerate(block):
        match stmt:
            case ast.Expr(value=ast.Call() as call) if dotted(call.func) == EXTEND:
                found.append((block, at))
            case ast.If():
                found += [*_links(stmt.body), *_links(stmt.orelse)]
    return found


def _assign(value: ast.expr, at: ast.stmt) -> ast.stmt:
    made = ast.Assign([ast.Name(LINES, ast.Store())], value)
    return ast.fix_missing_locations(ast.copy_location(made, at))
