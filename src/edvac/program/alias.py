"""Who else can see a container: refuses a change that Python would show through a second name.

Here containers are values, in Python they are objects. The two agree as long as a container that is
changed is reached by one name only. For each name a state is followed through the program: `OWNED`
(nothing in it is reached otherwise), `SHALLOW` (the container is its own, what it holds may not
be), `SHARED`.

Knows nothing of evaluation.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeAlias

from edvac.core.schema import ANY, DictOf, ListOf, Type
from edvac.core.signature import Catalogue
from edvac.program.infer import mutable
from edvac.program.library import FUNCTIONS, METHODS
from edvac.program.native import Mode
from edvac.program.program import Function
from edvac.program.refusal import fail
from edvac.program.tree import dotted, mutation, root, targets

OWNED, SHALLOW, SHARED = 0, 1, 2
States: TypeAlias = dict[str, int]
Escapes: TypeAlias = list[tuple[str, int]]
GIVES_PART = frozenset({"attempt", "min", "max", "dict.get"})
STORES = frozenset({"append", "insert", "extend", "update", "setdefault"})


class Aliases:
    """Follows the states through bodies.

    Attributes:
        open: augmented assignments whose operand may be a shared list: decided when they run.
    """

    def __init__(self, catalogue: Catalogue, types: dict[ast.expr, Type]) -> None:
        self._devices = frozenset(catalogue.devices)
        self._types = types
        self._results: dict[str, int] = {}
        self._passes: dict[str, bool] = {}
        self._looped: frozenset[str] = frozenset()
        self.open: set[ast.AugAssign] = set()

    def function(self, function: Function) -> None:
        """Follow a function's body; what it returns is known to callers from then on."""
        states = dict.fromkeys(function.params, SHARED)
        self._params = frozenset(function.params)
        self._return = OWNED
        self._passed = False
        self.block(function.body, states)
        self._results[function.name] = self._return
        self._passes[function.name] = self._passed

    def block(self, block: tuple[ast.stmt, ...] | list[ast.stmt], states: States) -> None:
        """Follow statements in order.

        Raises:
            ProgramError: a shared container is changed.
        """
        for stmt in block:
            self._statement(stmt, states)

    def _statement(self, stmt: ast.stmt, states: States) -> None:
        match stmt:
            case ast.Assign():
                self._assign(stmt.targets, stmt.value, states)
            case ast.AnnAssign() if stmt.value is not None:
                self._assign([stmt.target], stmt.value, states)
            case ast.AugAssign():
                self._augment(stmt, states)
            case ast.Expr():
                if mutation(stmt.value) is not None:
                    self._change(stmt.value, states)
            case ast.If():
                arms = [dict(states), dict(states)]
                self.block(stmt.body, arms[0])
                self.block(stmt.orelse, arms[1])
                _merge(states, arms)
            case ast.For():
                self._loop(stmt, states)
            case ast.Return() if stmt.value is not None:
                self._returned(stmt.value, states)

    def _returned(self, value: ast.expr, states: States) -> None:
        """What leaves a function: a local container that nothing else reaches stays owned."""
        status, escapes = self._flow(value, states)
        if isinstance(value, ast.Name) and escapes:
            status = states.get(value.id, SHARED)
        outer = [name for name, _ in escapes if name in self._params or states.get(name, SHARED)]
        self._return = max(self._return, status)
        self._passed |= bool(outer)

    def _assign(self, places: list[ast.expr], value: ast.expr, states: States) -> None:
        func = mutation(value)
        if func is not None and (root(func.value) or "") in states:
            status = self._change(value, states)
        else:
            status, escapes = self._flow(value, states)
            self._escape(escapes, states)
        if len(places) > 1:
            status = SHARED
        for place in places:
            if isinstance(place, ast.Name):
                states[place.id] = status if self._mutable(value) else OWNED
                self._looped -= {place.id}
            elif isinstance(place, ast.Subscript):
                self._store(place, status, states)
            else:
                for name in targets(place):
                    states[name] = SHARED if self._mutable(value) else OWNED

    def _store(self, place: ast.Subscript, status: int, states: States) -> None:
        name = root(place)
        if name is None:
            return
        self._allow(place, name, deep=not isinstance(place.value, ast.Name), states=states)
        if status != OWNED:
            states[name] = max(states.get(name, SHARED), SHALLOW)

    def _augment(self, stmt: ast.AugAssign, states: States) -> None:
        target, kind = stmt.target, self._types.get(stmt.target, ANY)
        _, escapes = self._flow(stmt.value, states)
        name = root(target)
        if name is None or not mutable(kind):
            if name is not None and isinstance(target, ast.Subscript):
                deep = not isinstance(target.value, ast.Name)
                self._allow(target, name, deep=deep, states=states)
            return
        inside = isinstance(target, ast.Subscript)
        limit = OWNED if inside else SHALLOW
        known = isinstance(kind, ListOf | DictOf)
        if inside:
            deep = not isinstance(getattr(target, "value", None), ast.Name)
            self._allow(target, name, deep=deep, states=states)
        if states.get(name, SHARED) > limit or name in self._looped:
            if known:
                self._allow(target, name, deep=inside, states=states)
            self.open.add(stmt)
        if escapes:
            if isinstance(stmt.value, ast.Name):
                escapes = [(one, SHALLOW) for one, _ in escapes]
            self._escape(escapes, states)
            states[name] = max(states.get(name, SHARED), SHALLOW)

    def _change(self, node: ast.expr, states: States) -> int:
        """A changing method call; the state of what it gives."""
        func = mutation(node)
        assert func is not None and isinstance(node, ast.Call)
        name = root(func.value)
        if name is None or name in self._devices:
            return OWNED
        self._allow(node, name, deep=not isinstance(func.value, ast.Name), states=states)
        inner = func.value
        args = list(node.args) if func.attr in STORES else []
        if isinstance(inner, ast.Call) and len(inner.args) > 1:
            status, escapes = self._flow(inner.args[1], states)
            if status != OWNED or escapes:
                given = ast.unparse(inner.args[1])[:40]
                fail(
                    node,
                    "container_shared",
                    f"{given} is put into {name} and changed there",
                    "Containers are values here; Python would show the change through both names.",
                    f"Write {name}.setdefault(key, []) or a copy: list({given}).",
                )
        before = states.get(name, SHARED)
        for arg in args:
            status, escapes = self._flow(arg, states)
            if func.attr in ("extend", "update") and isinstance(arg, ast.Name):
                escapes = [(one, SHALLOW) for one, _ in escapes]
                status = SHALLOW if escapes else status
            self._escape(escapes, states)
            if status != OWNED or escapes:
                states[name] = max(states.get(name, SHARED), SHALLOW)
        return OWNED if before == OWNED and func.attr == "pop" else SHARED

    def _allow(self, node: ast.AST, name: str, *, deep: bool, states: States) -> None:
        if name in self._looped:
            fail(
                node,
                "container_shared",
                f"{name} is changed while a loop runs over it",
                "Python would see the change in the middle of the loop.",
                f"Loop over list({name}), or collect the changes in a new list.",
            )
        if states.get(name, SHARED) <= (OWNED if deep else SHALLOW):
            return
        part = f"a part of {name}" if deep else name
        fail(
            node,
            "container_shared",
            f"{part} is changed, and may be reached by another name",
            "Containers are values here; Python would show the change through the other name.",
            f"Make a copy first: {name} = list({name}) or {name}.copy(), or build a new one.",
        )

    def _loop(self, stmt: ast.For, states: States) -> None:
        _, escapes = self._flow(stmt.iter, states)
        if self._parts_mutable(stmt.iter):
            self._escape([(name, SHALLOW) for name, _ in escapes], states)
        looped = self._looped
        while True:
            before = dict(states)
            body = dict(states)
            for name in targets(stmt.target):
                body[name] = SHARED if self._parts_mutable(stmt.iter) else OWNED
            self._looped = looped | frozenset(_iterated(stmt.iter))
            self.block(stmt.body, body)
            _merge(states, [before, body])
            if states == before:
                break
        self._looped = looped

    def _escape(self, escapes: Escapes, states: States) -> None:
        for name, how in escapes:
            if name in states:
                states[name] = max(states[name], how)

    # -- where values go

    def _mutable(self, node: ast.expr) -> bool:
        return mutable(self._types.get(node, ANY))

    def _parts_mutable(self, node: ast.expr) -> bool:
        kind = self._types.get(node, ANY)
        return mutable(
            kind.item
            if isinstance(kind, ListOf)
            else kind.key
            if isinstance(kind, DictOf)
            else kind
        )

    def _flow(self, node: ast.expr, states: States) -> tuple[int, Escapes]:
        """State of the value, and which names it makes reachable otherwise: the container itself
        (`SHARED`) or what it holds (`SHALLOW`)."""
        if not isinstance(node, ast.GeneratorExp) and not self._mutable(node):
            return OWNED, []
        match node:
            case ast.Name():
                return SHARED, [(node.id, SHARED)]
            case ast.List() | ast.Tuple():
                return self._held(node.elts, states)
            case ast.Dict():
                return self._held(node.values, states)
            case ast.ListComp() | ast.GeneratorExp():
                return self._built(node.elt, node.generators, states)
            case ast.DictComp():
                return self._built(node.value, node.generators, states)
            case ast.Subscript():
                _, escapes = self._flow(node.value, states)
                cut = isinstance(node.slice, ast.Slice)
                return SHALLOW if cut else SHARED, [(name, SHALLOW) for name, _ in escapes]
            case ast.Attribute():
                _, escapes = self._flow(node.value, states)
                return SHARED, [(name, SHALLOW) for name, _ in escapes]
            case ast.IfExp():
                return _either([self._flow(node.body, states), self._flow(node.orelse, states)])
            case ast.BoolOp():
                return _either([self._flow(part, states) for part in node.values])
            case ast.BinOp():
                _, escapes = _either([self._flow(p, states) for p in (node.left, node.right)])
                return SHALLOW, [(name, SHALLOW) for name, _ in escapes]
            case ast.Call():
                return self._called(node, states)
        return OWNED, []

    def _held(self, parts: list[ast.expr], states: States) -> tuple[int, Escapes]:
        status, escapes = _either([self._flow(part, states) for part in parts])
        return min(status, SHALLOW), escapes

    def _built(
        self, part: ast.expr, generators: list[ast.comprehension], states: States
    ) -> tuple[int, Escapes]:
        inner = dict(states)
        outer: Escapes = []
        bound: set[str] = set()
        for gen in generators:
            outer += [(name, SHALLOW) for name, _ in self._flow(gen.iter, inner)[1]]
            bound |= set(targets(gen.target))
        inner.update(dict.fromkeys(bound, SHARED))
        status, escapes = self._flow(part, inner)
        kept = [(name, how) for name, how in escapes if name not in bound]
        if any(name in bound for name, _ in escapes):
            kept += outer
        return min(status, SHALLOW), kept

    def _one_is_plain(self, args: list[ast.expr]) -> bool:
        """Of several values, is one surely no list or dict?"""
        return len(args) > 1 and any(not mutable(self._types.get(arg, ANY)) for arg in args)

    def _called(self, node: ast.Call, states: States) -> tuple[int, Escapes]:
        args = [*node.args, *(word.value for word in node.keywords)]
        name = dotted(node.func) or ""
        if name.partition(".")[0] in self._devices:
            return OWNED, []
        if name in self._results:
            _, escapes = _either([self._flow(arg, states) for arg in args])
            return self._results[name], escapes if self._passes[name] else []
        native = FUNCTIONS.get(name)
        if native is None and isinstance(node.func, ast.Attribute):
            args.insert(0, node.func.value)
            found = [METHODS.get(f"{kind}.{node.func.attr}") for kind in ("dict", "list", "str")]
            native = next((one for one in found if one is not None), None)
        elif native is None:
            return self._held(args, states)  # a record
        if native is not None and native.mode is Mode.DATA:
            return OWNED, []
        if name in ("min", "max") and not node.keywords and self._one_is_plain(node.args):
            return OWNED, []  # what can be compared with a number or a text is no container
        args = [arg for arg in args if not isinstance(arg, ast.Lambda)]
        _, escapes = _either([self._flow(arg, states) for arg in args])
        if native is None or native.name in GIVES_PART:
            return SHARED, escapes
        return SHALLOW if escapes else OWNED, [(one, SHALLOW) for one, _ in escapes]


def _either(found: list[tuple[int, Escapes]]) -> tuple[int, Escapes]:
    status = max((one for one, _ in found), default=OWNED)
    return status, [escape for _, escapes in found for escape in escapes]


def _merge(states: States, arms: list[States]) -> None:
    for arm in arms:
        for name, state in arm.items():
            states[name] = max(states.get(name, OWNED), state)


def _iterated(node: ast.expr) -> Iterator[str]:
    """Names whose own container a loop walks over."""
    match node:
        case ast.Name():
            yield node.id
        case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS and FUNCTIONS[name].iterator:
            for arg in node.args:
                yield from _iterated(arg)
        case ast.Call(func=ast.Attribute(attr="keys" | "values" | "items") as func):
            found = root(func.value)
            if found is not None:
                yield found
        case ast.Subscript() | ast.Attribute():
            found = root(node)
            if found is not None and not isinstance(getattr(node, "slice", None), ast.Slice):
                yield found
