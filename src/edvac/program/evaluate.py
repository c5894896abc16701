"""The evaluator: a verified program in, steps out, values back.

Sequential to read, lenient to run: every statement is met in program order at once; what is pending
holds up only what reads it. A condition or a collection that is not known yet makes a *region*: the
names that it assigns become cells, and what follows goes on.

Does no I/O and never waits. Knows nothing of how steps are executed, of policies or of journals.
"""

from __future__ import annotations

import ast
import datetime as dt
import decimal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from edvac.core.errors import FuelError, InternalError
from edvac.core.label import PROGRAM, PUBLIC, Label, combine
from edvac.core.signature import Catalogue, Effect
from edvac.core.value import (
    Cell,
    Failed,
    Operand,
    Scalar,
    Value,
    completed,
    first_failure,
    open_cells,
    plain,
    settle,
    total_label,
)
from edvac.program.apply import Apply
from edvac.program.comprehend import Comprehensions
from edvac.program.containers import elements, truth
from edvac.program.express import Expressions
from edvac.program.facts import Facts
from edvac.program.flow import Flow
from edvac.program.frame import Frame, Orders
from edvac.program.fuel import Fuel
from edvac.program.host import Beyond, Branch, Condition, Host, Unreached
from edvac.program.identity import Elements, mix
from edvac.program.mutate import Mutations
from edvac.program.operate import ARITHMETIC
from edvac.program.patterns import known_patterns
from edvac.program.previous import no_previous
from edvac.program.program import Program
from edvac.program.tree import LINES, RETURNED, assigned, definite, is_param, mutation, root
from edvac.program.verify import parse

Run = Callable[[Value, Frame], None]
Block = tuple[ast.stmt, ...] | list[ast.stmt]
After = tuple[Block, int]  # what follows a statement: a block, from a place on


@dataclass(frozen=True, slots=True)
class Undecided:
    """An `if` whose condition waits for a step.

    Attributes:
        frame: what it will be evaluated in, with the names as they were when it was reached;
            `live` is the one around it, whose names go on.
    """

    stmt: ast.If
    frame: Frame
    live: Frame
    after: After


