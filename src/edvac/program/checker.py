"""Types of expressions, and whether every name, operand and field in them exists.

Gradual: what cannot be known is `any` and checked when the step is issued. Knows nothing of
statements.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from edvac.core.schema import (
    ANY,
    BOOL,
    DATE,
    INT,
    NONE,
    STR,
    Choice,
    DictOf,
    ListOf,
    Maybe,
    Plain,
    Quoted,
    Record,
    TupleOf,
    Type,
    show,
)
from edvac.program.basics import item_type
from edvac.program.calls import CallChecker
from edvac.program.containers import DATE_PARTS
from edvac.program.infer import binary_type, compare_clash, joined, widened
from edvac.program.library import FUNCTIONS, NAMESPACES
from edvac.program.native import Native
from edvac.program.previous import PREVIOUS
from edvac.program.refusal import fail
from edvac.program.scope import Scope, nearest
from edvac.program.tree import dotted


class Checker:
    """Infers types of expressions; `types` keeps what was found for each node."""

    def __init__(self) -> None:
        self._calls = CallChecker(self)
        self._lambda = 0
        self.types: dict[ast.expr, Type] = {}
        self._kinds: dict[type[ast.expr], Callable[[Any, Scope], Type]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.List: self._list,
            ast.Tuple: self._tuple,
            ast.Dict: self._dict,
            ast.BinOp: self._binary,
            ast.UnaryOp: self._unary,
            ast.BoolOp: self._bool,
            ast.Compare: self._compare,
            ast.IfExp: self._conditional,
            ast.Subscript: self._subscript,
            ast.Attribute: self._attribute,
            ast.JoinedStr: self._joined,
            ast.Call: self._call,
            ast.ListComp: self._comprehension,
            ast.GeneratorExp: self._comprehension,
            ast.DictComp: self._comprehension,
            ast.Lambda: self._lone_lambda,
        }

    def type(self, node: ast.expr, scope: Scope, *, consumed: str = "") -> Type:
        """The type of an expression; `consumed` says which iterators may stand here: "stream",
        "view", or none.

        Raises:
            ProgramError: it is certainly wrong.
        """
        kind = "stream" if isinstance(node, ast.GeneratorExp) else ""
        if isinstance(node, ast.Call):
            kind = self._calls.iterator(node, scope)
        if kind and consumed not in ("stream", kind):
            what = f"{ast.unparse(node)[:40]} is an iterator and not a list"
            fail(
                node,
                "iterator_kept",
                what,
                "Python lets it be used only once.",
                f"Write list({ast.unparse(node)[:40]}).",
            )
        infer = self._kinds.get(type(node))
        if infer is None:
            fail(node, "syntax_unsupported", f"{ast.unparse(node)[:40]} cannot stand here")
        found = infer(node, scope)
        known = self.types.get(node)
        self.types[node] = found if known is None else joined(known, found)
        return found

    @property
    def in_lambda(self) -> bool:
        return self._lambda > 0

    # -- atoms

    def _constant(self, node: ast.Constant, scope: Scope) -> Type:
        match node.value:
            case None:
                return NONE
            case bool() | str() | int():
                return Choice((node.value,))
        return Plain("float")

    def _name(self, node: ast.Name, scope: Scope) -> Type:
        name = node.id
        if name in scope.names:
            return scope.names[name]
        if name in scope.uncertain:
            fail(
                node,
                "name_uncertain",
                f"{name} may have no value here",
                f"Line {scope.uncertain[name]} binds it only on some ways through the program.",
                f"Bind {name} before, for example {name} = None.",
            )
        if name in scope.catalogue.devices or name in NAMESPACES or name == "run":
            fail(
                node,
                "name_unfit",
                f"{name} is not a value",
                "It holds functions.",
                f"Call one of them: {name}.NAME(...).",
            )
        if name in scope.functions or name in FUNCTIONS:
            fail(node, "name_unfit", f"{name} is a function", "", f"Call it: {name}(...).")
        if name in scope.records:
            fail(node, "name_unfit", f"{name} is a type", "", f"Make one: {name}(...).")
        known = [*scope.names, *scope.functions, *FUNCTIONS, *scope.catalogue.devices]
        where = (
            " before its first use"
            if not scope.function
            else " (functions see only names bound once, above them)"
        )
        fail(node, "name_unknown", f"there is no {name}{where}", "", nearest(name, known))

    def _list(self, node: ast.List, scope: Scope) -> Type:
        kinds = [widened(self.type(part, scope)) for part in node.elts]
        return ListOf(_all(kinds))

    def _tuple(self, node: ast.Tuple, scope: Scope) -> Type:
        return TupleOf(tuple(widened(self.type(part, scope)) for part in node.elts))

    def _dict(self, node: ast.Dict, scope: Scope) -> Type:
        keys = [widened(self.type(key, scope)) for key in node.keys if key is not None]
        for kind, key in zip(keys, node.keys, strict=False):
            if isinstance(kind, ListOf | DictOf | TupleOf | Record) and key is not None:
                fail(
                    key,
                    "key_unfit",
                    f"a key is a {show(kind)}",
                    "Keys are texts and numbers.",
                    'Join the parts into one text: f"{a}|{b}".',
                )
        parts = [widened(self.type(part, scope)) for part in node.values]
        return DictOf(_all(parts), _all(keys))

    # -- operators

    def _binary(self, node: ast.BinOp, scope: Scope) -> Type:
        left, right = self.type(node.left, scope), self.type(node.right, scope)
        return self.operated(node, node.op, left, right)

    def operated(self, node: ast.AST, op: ast.operator, left: Type, right: Type) -> Type:
        """The type of an operation, also of ``+=``."""
        found = binary_type(op, left, right)
        if isinstance(found, str):
            what = f"{show(widened(left))} and {show(widened(right))}: {found}"
            fail(node, "operand_unfit", what)
        return found

    def _unary(self, node: ast.UnaryOp, scope: Scope) -> Type:
        kind = widened(self.type(node.operand, scope))
        if isinstance(node.op, ast.Not):
            return BOOL
        if kind == STR or isinstance(kind, ListOf | DictOf | Record):
            fail(node, "operand_unfit", f"a {show(kind)} has no sign")
        return INT if kind == BOOL else kind

    def _bool(self, node: ast.BoolOp, scope: Scope) -> Type:
        kinds = [widened(self.type(part, scope)) for part in node.values]
        return _all(kinds)

    def _compare(self, node: ast.Compare, scope: Scope) -> Type:
        left = self.type(node.left, scope)
        for op, part in zip(node.ops, node.comparators, strict=True):
            inside = "view" if isinstance(op, ast.In | ast.NotIn) else ""
            right = self.type(part, scope, consumed=inside)
            wrong = compare_clash(op, left, right)
            if wrong is not None:
                what = f"{show(widened(left))} and {show(widened(right))}: {wrong}"
                fail(node, "operand_unfit", what)
            left = right
        return BOOL

    def _conditional(self, node: ast.IfExp, scope: Scope) -> Type:
        self.type(node.test, scope)
        return joined(self.type(node.body, scope), self.type(node.orelse, scope))

    # -- parts

    def _subscript(self, node: ast.Subscript, scope: Scope) -> Type:
        holder = widened(self.type(node.value, scope))
        if isinstance(node.slice, ast.Slice):
            for part in (node.slice.lower, node.slice.upper, node.slice.step):
                if part is not None:
                    self.type(part, scope)
            if isinstance(holder, DictOf | Record):
                fail(node, "operand_unfit", f"a {show(holder)} has no slices")
            return ANY if isinstance(holder, TupleOf) else holder
        key = self.type(node.slice, scope)
        match holder:
            case DictOf():
                return holder.item
            case TupleOf() if isinstance(node.slice, ast.Constant):
                at = node.slice.value
                inside = isinstance(at, int) and -len(holder.items) <= at < len(holder.items)
                return holder.items[at] if inside and isinstance(at, int) else ANY
            case ListOf() | Plain("str"):
                if widened(key) == STR:
                    fail(node, "operand_unfit", f"a {show(holder)} is indexed by a number")
                return item_type(holder)
            case Record():
                fail(
                    node,
                    "operand_unfit",
                    f"a {holder.name} is a record",
                    "",
                    f"Write {ast.unparse(node.value)[:40]}.FIELD.",
                )
            case Plain() if holder != ANY:
                fail(node, "operand_unfit", f"a {show(holder)} has no parts")
        return ANY

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Type:
        name = dotted(node) or ""
        if name == "run.date":
            return DATE
        if name == "run.previous":
            return PREVIOUS
        if isinstance(node.value, ast.Name) and node.value.id not in scope.names:
            owner = node.value.id
            if owner == "run":
                fail(
                    node,
                    "name_unknown",
                    f"there is no {name}",
                    "",
                    "There are run.date and run.previous.",
                )
            if owner in scope.catalogue.devices or owner in NAMESPACES:
                fail(node, "name_unfit", f"{name} is a function", "", f"Call it: {name}(...).")
        return self.field(node, self.type(node.value, scope), node.attr)

    def field(self, node: ast.AST, kind: Type, name: str) -> Type:
        """The type of a field."""
        match kind:
            case Record():
                found = kind.field(name)
                if found is None:
                    known = [part.name for part in kind.fields]
                    fail(
                        node,
                        "field_unknown",
                        f"{kind.name} has no field {name}",
                        "",
                        nearest(name, known),
                    )
                return found.type
            case Maybe():
                inner = kind.item
                return self.field(node, inner, name) if isinstance(inner, Record) else ANY
            case Quoted() if name in ("value", "quote"):
                return kind.item if name == "value" else STR
            case Plain("date") if name in DATE_PARTS:
                return INT
            case Plain("any"):
                return ANY
            case DictOf():
                fail(
                    node,
                    "field_unknown",
                    f"a dict has no field {name}",
                    "",
                    f'Write ["{name}"] instead of .{name}.',
                )
        fields = {"Quoted": "value and .quote", "date": "year, .month and .day"}
        has = fields.get("Quoted" if isinstance(kind, Quoted) else show(widened(kind)))
        hint = f"It has .{has}." if has else ""
        fail(node, "field_unknown", f"a {show(widened(kind))} has no field {name}", "", hint)

    def _joined(self, node: ast.JoinedStr, scope: Scope) -> Type:
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.type(part.value, scope)
                if isinstance(part.format_spec, ast.JoinedStr):
                    self._joined(part.format_spec, scope)
        return STR

    # -- bodies

    def _call(self, node: ast.Call, scope: Scope) -> Type:
        return self._calls.type(node, scope)

    def _comprehension(
        self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp, scope: Scope
    ) -> Type:
        inner = scope.fork()
        for gen in node.generators:
            kind = self.iterable(gen.iter, inner)
            self.bind(gen.target, item_type(kind), inner)
            for test in gen.ifs:
                self.type(test, inner)
        if isinstance(node, ast.DictComp):
            key = widened(self.type(node.key, inner))
            return DictOf(widened(self.type(node.value, inner)), key)
        return ListOf(widened(self.type(node.elt, inner)))

    def iterable(self, node: ast.expr, scope: Scope) -> Type:
        """The type of a collection that a loop runs over."""
        kind = widened(self.type(node, scope, consumed="stream"))
        wrong = kind in (BOOL, INT, Plain("float"), Plain("Decimal"), DATE, NONE)
        if wrong or isinstance(kind, Record | Quoted):
            fix = "Write range(n)." if kind == INT else ""
            fail(node, "operand_unfit", f"a {show(kind)} cannot be looped over", "", fix)
        return kind

    def bind(self, target: ast.expr, kind: Type, scope: Scope) -> None:
        """Bind a target to a value of a type."""
        match target:
            case ast.Name():
                scope.bind(target.id, widened(kind))
            case ast.Tuple() | ast.List():
                self._unpack(target, kind, scope)
            case ast.Subscript():
                self.type(target, scope)

    def _unpack(self, target: ast.Tuple | ast.List, kind: Type, scope: Scope) -> None:
        if isinstance(kind, TupleOf) and len(kind.items) != len(target.elts):
            what = f"{len(kind.items)} values do not unpack into {len(target.elts)} names"
            fail(target, "operand_unfit", what)
        for at, part in enumerate(target.elts):
            inner = kind.items[at] if isinstance(kind, TupleOf) else item_type(kind)
            self.bind(part, inner, scope)

    def _lone_lambda(self, node: ast.Lambda, scope: Scope) -> Type:
        fail(
            node,
            "lambda_kept",
            "a lambda stands alone",
            "It may only be an operand of a library function, like sorted(xs, key=lambda x: ...).",
            "Write a function with def.",
        )

    def callback(self, node: ast.expr, scope: Scope, item: Type) -> Type:
        """The result type of a function that is passed on."""
        match node:
            case ast.Lambda():
                inner = scope.fork()
                params = [param.arg for param in node.args.args]
                for param in params:
                    inner.bind(param, item if len(params) == 1 else ANY)
                self._lambda += 1
                try:
                    return self.type(node.body, inner)
                finally:
                    self._lambda -= 1
            case ast.Name() if node.id in scope.functions:
                self._calls.pure(node, node.id, scope)
                return scope.results.get(node.id, ANY)
        found: Native | None = FUNCTIONS.get(dotted(node) or "")
        if found is not None:
            return found.result_type([item])
        return self.type(node, scope)


def _all(kinds: list[Type]) -> Type:
    if not kinds:
        return ANY
    found = kinds[0]
    for kind in kinds[1:]:
        found = joined(found, kind)
    return found
