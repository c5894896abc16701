"""What a program touches, call by call, for those who are shown it before anything runs.

Knows nothing of values at run time, except of the plain data that the text hands to its functions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from edvac.core.signature import Access
from edvac.program.claims import Claims
from edvac.program.facts import Facts
from edvac.program.program import Program, Use
from edvac.program.tree import children, dotted

LOOPS = (ast.For, ast.ListComp, ast.GeneratorExp, ast.DictComp)


def find_uses(program: Program) -> Iterator[Use]:
    """The device calls in source order, with what each may touch."""
    facts = Facts(program.catalogue, program.functions, program.patterns)
    closer = _closer(program, facts)
    for stmt in program.statements:
        yield from _uses_in(stmt, facts, closer, isinstance(stmt, ast.For))
    for function in program.functions.values():
        for stmt in function.body:
            yield from _uses_in(stmt, facts, closer, True)


def _closer(program: Program, facts: Facts) -> dict[ast.Call, Access]:
    """What each call may touch, given the plain data that the program hands to functions."""
    wide = [stmt for stmt in program.statements if facts.access(stmt).wide]
    if not wide:
        return {}
    claims = Claims(facts, program.outside, program.records)
    known = claims.constants(program.statements)
    found: dict[ast.Call, dict[str, dict[str, None]]] = {}
    external: dict[ast.Call, bool] = {}
    for stmt in wide:
        for call, _, access in claims.calls(stmt, known):
            sides = found.setdefault(call, {"reads": {}, "writes": {}})
            sides["reads"].update(dict.fromkeys(access.reads))
            sides["writes"].update(dict.fromkeys(access.writes))
            external[call] = access.external
    return {
        call: Access(tuple(sides["reads"]), tuple(sides["writes"]), external[call])
        for call, sides in found.items()
    }


def _uses_in(
    node: ast.AST, facts: Facts, closer: dict[ast.Call, Access], repeated: bool
) -> Iterator[Use]:
    if isinstance(node, ast.Call):
        signature = facts.signature(node)
        if signature is not None:
            access = closer.get(node) or facts.call_access(node, signature)
            yield Use(dotted(node.func) or "", signature.effect, access, node.lineno, repeated)
    for child in children(node):
        yield from _uses_in(child, facts, closer, repeated or isinstance(node, LOOPS))
