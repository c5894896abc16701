"""Static names of the calls in a text: half of a step's slot, and how its address reads.

A statement is named by the function it stands in, its normalised text and its ordinal among equal
statements there; so neither formatting nor another line changes a name. Knows nothing of runs.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from edvac.program import tree
from edvac.program.identity import mix
from edvac.program.program import Site
from edvac.program.tree import calls, dotted, header, pieces, statements, targets

IsStep = Callable[[ast.Call], bool]


def find_sites(
    bodies: Mapping[str, Sequence[ast.stmt]], makes_steps: IsStep
) -> tuple[dict[ast.Call, Site], dict[ast.expr, str]]:
    """A site for every call that makes steps, and by the same rule a name for the condition of
    every `if`; `bodies` maps a function's name, or "", to its statements as they are written."""
    found: dict[ast.Call, Site] = {}
    conditions: dict[ast.expr, str] = {}
    for function, body in bodies.items():
        labels: Counter[str] = Counter()
        for stmt, key in _named(function, body):
            found.update(_sites(stmt, key, labels, makes_steps))
            if isinstance(stmt, ast.If):
                conditions[stmt.test] = key.hex()
    return found, conditions


def _named(function: str, body: Sequence[ast.stmt]) -> Iterator[tuple[ast.stmt, bytes]]:
    seen: Counter[str] = Counter()
    for stmt in statements(body):
        if isinstance(stmt, ast.FunctionDef | ast.ClassDef):
            continue
        text = header(stmt)
        ordinal = seen[text]
        seen[text] += 1
        yield stmt, mix(function, text, ordinal)


def _sites(
    stmt: ast.stmt, key: bytes, labels: Counter[str], makes_steps: IsStep
) -> Iterator[tuple[ast.Call, Site]]:
    main = set(_main(stmt))
    target = _target(stmt)
    found = [call for part in pieces(stmt) for call in calls(part) if makes_steps(call)]
    for index, call in enumerate(found):
        name = dotted(call.func) or "call"
        is_main = target is not None and call in main
        label = str(target) if is_main else f".{name}" if target else f"{name}@{call.lineno}"
        labels[f"{target} {label}"] += 1
        again = labels[f"{target} {label}"]
        label = f"{target}{{}}{label}" if target and not is_main else f"{label}{{}}"
        if again > 1 and (target or "@" not in label or is_main):
            label += f"#{again}"
        yield call, Site(mix(key, index), label, is_main)


def _target(stmt: ast.stmt) -> str | None:
    match stmt:
        case ast.Assign(targets=[ast.Name(id=tree.LINES)]):
            return None  # nobody wrote that name
        case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
            return next(targets(target), None)
        case ast.AugAssign():
            return next(targets(stmt.target), None)
        case ast.For():
            return next(targets(stmt.target), None)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name() as owner, attr=attr))):
            return owner.id if attr in {"append", "extend", "insert"} else None
        case ast.Return():
            return "return"
    return None


def _main(stmt: ast.stmt) -> Iterator[ast.expr]:
    """The expressions whose value the target receives."""
    match stmt:
        case ast.Assign() | ast.AnnAssign() | ast.Return() if stmt.value is not None:
            yield from _results(stmt.value)
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="append" | "insert")) as call):
            for arg in call.args:
                yield from _results(arg)


def _results(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.ListComp() | ast.GeneratorExp():
            yield from _results(node.elt)
        case ast.DictComp():
            yield from _results(node.value)
        case ast.IfExp():
            yield from _results(node.body)
            yield from _results(node.orelse)
        case ast.BoolOp():
            for part in node.values:
                yield from _results(part)
        case ast.Call(func=ast.Name(id="attempt"), args=[first, *_]):
            yield from _results(first)
        case _:
            yield node
