"""Verification of statements: definitions where they stand, then each statement's types, names and
aliases.

Knows nothing of how errors are collected.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from edvac.core.errors import ProgramError
from edvac.core.schema import ANY, INT, NONE, STR, DictOf, ListOf, Record, TupleOf, Type, show
from edvac.program.alias import Aliases
from edvac.program.annotate import read_type
from edvac.program.basics import item_type
from edvac.program.checker import Checker
from edvac.program.infer import clashes, joined, widened
from edvac.program.library import CHANGES
from edvac.program.limits import CALL_NESTING
from edvac.program.program import Function, Program
from edvac.program.refusal import fail
from edvac.program.scope import Scope
from edvac.program.source import Source
from edvac.program.tree import (
    RETURNED,
    assigned,
    calls,
    children,
    dotted,
    is_param,
    mutation,
    root,
    walk,
)

Report: TypeAlias = Callable[[ProgramError], None]


class Statements:
    """Walks the statements of one program."""

    def __init__(self, program: Program, source: Source, report: Report) -> None:
        self._program = program
        self._source = source
        self._report = report
        self._checker = Checker()
        self._depth: dict[str, int] = {}
        self._outside = program.outside
        self.scope = Scope(program.catalogue, records=program.records)
        self.aliases = Aliases(program.catalogue, self._checker.types)

    def run(self) -> None:
        """Verify everything, definitions where they stand."""
        lowered = iter(self._program.statements)
        states: dict[str, int] = {}
        for stmt in self._source.tree.body:
            if isinstance(stmt, ast.ClassDef):
                continue
            if isinstance(stmt, ast.FunctionDef):
                self._guarded(stmt, functools.partial(self._define, stmt))
                continue
            here = next(lowered)
            self._guarded(here, functools.partial(self._top, here, states))

    @functools.cached_property
    def _bound_at_top(self) -> Counter[str]:
        """How often each name is bound outside functions."""
        top = [
            stmt
            for stmt in self._source.tree.body
            if not isinstance(stmt, ast.FunctionDef | ast.ClassDef)
        ]
        return Counter(
            name
            for node in walk(*top)
            if isinstance(node, ast.stmt) and not isinstance(node, ast.If)
            for name in assigned([node], self._outside)
        )

    def _top(self, stmt: ast.stmt, states: dict[str, int]) -> None:
        self._statement(stmt, self.scope, top=True)
        self.aliases.block([stmt], states)

    def _guarded(self, stmt: ast.stmt, run: Callable[[], None]) -> None:
        """Report an error of the statement and go on as if it had bound `any`."""
        try:
            run()
        except ProgramError as error:
            self._report(error)
            for name in assigned([stmt], self._outside):
                self.scope.bind(name, ANY)

    def _define(self, node: ast.FunctionDef) -> None:
        function = self._program.functions[node.name]
        local = set(function.params) | set(assigned(function.body, self._outside))
        seen = {
            name: kind
            for name, kind in self.scope.names.items()
            if self._bound_at_top[name] == 1 and name not in local
        }
        inner = replace(self.scope, names=seen, uncertain={}, function=function.name)
        for param in function.params:
            inner.bind(param, function.types.get(param, ANY))
        inner.bind(RETURNED, NONE)
        self._block(function.body, inner)
        result = inner.names.get(RETURNED, ANY)
        if function.result is not None:
            if clashes(result, function.result):
                what = f"{node.name} gives a {show(widened(result))}, not a {show(function.result)}"
                fail(node, "operand_unfit", what)
            result = function.result
        self.aliases.function(function)
        self._bound_depth(node, function)
        self.scope.functions[node.name] = function
        self.scope.results[node.name] = widened(result)

    def _bound_depth(self, node: ast.FunctionDef, function: Function) -> None:
        deepest = _depth(node)
        called = [dotted(call.func) or "" for call in calls(node)]
        deepest += max((self._depth.get(name, 0) for name in called), default=0)
        if deepest > CALL_NESTING:
            fail(
                node,
                "program_too_deep",
                "functions call each other too deeply",
                "",
                "Put the parts of the work into statements at top level.",
            )
        self._depth[function.name] = deepest

    # -- statements

    def _block(self, block: tuple[ast.stmt, ...] | list[ast.stmt], scope: Scope) -> None:
        for stmt in block:
            self._statement(stmt, scope)

    def _statement(self, stmt: ast.stmt, scope: Scope, *, top: bool = False) -> None:
        match stmt:
            case ast.Assign():
                self._assign(stmt, scope, top=top)
            case ast.AnnAssign():
                self._annotated(stmt, scope)
            case ast.AugAssign():
                old = self._checker.type(stmt.target, scope)
                self._checker.types[stmt.target] = widened(old)
                by = self._checker.type(stmt.value, scope, consumed="view")
                lists = isinstance(widened(old), ListOf) and isinstance(stmt.op, ast.Add)
                kind = old if lists else self._checker.operated(stmt, stmt.op, old, by)
                if isinstance(stmt.target, ast.Name):
                    scope.bind(stmt.target.id, widened(kind))
            case ast.Expr():
                self._expression(stmt, scope)
            case ast.If():
                self._checker.type(stmt.test, scope)
                arms = scope.fork(), scope.fork()
                self._block(stmt.body, arms[0])
                self._block(stmt.orelse, arms[1])
                scope.meet(arms[0], arms[1], stmt.lineno)
            case ast.For():
                self._loop(stmt, scope)
            case ast.Return():
                kind = NONE if stmt.value is None else self._checker.type(stmt.value, scope)
                scope.bind(RETURNED, widened(kind))
            case ast.Pass():
                return
            case _:
                fail(stmt, "syntax_unsupported", "this statement is not part of the language")

    def _assign(self, stmt: ast.Assign, scope: Scope, *, top: bool) -> None:
        if is_param(stmt.value):
            if not top or len(stmt.targets) > 1 or not isinstance(stmt.targets[0], ast.Name):
                fail(
                    stmt,
                    "param_place",
                    "a parameter stands alone at top level",
                    "",
                    "Write `name = param(default)` at the left margin.",
                )
            name = stmt.targets[0].id
            if name in scope.names or name in scope.uncertain:
                fail(
                    stmt,
                    "param_place",
                    f"{name} is bound twice",
                    "",
                    "A parameter has one value; give one of them another name.",
                )
            scope.bind(name, self._program.params[name].type)
            return
        kind = self._change(stmt.value, scope)
        if kind is None:
            kind = self._checker.type(stmt.value, scope)
        for target in stmt.targets:
            if isinstance(target, ast.Subscript):
                self._element(target, kind, scope)
            else:
                self._checker.bind(target, kind, scope)

    def _element(self, target: ast.Subscript, kind: Type, scope: Scope) -> None:
        if root(target) is None:
            fail(target, "target_unfit", "only an element of a name can be assigned")
        holder = widened(self._checker.type(target.value, scope))
        self._checker.type(target.slice, scope)
        if holder in (STR, INT) or isinstance(holder, TupleOf | Record):
            fail(
                target, "target_unfit", f"a {show(holder)} does not change", "", "Build a new one."
            )

    def _annotated(self, stmt: ast.AnnAssign, scope: Scope) -> None:
        wanted = read_type(stmt.annotation, scope.records)
        if stmt.value is None:
            fail(
                stmt,
                "target_unfit",
                "the name is given a type and no value",
                "",
                "Assign a value on the same line.",
            )
        kind = self._checker.type(stmt.value, scope)
        if clashes(kind, wanted):
            fail(stmt, "operand_unfit", f"a {show(widened(kind))} is not a {show(wanted)}")
        self._checker.bind(stmt.target, wanted, scope)

    def _expression(self, stmt: ast.Expr, scope: Scope) -> None:
        node = stmt.value
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return  # a docstring
        if self._change(node, scope) is not None:
            return
        self._checker.type(node, scope)
        function = scope.functions
        if not any(
            dotted(call.func) in scope.catalogue.signatures or dotted(call.func) in function
            for call in calls(node)
        ):
            fail(
                stmt,
                "statement_idle",
                "this line computes a value and forgets it",
                "Pure code has no other effect than its value.",
                "Assign it to a name, or delete the line.",
            )

    def _change(self, node: ast.expr, scope: Scope) -> Type | None:
        """The type of what ``xs.append(v)`` gives; None where the expression changes nothing."""
        func = mutation(node)
        if func is None or not isinstance(node, ast.Call):
            return None
        name = root(func.value)
        if name in self._outside or name not in scope.names:
            return None
        holder = self._changed(func.value, scope)
        kind = {ListOf: "list", DictOf: "dict"}.get(type(holder), "")
        if not kind and holder != ANY:
            fail(
                node,
                "method_unknown",
                f"a {show(holder)} has no method {func.attr}",
                "It does not change.",
                "Build a new value.",
            )
        found = CHANGES.get(f"{kind}.{func.attr}") or CHANGES.get(f"list.{func.attr}")
        found = found or CHANGES.get(f"dict.{func.attr}")
        if found is None or (kind and f"{kind}.{func.attr}" not in CHANGES):
            fail(node, "method_unknown", f"a {kind or 'value'} has no method {func.attr}")
        for arg in [*node.args, *(word.value for word in node.keywords)]:
            if isinstance(arg, ast.Lambda):
                self._checker.callback(arg, scope, item_type(holder))
            else:
                self._checker.type(arg, scope, consumed="stream" if found.consumes else "")
        self._arity(node, found.shape)
        if func.attr == "pop":
            return holder.item if isinstance(holder, ListOf) else ANY
        return NONE if func.attr != "setdefault" else ANY

    def _changed(self, node: ast.expr, scope: Scope) -> Type:
        """The type of what a method changes; ``d.setdefault(k, [])`` may stand before it."""
        if isinstance(node, ast.Call) and mutation(node) is not None:
            for arg in node.args:
                self._checker.type(arg, scope)
            self._change(node, scope)
            return ANY
        return widened(self._checker.type(node, scope))

    def _arity(self, node: ast.Call, shape: inspect.Signature) -> None:
        try:
            words = {str(word.arg): None for word in node.keywords}
            shape.bind(None, *[None] * len(node.args), **words)
        except TypeError as problem:
            fail(node, "operand_count", str(problem))

    def _loop(self, stmt: ast.For, scope: Scope) -> None:
        kind = self._checker.iterable(stmt.iter, scope)
        before = scope.fork()
        start = scope.fork()
        for _ in range(4):
            body = start.fork()
            self._checker.bind(stmt.target, item_type(kind), body)
            self._block(stmt.body, body)
            merged = {
                name: joined(old, body.names.get(name, ANY)) for name, old in start.names.items()
            }
            if merged == start.names:
                break
            start.names = merged
        scope.names = start.names
        scope.meet(before, body, stmt.lineno)
        scope.names = {name: start.names[name] for name in scope.names}


def _depth(node: ast.AST) -> int:
    deepest = 0
    todo = [(node, 0)]
    while todo:
        here, depth = todo.pop()
        deepest = max(deepest, depth)
        todo.extend((child, depth + 1) for child in children(here))
    return deepest
