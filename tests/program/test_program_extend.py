"""A program that grows while it runs ends as if it had been whole from the start."""

from __future__ import annotations

import ast
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program_kit import CATALOGUE, TODAY, NaiveHost, run, shown
from test_program_order import legal, summary, world

from edvac.core.errors import InternalError
from edvac.core.label import Label
from edvac.program import Evaluator, Fuel, Program, parse


def prefixes(program: Program) -> list[str]:
    """The text after each top-level statement, as a planner would have written it."""
    lines = program.text.splitlines(keepends=True)
    ends = [node.end_lineno or 0 for node in ast.parse(program.text).body]
    return ["".join(lines[:end]) for end in ends]


def grow(program: Program, seed: int) -> tuple[Evaluator, NaiveHost]:
    """Evaluate statement by statement, with outcomes arriving in between in random order."""
    chance = random.Random(seed)
    host = NaiveHost(world)
    texts = prefixes(program)
    evaluator = Evaluator(parse("", CATALOGUE), host, {}, TODAY, Fuel())
    evaluator.start()
    done: set[str] = set()

    def resolve_one() -> bool:
        ready = [call for call in host.calls if call.slot not in done and host.ready(call)]
        if not ready:
            return False
        call = chance.choice(ready)
        done.add(call.slot)
        evaluator.resolve(call.slot, host.outcome(call))
        return True

    for text in texts:
        evaluator.extend(parse(text, CATALOGUE))
        for _ in range(chance.randrange(4)):
            resolve_one()
    while resolve_one():
        pass
    assert evaluator.finished
    return evaluator, host


@given(st.randoms(use_true_random=False), st.integers(0, 2**32))
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_growing_changes_nothing(chance: random.Random, seed: int) -> None:
    program = legal(chance)
    if program is None:
        return
    whole = summary(*run(program, world, seed=seed))
    assert summary(*grow(program, seed)) == whole


def test_a_step_of_the_beginning_is_announced_before_the_rest_is_written() -> None:
    host = NaiveHost(world)
    evaluator = Evaluator(parse("", CATALOGUE), host, {}, TODAY, Fuel())
    evaluator.start()
    first = 'a = files.read("x")\n'
    evaluator.extend(parse(first, CATALOGUE))
    assert [call.op for call in host.calls] == ["files.read"]
    evaluator.resolve(host.calls[0].slot, host.outcome(host.calls[0]))
    evaluator.extend(parse(first + "b = len(a)\n", CATALOGUE))
    assert shown(evaluator)["b"] == len(shown(evaluator)["a"])


def test_another_program_is_no_extension() -> None:
    evaluator = Evaluator(parse("a = 1\n", CATALOGUE), NaiveHost(world), {}, TODAY, Fuel())
    evaluator.start()
    with pytest.raises(InternalError, match="extended by another"):
        evaluator.extend(parse("a = 2\nb = 1\n", CATALOGUE))


def test_lines_stand_under_what_decided_on_them() -> None:
    """Who chose the lines of an extension steers them, and all that come after."""
    host = NaiveHost(world)
    text = 'a = llm.write("one")\n'
    evaluator = Evaluator(parse(text, CATALOGUE), host, {}, TODAY, Fuel())
    evaluator.start()
    model = Label.of(["model:m"], bits=8)
    second = text + 'b = llm.write("two")\n'
    evaluator.extend(parse(second, CATALOGUE), model)
    evaluator.extend(parse(second + 'c = llm.write("three")\n', CATALOGUE))
    first, *rest = host.calls
    assert "model:m" not in first.branch.steered
    assert ["model:m" in call.branch.steered for call in rest] == [True, True]
