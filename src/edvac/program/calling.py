"""Evaluation of calls: of devices as steps, of the program's functions, of pure functions.

What a pure function is given as a function becomes a closure, which runs on complete values. Knows
nothing of other expressions; it asks `Expressions` for the values of operands.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edvac.core.errors import InternalError
from edvac.core.label import PROGRAM, Label
from edvac.core.value import Failed, Instance, Operand, Scalar, Value, completed
from edvac.program.apply import Blocked, Known, NativeCall
from edvac.program.data import kind_name
from edvac.program.frame import Frame
from edvac.program.library import FUNCTIONS, METHODS
from edvac.program.native import Native
from edvac.program.tree import RETURNED, dotted

if TYPE_CHECKING:
    from edvac.program.express import Expressions


@dataclass(slots=True, eq=False)
class Closure:
    """A lambda or a function given to a pure function, with what it captured."""

    params: list[str]
    body: ast.expr | str  # an expression, or the name of a user or library function
    names: dict[str, Operand]
    frame: Frame


class Calls:
    """Evaluates calls for the expressions that it belongs to."""

    def __init__(self, on: Expressions) -> None:
        self._on = on

    def value(self, node: ast.Call, frame: Frame) -> Operand:
        """What the call gives: for a device's function the cell of a step."""
        signature = self._on.facts.signature(node)
        if signature is not None:
            args, words = self._operands(node, frame, skip_types=True)
            return self._on.steps.make(node, signature, args, words, frame)
        if isinstance(node.func, ast.Name):
            name = node.func.id
            if name in self._on.program.functions:
                return self._user(node, name, frame)
            if name in self._on.program.records:
                return self._construct(node, name, frame)
        elif isinstance(node.func, ast.Attribute):
            name = dotted(node.func) or ""
            if name not in FUNCTIONS:
                return self._method(node, node.func, frame)
        args, words = self._operands(node, frame)
        return self.native(FUNCTIONS[name], args, words, node.lineno)

    def _operands(
        self, node: ast.Call, frame: Frame, skip_types: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        signature = self._on.facts.signature(node) if skip_types else None
        kinds = self._on.steps.type_places(node, signature) if signature else frozenset()
        args = [None if arg in kinds else self.argument(arg, frame) for arg in node.args]
        words = {
            word.arg: self.argument(word.value, frame)
            for word in node.keywords
            if word.arg is not None and word.value not in kinds
        }
        return args, words

    def argument(self, node: ast.expr, frame: Frame) -> Any:
        """An operand, or the closure of a function that is passed on."""
        match node:
            case ast.Starred():
                raise InternalError("starred_reached", "a starred operand was not refused")
            case ast.Lambda():
                params = [param.arg for param in node.args.args]
                inner = self._on.facts.names(node.body) - set(params)
                return Closure(params, node.body, self._captured(inner, frame), frame)
            case ast.Name() if node.id in self._on.program.functions:
                function = self._on.program.functions[node.id]
                read = frozenset[str]().union(*map(self._on.facts.names, function.body))
                captured = self._captured(read, frame)
                return Closure(list(function.params), node.id, captured, frame)
            case ast.Name() | ast.Attribute() if (dotted(node) or "") in FUNCTIONS:
                if not (isinstance(node, ast.Name) and self._bound(node.id, frame)):
                    return Closure([], dotted(node) or "", {}, frame)
        return self._on.value(node, frame)

    def _bound(self, name: str, frame: Frame) -> bool:
        return name in frame.names or name in self._on.top.names

    def _captured(self, read: frozenset[str], frame: Frame) -> dict[str, Operand]:
        """What a closure reads, through the functions that it calls as well."""
        found: dict[str, Operand] = {}
        todo, seen = list(read), set(read)
        while todo:
            name = todo.pop()
            function = self._on.program.functions.get(name)
            if function is not None:
                inner = frozenset[str]().union(*map(self._on.facts.names, function.body)) - seen
                seen |= inner
                todo.extend(inner)
            operand = frame.names.get(name, self._on.top.names.get(name))
            if operand is not None:
                found[name] = operand
        return found

    def native(self, found: Native, args: list[Any], words: dict[str, Any], line: int) -> Operand:
        """A library function, a builtin or a method."""
        places = list(found.shape.parameters)
        known: list[Any] = []

        def place(name: str, one: Any) -> Any:
            if isinstance(one, Closure):
                known.extend(one.names.values())
                return self._callable(one, line)
            if name in found.lazy:
                return one
            known.append(one)
            return Known(len(known) - 1)

        names = [*places, *[""] * len(args)]
        placed = [place(name, one) for name, one in zip(names, args, strict=False)]
        call = NativeCall(line, placed, {key: place(key, one) for key, one in words.items()})
        return self._on.apply.native(found, known, call)

    def _callable(self, one: Closure, line: int) -> Callable[..., Value]:
        return lambda *values: self._invoke(one, values, line)

    def _invoke(self, closure: Closure, values: tuple[Value, ...], line: int) -> Value:
        """Run a closure on complete values: everything that it reads is known by now."""
        self._on.apply.fuel.spend(1, line)
        frame = closure.frame.split(closure.frame.orders.prefix, ())
        frame.names.update(closure.names)
        if isinstance(closure.body, str) and closure.body in self._on.program.functions:
            found = self._enter(
                closure.body, dict(zip(closure.params, values, strict=False)), frame
            )
        elif isinstance(closure.body, str):
            found = self.native(FUNCTIONS[closure.body], list(values), {}, line)
        else:
            if len(values) != len(closure.params):
                raise TypeError(f"a lambda takes {len(closure.params)} operands, got {len(values)}")
            frame.names.update(zip(closure.params, values, strict=True))
            found = self._on.value(closure.body, frame)
        done = completed(found)
        if isinstance(done, Failed):
            raise Blocked(done)
        return done

    def _method(self, node: ast.Call, func: ast.Attribute, frame: Frame) -> Operand:
        holder = self._on.value(func.value, frame)
        args, words = self._operands(node, frame)
        name, line = func.attr, node.lineno

        def known(values: list[Any], label: Label) -> Operand:
            found = METHODS.get(f"{kind_name(values[0])}.{name}")
            if found is None:
                raise TypeError(f"{kind_name(values[0])} has no method {name}")
            return self.native(found, [values[0], *args], words, line)

        return self._on.apply.shallow([holder], line, known)

    def _construct(self, node: ast.Call, name: str, frame: Frame) -> Operand:
        record = self._on.program.records[name]
        order = [part.name for part in record.fields]
        given = dict(zip(order, (self._on.value(arg, frame) for arg in node.args), strict=False))
        for word in node.keywords:
            given[str(word.arg)] = self._on.value(word.value, frame)
        return Instance(name, {key: given[key] for key in order}, PROGRAM)

    def _user(self, node: ast.Call, name: str, frame: Frame) -> Operand:
        function = self._on.program.functions[name]
        args = [self._on.value(arg, frame) for arg in node.args]
        given = dict(zip(function.params, args, strict=False))
        for word in node.keywords:
            given[str(word.arg)] = self._on.value(word.value, frame)
        self._on.apply.fuel.spend(1, node.lineno)
        return self._enter(name, given, self._on.steps.inside(node, frame))

    def _enter(self, name: str, given: dict[str, Operand], frame: Frame) -> Operand:
        """Run a user function in a frame of its own."""
        function = self._on.program.functions[name]
        names: dict[str, Operand] = {RETURNED: Scalar(None, PROGRAM)}
        for param in function.params:
            operand = given.get(param)
            if operand is None:
                operand = self._on.value(function.defaults[param], frame)
            names[param] = self._on.flow.raised(operand, frame.pc)
        inner = Frame(names, frame.orders, frame.pc, frame.path, frame.within, "", name)
        self._on.run_body(function.body, inner)
        return inner.names[RETURNED]
