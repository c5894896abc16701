"""Evaluation of expressions: leniently, so that what is pending holds up only what reads it.

Every method returns an operand at once; a cell stands for what is not known yet. Knows nothing of
statements, or of how steps are executed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edvac.core.errors import FuelError, InternalError
from edvac.core.label import PROGRAM, Label, combine
from edvac.core.value import (
    Cell,
    Failed,
    Instance,
    Mapping,
    Operand,
    Scalar,
    Sequence,
    Value,
    completed,
    settle,
)
from edvac.program.apply import Apply, Blocked, Known, NativeCall
from edvac.program.containers import attribute, item, sliced, truth
from edvac.program.data import RecordView, python
from edvac.program.facts import Facts
from edvac.program.flow import Flow
from edvac.program.frame import Frame
from edvac.program.host import Host, Unreached
from edvac.program.library import FUNCTIONS, METHODS
from edvac.program.native import Mode, Native
from edvac.program.operate import COMPARE, binary, format_field, unary
from edvac.program.program import Program
from edvac.program.stepping import Steps
from edvac.program.tree import RETURNED, dotted

Decide = Callable[[Value, Frame], Operand]


@dataclass(slots=True, eq=False)
class Closure:
    """A lambda or a function given to a pure function, with what it captured."""

    params: list[str]
    body: ast.expr | str  # an expression, or the name of a user or library function
    names: dict[str, Operand]
    frame: Frame


class Expressions:
    """Evaluates expressions; `run_body` evaluates the statements of a user function."""

    def __init__(
        self,
        program: Program,
        host: Host,
        flow: Flow,
        apply: Apply,
        facts: Facts,
        *,
        top: Frame,
    ) -> None:
        self.program = program
        self.host = host
        self.flow = flow
        self.apply = apply
        self.facts = facts
        self.top = top
        self.steps = Steps(program, host, flow, facts)
        self.unreached: list[Unreached] = []
        self.constants: dict[str, Value] = {}
        self.run_body: Callable[[tuple[ast.stmt, ...], Frame], None] = _unset
        self.comprehend: Callable[[ast.expr, Frame], Operand] = _unset_value
        self._kinds: dict[type[ast.expr], Callable[[Any, Frame], Operand]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.List: self._list,
            ast.Tuple: self._list,
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
        }

    def extend(self, program: Program, facts: Facts) -> None:
        """Read from a longer text of the same program from now on."""
        self.program = program
        self.facts = facts
        self.steps.extend(program, facts)

    def value(self, node: ast.expr, frame: Frame) -> Operand:
        """The operand that an expression stands for."""
        return self._kinds[type(node)](node, frame)

    def _comprehension(self, node: ast.expr, frame: Frame) -> Operand:
        return self.comprehend(node, frame)

    # -- decisions

    def branch(self, node: ast.expr, test: Operand, frame: Frame, decide: Decide) -> Operand:
        """`decide(known test, frame)` now, or in a region of its own once the test is known."""
        here = settle(test)
        if not isinstance(here, Cell):
            return decide(here, frame)
        order = frame.orders.take()
        later = frame.split(order, self.facts.names(node))
        token = self.open(node, later)

        def go() -> Operand:
            try:
                found = settle(here)
                assert not isinstance(found, Cell)
                return decide(found, later)
            except FuelError as problem:
                return self.apply.out_of_fuel(problem)
            finally:
                self.close(token)

        return self.flow.defer([here], go)

    def open(self, node: ast.AST, later: Frame) -> int | None:
        """Announce that steps of the piece may still appear; None where it has none."""
        if not self.facts.steps(node):
            return None
        return self.host.open_region(later.orders.prefix, self.facts.access(node))

    def close(self, token: int | None) -> None:
        if token is not None:
            self.host.close_region(token)

    def skipped(self, node: ast.AST, failed: Failed, frame: Frame, line: int) -> None:
        """Remember calls that a failed decision kept from being made."""
        ops = tuple(dict.fromkeys(signature.op for _, signature in self.facts.steps(node)))
        if ops:
            self.unreached.append(Unreached(failed, ops, frame.orders.take(), line))

    # -- atoms and containers

    def _constant(self, node: ast.Constant, frame: Frame) -> Operand:
        return Scalar(node.value, PROGRAM)  # type: ignore[arg-type]

    def _name(self, node: ast.Name, frame: Frame) -> Operand:
        found = frame.names.get(node.id)
        if found is None:
            found = self.top.names.get(node.id)
        if found is None:
            raise InternalError("name_unbound", f"{node.id} was read before it was bound")
        return found

    def _list(self, node: ast.List | ast.Tuple, frame: Frame) -> Operand:
        items = tuple(self.value(part, frame) for part in node.elts)
        return Sequence(items, PROGRAM, fixed=isinstance(node, ast.Tuple))

    def _dict(self, node: ast.Dict, frame: Frame) -> Operand:
        pairs = [
            (self.value(key, frame), self.value(part, frame))
            for key, part in zip(node.keys, node.values, strict=True)
            if key is not None
        ]
        return self.mapping(pairs, PROGRAM, node.lineno)

    def mapping(self, pairs: list[tuple[Operand, Operand]], shape: Label, line: int) -> Operand:
        """A dict of these pairs once its keys are known; they are part of its shape."""
        if not pairs:
            return Mapping({}, shape)

        def build(keys: list[Any], label: Label) -> Operand:
            entries = {python(key): part for key, (_, part) in zip(keys, pairs, strict=True)}
            self.apply.lifted(dict.fromkeys(entries), label, line)  # refuses unfit keys, charges
            return Mapping(entries, combine([shape, label]))

        return self.apply.strict([key for key, _ in pairs], line, build)

    # -- operators

    def _binary(self, node: ast.BinOp, frame: Frame) -> Operand:
        left, right = self.value(node.left, frame), self.value(node.right, frame)
        return self.operate(type(node.op), left, right, node.lineno)

    def operate(
        self, kind: type[ast.operator], left: Operand, right: Operand, line: int
    ) -> Operand:
        """``left OP right``; lists are joined and repeated by their shape alone."""

        def known(values: list[Any], label: Label) -> Operand:
            a, b = values
            if isinstance(a, Scalar) and isinstance(b, Scalar):
                made = binary(kind, a.data, b.data, self.apply.fuel, line)
                return self.apply.lifted(made, label, line)
            lists = isinstance(a, Sequence) and isinstance(b, Sequence)
            if kind is ast.Add and lists and a.fixed is b.fixed:
                self.apply.fuel.make(16 * (len(a.items) + len(b.items)), line)
                return Sequence((*a.items, *b.items), label, fixed=a.fixed)
            if kind is ast.Mult:
                return self._repeated(a, b, label, line)
            if kind is ast.BitOr and isinstance(a, Mapping) and isinstance(b, Mapping):
                self.apply.fuel.make(32 * (len(a.entries) + len(b.entries)), line)
                return Mapping({**a.entries, **b.entries}, label)
            return self.apply.data(
                [a, b], line, lambda x, y: binary(kind, x, y, self.apply.fuel, line)
            )

        return self.apply.shallow([left, right], line, known)

    def _repeated(self, left: Value, right: Value, label: Label, line: int) -> Operand:
        for body, times in ((left, right), (right, left)):
            if isinstance(body, Sequence) and isinstance(times, Scalar):
                if not isinstance(times.data, int):
                    break
                self.apply.fuel.make(16 * len(body.items) * max(times.data, 0), line)
                return Sequence(tuple(body.items) * times.data, label, fixed=body.fixed)
        raise TypeError("only a text or a list can be repeated, and only by an int")

    def _unary(self, node: ast.UnaryOp, frame: Frame) -> Operand:
        inner = self.value(node.operand, frame)
        if isinstance(node.op, ast.Not):
            return self.apply.shallow(
                [inner],
                node.lineno,
                lambda values, label: Scalar(not truth(values[0]), label.cap(1)),
            )
        return self.apply.data([inner], node.lineno, lambda data: unary(node.op, data))

    def _bool(self, node: ast.BoolOp, frame: Frame) -> Operand:
        return self._bool_from(node, 0, frame)

    def _bool_from(self, node: ast.BoolOp, at: int, frame: Frame) -> Operand:
        left = self.value(node.values[at], frame)
        if at == len(node.values) - 1:
            return left

        def decide(here: Value, inner: Frame) -> Operand:
            if isinstance(here, Failed):
                self.skipped(node, here, inner, node.lineno)
                return here
            decider = here.label.cap(1)
            if truth(here) is isinstance(node.op, ast.Or):
                return self.flow.raised(here, decider)
            rest = self._bool_from(node, at + 1, inner.under(decider))
            return self.flow.raised(rest, decider)

        return self.branch(node, left, frame, decide)

    def _compare(self, node: ast.Compare, frame: Frame) -> Operand:
        return self._compare_from(node, 0, self.value(node.left, frame), frame)

    def _compare_from(self, node: ast.Compare, at: int, left: Operand, frame: Frame) -> Operand:
        right = self.value(node.comparators[at], frame)
        one = self._compared(node.ops[at], left, right, node.lineno)
        if at == len(node.ops) - 1:
            return one

        def decide(here: Value, inner: Frame) -> Operand:
            if isinstance(here, Failed) or not truth(here):
                return here
            decider = here.label.cap(1)
            rest = self._compare_from(node, at + 1, right, inner.under(decider))
            return self.flow.raised(rest, decider)

        return self.branch(node, one, frame, decide)

    def _compared(self, op: ast.cmpop, left: Operand, right: Operand, line: int) -> Operand:
        if isinstance(op, ast.In | ast.NotIn) and isinstance(settle(right), Mapping):
            return self.apply.shallow(
                [left, right],
                line,
                lambda values, label: Scalar(
                    (python(values[0]) in values[1].entries) is isinstance(op, ast.In),
                    label.cap(1),
                ),
            )
        if isinstance(op, ast.Is | ast.IsNot):
            return self.apply.shallow(
                [left],
                line,
                lambda values, label: Scalar(
                    _is_none(values[0]) is isinstance(op, ast.Is), label.cap(1)
                ),
            )
        return self.apply.data([left, right], line, COMPARE[type(op)])

    def _conditional(self, node: ast.IfExp, frame: Frame) -> Operand:
        def decide(here: Value, inner: Frame) -> Operand:
            if isinstance(here, Failed):
                self.skipped(node, here, inner, node.lineno)
                return here
            decider = here.label.cap(1)
            arm = node.body if truth(here) else node.orelse
            return self.flow.raised(self.value(arm, inner.under(decider)), decider)

        return self.branch(node, self.value(node.test, frame), frame, decide)

    # -- parts

    def _subscript(self, node: ast.Subscript, frame: Frame) -> Operand:
        holder = self.value(node.value, frame)
        if isinstance(node.slice, ast.Slice):
            bounds = [
                Scalar(None, PROGRAM) if part is None else self.value(part, frame)
                for part in (node.slice.lower, node.slice.upper, node.slice.step)
            ]
            return self.slice([holder, *bounds], node.lineno)
        return self.item(holder, self.value(node.slice, frame), node.lineno)

    def slice(self, parts: list[Operand], line: int) -> Operand:
        """``holder[a:b:c]``, charged for what it copies."""

        def cut(values: list[Any], label: Label) -> Operand:
            made = sliced(values, label)
            size = 16 * len(made.items) if isinstance(made, Sequence) else len(python(made))
            self.apply.fuel.make(size, line)
            return made

        return self.apply.shallow(parts, line, cut)

    def item(self, holder: Operand, key: Operand, line: int) -> Operand:
        """``holder[key]``: the element, raised by the label of the shape and of the key."""
        return self.apply.shallow(
            [holder, key],
            line,
            lambda values, label: self.flow.raised(item(values[0], values[1]), label),
        )

    def _attribute(self, node: ast.Attribute, frame: Frame) -> Operand:
        found = self.constants.get(dotted(node) or "")
        if found is not None:
            return found
        return self.apply.shallow(
            [self.value(node.value, frame)],
            node.lineno,
            lambda values, label: self.flow.raised(attribute(values[0], node.attr), label),
        )

    def _joined(self, node: ast.JoinedStr, frame: Frame) -> Operand:
        parts: list[tuple[int, int]] = []  # conversion and number of spec parts; -1 for plain text
        operands: list[Operand] = []
        for piece in node.values:
            if isinstance(piece, ast.FormattedValue):
                operands.append(self.value(piece.value, frame))
                spec = piece.format_spec
                operands.append(Scalar("", PROGRAM) if spec is None else self.value(spec, frame))
                parts.append((piece.conversion, 1))
            else:
                operands.append(self.value(piece, frame))
                parts.append((0, -1))

        def build(*data: Any) -> str:
            left = iter(data)
            made = [
                str(next(left)) if kind < 0 else format_field(next(left), conversion, next(left))
                for conversion, kind in parts
            ]
            return "".join(made)

        return self.apply.data(operands, node.lineno, build)

    # -- calls

    def _call(self, node: ast.Call, frame: Frame) -> Operand:
        signature = self.facts.signature(node)
        if signature is not None:
            args, words = self._operands(node, frame, skip_types=True)
            return self.steps.make(node, signature, args, words, frame)
        if isinstance(node.func, ast.Name):
            name = node.func.id
            if name in self.program.functions:
                return self._call_user(node, name, frame)
            if name in self.program.records:
                return self._construct(node, name, frame)
        elif isinstance(node.func, ast.Attribute):
            name = dotted(node.func) or ""
            if name not in FUNCTIONS:
                return self._call_method(node, node.func, frame)
        args, words = self._operands(node, frame)
        return self.call_native(FUNCTIONS[name], args, words, node.lineno)

    def _operands(
        self, node: ast.Call, frame: Frame, skip_types: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        signature = self.facts.signature(node) if skip_types else None
        kinds = self.steps.type_places(node, signature) if signature else frozenset()
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
                inner = self.facts.names(node.body) - set(params)
                return Closure(params, node.body, self._captured(inner, frame), frame)
            case ast.Name() if node.id in self.program.functions:
                function = self.program.functions[node.id]
                read = frozenset[str]().union(*map(self.facts.names, function.body))
                captured = self._captured(read, frame)
                return Closure(list(function.params), node.id, captured, frame)
            case ast.Name() | ast.Attribute() if (dotted(node) or "") in FUNCTIONS:
                if not (isinstance(node, ast.Name) and self._bound(node.id, frame)):
                    return Closure([], dotted(node) or "", {}, frame)
        return self.value(node, frame)

    def _bound(self, name: str, frame: Frame) -> bool:
        return name in frame.names or name in self.top.names

    def _captured(self, read: frozenset[str], frame: Frame) -> dict[str, Operand]:
        """What a closure reads, through the functions that it calls as well."""
        found: dict[str, Operand] = {}
        todo, seen = list(read), set(read)
        while todo:
            name = todo.pop()
            function = self.program.functions.get(name)
            if function is not None:
                inner = frozenset[str]().union(*map(self.facts.names, function.body)) - seen
                seen |= inner
                todo.extend(inner)
            operand = frame.names.get(name, self.top.names.get(name))
            if operand is not None:
                found[name] = operand
        return found

    def call_native(
        self, found: Native, args: list[Any], words: dict[str, Any], line: int
    ) -> Operand:
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
        return self.apply.native(found, known, call)

    def _callable(self, one: Closure, line: int) -> Callable[..., Value]:
        return lambda *values: self._invoke(one, values, line)

    def _invoke(self, closure: Closure, values: tuple[Value, ...], line: int) -> Value:
        """Run a closure on complete values: everything that it reads is known by now."""
        self.apply.fuel.spend(1, line)
        frame = closure.frame.split(closure.frame.orders.prefix, ())
        frame.names.update(closure.names)
        if isinstance(closure.body, str) and closure.body in self.program.functions:
            found = self.enter(closure.body, dict(zip(closure.params, values, strict=False)), frame)
        elif isinstance(closure.body, str):
            found = self.call_native(FUNCTIONS[closure.body], list(values), {}, line)
        else:
            if len(values) != len(closure.params):
                raise TypeError(f"a lambda takes {len(closure.params)} operands, got {len(values)}")
            frame.names.update(zip(closure.params, values, strict=True))
            found = self.value(closure.body, frame)
        done = completed(found)
        if isinstance(done, Failed):
            raise Blocked(done)
        return done

    def _call_method(self, node: ast.Call, func: ast.Attribute, frame: Frame) -> Operand:
        holder = self.value(func.value, frame)
        args, words = self._operands(node, frame)
        name, line = func.attr, node.lineno

        def known(values: list[Any], label: Label) -> Operand:
            found = METHODS.get(f"{kind_name(values[0])}.{name}")
            if found is None:
                raise TypeError(f"{kind_name(values[0])} has no method {name}")
            return self.call_native(found, [values[0], *args], words, line)

        return self.apply.shallow([holder], line, known)

    def _construct(self, node: ast.Call, name: str, frame: Frame) -> Operand:
        record = self.program.records[name]
        order = [part.name for part in record.fields]
        given = dict(zip(order, (self.value(arg, frame) for arg in node.args), strict=False))
        for word in node.keywords:
            given[str(word.arg)] = self.value(word.value, frame)
        return Instance(name, {key: given[key] for key in order}, PROGRAM)

    def _call_user(self, node: ast.Call, name: str, frame: Frame) -> Operand:
        function = self.program.functions[name]
        args = [self.value(arg, frame) for arg in node.args]
        given = dict(zip(function.params, args, strict=False))
        for word in node.keywords:
            given[str(word.arg)] = self.value(word.value, frame)
        self.apply.fuel.spend(1, node.lineno)
        return self.enter(name, given, self.steps.inside(node, frame))

    def enter(self, name: str, given: dict[str, Operand], frame: Frame) -> Operand:
        """Run a user function in a frame of its own."""
        function = self.program.functions[name]
        names: dict[str, Operand] = {RETURNED: Scalar(None, PROGRAM)}
        for param in function.params:
            operand = given.get(param)
            if operand is None:
                operand = self.value(function.defaults[param], frame)
            names[param] = self.flow.raised(operand, frame.pc)
        inner = Frame(names, frame.orders, frame.pc, frame.path, frame.within, "", name)
        self.run_body(function.body, inner)
        return inner.names[RETURNED]


def kind_name(value: Value) -> str:
    """The Python name of a value's kind, under which its methods are registered."""
    match value:
        case Scalar():
            return type(value.data).__name__ if value.data is not None else "None"
        case Sequence():
            return "tuple" if value.fixed else "list"
        case Mapping():
            return "dict"
        case Instance():
            return value.record
    return "failed"


def _is_none(value: Value) -> bool:
    return isinstance(value, Scalar) and value.data is None


def _unset(body: tuple[ast.stmt, ...], frame: Frame) -> None:
    raise InternalError("evaluator_unwired", "expressions were evaluated without statements")


def _unset_value(node: ast.expr, frame: Frame) -> Operand:
    raise InternalError("evaluator_unwired", "expressions were evaluated without comprehensions")


__all__ = ["Closure", "Expressions", "Mode", "RecordView", "kind_name"]
