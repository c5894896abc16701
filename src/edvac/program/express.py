"""Evaluation of expressions: leniently, so that what is pending holds up only what reads it.

Every method returns an operand at once; a cell stands for what is not known yet. Knows nothing of
statements, or of how steps are executed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import Any

from edvac.core.errors import FuelError, InternalError
from edvac.core.label import PROGRAM, Label, combine
from edvac.core.signature import NO_ACCESS
from edvac.core.value import (
    Cell,
    Failed,
    Mapping,
    Operand,
    Scalar,
    Sequence,
    Value,
    settle,
)
from edvac.program.apply import Apply
from edvac.program.calling import Calls
from edvac.program.claims import narrowed
from edvac.program.containers import attribute, item, sliced, truth
from edvac.program.data import python
from edvac.program.facts import Facts
from edvac.program.flow import Flow
from edvac.program.frame import Frame
from edvac.program.host import Host, Unreached
from edvac.program.operate import COMPARE, binary, format_field, unary
from edvac.program.program import Program
from edvac.program.stepping import Steps
from edvac.program.tree import dotted

Decide = Callable[[Value, Frame], Operand]


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
        self.calls = Calls(self)
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
            ast.Call: self.calls.value,
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
        known = {**self.top.names, **later.names} if later.function else later.names
        access = narrowed(self.program, self.facts, node, known)
        return self.host.open_region(later.orders.prefix, access)

    def close(self, token: int | None) -> None:
        if token is not None:
            self.host.close_region(token)

    def skipped(self, node: ast.AST, failed: Failed, frame: Frame, line: int) -> None:
        """Remember calls that a failed decision kept from being made."""
        ops = tuple(dict.fromkeys(signature.op for _, signature in self.facts.steps(node)))
        if ops:
            self.unreached.append(Unreached(failed, ops, frame.orders.take(), line))
        self.passed([node], failed.label, frame)

    def passed(self, nodes: Iterable[ast.AST], decider: Label, frame: Frame) -> None:
        """Tell of files that a way not taken might have written (rule 2)."""
        access = NO_ACCESS
        for node in nodes:
            access = access.union(self.facts.access(node)) if self.facts.steps(node) else access
        if access.writes:
            self.host.passed(frame.orders.last, access, frame.pc.steer(decider))

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
                self.passed(node.values[at + 1 :], decider, inner)
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
                self.passed(node.comparators[at + 1 :], here.label, inner)
                return here
            decider = here.label.cap(1)
            rest = self._compare_from(node, at + 1, right, inner.under(decider))
            return self.flow.raised(rest, decider)

        return self.branch(node, one, frame, decide)

    def _compared(self, op: ast.cmpop, left: Operand, right: Operand, line: int) -> Operand:
        whole = settle(right)
        if isinstance(op, ast.In | ast.NotIn) and isinstance(whole, Cell):
            # Which way to look into it is known with it: a dict is never gone through.
            return self.flow.defer([whole], lambda: self._compared(op, left, whole, line))
        if isinstance(op, ast.In | ast.NotIn) and isinstance(whole, Mapping):
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
            arm, other = (node.body, node.orelse)[:: 1 if truth(here) else -1]
            self.passed([other], decider, inner)
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


def _is_none(value: Value) -> bool:
    return isinstance(value, Scalar) and value.data is None


def _unset(body: tuple[ast.stmt, ...], frame: Frame) -> None:
    raise InternalError("evaluator_unwired", "expressions were evaluated without statements")


def _unset_value(node: ast.expr, frame: Frame) -> Operand:
    raise InternalError("evaluator_unwired", "expressions were evaluated without comprehensions")
