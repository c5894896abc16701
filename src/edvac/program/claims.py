"""What an undecided piece of a program may touch, given the values that names hold where it stands.

`Facts` knows only the text, in which the path of ``files.write(part.path, ...)`` may be any. Once
`part` is known, so is the path, also inside the functions that the piece calls; then what stands
after the piece need not wait for it. A name that the piece itself binds is followed only where a
loop or a comprehension goes through a known list. Everything else stays as wide as the text says.

Knows nothing of regions or of who asks.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from edvac.core.label import PROGRAM
from edvac.core.schema import Record
from edvac.core.signature import NO_ACCESS, Access, Signature
from edvac.core.value import Cell, Failed, Instance, Operand, Scalar, Sequence, open_cells, settle
from edvac.program.facts import Facts, bind_text
from edvac.program.program import Function, Program
from edvac.program.tree import assigned, children, targets, walk

MOST = 1000  # elements of a list that are followed one by one
Known: TypeAlias = Mapping[str, Operand]
Claim: TypeAlias = tuple[ast.Call, Signature, Access]


class Claims:
    """Answers for one piece."""

    def __init__(
        self, facts: Facts, outside: frozenset[str], records: Mapping[str, Record]
    ) -> None:
        self._facts = facts
        self._outside = outside
        self._records = records

    def calls(self, node: ast.AST, known: Known) -> Iterator[Claim]:
        """The device calls that the piece may make, each as often as something else is known of
        it; `known` are names with their values."""
        return self._of(node, self._kept([node], known))

    def constants(self, block: Iterable[ast.stmt]) -> Known:
        """The names that hold the same plain data whenever they are read."""
        often = Counter(
            name
            for stmt in block
            for node in walk(stmt)
            if isinstance(node, ast.stmt) and not isinstance(node, ast.If | ast.For)
            for name in assigned([node], self._outside)
        )
        found: dict[str, Operand] = {}
        for stmt in block:
            match stmt:
                case ast.Assign(targets=[ast.Name(id=name)], value=made) if often[name] == 1:
                    value = self._value(made, found)
                    if value is not None:
                        found[name] = value
        return found

    def _of(self, node: ast.AST, known: Known) -> Iterator[Claim]:
        if not self._facts.steps(node):
            return
        match node:
            case ast.Call():
                signature = self._facts.signature(node)
                if signature is not None:
                    yield node, signature, self._call(node, signature, known)
                function = self._facts.function(node)
                if function is not None:
                    yield from self._entered(node, function, known)
            case ast.For(target=ast.Name(id=name), iter=over):
                yield from self._of(over, known)
                for each in self._each(name, over, known):
                    for stmt in node.body:
                        yield from self._of(stmt, self._kept(node.body, each))
                return
            case ast.ListComp(generators=[one]) | ast.GeneratorExp(generators=[one]):
                if isinstance(one.target, ast.Name):
                    yield from self._of(one.iter, known)
                    for each in self._each(one.target.id, one.iter, known):
                        for part in (*one.ifs, node.elt):
                            yield from self._of(part, each)
                    return
        for child in children(node):
            yield from self._of(child, known)

    def _kept(self, block: Iterable[ast.AST], known: Known) -> Known:
        """What is still known inside: not the names that the block binds."""
        bound: set[str] = set()
        for inner in walk(*block):
            if isinstance(inner, ast.stmt):
                bound.update(assigned([inner], self._outside))
            elif isinstance(inner, ast.comprehension):
                bound.update(targets(inner.target))
        return {name: one for name, one in known.items() if name not in bound}

    def _each(self, name: str, over: ast.expr, known: Known) -> Iterator[Known]:
        """What is known in each pass through a loop."""
        found = self._value(over, known)
        outer = {key: one for key, one in known.items() if key != name}
        if not isinstance(found, Sequence) or len(found.items) > MOST:
            yield outer
            return
        for item in found.items:
            yield {**outer, name: item}

    def _entered(self, call: ast.Call, function: Function, known: Known) -> Iterator[Claim]:
        given = dict(zip(function.params, call.args, strict=False))
        given |= {word.arg: word.value for word in call.keywords if word.arg is not None}
        inside: dict[str, Operand] = {}
        for param, node in given.items():
            value = self._value(node, known)
            if value is not None:
                inside[param] = value
        kept = self._kept(function.body, inside)
        for stmt in function.body:
            yield from self._of(stmt, kept)

    # -- one call

    def _call(self, call: ast.Call, signature: Signature, known: Known) -> Access:
        text = self._facts.call_access(call, signature)
        if not text.wide:
            return text
        bound = bind_text(call, signature)
        reads = self._paths(signature, signature.reads, bound, known)
        writes = self._paths(signature, signature.writes, bound, known)
        return replace(
            text,
            reads=text.reads if reads is None else reads,
            writes=text.writes if writes is None else writes,
        )

    def _paths(
        self,
        signature: Signature,
        params: Iterable[str],
        bound: dict[str, ast.expr],
        known: Known,
    ) -> tuple[str, ...] | None:
        """The paths of these operands; None where one of them is not known."""
        found: list[str] = []
        for name in params:
            node, param = bound.get(name), signature.param(name)
            if node is None:
                default = param.default if param is not None else None
                found += [default] if isinstance(default, str) and default else default or []
                continue
            value = self._value(node, known)
            if value is None:
                return None
            for one in value.items if isinstance(value, Sequence) else [value]:
                one = settle(one)
                if not isinstance(one, Scalar) or not isinstance(one.data, str):
                    return None
                found.append(one.data)
        return tuple(found)

    def _value(self, node: ast.expr, known: Known) -> Operand | None:
        """What a plain expression stands for, where that is known in full."""
        match node:
            case ast.Constant(value=str() as text):
                return Scalar(text, PROGRAM)
            case ast.Name(id=name):
                found = settle(known[name]) if name in known else None
            case ast.Attribute(value=inner, attr=field):
                holder = self._value(inner, known)
                found = holder.fields.get(field) if isinstance(holder, Instance) else None
            case ast.List() | ast.Tuple():
                items = [self._value(part, known) for part in node.elts]
                if any(item is None for item in items):
                    return None
                return Sequence(tuple(item for item in items if item is not None), PROGRAM)
            case ast.Call(func=ast.Name(id=name)) if name in self._records:
                found = self._record(node, self._records[name], known)
            case _:
                return None
        if found is None or isinstance(settle(found), Cell | Failed) or open_cells(found):
            return None
        return settle(found)

    def _record(self, node: ast.Call, kind: Record, known: Known) -> Operand | None:
        given = dict(zip((field.name for field in kind.fields), node.args, strict=False))
        given |= {word.arg: word.value for word in node.keywords if word.arg is not None}
        fields: dict[str, Operand] = {}
        for name, part in given.items():
            value = self._value(part, known)
            if value is not None:
                fields[name] = value  # the others are asked for in vain
        return Instance(kind.name, fields, PROGRAM)


def narrowed(program: Program, facts: Facts, node: ast.AST, known: Known) -> Access:
    """What a piece may touch: by its text, or closer where that says anything might be."""
    text = facts.access(node)
    if not text.wide:
        return text
    read = facts.names(node)
    claims = Claims(facts, program.outside, program.records)
    found = NO_ACCESS
    for _, _, one in claims.calls(node, {key: one for key, one in known.items() if key in read}):
        found = found.union(one)
    return found
