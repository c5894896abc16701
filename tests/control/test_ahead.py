"""Steps beyond an undecided condition, executed ahead: taken over, thrown away, never seen."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from sim import CATALOGUE, LIMITS

from edvac.control import ControlUnit, Failure, Limits, Replay, Result, Step, Work, ahead
from edvac.control.ahead import RunAhead
from edvac.control.step import Usage
from edvac.core.label import PROGRAM, Label
from edvac.core.schema import STR
from edvac.core.signature import Catalogue, Effect, Param, Signature
from edvac.core.value import Scalar
from edvac.program import Evaluator, Fuel, parse

WORKER = Signature("llm.do", (Param("goal", STR),), STR, Effect.READ, "", journal=True)
NEWS = Label.of(["file:news"], bits=8)


class Bench:
    """One unit whose executions the test ends by hand."""

    def __init__(self, text: str, limits: Limits = LIMITS, past: list[Any] | None = None) -> None:
        program = parse(text, CATALOGUE)
        self.unit = ControlUnit(
            lambda host: Evaluator(program, host, {}, dt.date(2026, 1, 1), Fuel()),
            Replay(),
            limits,
            past=past or (),
        )
        self.running: dict[str, Any] = {}
        self.records: list[Any] = []
        self.aborted: list[str] = []
        self.work = self._take(self.unit.start(0.0))

    def _take(self, work: Work) -> Work:
        self.records += work.records
        self.aborted += work.aborts
        self.running |= {intent.name: intent for intent in work.intents}
        return work

    def ops(self, *, ahead: bool) -> list[str]:
        return [
            f"{one.call.op} {one.operands.get('goal', one.operands.get('path')).data}"
            for one in self.running.values()
            if bool(one.key) is ahead
        ]

    def end(self, goal: str, value: str, label: Label = PROGRAM, tokens: int = 10) -> Work:
        for name, intent in list(self.running.items()):
            if any(getattr(one, "raw", None) == goal for one in intent.operands.values()):
                del self.running[name]
                result = Result(Scalar(value, label), usage=Usage(tokens, 0, 0))
                return self._take(self.unit.finished([(name, result)], 1.0))
        raise AssertionError(f"{goal} does not run: {list(self.running)}")

    def fail(self, goal: str, failure: Failure) -> Work:
        for name, intent in list(self.running.items()):
            if any(getattr(one, "raw", None) == goal for one in intent.operands.values()):
                del self.running[name]
                return self._take(self.unit.finished([(name, failure)], 1.0))
        raise AssertionError(f"{goal} does not run")


ONE = """\
kind = llm.write("kind")
if kind == "long":
    part = files.read("f1")
    note = llm.write("shorten", part)
else:
    note = llm.write("plain")
