"""What a piece of a program may do, known from its text: steps, names read, what it touches.

Used by the evaluator for undecided regions and by `check` for its warnings. Paths known as
constants are followed through names assigned once. Knows nothing of values at run time, except the
constants handed in.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from edvac.core.signature import (
    NO_ACCESS,
    WILD,
    Access,
    Catalogue,
    Effect,
    Param,
    Role,
    Signature,
    unbracketed,
    unopened,
)
from edvac.program.program import Function
from edvac.program.tree import calls, dotted, names

LISTS = frozenset({"files.list"})  # the paths that these return match the pattern they were given


class Facts:
    """Answers about nodes, each computed once.

    Args:
        patterns: what is known of names that hold paths: a literal or a glob for each.
    """

    def __init__(
        self, catalogue: Catalogue, functions: dict[str, Function], patterns: dict[str, str]
    ) -> None:
        self.catalogue = catalogue
        self.functions = functions
        self.patterns = patterns
        self._ops: dict[ast.AST, tuple[tuple[ast.Call, Signature], ...]] = {}
        self._names: dict[ast.AST, frozenset[str]] = {}
        self._access: dict[ast.AST, Access] = {}

    def signature(self, call: ast.Call) -> Signature | None:
        """The device function that is called, or None for anything else."""
        if isinstance(call.func, ast.Attribute):
            return self.catalogue.signatures.get(dotted(call.func) or "")
        return None

    def function(self, call: ast.Call) -> Function | None:
        return self.functions.get(call.func.id) if isinstance(call.func, ast.Name) else None

    def names(self, node: ast.AST) -> frozenset[str]:
        """Every name in the piece."""
        found = self._names.get(node)
        if found is None:
            found = self._names[node] = names(node)
        return found

    def steps(self, node: ast.AST) -> tuple[tuple[ast.Call, Signature], ...]:
        """Every device call in the piece, those of the functions that it calls included."""
        found = self._ops.get(node)
        if found is None:
            found = self._ops[node] = tuple(self._find_steps(node))
        return found

    def _find_steps(self, node: ast.AST) -> Iterator[tuple[ast.Call, Signature]]:
        for call in calls(node):
            signature = self.signature(call)
            if signature is not None:
                yield call, signature
            function = self.function(call)
            if function is not None:
                for stmt in function.body:
                    yield from self.steps(stmt)

    def access(self, node: ast.AST) -> Access:
        """The union of what the piece may touch."""
        found = self._access.get(node)
        if found is None:
            found = NO_ACCESS
            for call, signature in self.steps(node):
                found = found.union(self.call_access(call, signature))
            self._access[node] = found
        return found

    def call_access(self, call: ast.Call, signature: Signature) -> Access:
        """What one device call may touch, from its text alone."""
        bound = bind_text(call, signature)
        return Access(
            tuple(p for name in signature.reads for p in self._patterns(bound, signature, name)),
            tuple(p for name in signature.writes for p in self._patterns(bound, signature, name)),
            signature.effect is Effect.EXTERNAL,
            tuple(self._named(bound[name], signature) for name in signature.names)
            + signature.turns,
            signature.barrier,
            signature.effect is not Effect.PURE,
        )

    def _named(self, node: ast.expr, signature: Signature) -> str:
        found = self.pattern(node)
        return f"{signature.device}:{'*' if found == WILD else found}"

    def _patterns(
        self, bound: dict[str, ast.expr], signature: Signature, name: str
    ) -> tuple[str, ...]:
        node, param = bound.get(name), signature.param(name)
        if node is not None:
            nodes = node.elts if isinstance(node, ast.List | ast.Tuple) else [node]
            return tuple(self._claim(part, param) for part in nodes)
        default = param.default if param is not None else None
        if isinstance(default, str):
            return (default,) if default else ()
        return tuple(default) if isinstance(default, list | tuple) else ()

    def _claim(self, node: ast.expr, param: Param | None) -> str:
        found = self.pattern(node)
        known = isinstance(node, ast.Constant) or param is None or not param.glob
        return found if known else unopened(found)

    def pattern(self, node: ast.expr) -> str:
        """A glob that every value of this path expression matches."""
        match node:
            case ast.Constant(value=str()):
                return str(node.value)
            case ast.Name():
                return self.patterns.get(node.id, WILD)
            case ast.JoinedStr():
                parts = [_part(value) for value in node.values]
                return _glob(parts)
            case ast.BinOp(op=ast.Add()):
                return _glob([self.pattern(node.left), self.pattern(node.right)])
            case ast.IfExp():
                left, right = self.pattern(node.body), self.pattern(node.orelse)
                return left if left == right else WILD
            case ast.Subscript():
                return self.elements(node.value)
        return WILD

    def elements(self, node: ast.expr) -> str:
        """A glob that every element of this list of paths matches."""
        match node:
            case ast.Name():
                return self.patterns.get(f"{node.id}[]", WILD)
            case ast.Call():
                signature = self.signature(node)
                if signature is not None and signature.op in LISTS and signature.reads:
                    found = self._patterns(
                        bind_text(node, signature), signature, signature.reads[0]
                    )
                    return found[0] if len(found) == 1 else WILD
                keeps = dotted(node.func) in {"sorted", "list", "reversed", "unique"}
                return self.elements(node.args[0]) if keeps and node.args else WILD
            case ast.Subscript(slice=ast.Slice()):
                return self.elements(node.value)
            case ast.ListComp(elt=ast.Name() as elt, generators=[one]):
                same = isinstance(one.target, ast.Name) and one.target.id == elt.id
                return self.elements(one.iter) if same else WILD
            case ast.List() | ast.Tuple() if len(node.elts) == 1:
                return self.pattern(node.elts[0])
        return WILD


def _part(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else "*"


def _glob(parts: list[str]) -> str:
    """Parts of a path in a row; an unknown part matches anything, and so do brackets."""
    text = unbracketed("".join("*" if part == WILD else part for part in parts))
    return WILD if not text.strip("*") else text


def bind_text(call: ast.Call, signature: Signature) -> dict[str, ast.expr]:
    """The operand expressions by parameter name; further ones of a variadic are left out."""
    bound: dict[str, ast.expr] = {}
    places = [param for param in signature.params if not param.keyword_only]
    for at, node in enumerate(call.args):
        if at < len(places) and not places[at].variadic:
            bound[places[at].name] = node
    bound.update({word.arg: word.value for word in call.keywords if word.arg is not None})
    return bound


def type_params(signature: Signature) -> frozenset[str]:
    """Names of the parameters that take a type."""
    return frozenset(param.name for param in signature.params if param.role is Role.TYPE)
