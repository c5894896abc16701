"""Results, steps and labels do not depend on when outcomes arrive; order keys are program order."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program_gen import Generator
from program_kit import CATALOGUE, NaiveHost, run

from edvac.core.errors import ProgramError
from edvac.core.label import PUBLIC, Label
from edvac.core.schema import INT, ListOf, show
from edvac.core.value import Failed, Operand, Sequence, Value, children, digest, settle
from edvac.program import Evaluator, Program, StepCall, parse


def world(call: StepCall, args: dict[str, Any]) -> Any:
    """A deterministic world: the outcome depends on the operands, and sometimes it is a failure."""
    seed = random.Random(f"{call.op} {sorted((k, repr(v)) for k, v in args.items())}")
    if seed.random() < 0.15:
        return Failed(call.slot, "device_failed", "on purpose", PUBLIC)
    if call.op == "llm.extract":
        kind = show(call.result)
        if call.result == INT:
            return seed.randrange(-2, 5)
        if call.result == ListOf(INT):
            return [seed.randrange(-2, 5) for _ in range(seed.randrange(4))]
        return seed.random() < 0.5 if kind == "bool" else seed.choice(["", "a", "ab"])
    return seed.choice(["", "a", "b", "ba"])


def legal(chance: random.Random, size: int = 14) -> Program | None:
    text = Generator(chance, steps=True).program(size)
    try:
        return parse(text, CATALOGUE)
    except ProgramError as error:
        known = {"container_shared", "name_uncertain", "operand_unfit", "name_unknown"}
        known.add("program_too_deep")  # a chance that always says yes nests step in step
        assert error.code in known, f"{error}\n{text}"
        return None


def label_tree(operand: Operand) -> Any:
    here = settle(operand)
    if isinstance(here, Failed):
        return ("failed", here.code, here.label)
    assert isinstance(here, Value)
    return (here.label, tuple(label_tree(child) for child in children(here)))


def summary(evaluator: Evaluator, host: NaiveHost) -> dict[str, Any]:
    steps = {
        call.slot: (call.op, call.branch, call.line, {k: _hash(v) for k, v in call.args.items()})
        for call in host.calls
    }
    return {
        "names": {k: _hash(v) for k, v in evaluator.bindings().items()},
        "labels": {k: label_tree(v) for k, v in evaluator.bindings().items()},
        "steps": steps,
        "program order": [c.slot for c in sorted(host.calls, key=lambda call: call.order)],
        "accepted": sorted({(f.slot, f.code) for f in host.accepted}),
        "unreached": [(u.ops, u.line) for u in evaluator.unreached],
    }


def _hash(operand: Operand) -> Any:
    here = settle(operand)
    assert isinstance(here, Value)
    return ("failed", here.code) if isinstance(here, Failed) else digest(here)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(0, 1000))
def test_completion_order_changes_nothing(chance: random.Random, seed: int) -> None:
    program = legal(chance)
    if program is None:
        return
    sequential, first = run(program, world, seed=None)
    wanted = summary(sequential, first)
    orders = [call.order for call in first.calls]
    assert orders == sorted(set(orders)), "sequential evaluation reaches steps in order"
    assert first.opened == 0, "nothing is undecided when every answer is immediate"
    for at in range(3):
        evaluator, host = run(program, world, seed=seed + at)
        assert summary(evaluator, host) == wanted, program.text


def _tainted(label: Label) -> bool:
    return "file:x" in label.integrity


def _visible(operand: Operand) -> Any:
    """What somebody who may not see untrusted influence sees of a value."""
    here = settle(operand)
    assert isinstance(here, Value)
    if _tainted(here.label):
        return "hidden"
    if isinstance(here, Sequence):
        return ["list", [_visible(item) for item in here.items]]
    parts = [_visible(child) for child in children(here)]
    keys = list(getattr(here, "entries", None) or getattr(here, "fields", None) or [])
    return [type(here).__name__, keys, parts] if parts else _hash(here)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(0, 1000))
def test_untrusted_outcomes_do_not_interfere(chance: random.Random, seed: int) -> None:
    program = legal(chance)
    if program is not None:
        assert_noninterference(program, seed)


def assert_noninterference(program: Program, seed: int) -> None:
    """Two runs that differ only in what untrusted steps return look the same to everybody who may
    not see untrusted influence: names, operands, and which steps are reached."""
    trusted = Label.of(sources=["model:m"])

    def is_untrusted(call: StepCall) -> bool:
        return (call.line * 7 + len(call.op)) % 3 > 0

    def label(call: StepCall) -> Label:
        base = Label.of(sources=["file:x"], bits=float("inf")) if is_untrusted(call) else trusted
        return base.steer(call.branch)

    seen = []
    for variant in range(2):

        def answer(call: StepCall, args: dict[str, Any], variant: int = variant) -> Any:
            if not is_untrusted(call):
                return world(call, args)
            return world(call, {**args, "variant": variant * 17 + seed})

        evaluator, host = run(program, answer, seed=seed, host=NaiveHost(answer, label=label))
        # A slot holds the identity of loop elements, untrusted ones too; so steps are compared by
        # what they are and in program order, not by slot.
        steps = [
            (call.op, call.line, {k: _visible(v) for k, v in call.args.items()})
            for call in sorted(host.calls, key=lambda call: call.order)
            if not _tainted(call.branch)
        ]
        names = {k: _visible(v) for k, v in evaluator.bindings().items()}
        seen.append((names, steps))
    (names, steps), (others, other_steps) = seen
    assert names == others, program.text
    assert steps == other_steps, program.text