end = llm.write("end", note)
"""
LONG = [("", True)] * 0


def test_reads_and_model_steps_run_ahead_and_are_taken_over() -> None:
    bench = Bench(ONE)
    assert bench.ops(ahead=False) == ["llm.write kind"]
    assert bench.ops(ahead=True) == ["files.read f1"]
    bench.end("f1", "a text")
    assert bench.ops(ahead=True) == ["llm.write shorten"]
    bench.end("shorten", "short")
    assert bench.ops(ahead=True) == ["llm.write end"]
    assert not [record for record in bench.records if record.kind == "outcome"]
    bench.end("kind", "long", NEWS)
    done = [record.body["at"] for record in bench.records if record.kind == "outcome"]
    assert done == ["kind", "part", "note"]
    assert bench.ops(ahead=False) == [] and bench.ops(ahead=True) == ["llm.write end"]
    work = bench.end("end", "all")
    assert work.closed == "done"
    standing = bench.unit.standing()
    assert (standing["ahead"], standing["wasted"], standing["finished"]) == (3, 0, 4)
    assert bench.unit.usage.prompt == 40


def test_labels_are_those_of_the_run() -> None:
    """What decides the condition is in the value, though the value was there before."""
    bench = Bench(ONE)
    bench.end("f1", "a text")
    bench.end("kind", "long", NEWS)
    part = next(r for r in bench.records if r.body.get("at") == "part" and r.kind == "outcome")
    assert "file:news" in part.value.label.steered


def test_the_other_side_throws_away() -> None:
    bench = Bench(ONE)
    bench.end("f1", "a text")
    bench.end("kind", "short")
    assert bench.aborted == [name for name, one in bench.running.items() if one.key]
    assert bench.ops(ahead=False) == ["llm.write plain"]
    for name in bench.aborted:
        del bench.running[name]
        bench.unit.finished([(name, Failure("aborted", ""))], 1.0)
    bench.end("plain", "p")
    assert bench.end("end", "e").closed == "done"
    standing = bench.unit.standing()
    assert (standing["ahead"], standing["wasted"], standing["wasted_tokens"]) == (0, 2, 10)
    assert not any("f1" in str(record.body) for record in bench.records)


def test_what_writes_asks_or_leaves_does_not_run_ahead() -> None:
    bench = Bench(
        'kind = llm.write("kind")\n'
        'if kind == "long":\n'
        '    files.write("f2", "x")\n'
        '    sent = mail.send("me", "x")\n'
        '    after = llm.write("after", sent)\n'
    )
    assert bench.ops(ahead=True) == []


def test_a_device_that_is_not_named_is_not_used() -> None:
    bench = Bench(ONE, replace(LIMITS, ahead=frozenset({"llm"})))
    assert bench.ops(ahead=True) == []


def test_what_may_still_be_written_is_not_read() -> None:
    bench = Bench('made = llm.write("made")\nfiles.write("f1", made)\n' + ONE)
    assert bench.ops(ahead=True) == []
    bench.end("made", "new")
    assert "files.read f1" not in bench.ops(ahead=True)
    bench.end("f1", "f1")
    assert bench.ops(ahead=True) == ["files.read f1"]


def test_a_side_that_writes_what_it_reads_is_left_alone() -> None:
    bench = Bench(
        'kind = llm.write("kind")\n'
        'if kind == "long":\n'
        '    files.write("f1", kind)\n'
        '    part = files.read("f1")\n'
    )
    assert bench.ops(ahead=True) == []


RENAMED = """\
kind = llm.write("kind")
if kind == "long":
    part = "1"
else:
    part = "2"
word = "mid"
note = llm.write("note", part, word)
word = "new"
end = llm.write("end", word)
"""


def given(intent: Any) -> list[Any]:
    return [item.data for item in intent.operands["data"].items]


def test_other_operands_are_executed_again() -> None:
    """The guess was right and a name had another version: what counts is what the run has."""
    bench = Bench(RENAMED)
    [early] = [one for one in bench.running.values() if one.key]
    assert given(early) == ["1", "new"]  # what the name holds after all lines
    bench.end("note", "of new")
    bench.end("kind", "long")
    [again] = [one for one in bench.running.values() if one.operands["goal"].data == "note"]
    assert not again.key and given(again) == ["1", "mid"]


def test_taking_over_whatever_the_operands_are_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug."""
    monkeypatch.setattr(ahead, "operand_digest", lambda _: "")
    claim = RunAhead.claim

    def blind(self: RunAhead, step: Step) -> Any:
        step.digest, digest = "", step.digest
        found = claim(self, step)
        step.digest = digest
        return found

    monkeypatch.setattr(RunAhead, "claim", blind)
    with pytest.raises(ValueError, match="unpack"):
        test_other_operands_are_executed_again()


def test_busy_places_are_left_to_the_run() -> None:
    text = "\n".join(f'n{at} = llm.write("n{at}")' for at in range(4)) + "\n" + ONE
    bench = Bench(text)
    assert len(bench.ops(ahead=False)) == 4
    assert bench.ops(ahead=True) == []
    for at in range(3):
        bench.end(f"n{at}", "n")
    assert bench.ops(ahead=False) == ["llm.write n3", "llm.write kind"]
    assert bench.ops(ahead=True) == ["files.read f1"]


