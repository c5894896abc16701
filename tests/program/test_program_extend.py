"""A program that grows while it runs ends as if it had been whole from the start."""

from __future__ import annotations

import ast
import itertools
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program_kit import BAD, CATALOGUE, TODAY, UNTRUSTED, NaiveHost, run, shown
from test_program_order import legal, summary, world

from edvac.core.errors import InternalError, ProgramError
from edvac.core.label import PROGRAM, Label
from edvac.core.signature import Catalogue
from edvac.core.value import Failed, steered
from edvac.device import llm
from edvac.program import Evaluator, Fuel, Program, StepCall, parse
from edvac.program.extending import EXTEND
from edvac.program.tree import LINES


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


# -- lines that the program asks for itself --------------------------------------------------------

ASKING = Catalogue.of(
    [
        *CATALOGUE.signatures.values(),
        *(one for one in llm.SIGNATURES if one.op == EXTEND),
    ]
)


def self_written(chunks: list[str], seed: int) -> tuple[Evaluator, NaiveHost]:
    """The program of all chunks, of which it has the first and asks for each further one."""
    asking = [f'{chunk}program.extend("go on")\n' for chunk in chunks[:-1]] + chunks[-1:]

    def planner(call: StepCall, args: dict[str, Any]) -> Any:
        if call.op != EXTEND:
            return world(call, args)
        return [*args["so_far"], asking[len(args["so_far"]) + 1]]

    host = NaiveHost(planner)
    program = parse(asking[0], ASKING)
    evaluator = Evaluator(program, host, {}, TODAY, Fuel(), grows=ASKING)
    evaluator.start()
    chance, done = random.Random(seed), set[str]()
    while ready := [c for c in host.calls if c.slot not in done and host.ready(c)]:
        call = chance.choice(ready)
        done.add(call.slot)
        evaluator.resolve(call.slot, host.outcome(call))
    assert evaluator.finished
    return evaluator, host


def meaning(evaluator: Evaluator, host: NaiveHost) -> dict[str, Any]:
    """What a program came to, whoever wrote its lines and whatever their numbers are."""
    calls = sorted((one for one in host.calls if one.op != EXTEND), key=lambda one: one.order)
    found = summary(evaluator, host)
    return {
        "names": {name: held for name, held in found["names"].items() if name != LINES},
        "steps": [(one.slot, one.op, found["steps"][one.slot][3]) for one in calls],
        "accepted": found["accepted"],
        "unreached": [ops for ops, _ in found["unreached"]],
    }


@given(st.randoms(use_true_random=False), st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_program_that_asks_for_its_lines_comes_to_what_the_whole_one_does(
    chance: random.Random, seed: int, asked: int
) -> None:
    program = legal(chance)
    if program is None:
        return
    texts = prefixes(program)
    cuts = sorted({chance.randrange(len(texts)) for _ in range(asked)} - {len(texts) - 1})
    ends = ["", *(texts[at] for at in cuts), program.text]
    chunks = [after[len(before) :] for before, after in itertools.pairwise(ends)]
    whole = meaning(*run(program, world, seed=seed))
    assert meaning(*self_written(chunks, seed)) == whole


def test_lines_come_in_the_programs_order_whatever_is_known_first() -> None:
    """The second is asked for when the first is known, under a condition that nobody knows yet."""
    text = (
        'late = llm.write("late")\n'
        'if late == "yes":\n    program.extend("first")\n'
        'program.extend("second")\n'
    )

    def planner(call: StepCall, args: dict[str, Any]) -> Any:
        if call.op == EXTEND:
            return [*args["so_far"], f"got_{args['goal']} = {len(args['so_far'])}\n"]
        return "yes"

    host = NaiveHost(planner)
    evaluator = Evaluator(parse(text, ASKING), host, {}, TODAY, Fuel(), grows=ASKING)
    evaluator.start()
    second = next(call for call in host.calls if call.op == EXTEND)
    assert not host.ready(second)
    while ready := [c for c in host.calls if host.cells[c.slot].value is None and host.ready(c)]:
        evaluator.resolve(ready[-1].slot, host.outcome(ready[-1]))
    assert shown(evaluator) | {LINES: 0, "late": 0} == {
        LINES: 0,
        "late": 0,
        "got_first": 0,
        "got_second": 1,
    }


def test_added_lines_stand_under_who_decided_that_they_are_there() -> None:
    text = 'word = llm.write("x")\nif word:\n    program.extend("more")\n'

    def planner(call: StepCall, args: dict[str, Any]) -> Any:
        return ['b = llm.write("y")\n'] if call.op == EXTEND else "yes"

    host = NaiveHost(planner, label=lambda call: BAD if call.op == "llm.write" else PROGRAM)
    evaluator = Evaluator(parse(text, ASKING), host, {}, TODAY, Fuel(), grows=ASKING)
    evaluator.start()
    for at in (0, 1):
        value = steered(host.outcome(host.calls[at]), host.calls[at].branch)
        evaluator.resolve(host.calls[at].slot, value)
    added = host.calls[2]
    assert UNTRUSTED in added.branch.steered


@pytest.mark.parametrize(
    "text",
    [
        'for x in [1, 2]:\n    program.extend("again")\n',
        'def more():\n    program.extend("more")\n    return 1\na = more()\n',
        'a = program.extend("more")\n',
        'a = [1, program.extend("more")]\n',
        'for x in [1]:\n    if x:\n        program.extend("more")\n',
    ],
)
def test_lines_are_asked_for_where_they_can_be_put_once(text: str) -> None:
    with pytest.raises(ProgramError, match="cannot add lines") as refused:
        parse(text, ASKING)
    assert refused.value.code == "extend_misplaced" and refused.value.line


def test_the_chain_is_nobodys_to_give() -> None:
    with pytest.raises(ProgramError):
        parse('program.extend("more", so_far=["files.write(1)"])\n', ASKING)


def test_a_program_may_have_a_list_of_that_name_elsewhere() -> None:
    evaluator, _ = run("program = [1]\nprogram.append(2)\n", world)
    assert shown(evaluator)["program"] == [1, 2]


def test_nothing_is_added_where_the_lines_could_not_be_written() -> None:
    def planner(call: StepCall, args: dict[str, Any]) -> Any:
        return Failed(call.slot, "extend_failed", "no lines", PROGRAM)

    host = NaiveHost(planner)
    text = 'a = 1\nprogram.extend("more")\n'
    evaluator = Evaluator(parse(text, ASKING), host, {}, TODAY, Fuel(), grows=ASKING)
    evaluator.start()
    evaluator.resolve(host.calls[0].slot, host.outcome(host.calls[0]))
    assert evaluator.finished and evaluator.program.text == text


def test_a_program_met_in_parts_is_not_over_before_all_of_it_is() -> None:
    evaluator = Evaluator(
        parse("a = 1\nb = 2\nc = a + b\n", CATALOGUE), NaiveHost(world), {}, TODAY, Fuel()
    )
    evaluator.start(2)
    assert not evaluator.finished and evaluator.unmet == 1
    evaluator.meet(5)
    assert evaluator.finished and shown(evaluator) == {"a": 1, "b": 2, "c": 3}


def test_a_function_that_a_yielding_device_has_not_is_told_from_a_name_that_is_not_there() -> None:
    with pytest.raises(ProgramError, match="there is no program") as refused:
        parse('program.extnd("more")\n', ASKING)
    assert "Did you mean program.extend?" in refused.value.fix