class Evaluator:
    """One evaluation of one program.

    Args:
        host: is told of steps and regions.
        params: values of the program's parameters that were set by whoever runs it.
        run_date: what ``run.date`` is; recorded once a run, so that a replay sees the same.
        previous: what ``run.previous`` is; recorded in the same way.
        grows: what lines that ``program.extend`` decides may call; without it none are added.
    """

    def __init__(
        self,
        program: Program,
        host: Host,
        params: dict[str, Value],
        run_date: dt.date,
        fuel: Fuel,
        *,
        previous: Value | None = None,
        grows: Catalogue | None = None,
    ) -> None:
        self.program = program
        self._grows, self._grown = grows, 0
        self._params = params
        self._fuel = fuel
        self._flow = Flow()
        self._top = Frame({}, Orders())
        self._outside = program.outside
        facts = self._facts_of(program)
        apply = Apply(self._flow, fuel, self._fuel_label, host.handled)
        on = Expressions(program, host, self._flow, apply, facts, top=self._top)
        self._on = on
        on.constants["run.date"] = Scalar(run_date, PROGRAM)
        on.constants["run.previous"] = previous or no_previous()
        on.run_body = self._run
        on.comprehend = Comprehensions(on, self._bind).evaluate
        self._mutations = Mutations(on)
        self._started = False
        self._met = 0  # statements of the program, so far

    def _facts_of(self, program: Program) -> Facts:
        patterns = known_patterns(program, self._params) if self._params else program.patterns
        return Facts(program.catalogue, program.functions, patterns)

    # -- the control unit's side

    def start(self, most: int | None = None) -> None:
        """Meet the statements, so many at most; announce every step that can be reached."""
        if self._started:
            raise InternalError("evaluator_restarted", "one evaluator evaluates once")
        self._started = True
        self.meet(most)

    @property
    def unmet(self) -> int:
        """How many statements of the program have not been met yet."""
        return len(self.program.statements) - self._met

    def meet(self, most: int | None = None) -> None:
        """Go on with the statements, so many at most. Steps of those that were met may run
        meanwhile: nothing below a line changes what it does."""
        statements = self.program.statements
        count = self.unmet if most is None else min(most, self.unmet)
        if not count:
            return
        with decimal.localcontext(ARITHMETIC):
            for at in range(self._met, self._met + count):
                self._one(statements, at, self._top)
            self._met += count
            if not self.unmet:
                self._await_lines()
            self._flow.drain()

    def extend(self, program: Program, decided_by: Label = PUBLIC) -> None:
        """Go on with a longer text of the same program: a planner has written more of it.

        Args:
            decided_by: label of what decided which lines these are; they and all after them stand
                under that decision.

        Raises:
            InternalError: the longer text does not begin with the one evaluated so far.
        """
        with decimal.localcontext(ARITHMETIC):
            self.meet()
            self._go_on(program, decided_by)
            self._flow.drain()

    def _go_on(self, program: Program, decided_by: Label) -> None:
        if not program.text.startswith(self.program.text):
            raise InternalError("program_replaced", "a program was extended by another one")
        self.program = replace(
            program,
            sites=self.program.sites | program.sites,
            conditions=self.program.conditions | program.conditions,
        )
        self._on.extend(self.program, self._facts_of(self.program))
        self._top.pc = self._top.pc.steer(decided_by)
        self.meet()

    def _await_lines(self) -> None:
        """Where the program decides on lines of its own: go on with them once they are known."""
        made = self._top.names.get(LINES)
        if self._grows is not None and made is not None:
            grows = self._grows
            self._on.flow.when(open_cells(made), lambda: self._add(completed(made), grows))

    def _add(self, made: Value, catalogue: Catalogue) -> None:
        """The lines that are new; where they could not be decided, that step has failed."""
        texts = [] if first_failure(made) is not None else plain(made)
        more, self._grown = "".join(texts[self._grown :]), max(self._grown, len(texts))
        if more:
            whole = parse(self.program.text + more, catalogue)
            self._go_on(whole, total_label(made))

    def resolve(self, slot: str, value: Value) -> None:
        """The outcome of a step arrived, possibly as a failed value."""
        with decimal.localcontext(ARITHMETIC):
            self._on.steps.resolve(slot, value)
            self._flow.drain()

    @property
    def idle(self) -> bool:
        """Is there nothing to do until another outcome arrives?"""
        return self._started and self._flow.quiet

    @property
    def finished(self) -> bool:
        """Is every step resolved and every statement done?"""
        settled = self.idle and not self.unmet
        return settled and not self._on.steps.open and not self._flow.waiting

    @property
    def fuel_used(self) -> int:
        """Steps of pure code so far."""
        return self._fuel.used_steps

    @property
    def unreached(self) -> tuple[Unreached, ...]:
        """Calls that were never made because what decides them failed."""
        return tuple(sorted(self._on.unreached, key=lambda one: (one.order, one.line)))

    def bound(self, name: str) -> Value | None:
        """What a name at top level holds; None while it, or a part of it, is not known."""
        operand = self._top.names.get(name)
        if operand is None or open_cells(operand):
            return None
        return completed(operand)

    def bindings(self) -> dict[str, Operand]:
        """The program's names as they are now."""
        return {name: settle(operand) for name, operand in self._top.names.items()}

    def _fuel_label(self) -> Label:
        """Everything that may have decided how much fuel is left: every outcome so far."""
        outcomes = self._on.steps.outcomes.label()
        return combine([PROGRAM, *map(total_label, self._params.values()), outcomes])

    # -- statements

    def _run(self, block: Block, frame: Frame) -> None:
        for at in range(len(block)):
            self._one(block, at, frame)

    def _one(self, block: Block, at: int, frame: Frame) -> None:
        stmt = block[at]
        try:
            if isinstance(stmt, ast.If):
                self._if(stmt, frame, (block, at + 1))
            else:
                self._statement(stmt, frame)
        except FuelError as problem:
            self._block(stmt, self._on.apply.out_of_fuel(problem), frame)

    def _statement(self, stmt: ast.stmt, frame: Frame) -> None:
        match stmt:
            case ast.Assign():
                self._assign(stmt, frame)
            case ast.AnnAssign() if stmt.value is not None:
                self._bind(stmt.target, self._on.value(stmt.value, frame), frame)
            case ast.AugAssign():
                self._augment(stmt, frame)
            case ast.Expr():
                if not self._mutates(stmt.value, frame, None):
                    self._on.value(stmt.value, frame)
            case ast.For():
                source = self._on.value(stmt.iter, frame)
                self._decided(stmt, source, frame, lambda here, sub: self._loop(stmt, here, sub))
            case ast.Return():
                none = Scalar(None, PROGRAM)
                made = none if stmt.value is None else self._on.value(stmt.value, frame)
                frame.names[RETURNED] = self._on.flow.raised(made, frame.pc)

    def _assign(self, stmt: ast.Assign, frame: Frame) -> None:
        target, node = stmt.targets[0], stmt.value
        if is_param(node) and isinstance(target, ast.Name):
            info = self.program.params[target.id]
            frame.names[target.id] = self._params.get(target.id, info.default)
            return
        if self._mutates(node, frame, target):
            return
        made = self._on.value(node, frame)
        for each in stmt.targets:
            self._bind(each, made, frame)

    def _mutates(self, node: ast.expr, frame: Frame, target: ast.expr | None) -> bool:
        """Was this ``xs.append(v)`` or ``v = xs.pop()``, and done?"""
        func = mutation(node)
        if func is None or not isinstance(node, ast.Call):
            return False
        name = root(func.value)
        if name is None or name in self._outside or name not in frame.names:
            return False
        taken = self._mutations.call(node, func, frame)
        if target is not None:
            self._bind(target, taken, frame)
        return True

    def _bind(self, target: ast.expr, operand: Operand, frame: Frame) -> None:
        """Give a target its new version, under the decisions taken so far (rule 1)."""
        match target:
            case ast.Name():
                frame.names[target.id] = self._on.flow.raised(operand, frame.pc)
            case ast.Tuple() | ast.List():
                parts = self._unpacked(operand, len(target.elts), target.lineno)
                for part, piece in zip(target.elts, parts, strict=True):
                    self._bind(part, piece, frame)
            case ast.Subscript():
                self._mutations.store(target, lambda _: operand, frame)

    def _unpacked(self, operand: Operand, count: int, line: int) -> list[Operand]:
        def part(at: int) -> Operand:
            def take(values: list[Value], label: Label) -> Operand:
                found = elements(values[0])
                if len(found) != count:
                    raise ValueError(f"{count} values were expected to unpack, got {len(found)}")
                return self._on.flow.raised(found[at], label)

            return self._on.apply.shallow([operand], line, take)

        return [part(at) for at in range(count)]

    def _augment(self, stmt: ast.AugAssign, frame: Frame) -> None:
        target, line = stmt.target, stmt.lineno
        if isinstance(target, ast.Subscript):
            self._mutations.augment(target, stmt, frame)
        elif isinstance(target, ast.Name):
            old = self._on.value(target, frame)
            made = self._on.value(stmt.value, frame)
            shared = stmt in self.program.guarded
            made = self._mutations.augmented(type(stmt.op), old, made, line, shared=shared)
            self._bind(target, made, frame)

    # -- decisions

    def _if(self, stmt: ast.If, frame: Frame, after: After) -> None:
        """Take one side, or tell the host of a condition that waits for a step."""
        test = settle(self._on.value(stmt.test, frame))
        run = self._arms(stmt)
        if not isinstance(test, Cell):
            if self._on.facts.steps(stmt):
                self._tell(self._condition(stmt, frame), test)
            self._decided(stmt, test, frame, run)
            return
        condition = self._condition(stmt, frame)
        later = frame.split(condition.order)
        beyond = partial(self._beyond, Undecided(stmt, later, frame, after))
        likely = _likely(self._on.facts, stmt)
        guess = self._on.host.undecided(Branch(condition, likely, beyond))
        if guess is not None:
            self._on.flow.when([test], lambda: self._tell(condition, _known(test)))
            self._decided(stmt, Scalar(guess, PROGRAM), frame, run)
            return

        def go(inner: Frame) -> None:
            self._tell(condition, _known(test))
            run(_known(test), inner)

        self._later(stmt, [test], frame, later, go)

    def _condition(self, stmt: ast.If, frame: Frame) -> Condition:
        site = self.program.conditions[stmt.test]
        return Condition(site, mix(frame.path, site).hex(), frame.orders.take())

    def _tell(self, condition: Condition, test: Value) -> None:
        self._on.host.decided(condition, None if isinstance(test, Failed) else truth(test))

    def _beyond(self, at: Undecided, guess: bool, host: Host) -> Beyond:
        from edvac.program.beyond import look_beyond

        return look_beyond(self, at, guess, host)

    def _decided(self, stmt: ast.stmt, test: Operand, frame: Frame, run: Run) -> None:
        """`run(known test, frame)`, now or in a region of its own."""
        here = settle(test)
        if isinstance(here, Cell):
            later = frame.split(frame.orders.take())
            self._later(stmt, [here], frame, later, lambda inner: run(_known(here), inner))
        else:
            before = set(frame.names)
            run(here, frame)
            self._forget(stmt, before, frame)

    def _forget(self, stmt: ast.stmt, before: set[str], frame: Frame) -> None:
        """Unbind names that only one way through the statement bound: nothing may read them, and
        whether they exist must not depend on when the condition became known."""
        certain = before | definite([stmt])
        for name in assigned([stmt], self._outside):
            if name not in certain:
                frame.names.pop(name, None)

    def _later(
        self,
        stmt: ast.stmt,
        cells: list[Cell],
        frame: Frame,
        later: Frame,
        go: Callable[[Frame], None],
    ) -> None:
        """Run a statement in a region, the frame `later`, once `cells` are known; the names that it
        assigns are pending until then."""
        token = self._on.open(stmt, later)
        before = set(frame.names)
        certain = before | definite([stmt])
        outs = {name: Cell() for name in assigned([stmt], self._outside) if name in certain}
        frame.names.update(outs)

        def unfold() -> None:
            try:
                go(later)
            except FuelError as problem:
                self._block(stmt, self._on.apply.out_of_fuel(problem), later)
            finally:
                self._on.close(token)
            for name, out in outs.items():
                self._on.flow.forward(later.names[name], out)

        self._on.flow.when(cells, unfold)

    def _block(self, stmt: ast.stmt, failed: Failed, frame: Frame) -> None:
        """The statement cannot be carried out: what it would assign has failed."""
        self._on.skipped(stmt, failed, frame, stmt.lineno)
        for name in assigned([stmt], self._outside):
            frame.names[name] = self._on.flow.raised(replace(failed, origin=None), frame.pc)

    def _arms(self, stmt: ast.If) -> Run:
        def run(here: Value, frame: Frame) -> None:
            if isinstance(here, Failed):
                self._block(stmt, here, frame)
                return
            arm, other = (stmt.body, stmt.orelse)[:: 1 if truth(here) else -1]
            inner = frame.under(here.label.cap(1))
            self._on.passed(other, PUBLIC, inner)
            self._run(arm, inner)
            self._raise(set(assigned([stmt])) - set(assigned(arm)), inner)

        return run

    def _raise(self, names: set[str], inner: Frame) -> None:
        """Names that the way not taken would have assigned carry the decision too (rule 2)."""
        for name in sorted(names):
            if name in inner.names:
                inner.names[name] = self._on.flow.raised(inner.names[name], inner.pc)

    def _loop(self, stmt: ast.For, here: Value, frame: Frame) -> None:
        items = self._on.apply.visited(here, stmt.lineno)
        if isinstance(items, Failed):
            self._block(stmt, items, frame)
            return
        inner = frame.under(here.label)
        self._on.passed([stmt], PUBLIC, inner)  # there might have been more elements, or others
        if not items:
            self._raise(set(assigned([stmt], self._outside)), inner)
        self._iterate(stmt, Elements(items), 0, inner)

    def _iterate(self, stmt: ast.For, over: Elements, start: int, frame: Frame) -> None:
        """Iterations from `start` on. Where the body makes steps each is named by its element, and
        one whose identity is not known yet holds up those after it."""
        named = bool(self._on.facts.steps(stmt))
        for index in range(start, len(over.items)):
            self._on.apply.fuel.spend(1, stmt.lineno)
            one = replace(frame, indices=f"{frame.indices}[{index}]")
            if named:
                path = over.path(frame.path, index)
                if path is None:
                    self._wait(stmt, over, index, frame)
                    return
                one.path = path
            self._bind(stmt.target, over.items[index], one)
            self._run(stmt.body, one)

    def _wait(self, stmt: ast.For, over: Elements, index: int, frame: Frame) -> None:
        cells = open_cells(over.items[index])
        later = frame.split(frame.orders.take())
        go = partial(self._iterate, stmt, over, index)
        self._later(stmt, cells, frame, later, go)


def _likely(facts: Facts, stmt: ast.If) -> float:
    """How likely the first side is, by the text alone: what asks a person or cannot be undone is
    rather the exception."""

    def rare(block: list[ast.stmt]) -> bool:
        found = [signature for part in block for _, signature in facts.steps(part)]
        return any(one.person or one.effect is Effect.EXTERNAL for one in found)

    first, second = rare(stmt.body), rare(stmt.orelse)
    return 0.55 if first is second else 0.4 if first else 0.6


def _known(operand: Operand) -> Value:
    here = settle(operand)
    if isinstance(here, Cell):
        raise InternalError("value_pending", "a decision was taken on a pending value")
    return here
