"""What the tests of `edvac.program` share: a catalogue of devices and a naive host."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edvac.core.label import Label
from edvac.core.schema import ANY, STR, ListOf
from edvac.core.signature import (
    Access,
    Catalogue,
    Effect,
    Param,
    Role,
    Signature,
    address_param,
    overlap,
)
from edvac.core.value import (
    Cell,
    Failed,
    Operand,
    Scalar,
    Value,
    completed,
    first_failure,
    open_cells,
    settle,
)
from edvac.program import Evaluator, Fuel, Program, StepCall, parse
from edvac.program.data import python, value
from edvac.program.host import Branch, Condition

INSTRUCTION = Role.INSTRUCTION
DATA = Param("data", ANY, variadic=True)

CATALOGUE = Catalogue.of(
    [
        Signature(
            "files.list",
            (address_param("pattern"),),
            ListOf(STR),
            Effect.READ,
            "Paths that match.",
            reads=("pattern",),
        ),
        Signature(
            "files.read", (address_param(),), STR, Effect.READ, "A file's text.", reads=("path",)
        ),
        Signature(
            "files.write",
            (address_param(), Param("text", STR)),
            STR,
            Effect.WRITE,
            "Write a file.",
            writes=("path",),
        ),
        Signature(
            "doc.text", (address_param(),), STR, Effect.READ, "A document's text.", reads=("path",)
        ),
        Signature(
            "llm.write", (Param("goal", STR, role=INSTRUCTION), DATA), STR, Effect.PURE, "Write."
        ),
        Signature(
            "llm.extract",
            (
                Param("data", ANY),
                Param("T", ANY, role=Role.TYPE),
                Param("hint", STR, "", role=INSTRUCTION),
            ),
            None,
            Effect.PURE,
            "Extract.",
        ),
        Signature(
            "llm.choose",
            (
                Param("question", STR, role=INSTRUCTION),
                Param("options", ListOf(STR), role=INSTRUCTION),
                DATA,
            ),
            STR,
            Effect.PURE,
            "Choose.",
        ),
        Signature("human.ask", (Param("question", STR),), STR, Effect.READ, "Ask.", person=True),
        Signature(
            "mail.send",
            (address_param("to"), Param("text", STR)),
            STR,
            Effect.EXTERNAL,
            "Send a mail.",
            writes=("to",),
        ),
    ]
)

TODAY = dt.date(2026, 3, 4)
UNTRUSTED = "file:x"
BAD = Label.of(sources=[UNTRUSTED], bits=float("inf"))
Answer = Callable[[StepCall, dict[str, Any]], Any]


@dataclass
class NaiveHost:
    """Answers steps from a function, each when it likes; blocks what reads a failure."""

    answer: Answer
    label: Callable[[StepCall], Label] = lambda call: BAD
    immediate: bool = False
    calls: list[StepCall] = field(default_factory=list)
    regions: dict[int, tuple[tuple[int, ...], Access]] = field(default_factory=dict)
    opened: int = 0
    accepted: list[Failed] = field(default_factory=list)
    cells: dict[str, Cell] = field(default_factory=dict)
    branches: list[Branch] = field(default_factory=list)
    decisions: list[tuple[Condition, bool | None]] = field(default_factory=list)

    def step(self, call: StepCall) -> Cell:
        assert call.slot not in self.cells, f"{call.address} called twice"
        for order, access in self.regions.values():
            if call.order[: len(order)] == order:
                _within(call, access)
        self.calls.append(call)
        cell = self.cells[call.slot] = Cell(call.slot)
        if self.immediate:
            cell.resolve(self.outcome(call))
        return cell

    def open_region(self, order: tuple[int, ...], access: Access) -> int:
        self.opened += 1
        self.regions[self.opened] = (order, access)
        return self.opened

    def close_region(self, token: int) -> None:
        del self.regions[token]

    def passed(self, order: tuple[int, ...], access: Access, decider: Label) -> None:
        return

    def undecided(self, branch: Branch) -> None:
        self.branches.append(branch)

    def decided(self, condition: Condition, taken: bool | None) -> None:
        self.decisions.append((condition, taken))

    def handled(self, failed: Failed) -> None:
        self.accepted.append(failed)

    def ready(self, call: StepCall) -> bool:
        return not any(open_cells(operand) for operand in call.args.values())

    def outcome(self, call: StepCall) -> Value:
        failed = next(filter(None, map(first_failure, call.args.values())), None)
        label = self.label(call)
        for operand in call.args.values():
            label = label.join(_labels(operand))
        if failed is not None:
            return Failed(failed.slot, failed.code, failed.what, label)
        made = self.answer(call, {k: python(v) for k, v in call.args.items()})
        if isinstance(made, Failed):
            return Failed(call.slot, made.code, made.what, label)
        return made if isinstance(made, Value) else value(made, label)


def _within(call: StepCall, claimed: Access) -> None:
    """What a step touches was claimed by the region that it stands in."""
    signature = call.signature
    sides = ((signature.reads, claimed.reads), (signature.writes, claimed.writes))
    for names, patterns in sides:
        for name in names:
            operand = call.args.get(name)
            if operand is None or open_cells(operand) or first_failure(operand) is not None:
                continue
            data = python(operand)
            for path in data if isinstance(data, list) else [data]:
                assert any(overlap(p, path) for p in patterns), (call.address, path, patterns)


def _labels(operand: Operand) -> Label:
    from edvac.core.value import total_label

    return total_label(completed(operand))


def run(
    program: Program | str,
    answer: Answer,
    *,
    seed: int | None = 0,
    params: dict[str, Value] | None = None,
    fuel: Fuel | None = None,
    host: NaiveHost | None = None,
) -> tuple[Evaluator, NaiveHost]:
    """Evaluate to the end; `seed` decides the order of completion, None answers at once."""
    if isinstance(program, str):
        program = parse(program, CATALOGUE)
    host = host or NaiveHost(answer)
    host.immediate = seed is None
    evaluator = Evaluator(program, host, params or {}, TODAY, fuel or Fuel())
    evaluator.start()
    chance = random.Random(seed)
    done: set[str] = set()
    while seed is not None:
        ready = [call for call in host.calls if call.slot not in done and host.ready(call)]
        if not ready:
            break
        call = chance.choice(ready)
        done.add(call.slot)
        evaluator.resolve(call.slot, host.outcome(call))
    assert evaluator.finished
    assert not host.regions, "a region was never closed"
    return evaluator, host


def shown(evaluator: Evaluator) -> dict[str, Any]:
    """The program's names as plain data; a failure as its code."""
    return {name: _shown(operand) for name, operand in evaluator.bindings().items()}


def _shown(operand: Operand) -> Any:
    here = settle(operand)
    if isinstance(here, Failed):
        return f"failed: {here.code}"
    if first_failure(here) is not None:
        return f"holds failure: {first_failure(here).code}"  # type: ignore[union-attr]
    return python(here)


def scalar(data: Any, label: Label = BAD) -> Scalar:
    return Scalar(data, label)


__all__ = ["BAD", "CATALOGUE", "TODAY", "UNTRUSTED", "NaiveHost", "run", "scalar", "shown"]
