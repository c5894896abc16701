"""Changing a container: a new version of it, bound to the name that held the old one.

``xs.append(v)``, ``d[k] = v``, ``rows[0]["n"] += 1`` and ``groups.setdefault(k, []).append(v)`` all
rebuild the way from the name to the place that changes. A value that is only stored may be pending.
Knows nothing of aliases: `verify` has refused what Python would see through a second name.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edvac.core.label import PROGRAM, Label, combine
from edvac.core.value import Cell, Failed, Mapping, Operand, Scalar, Sequence, Value, settle
from edvac.program.apply import Blocked
from edvac.program.containers import Pending, reached, stored
from edvac.program.data import kind_name, python
from edvac.program.express import Expressions
from edvac.program.frame import Frame
from edvac.program.host import Unreached
from edvac.program.library import CHANGES
from edvac.program.tree import walk

Made = Callable[[Operand], Operand]


@dataclass(frozen=True, slots=True)
class _Step:
    """One part of the way: an index or key, and what ``setdefault`` puts where nothing is."""

    key: Operand
    default: Operand | None = None


class Mutations:
    """Carries out statements that change a container."""

    def __init__(self, on: Expressions) -> None:
        self._on = on

    def store(self, target: ast.Subscript, made: Made, frame: Frame) -> None:
        """``xs[a][b] = v``."""
        way = self._way(target, frame)
        self._change(target, way, made, frame)

    def augment(self, target: ast.Subscript, stmt: ast.AugAssign, frame: Frame) -> None:
        """``xs[a] += v``."""
        way = self._way(target, frame)
        by = self._on.value(stmt.value, frame)
        kind = type(stmt.op)

        def made(old: Operand) -> Operand:
            if _absent(old):
                raise KeyError(python(way[-1].key))
            shared = stmt in self._on.program.guarded
            return self.augmented(kind, old, by, stmt.lineno, shared=shared)

        self._change(target, way, made, frame)

    def augmented(
        self,
        kind: type[ast.operator],
        old: Operand,
        by: Operand,
        line: int,
        *,
        shared: bool = False,
    ) -> Operand:
        """``old OP= by``: like the operator, but ``+=`` extends a list by anything."""

        def extended(values: list[Any], label: Label) -> Operand:
            a, b = values
            if shared and (isinstance(a, Mapping) or (isinstance(a, Sequence) and not a.fixed)):
                return self._refused(label, line)
            if kind is ast.Add and isinstance(a, Sequence) and not a.fixed:
                return self._on.calls.native(CHANGES["list.extend"], [a, b], {}, line)
            return self._on.operate(kind, a, b, line)

        return self._on.apply.shallow([old, by], line, extended)

    def _refused(self, label: Label, line: int) -> Failed:
        """`verify` could not know that this is a list. Python would change it for every name that
        reaches it, so the failure is kept even if this name gets another value."""
        what = f"line {line}: `+=` would change a list that may be reached by another name. "
        failed = Failed("", "container_shared", what + "Write xs = xs + [...].", label)
        self._on.unreached.append(Unreached(failed, (), (), line))
        return failed

    def call(self, node: ast.Call, func: ast.Attribute, frame: Frame) -> Operand:
        """``xs.append(v)``; the value that the call has in Python."""
        line = node.lineno
        way = self._way(func.value, frame)
        args = [self._on.calls.argument(arg, frame) for arg in node.args]
        words = {str(w.arg): self._on.calls.argument(w.value, frame) for w in node.keywords}
        taken: list[Operand] = []

        def made(old: Operand) -> Operand:
            if _absent(old):
                raise KeyError(python(way[-1].key))
            holder = reached(old)
            if isinstance(holder, Failed):
                raise Blocked(holder)
            name = f"{kind_name(holder)}.{func.attr}"
            found = CHANGES.get(name)
            if found is None:
                raise TypeError(f"{kind_name(holder)} has no method {func.attr} that changes it")
            result = self._on.calls.native(found, [holder, *args], words, line)
            if not found.name.endswith((".pop", ".setdefault")):
                return result
            return self._half(result, 1, line)

        def read(values: list[Any], label: Label) -> Operand:
            found = CHANGES.get(f"{kind_name(values[0])}.{func.attr}")
            if found is None or not found.name.endswith((".pop", ".setdefault")):
                return Scalar(None, PROGRAM)
            result = self._on.calls.native(found, [values[0], *args], words, line)
            return self._half(result, 0, line)

        holder = self._on.value(func.value, frame) if not _calls(func.value) else None
        if holder is not None:
            taken.append(self._on.apply.shallow([holder], line, read))
        self._change(func.value, way, made, frame)
        return taken[0] if taken else Scalar(None, PROGRAM)

    def _half(self, pair: Operand, at: int, line: int) -> Operand:
        """What the call gives, raised by the shape that decided it, or the new container."""

        def half(values: list[Any], label: Label) -> Operand:
            found: Operand = values[0].items[at]
            return found if at else self._on.flow.raised(found, label)

        return self._on.apply.shallow([pair], line, half)

    def _way(self, node: ast.expr, frame: Frame) -> list[_Step]:
        """The keys from the name to the place, evaluated in Python's order."""
        match node:
            case ast.Subscript():
                return [*self._way(node.value, frame), _Step(self._on.value(node.slice, frame))]
            case ast.Call(func=ast.Attribute() as func):
                inner = self._way(func.value, frame)
                key, *rest = [self._on.value(arg, frame) for arg in node.args]
                return [*inner, _Step(key, rest[0] if rest else Scalar(None, PROGRAM))]
        return []

    def _change(self, node: ast.expr, way: list[_Step], made: Made, frame: Frame) -> None:
        name = _name(node)
        old = frame.names[name]
        line = node.lineno
        frame.names[name] = self._on.flow.raised(self._changed(old, way, made, line), frame.pc)

    def _changed(self, old: Operand, way: list[_Step], made: Made, line: int) -> Operand:
        """The new version, once everything on the way is known."""
        keys = [step.key for step in way]
        pending = [here for here in map(settle, [old, *keys]) if isinstance(here, Cell)]
        if pending:
            return self._on.flow.defer(pending, lambda: self._changed(old, way, made, line))
        here = [one for one in map(settle, [old, *keys]) if not isinstance(one, Cell)]
        label = combine([one.label for one in here])
        failed = next((one for one in here if isinstance(one, Failed)), None)
        if failed is not None:
            return self._on.apply.guarded(lambda: _raise(failed), label, line)
        try:
            run = lambda: self._rebuilt(here[0], way, made, line)  # noqa: E731
            return self._on.apply.guarded(run, label, line)
        except Pending as pending_part:
            cell = pending_part.cell
            return self._on.flow.defer([cell], lambda: self._changed(old, way, made, line))

    def _rebuilt(self, holder: Value, way: list[_Step], made: Made, line: int) -> Operand:
        """`holder` with `made` of the place that changes; every container on the way is copied."""
        self._on.apply.fuel.spend(1 + (_size(holder) >> 6 if way else 0), line)
        if not way:
            return made(holder)
        step, rest = way[0], way[1:]
        key = reached(step.key)

        def inner(old: Operand) -> Operand:
            if _absent(old) and step.default is not None:
                old = step.default
            if not rest:
                return made(old)
            if _absent(old):
                raise KeyError(python(key))
            part = reached(old)
            if isinstance(part, Failed):
                raise Blocked(part)
            return self._rebuilt(part, rest, made, line)

        return stored(holder, key, inner)


def _absent(old: Operand) -> bool:
    """Is this what `stored` hands over for a key that the dict lacks?"""
    return isinstance(old, Failed) and old.code == "key_missing" and not old.what


def _raise(failed: Failed) -> Operand:
    raise Blocked(failed)


def _calls(node: ast.expr) -> bool:
    return any(isinstance(part, ast.Call) for part in walk(node))


def _name(node: ast.expr) -> str:
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Subscript | ast.Attribute):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            raise TypeError("only a name's container can be changed")
    return node.id


def _size(value: Value) -> int:
    match value:
        case Sequence():
            return len(value.items)
        case Mapping():
            return 2 * len(value.entries)
    return 1