def test_a_wait_goes_on_under_the_runs_name() -> None:
    """The condition comes out right while the step is still being executed."""
    bench = Bench(ONE)
    bench.end("f1", "a text")
    bench.end("kind", "long")
    assert not bench.aborted
    bench.end("shorten", "short")
    done = [record.body["at"] for record in bench.records if record.kind == "outcome"]
    assert done == ["kind", "part", "note"]


def test_one_taken_over_while_it_runs_is_tried_again_when_it_fails() -> None:
    bench = Bench(ONE)
    bench.end("f1", "a text")
    bench.end("kind", "long")
    work = bench.fail("shorten", Failure("away", "try again", retry=True))
    assert work.wake_at is not None
    bench._take(bench.unit.tick(work.wake_at))
    assert bench.ops(ahead=False) == ["llm.write shorten"]


def test_a_failure_ahead_is_forgotten() -> None:
    bench = Bench(ONE)
    bench.fail("f1", Failure("broken", "no"))
    bench.end("kind", "long")
    assert bench.ops(ahead=False) == ["files.read f1"]


def test_nested_conditions_are_guessed_and_undone_apart() -> None:
    bench = Bench(
        'a = llm.write("a")\n'
        'if a == "1":\n'
        '    b = llm.write("b")\n'
        '    if b == "1":\n'
        '        c = llm.write("c")\n'
        "    else:\n"
        '        c = llm.write("d")\n'
    )
    assert bench.ops(ahead=True) == ["llm.write b", "llm.write c"]
    bench.end("b", "2")
    bench.end("a", "1")
    assert bench.ops(ahead=False) == ["llm.write d"]
    assert len(bench.aborted) == 1


def test_a_condition_that_history_decides_is_not_guessed_the_other_way() -> None:
    bench = Bench(ONE)
    site = next(iter(bench.unit._ahead._open.values())).condition.site
    other = Bench(ONE, past=[(site, False)] * 20)
    assert other.ops(ahead=True) == ["llm.write plain"]


def test_cancel_ends_what_is_taken_over_too() -> None:
    bench = Bench(ONE)
    bench.end("f1", "a text")
    bench.end("kind", "long")
    work = bench.unit.cancel(1.0)
    assert work.aborts == list(bench.running)
    assert not work.intents


def test_a_condition_that_fails_throws_away_both_sides() -> None:
    bench = Bench(ONE)
    bench.end("f1", "a text")
    work = bench.fail("kind", Failure("broken", "no"))
    assert bench.aborted == [name for name, one in bench.running.items() if one.key]
    assert work.closed == "partial"
    assert not bench.unit._ahead._looks and not bench.unit._ahead._executions


def test_a_worker_does_not_run_ahead() -> None:
    """It keeps a journal, which nobody would end."""
    catalogue = Catalogue.of([*CATALOGUE.signatures.values(), WORKER])
    text = 'kind = llm.write("kind")\nif kind == "a":\n    x = llm.do("find")\n'
    program = parse(text, catalogue)
    unit = ControlUnit(
        lambda host: Evaluator(program, host, {}, dt.date(2026, 1, 1), Fuel()), Replay(), LIMITS
    )
    assert [intent.call.op for intent in unit.start(0.0).intents] == ["llm.write"]


LATER = """\
a = llm.write("a")
if a == "1":
    x = llm.write("x")
b = llm.write("b", a)
if b == "1":
    y = llm.write("y", b)
else:
    y = llm.write("z", b)
"""


def test_a_guess_is_made_anew_when_more_is_known() -> None:
    """The second condition has gone as the first did; while the first is open, it is guessed by its
    share, and nothing can begin for it yet."""
    bench = Bench(LATER)
    first, second = (branch.condition.site for branch in bench.unit._ahead._open.values())
    past = [pair for at in range(40) for pair in ((first, at % 4 > 0), (second, at % 4 > 0))]
    bench = Bench(LATER, past=past)
    look = list(bench.unit._ahead._looks.values())[-1]
    assert list(look.guards.values()) == [True]
    bench.end("a", "0")
    look = list(bench.unit._ahead._looks.values())[-1]
    assert list(look.guards.values()) == [False]
