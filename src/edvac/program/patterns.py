"""What is known of paths before anything runs: names bound once to a literal, a parameter or a
listing.

Knows nothing of devices beyond which of them list paths.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from edvac.core.signature import WILD
from edvac.core.value import Scalar, Value
from edvac.program.facts import Facts
from edvac.program.program import Program
from edvac.program.tree import assigned, targets


def known_patterns(program: Program, params: dict[str, Value]) -> dict[str, str]:
    """A glob for each name that holds a path, and ``name[]`` for a list of paths.

    Only names bound in one place count: then the glob holds wherever the name is read.
    """
    values = {name: params.get(name, info.default) for name, info in program.params.items()}
    bodies = [list(program.statements), *(list(f.body) for f in program.functions.values())]
    return find_patterns(program, bodies, values)


def find_patterns(
    program: Program, bodies: list[list[ast.stmt]], params: dict[str, Value]
) -> dict[str, str]:
    """The same for bodies that are not in the program yet."""
    patterns: dict[str, str] = {}
    facts = Facts(program.catalogue, program.functions, patterns)
    bound: Counter[str] = Counter()
    for function in program.functions.values():
        bound.update(function.params)
    for body in bodies:
        for node in (inner for stmt in body for inner in ast.walk(stmt)):
            bound.update(_binds(node))
    for name, value in params.items():
        if bound[name] == 1 and isinstance(value, Scalar) and isinstance(value.data, str):
            patterns[name] = value.data
    for body in bodies:
        for stmt in body:
            for node in ast.walk(stmt):
                _learn(node, facts, bound, patterns)
    return patterns


def _binds(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.Expr():
            yield from assigned([node])
        case ast.For() | ast.comprehension():
            yield from targets(node.target)
        case ast.arg():
            yield node.arg


def _learn(node: ast.AST, facts: Facts, bound: Counter[str], patterns: dict[str, str]) -> None:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]) if bound[name] == 1 and name not in patterns:
            _put(patterns, name, facts.pattern(node.value))
            _put(patterns, f"{name}[]", facts.elements(node.value))
        case ast.For(target=ast.Name(id=name)) | ast.comprehension(target=ast.Name(id=name)):
            found = facts.elements(node.iter)
            if bound[name] == 1 or patterns.get(name) == found:
                _put(patterns, name, found)


def _put(patterns: dict[str, str], name: str, found: str) -> None:
    if found != WILD:
        patterns[name] = found
