"""What is known of paths before anything runs: names bound once to a literal, a parameter or a
listing.

Knows nothing of devices beyond which of them list paths.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence

from edvac.core.signature import WILD
from edvac.core.value import Scalar, Value
from edvac.program.facts import Facts
from edvac.program.program import Program
from edvac.program.tree import assigned, targets, walk

_BINDING = (
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.Expr,
    ast.For,
    ast.comprehension,
    ast.arg,
)
_PASSES = 12  # names that follow from each other; what takes more stays unknown


def known_patterns(program: Program, params: dict[str, Value]) -> dict[str, str]:
    """A glob for each name that holds a path, and ``name[]`` for a list of paths.

    Only names count of which every place that binds them says the same: then the glob holds
    wherever the name is read.
    """
    bodies = [list(program.statements), *(list(f.body) for f in program.functions.values())]
    values = {name: params.get(name, info.default) for name, info in program.params.items()}
    patterns: dict[str, str] = {}
    facts = Facts(program.catalogue, program.functions, patterns)
    bound: Counter[str] = Counter()
    for function in program.functions.values():
        bound.update(function.params)
    binding = [node for body in bodies for node in walk(*body) if isinstance(node, _BINDING)]
    for node in binding:
        bound.update(_binds(node))
    for name, value in values.items():
        if bound[name] == 1 and isinstance(value, Scalar) and isinstance(value.data, str):
            patterns[name] = value.data
    given = dict(patterns)
    for _ in range(_PASSES):
        claims = _claims(binding, facts)
        known = {
            name: found[0] for name, found in claims.items() if _agree(found, bound[_bare(name)])
        }
        if patterns == known | given:
            break
        patterns.update(known | given)
    return patterns


def _binds(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.Expr():
            yield from assigned([node])
        case ast.For() | ast.comprehension():
            yield from targets(node.target)
        case ast.arg():
            yield node.arg


def _claims(binding: Sequence[ast.AST], facts: Facts) -> dict[str, list[str]]:
    """For each name what is known of it at each place that binds it."""
    found: dict[str, list[str]] = {}
    for node in binding:
        for name, glob in _claimed(node, facts):
            found.setdefault(name, []).append(glob)
    return found


def _claimed(node: ast.AST, facts: Facts) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=made):
            yield name, facts.pattern(made)
            yield f"{name}[]", facts.elements(made)
        case (
            ast.For(target=ast.Name(id=name), iter=over)
            | ast.comprehension(target=ast.Name(id=name), iter=over)
        ):
            yield name, facts.elements(over)
        case (
            ast.For(target=ast.Tuple() as target, iter=ast.Call() as over)
            | ast.comprehension(target=ast.Tuple() as target, iter=ast.Call() as over)
        ):
            for part, of in zip(target.elts, _side_by_side(over), strict=False):
                if isinstance(part, ast.Name) and of is not None:
                    yield part.id, facts.elements(of)


def _side_by_side(over: ast.Call) -> list[ast.expr | None]:
    """What each name of ``for a, b in zip(xs, ys)`` or ``in enumerate(ys)`` goes through."""
    match over:
        case ast.Call(func=ast.Name(id="zip"), args=args, keywords=[]):
            return list(args)
        case ast.Call(func=ast.Name(id="enumerate"), args=[first, *_]):
            return [None, first]
    return []


def _agree(found: list[str], places: int) -> bool:
    return len(found) == places and len(set(found)) == 1 and found[0] != WILD


def _bare(name: str) -> str:
    return name.removesuffix("[]")
