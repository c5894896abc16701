"""Operands are checked against the signature once they are complete: what fits, what is said of
what does not, and that nothing of such a step happens."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
import sim
from sim import LIMITS, parsed

from edvac.control import ControlUnit, Record, Result
from edvac.control.step import Limits, WrittenFile
from edvac.core.label import PROGRAM, Label
from edvac.core.schema import (
    ANY,
    BOOL,
    DATE,
    DECIMAL,
    FLOAT,
    INT,
    NONE,
    STR,
    Choice,
    DictOf,
    Field,
    ListOf,
    Maybe,
    Quoted,
    TupleOf,
    Type,
)
from edvac.core.schema import Record as RecordType
from edvac.core.signature import NO_ACCESS, REQUIRED, Catalogue, Effect, Param, Role, Signature
from edvac.core.value import Instance, Value, lift
from edvac.guard import Allow, Ask
from edvac.guard.policy import Verdict
from edvac.machine.entry import Entry
from edvac.machine.history import History
from edvac.program import Evaluator, Fuel, StepCall, parse
from edvac.program.infer import clashes
from edvac.program.operands import misfit

ITEM = RecordType("Item", (Field("word", STR), Field("price", Maybe(DECIMAL))))
LOAD = 'x = json.load(llm.write("x"))\n'


def item(word: Any, price: Any = None) -> Value:
    return Instance("Item", {"word": lift(word, PROGRAM), "price": lift(price, PROGRAM)}, PROGRAM)


def quoted(data: Any) -> Value:
    fields = {"value": lift(data, PROGRAM), "quote": lift("so", PROGRAM)}
    return Instance("Quoted", fields, PROGRAM)


def told(kind: Type, data: Any, default: Any = REQUIRED, *, variadic: bool = False) -> str:
    """What is said of one operand; empty where it fits."""
    signature = Signature(
        "desk.put", (Param("x", kind, default, variadic=variadic),), STR, Effect.READ, ""
    )
    call = StepCall(
        "slot", "desk.put", signature, {}, {}, STR, PROGRAM, (1,), 7, "a step", NO_ACCESS
    )
    error = misfit(call, {"x": lift(data, PROGRAM)})
    if error is None:
        return ""
    assert error.code == "operand_misfit" and error.why and error.fix and error.line == 7
    return error.what


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (ANY, None),
        (ANY, [1, {"a": 2}]),
        (STR, "text"),
        (INT, 3),
        (INT, True),
        (FLOAT, 3),
        (FLOAT, Decimal("3.1")),
        (DECIMAL, 3),
        (DECIMAL, 3.5),
        (BOOL, False),
        (DATE, dt.date(2026, 3, 4)),
        (NONE, None),
        (Choice(("a", "b")), "b"),
        (Maybe(STR), None),
        (Maybe(STR), "text"),
        (ListOf(STR), []),
        (ListOf(STR), ("a", "b")),
        (ListOf(ANY), [1, "a", None]),
        (TupleOf((STR, INT)), ("a", 1)),
        (DictOf(ANY), {"a": None}),
        (DictOf(INT, INT), {1: 2}),
        (ITEM, item("a", Decimal(2))),
        (ITEM, item("a")),
        (Quoted(INT), quoted(3)),
    ],
)
def test_what_fits(kind: Type, data: Any) -> None:
    assert told(kind, data) == ""


@pytest.mark.parametrize(
    ("kind", "data", "what"),
    [
        (STR, 3, "x of desk.put is a str, not a int"),
        (STR, None, "x of desk.put is a str, not None"),
        (STR, ["a"], "x of desk.put is a str, not a list"),
        (STR, item("a"), "x of desk.put is a str, not a Item"),
        (STR, quoted("a"), "x of desk.put is a str, not a Quoted"),
        (STR, dt.date(2026, 3, 4), "x of desk.put is a str, not a date"),
        (INT, 3.0, "x of desk.put is a int, not a float"),
        (INT, Decimal(3), "x of desk.put is a int, not a Decimal"),
        (FLOAT, "3", "x of desk.put is a float, not a str"),
        (BOOL, 1, "x of desk.put is a bool, not a int"),
        (Choice(("a", "b")), "c", "x of desk.put is a Literal['a', 'b'], not a str"),
        (Maybe(STR), 3, "x of desk.put is a str, not a int"),
        (ListOf(STR), "text", "x of desk.put is a list[str], not a str"),
        (ListOf(STR), ["a", 1], "x[1] of desk.put is a str, not a int"),
        (TupleOf((STR, INT)), ("a",), "x of desk.put is a tuple[str, int], not a tuple"),
        (TupleOf((STR, INT)), ("a", "b"), "x[1] of desk.put is a int, not a str"),
        (DictOf(ANY), {1: 2}, "a key of x of desk.put is a str, not a int"),
        (DictOf(ListOf(INT)), {"a": [1, "b"]}, "x['a'][1] of desk.put is a int, not a str"),
        (ITEM, {"word": "a"}, "x of desk.put is a Item, not a dict"),
        (ITEM, item(None), "x.word of desk.put is a str, not None"),
        (ITEM, item("a", "2"), "x.price of desk.put is a Decimal, not a str"),
        (Quoted(INT), quoted("3"), "x.value of desk.put is a int, not a str"),
    ],
)
def test_what_does_not_fit_is_named_to_the_part(kind: Type, data: Any, what: str) -> None:
    assert told(kind, data) == what


def test_each_operand_of_a_variadic_parameter_is_one() -> None:
    assert told(STR, ["a", "b"], variadic=True) == ""
    assert told(STR, ["a", 1], variadic=True) == "x[1] of desk.put is a str, not a int"


def test_a_default_of_none_is_the_devices_own() -> None:
    assert told(INT, None, default=None) == ""
    assert told(INT, "3", default=None) != ""
    assert told(INT, None, default=3) != ""


def test_issue_refuses_no_atom_whose_type_verify_accepts() -> None:
    """A program that is legal with known types must not fail because of them."""
    samples: list[tuple[Type, Any]] = [
        (STR, "a"), (INT, 1), (FLOAT, 1.5), (DECIMAL, Decimal(1)), (BOOL, True),
        (DATE, dt.date(2026, 3, 4)), (NONE, None), (ListOf(STR), ["a"]), (ListOf(INT), [1]),
        (DictOf(STR), {"a": "b"}), (ITEM, item("a")), (TupleOf((STR, STR)), ("a", "b")),
    ]  # fmt: skip
    wanted = [STR, INT, FLOAT, DECIMAL, BOOL, DATE, NONE, Maybe(STR), ListOf(STR), DictOf(STR)]
    for kind, data in samples:
        for want in wanted:
            assert (told(want, data) == "") == (not clashes(kind, want)), (kind, want)


# -- in the unit --------------------------------------------------------------------------------


class Watch:
    """A policy that says what it was asked about."""

    def __init__(self, verdict: Verdict | None = None) -> None:
        self.asked: list[str] = []
        self._verdict = verdict or Allow()

    def __call__(self, call: StepCall, _: dict[str, Value]) -> Verdict:
        self.asked.append(call.op)
        return self._verdict


def unit_of(text: str, known: list[Record] | None = None, **more: Any) -> ControlUnit:
    program = parsed(text)
    entries = [
        Entry(seq, record.kind, record.slot, dict(record.body), record.value)
        for seq, record in enumerate(known or [])
    ]
    return ControlUnit(
        lambda host: Evaluator(program, host, {}, sim.TODAY, Fuel()),
        History(entries=entries).replay(),
        more.pop("limits", LIMITS),
        **more,
    )


UNTRUSTED = Label.of(["file:a"], readers=["user"], bits=9)


@pytest.mark.parametrize(
    "line",
    [
        'files.write("f0", x)',
        "files.read(x)",
        "llm.write(x)",
        'llm.choose("q", x)',
        'mail.send("me", x)',
    ],
)
def test_a_misfit_fails_its_step_before_anything_of_it_happens(line: str) -> None:
    policy = Watch()
    unit = unit_of(LOAD + f"y = {line}\n", policy=policy)
    first = unit.start(0).intents[0]
    work = unit.finished([(first.slot, Result(lift("3", UNTRUSTED)))], 1)
    assert work.closed == "partial"
    assert not work.intents and not work.questions and work.wake_at is None
    assert [record.kind for record in work.records] == ["outcome", "outcome"]
    assert policy.asked == ["llm.write"], "policy was asked about a step that cannot be"
    (failed,) = unit.failures()
    assert failed.failure is not None and failed.failure.code == "operand_misfit"
    assert failed.attempt == 0 and failed.failure.label.sources >= {"file:a"}
    body = work.records[1].body
    assert body["why"] and body["fix"] and "is a" in failed.failure.what


def test_a_misfit_frees_what_waits_for_the_step_and_is_accepted_as_data() -> None:
    text = LOAD + 'y = attempt(files.write("f0", x), "none")\nz = files.read("f0")\n'
    unit = unit_of(text)
    first = unit.start(0).intents[0]
    work = unit.finished([(first.slot, Result(lift("[1]", PROGRAM)))], 1)
    assert [i.call.op for i in work.intents] == ["files.read"]
    work = unit.finished([(work.intents[0].slot, Result(lift("old", PROGRAM)))], 2)
    assert work.closed == "done" and unit.handled_count == 1


def test_a_misfit_is_not_asked_about() -> None:
    unit = unit_of('mail.send("me", json.load("3"))\n', policy=Watch(Ask("Do it?")))
    work = unit.start(0)
    assert work.closed == "partial" and not work.questions


def test_resuming_repeats_the_failure_and_a_retry_finds_it_again() -> None:
    text = LOAD + 'y = files.write("f0", x)\n'
    unit = unit_of(text)
    work = unit.start(0)
    records = (
        work.records
        + unit.finished([(work.intents[0].slot, Result(lift("3", PROGRAM)))], 1).records
    )
    again = unit_of(text, records)
    work = again.start(0)
    assert work.closed == "partial" and not work.records and again.replayed == 2
    (failed,) = again.failures()
    kept = [record for record in records if record.slot != failed.slot]
    work = unit_of(text, kept).start(0)
    assert work.closed == "partial" and not work.intents
    assert [record.slot for record in work.records] == [failed.slot]


def test_what_a_journal_says_was_done_stays_done() -> None:
    """A journal of before the operands were checked: history is not judged again."""
    catalogue = Catalogue.of([Signature("desk.put", (Param("x", STR),), STR, Effect.WRITE, "")])
    loose = Catalogue.of([Signature("desk.put", (Param("x", ANY),), STR, Effect.WRITE, "")])
    text = 'y = desk.put(json.load("3"))\n'

    def unit(with_: Catalogue, records: list[Record]) -> ControlUnit:
        entries = [
            Entry(seq, record.kind, record.slot, dict(record.body), record.value)
            for seq, record in enumerate(records)
        ]
        program = parse(text, with_)
        return ControlUnit(
            lambda host: Evaluator(program, host, {}, sim.TODAY, Fuel()),
            History(entries=entries).replay(),
            Limits(),
        )

    first = unit(loose, [])
    work = first.start(0)
    made = Result(lift("put", PROGRAM), files=(WrittenFile("a", b"b", PROGRAM),))
    records = work.records + first.finished([(work.intents[0].slot, made)], 1).records
    work = unit(catalogue, records).start(0)
    assert work.closed == "done" and not work.records
    assert unit(catalogue, []).start(0).closed == "partial"


def test_a_type_parameter_is_no_operand() -> None:
    signature = Signature(
        "desk.fill", (Param("T", STR, role=Role.TYPE), Param("x", STR)), None, Effect.READ, ""
    )
    program = parse('y = desk.fill(int, json.load("3"))\n', Catalogue.of([signature]))
    unit = ControlUnit(
        lambda host: Evaluator(program, host, {}, sim.TODAY, Fuel()),
        History().replay(),
        Limits(),
    )
    assert unit.start(0).closed == "partial"
    (failed,) = unit.failures()
    assert failed.failure is not None
    assert failed.failure.what == "x of desk.fill is a str, not a int"
