"""Comprehensions: each element unfolds on its own, as soon as its own condition is known.

Knows nothing of statements.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from edvac.core.errors import FuelError
from edvac.core.label import PUBLIC, Label, combine
from edvac.core.value import Cell, Failed, Operand, Sequence, Value, open_cells, settle
from edvac.program.apply import given_on
from edvac.program.containers import truth
from edvac.program.express import Expressions
from edvac.program.frame import Frame
from edvac.program.identity import Elements
from edvac.program.tree import Comprehension

Bind = Callable[[ast.expr, Operand, Frame], None]


@dataclass(frozen=True, slots=True)
class _Walk:
    """One generator on its way over one collection."""

    node: Comprehension
    at: int
    over: Elements


class Comprehensions:
    """Evaluates list and dict comprehensions and generator expressions.

    A level gives a list of results whose label is what it adds to the shape of the whole.
    """

    def __init__(self, expressions: Expressions, bind: Bind) -> None:
        self._on = expressions
        self._bind = bind

    def evaluate(self, node: Any, frame: Frame) -> Operand:
        """The list or dict that the comprehension makes."""
        mine = replace(frame, names=dict(frame.names))
        made = self._level(node, 0, mine)
        if not isinstance(node, ast.DictComp):
            return made

        def build(values: list[Any], label: Label) -> Operand:
            pairs = [tuple(pair.items) for pair in values[0].items]
            return self._on.mapping(pairs, label, node.lineno)

        return self._on.apply.shallow([made], node.lineno, build)

    def _element(self, node: Comprehension, frame: Frame) -> Operand:
        if isinstance(node, ast.DictComp):
            key, part = self._on.value(node.key, frame), self._on.value(node.value, frame)
            return Sequence((key, part), PUBLIC, fixed=True)
        return self._on.value(node.elt, frame)

    def _level(self, node: Comprehension, at: int, frame: Frame) -> Operand:
        """Results of the generators from `at` on."""
        if at == len(node.generators):
            return Sequence((self._element(node, frame),), PUBLIC)
        source = self._on.value(node.generators[at].iter, frame)
        return self._on.branch(
            node, source, frame, lambda here, sub: self._over(node, at, here, sub)
        )

    def _over(self, node: Comprehension, at: int, here: Value, frame: Frame) -> Operand:
        if isinstance(here, Failed):
            self._on.skipped(node, here, frame, node.lineno)
            return here
        items = self._on.apply.visited(here, node.lineno)
        if isinstance(items, Failed):
            return items
        self._on.passed([node], here.label, frame)
        walk = _Walk(node, at, Elements(items))
        return self._from(walk, 0, here.label, frame.under(here.label))

    def _from(self, walk: _Walk, start: int, shape: Label, frame: Frame) -> Operand:
        """Elements from `start` on. With steps inside, each is named by its identity, and a pending
        derived element holds up the naming of those after it."""
        parts: list[Operand] = []
        node, items = walk.node, walk.over.items
        named = bool(self._on.facts.steps(node))
        for index in range(start, len(items)):
            self._on.apply.fuel.spend(1, node.lineno)
            path = frame.path
            if named:
                inner = walk.over.path(frame.path, index)
                if inner is None:
                    parts.append(self._rest(walk, index, frame))
                    break
                path = inner
            one = replace(frame, path=path, indices=f"{frame.indices}[{index}]")
            self._bind(node.generators[walk.at].target, items[index], one)
            parts.append(self._admit(node, walk.at, 0, one))
        return self._whole(parts, shape, node.lineno)

    def _rest(self, walk: _Walk, index: int, frame: Frame) -> Operand:
        """The elements from `index` on, later. They add to the shape only what they decide, so the
        label is the same as if nothing had been pending."""
        later = frame.split(frame.orders.take(), self._on.facts.names(walk.node))
        token = self._on.open(walk.node, later)

        def go() -> Operand:
            try:
                return self._from(walk, index, PUBLIC, later)
            except FuelError as problem:
                return self._on.apply.out_of_fuel(problem)
            finally:
                self._on.close(token)

        return self._on.flow.defer(open_cells(walk.over.items[index]), go)

    def _admit(self, node: Comprehension, at: int, test: int, frame: Frame) -> Operand:
        """One element through its conditions, then the generators inside it."""
        tests = node.generators[at].ifs
        if test == len(tests):
            return self._level(node, at + 1, frame)

        def decide(here: Value, inner: Frame) -> Operand:
            if isinstance(here, Failed):
                self._on.skipped(node, here, inner, node.lineno)
                return here
            decider = here.label.cap(1)
            if not truth(here):
                self._on.passed([node], decider, inner)
                return Sequence((), PUBLIC.steer(decider))
            made = self._admit(node, at, test + 1, inner.under(decider))
            return self._on.flow.raised(made, decider)

        return self._on.branch(node, self._on.value(tests[test], frame), frame, decide)

    def _whole(self, parts: list[Operand], shape: Label, line: int) -> Operand:
        """The parts' results in one list. Only predicates and shapes decide how many there are."""
        here = [settle(part) for part in parts]
        pending = [part for part in here if isinstance(part, Cell)]
        if pending:
            return self._on.flow.defer(pending, lambda: self._whole(here, shape, line))
        known = [part for part in here if not isinstance(part, Cell)]
        label = shape.steer(combine([part.label for part in known]))
        failed = next((part for part in known if isinstance(part, Failed)), None)
        if failed is not None:
            return given_on(failed, label)
        items = [item for part in known if isinstance(part, Sequence) for item in part.items]

        def build() -> Operand:
            self._on.apply.fuel.make(16 * len(items), line)
            return Sequence(tuple(items), label)

        return self._on.apply.guarded(build, label, line)
