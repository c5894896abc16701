"""Directed tests of the control unit's core: what random programs meet too seldom."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
import sim
from sim import LIMITS, Simulation, World, parsed

from edvac.control import ControlUnit, Failure, Limits, Result
from edvac.control.journal import Record, Replay, StoredOutcome
from edvac.control.scoreboard import Scoreboard
from edvac.control.step import Usage
from edvac.core.errors import InternalError
from edvac.core.label import PROGRAM
from edvac.core.signature import Access
from edvac.core.value import lift
from edvac.guard import Ask
from edvac.program import Evaluator, Fuel


def unit_of(text: str, replay: Replay | None = None, limits: Limits = LIMITS) -> ControlUnit:
    program = parsed(text)
    return ControlUnit(
        lambda host: Evaluator(program, host, {}, sim.TODAY, Fuel()), replay or Replay(), limits
    )


def ok(text: str = "x", **more: Any) -> Result:
    return Result(lift(text, PROGRAM), **more)


def by_address(unit: ControlUnit) -> dict[str, Any]:
    return {step.call.address: step for step in unit.steps.values()}


def test_an_external_effect_waits_for_a_failure_that_a_later_line_may_still_accept() -> None:
    """Whether it runs must not depend on which outcome comes first."""
    text = (
        'x = llm.write("x")\nz = llm.write("z")\nmail.send("me", "hello")\n'
        'y = attempt(x + z, "none")\n'
    )
    for first in ("x", "z"):
        unit = unit_of(text)
        unit.start(0)
        steps = by_address(unit)
        outcomes = {"x": Failure("broken", ""), "z": ok()}
        second = "z" if first == "x" else "x"
        work = unit.finished([(steps[first].slot, outcomes[first])], 1)
        assert not [i for i in work.intents if i.call.op == "mail.send"]
        work = unit.finished([(steps[second].slot, outcomes[second])], 2)
        assert [i.call.op for i in work.intents] == ["mail.send"]
        work = unit.finished([(work.intents[0].slot, ok())], 3)
        assert work.closed == "done" and unit.handled_count == 1


def test_an_external_effect_behind_an_unhandled_failure_is_withheld_and_says_why() -> None:
    unit = unit_of('x = llm.write("x")\nattempt(mail.send("me", "hello"), "no")\n')
    intents = unit.start(0).intents
    work = unit.finished([(intents[0].slot, Failure("broken", ""))], 1)
    assert work.closed == "partial", "accepting the mail's failure does not accept that of x"
    assert [step.call.address for step in unit.failures()] == ["x"]
    mail = next(step for step in unit.steps.values() if step.external)
    assert mail.failure is not None and mail.failure.code == "earlier_failed"


@pytest.mark.parametrize(
    "limits",
    [Limits(tokens=5), Limits(money=Decimal("0.01")), Limits(seconds=10.0, before=9.0)],
    ids=["tokens", "money", "time"],
)
def test_a_spent_budget_holds_steps_back_and_fails_none(limits: Limits) -> None:
    unit = unit_of('x = llm.write("x")\ny = attempt(llm.write("y", x), "")\n', limits=limits)
    intents = unit.start(0).intents
    work = unit.finished([(intents[0].slot, ok(usage=Usage(4, 0, 1, Decimal("0.01"))))], 1)
    assert not work.closed and not work.intents and not unit.failures()
    assert unit.awaited == {"budget"} and unit.spent and unit.standing()["spent"] == 1
    assert unit.cancel(2).closed == "cancelled"


def test_time_holds_back_every_step_and_tokens_only_those_of_a_model() -> None:
    text = 'x = llm.write("x")\nfiles.write("f0", x)\n'
    for limits, op in ((Limits(tokens=1), ["files.write"]), (Limits(seconds=1.0), [])):
        unit = unit_of(text, limits=limits)
        intents = unit.start(0).intents
        work = unit.finished([(intents[0].slot, ok(usage=Usage(4, 0, 1)))], 1)
        assert [intent.call.op for intent in work.intents] == op


def test_no_model_step_is_issued_once_the_budget_is_spent() -> None:
    text = "xs = []\nfor k in range(40):\n    xs.append(attempt(llm.write(str(k)), ''))\n"
    world = World()
    limits = Limits(tokens=60, at_once={"llm": 2}, attempts=3)
    life = Simulation(parsed(text), world, 1, random.Random(1), limits=limits)
    assert life.run() == "spent"
    used = life.unit.usage
    assert 60 <= used.prompt - used.cached + used.completion <= 60 + 2 * 4
    assert len(world.executed) < 40
    assert Simulation(parsed(text), world, 1, random.Random(2), limits=limits).run() == "spent"
    assert Simulation(parsed(text), world, 1, random.Random(3)).run() == "done"
    assert len(world.executed) == 40, "every step ran once, over three lives"


AWAY = Failure("endpoint_away", "nobody is there", retry=True, away=True)


def test_a_processor_that_is_away_holds_steps_back_and_fails_none() -> None:
    """attempt() accepts what is wrong with a document, not that nobody looked at it."""
    text = (
        'files.write("f0", "x")\nx = attempt(llm.write("x"), "")\ny = attempt(llm.write("y"), "")\n'
        'files.write("f1", x + y)\n'
    )
    unit = unit_of(text, limits=Limits(at_once={"llm": 1}))
    write, x = unit.start(0).intents
    unit.finished([(write.slot, ok())], 1)
    work = unit.finished([(x.slot, AWAY)], 2)
    assert not work.closed and not work.intents and not work.records and work.wake_at is None
    assert unit.awaited == {"processor"} and unit.away == AWAY and unit.standing()["away"] == 1
    assert not unit.failures() and unit.handled_count == 0
    assert unit.cancel(3).closed == "cancelled"


def test_who_has_answered_a_moment_ago_is_waited_for() -> None:
    text = "xs = []\nfor k in range(3):\n    xs.append(llm.write(str(k)))\n"
    unit = unit_of(text, limits=Limits(at_once={"llm": 1}, patience_s=60.0))
    now, work = 100.0, unit.start(0)
    work = unit.finished([(work.intents[0].slot, ok())], now)
    tried = []
    while unit.awaited != {"processor"}:
        if work.intents:
            tried.append(work.intents[0])
            work = unit.finished([(tried[-1].slot, AWAY)], now)
        else:
            assert work.wake_at is not None
            now = work.wake_at
            work = unit.tick(now)
    assert 160 <= now <= 190 and len({intent.slot for intent in tried}) == 1
    assert 5 <= len(tried) <= 10, "neither given up at once nor asked all the time"


def test_an_answer_releases_what_was_held_back() -> None:
    text = "xs = []\nfor k in range(4):\n    xs.append(llm.write(str(k)))\n"
    unit = unit_of(text, limits=Limits(at_once={"llm": 3}))
    first, second, third = unit.start(0).intents
    assert not unit.finished([(first.slot, AWAY)], 1).intents, "the fourth is not even tried"
    unit.finished([(second.slot, Failure("misfit", "", repair=True))], 2)
    assert unit.away is None and first.slot in unit._issued
    unit.finished([(third.slot, ok())], 3)
    unit.tick(3)
    assert len(unit._issued) == 3


def test_a_model_to_escalate_to_that_is_away_holds_up_no_step_of_the_other() -> None:
    text = "xs = []\nfor k in range(3):\n    xs.append(llm.choose(str(k), ['y', 'n']))\n"
    unit = unit_of(text, limits=Limits(at_once={"llm": 1}, repairs=0, escalate=True))
    first = unit.start(0).intents[0]
    misfit = Failure("misfit", "", repair=True)
    (second,) = unit.finished([(first.slot, misfit)], 1).intents
    unit.tick(1)
    (escalated,) = unit.finished([(second.slot, ok("y"))], 2).intents
    assert escalated.slot == first.slot and escalated.escalated
    (third,) = unit.finished([(first.slot, AWAY)], 3).intents
    work = unit.finished([(third.slot, ok("n"))], 4)
    assert not work.intents and unit.awaited == {"processor"} and not unit.failures()


def test_what_never_reached_the_model_is_no_sign_of_life() -> None:
    text = "xs = []\nfor k in range(3):\n    xs.append(llm.write(str(k)))\n"
    unit = unit_of(text, limits=Limits(at_once={"llm": 2}))
    first, second = unit.start(0).intents
    unit.finished([(first.slot, AWAY)], 1)
    work = unit.finished([(second.slot, Failure("operand_too_large", ""))], 2)
    assert not work.intents and unit.awaited == {"processor"}


def test_no_sample_is_shown_while_the_model_is_away() -> None:
    text = "xs = []\nfor k in range(3):\n    xs.append(llm.write(str(k)))\n"
    unit = unit_of(text, limits=Limits(sample=1))
    first = unit.start(0).intents[0]
    unit.finished([(first.slot, AWAY)], 1)
    assert unit.awaited == {"processor"}


def test_an_external_effect_is_not_given_up_while_a_model_is_away() -> None:
    """Once it is there again, the line below may accept the failure that the mail waits for."""
    text = (
        'x = llm.write("x")\nz = llm.write("z")\nmail.send("me", "hello")\n'
        'y = attempt(x + z, "none")\n'
    )
    unit = unit_of(text)
    x, z = unit.start(0).intents
    unit.finished([(x.slot, Failure("broken", ""))], 1)
    work = unit.finished([(z.slot, AWAY)], 2)
    assert not work.records and unit.awaited == {"processor"}
    mail = next(step for step in unit.steps.values() if step.external)
    assert not mail.state.ended


def test_only_the_last_attempt_says_so() -> None:
    unit = unit_of('x = llm.write("x")\n', limits=Limits(attempts=2))
    first = unit.start(0).intents[0]
    work = unit.finished([(first.slot, Failure("endpoint_busy", "", retry=True))], 1)
    assert work.wake_at is not None
    assert [first.last, unit.tick(work.wake_at).intents[0].last] == [False, True]


def test_a_step_that_is_to_be_tried_again_keeps_its_place() -> None:
    text = "xs = []\nfor k in range(40):\n    xs.append(llm.write(str(k)))\n"
    unit = unit_of(text, limits=Limits(at_once={"llm": 2}))
    intents = unit.start(0).intents
    busy = Failure("endpoint_busy", "", retry=True, wait_s=9.0)
    work = unit.finished([(intent.slot, busy) for intent in intents], 1)
    assert not work.intents and work.wake_at == 10.0
    assert [i.slot for i in unit.tick(10.0).intents] == [i.slot for i in intents]


def test_a_calls_not_reached_make_the_run_partial_and_are_listed() -> None:
    unit = unit_of(
        'q = llm.choose("q", ["y", "n"])\nif q == "y":\n    files.write("f0", "x")\n'
        'r = attempt(q, "")\n'
    )
    intents = unit.start(0).intents
    work = unit.finished([(intents[0].slot, Failure("broken", ""))], 1)
    assert work.closed == "partial"
    assert [one.ops for one in unit.unreached] == [("files.write",)]


def test_a_replay_with_other_operands_is_refused() -> None:
    text = 'x = llm.write("x")\ny = llm.write("y", x)\n'
    unit = unit_of(text)
    unit.start(0)
    slots = {address: step.slot for address, step in by_address(unit).items()}
    value = lift("v", PROGRAM)
    digest = by_address(unit)["x"].digest
    known = {slots["x"]: StoredOutcome(value, digest), slots["y"]: StoredOutcome(value, "other")}
    with pytest.raises(InternalError) as caught:
        unit_of(text, Replay(known)).start(0)
    assert caught.value.code == "replay_diverged"


def test_after_a_retry_what_rests_on_other_operands_is_done_again_but_mails_are_asked() -> None:
    text = (
        'x = attempt(llm.write("x"), "none")\nfiles.write("f0", x)\n'
        'm = attempt(mail.send("me", x), "unsent")\n'
    )
    world = World()
    first = unit_of(text)
    x = first.start(0).intents[0]
    work = first.finished([(x.slot, Failure("broken", ""))], 1)
    records = list(work.records)
    while not work.closed:
        work = first.finished([(i.slot, ok("done")) for i in work.intents], 2)
        records += work.records
    world.records = [*records, Record.retry([x.slot])]
    again = unit_of(text, world.replay())
    work = again.start(0)
    assert [i.slot for i in work.intents] == [x.slot]
    work = again.finished([(x.slot, ok("better"))], 1)
    assert [i.call.op for i in work.intents] == ["files.write"]
    assert [q.address for q in work.questions] and "begun before" in work.questions[0].text


def test_a_path_outside_the_announced_pattern_is_refused() -> None:
    unit = unit_of('x = llm.write("x")\nfiles.write(f"f{x}", "text")\n')
    x = unit.start(0).intents[0]
    work = unit.finished([(x.slot, ok("1/../../other"))], 1)
    assert work.closed == "partial"
    assert [s.failure.code for s in unit.failures() if s.failure] == ["path_unforeseen"]


def test_two_spellings_of_a_path_are_one_file() -> None:
    unit = unit_of('files.write("./f0", "new")\nx = files.read("f0")\n')
    assert [i.call.op for i in unit.start(0).intents] == ["files.write"]


def test_a_pattern_across_directories_meets_a_file_directly_below() -> None:
    board = Scoreboard()
    from edvac.control.access import claimed_access

    board.claim((1,), claimed_access(Access(reads=("in/**/x",))))
    assert board.hazard((2,), claimed_access(Access(writes=("in/x",)))) is not None
    assert board.hazard((2,), claimed_access(Access(writes=("out/x",)))) is None


def test_the_scoreboard_says_what_the_plain_rule_says() -> None:
    """Against a list of all claims, compared one by one."""
    paths = ["a", "a/b", "a/b/c", "a/*", "ab", "x/y", "x/*", "**", "x"]
    names = ["signal:a", "signal:b", "signal:*", "event:a", "event:*"]
    chance = random.Random(5)
    for _ in range(400):
        board, claims = Scoreboard(), []
        for order in range(1, 8):
            access = Access(
                tuple(chance.sample(paths, chance.randint(0, 2))),
                tuple(chance.sample(paths, chance.randint(0, 2))),
                chance.random() < 0.2,
                tuple(chance.sample(names, chance.randint(0, 1))),
                chance.random() < 0.1,
            )
            made = board.claim((order,), access)
            if made is not None:
                claims.append(made)
        for claim in chance.sample(claims, len(claims) // 2):
            board.release(claim)
            claims.remove(claim)
        for order in range(1, 9):
            access = Access(
                tuple(chance.sample(paths, chance.randint(0, 1))),
                tuple(chance.sample(paths, chance.randint(0, 1))),
                chance.random() < 0.2,
                tuple(chance.sample(names, chance.randint(0, 1))),
                outside=chance.random() < 0.5,
            )
            wanted = [c for c in claims if c.order < (order,) and c.access.conflicts(access)]
            found = board.hazard((order,), access)
            assert (found is not None) == bool(wanted)
            assert found is None or found in wanted
        assert len(board) == len(claims)


def test_a_failure_that_arrives_while_stopping_is_kept_unless_it_may_be_tried_again() -> None:
    text = 'x = llm.write("x")\ny = llm.write("y")\nz = llm.write("z")\n'
    unit = unit_of(text)
    x, y, z = unit.start(0).intents
    unit.cancel(1, "interrupted")
    work = unit.finished(
        [
            (x.slot, Failure("broken", "")),
            (y.slot, Failure("away", "", retry=True)),
            (z.slot, Failure("aborted", "")),
        ],
        2,
    )
    assert work.closed == "interrupted"
    assert [record.slot for record in work.records] == [x.slot]


def test_answers_bind_to_what_was_shown() -> None:
    """A yes to one text does not allow another."""
    text = 'm = mail.send("me", "hello")\n'
    unit = unit_of(text)
    slot = unit.start(0).intents[0].slot
    digest = unit.steps[slot].digest
    for shown, expected in ((digest, 1), ("another", 0)):
        program = parsed(text)
        asking = ControlUnit(
            lambda host, p=program: Evaluator(p, host, {}, sim.TODAY, Fuel()),  # type: ignore[misc]
            Replay(approved={slot: shown}),
            LIMITS,
            policy=lambda call, values: Ask("Do it?"),
        )
        assert len(asking.start(0).intents) == expected


SLOW = Limits(at_once={"llm": 3}, slow_start=1)
BATCH = (
    'u = net.get("u")\nb = llm.write("b", u)\nxs = [llm.write(k) for k in ["1", "2", "3", "4"]]\n'
)


def ops(work: Any) -> list[str]:
    return [intent.call.op for intent in work.intents]


def test_one_model_step_is_in_flight_until_a_model_has_answered() -> None:
    unit = unit_of(BATCH, limits=SLOW)
    work = unit.start(0)
    assert ops(work) == ["net.get", "llm.write"]
    net, model = work.intents
    work = unit.finished([(net.slot, ok())], 1)
    assert ops(work) == [], "another device has answered, not the model"
    work = unit.finished([(model.slot, ok())], 2)
    assert ops(work) == ["llm.write"] * 3
    assert ops(unit.finished([(work.intents[0].slot, ok())], 3)) == ["llm.write"]


def test_a_model_step_that_is_not_executed_does_not_end_the_slow_start() -> None:
    """Blocked by a failure, or of operands that do not fit: no model has said anything."""
    text = BATCH + 'y = llm.write(json.load("1"))\nz = llm.write("z", y)\n'
    unit = unit_of(text, limits=SLOW)
    net, model = unit.start(0).intents
    work = unit.finished([(net.slot, Failure("broken", ""))], 1)
    states = {address: step.state.value for address, step in by_address(unit).items()}
    assert (states["b"], states["y"], states["z"]) == ("blocked", "failed", "blocked")
    assert ops(work) == []
    assert ops(unit.finished([(model.slot, ok())], 2)) == ["llm.write"] * 3


def test_a_replayed_answer_does_not_end_the_slow_start() -> None:
    first = unit_of(BATCH)
    first.start(0)
    step = by_address(first)["xs[0]"]
    known = Replay({step.slot: StoredOutcome(lift("v", PROGRAM), step.digest)})
    assert ops(unit_of(BATCH, known, SLOW).start(0)) == ["net.get", "llm.write"]


def test_without_a_slow_start_the_device_is_filled_at_once() -> None:
    unit = unit_of(BATCH, limits=Limits(at_once={"llm": 3}))
    assert ops(unit.start(0)) == ["net.get"] + ["llm.write"] * 3


def test_steps_of_a_long_program_begin_before_its_end_has_been_looked_at() -> None:
    text = (
        'x = llm.write("x")\nfiles.write("a", "1")\ny = llm.write("y")\n'
        'mail.send("me", "hello")\nz = attempt(x, "none")\n'
    )
    unit = unit_of(text, limits=Limits(met=2))
    work = unit.start(0)
    assert [one.call.op for one in work.intents] == ["llm.write"] and work.wake_at == 0
    assert not unit.awaited
    work = unit.finished([(work.intents[0].slot, Failure("broken", ""))], 0)
    assert not work.closed and not work.intents
    work = unit.tick(0)
    assert [one.call.op for one in work.intents] == ["llm.write"], "writes wait for the end"
    (y,) = work.intents
    work = unit.tick(0)
    assert [one.call.op for one in work.intents] == ["files.write"] and work.wake_at is None
    work = unit.finished([(work.intents[0].slot, ok()), (y.slot, ok())], 1)
    assert [one.call.op for one in work.intents] == ["mail.send"], "the last line took the failure"
    work = unit.finished([(work.intents[0].slot, ok())], 2)
    assert work.closed == "done"
