"""Work that somebody waits for beside work that nobody waits for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edvac.core.seams import ManualClock, SystemClock
from edvac.engine import _native
from edvac.engine.digest import file_digest
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.kv.pages import block_shape
from edvac.engine.kv.spill import SpillFile
from edvac.engine.loader import LoadOptions, load
from edvac.engine.protocol import Done, Hint
from edvac.engine.scheduler import Limits, Scheduler

from .test_engine import ask, drain
from .test_scheduler import NoPrefixes, job, make
from .tiny import write_tiny

ROOM = Limits(slots=4, context=400, step_tokens=64, kv_tokens=360)
TEXTS = [f"the invoice number {n} " + "of the vendor " * 4 for n in range(1, 4)]


@pytest.fixture(params=["reference", "fast"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    exact = request.param == "reference"
    native = None if exact else _native.kernels()
    if native is None and not exact:
        pytest.skip("the compiled kernels are not installed (`make setup`)")
    path = write_tiny(tmp_path / "tiny.gguf", "qwen2", kinds=("Q8_0", "Q5_0", "Q4_1"))
    torch.set_num_threads(1)
    nothing = LoadOptions(path, file_digest(path), tmp_path, exact, lambda done, total: None)
    decoder, source = load(nothing)
    spill = None if exact else SpillFile(tmp_path, block_shape(source.config), 1 << 26)
    kind = torch.float32 if exact else torch.float16
    options = EngineOptions(ROOM, exact, kind, native=native, spill=spill)
    yield Engine(decoder, source.codec, options, SystemClock())
    if spill is not None:
        spill.close()


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
def test_who_made_room_goes_on_with_the_same_text(engine: Engine, lost: bool) -> None:
    """Also where what it had computed is lost: rows of answers stay rows of answers."""
    offline = [ask(f"o{n}", text, cls="offline", max_tokens=60) for n, text in enumerate(TEXTS)]
    online = ask("n", "and who " + TEXTS[0], max_tokens=80)
    wanted: dict[str, Done] = {}
    for request in (*offline, online):
        wanted |= drain(engine, request)
        engine._prefixes.forget()
    for request in offline:
        engine.submit(request)
    messages = [message for _ in range(9) for message in engine.step()]
    engine.submit(online)
    evictions = 0
    while engine.busy:
        plan_before = len(engine._scheduler.running)
        messages += engine.step()
        evicted = [one for one in engine._scheduler.waiting if one.evicted]
        evictions += len(evicted) > 0 and plan_before > 0
        if lost and evicted:
            engine._prefixes.forget()
    found = {message.id: message for message in messages if isinstance(message, Done)}
    assert evictions, "there was not room for all"
    assert {name: done.text for name, done in found.items()} == {
        name: done.text for name, done in wanted.items()
    }
    order = [message.id for message in messages if isinstance(message, Done)]
    assert order.index("n") < max(order.index(f"o{n}") for n in range(3))
    assert found["o0"].prompt_tokens == wanted["o0"].prompt_tokens


def test_hints_of_any_kind_change_no_text(engine: Engine) -> None:
    texts = []
    for said in ((), ("open", "tool_started", "next_use", "tool_ended", "drop", "close")):
        asked = [ask(f"{n}", text, program="p", max_tokens=20) for n, text in enumerate(TEXTS)]
        found = {}
        for request in asked:
            found |= drain(engine, request)
            for kind in said:
                engine.hint(Hint(kind=kind, program="p", detail="x", after=2.0))  # type: ignore[arg-type]
        texts.append({name: done.text for name, done in found.items()})
    assert texts[0] == texts[1]


def advanced(scheduler: Scheduler) -> list[str]:
    """One step; who had rows in it."""
    plan = scheduler.plan()
    scheduler.commit(plan)
    for chunk in plan.chunks:
        if chunk.samples:
            chunk.job.tokens.append(1)
    return [chunk.job.id for chunk in plan.chunks]


def mixed(step_seconds: float) -> Scheduler:
    """One online answer and four offline ones, each row of a step a tenth of a second."""
    scheduler = make(Limits(8, step_tokens=64, step_seconds=step_seconds))
    for rows in (1, 2, 4, 8):
        scheduler._pace.note(rows, 0, rows / 10)
    scheduler._pace.note(0, 100, 1.0)
    for name in "abcd":
        scheduler.add(job(name, [ord(name)], 50, program=name, cls="offline"))
    scheduler.add(job("n", [1], 50, program="n"))
    advanced(scheduler)
    return scheduler


def test_offline_answers_take_turns_in_the_gaps() -> None:
    scheduler = mixed(step_seconds=0.2)
    steps = [advanced(scheduler) for _ in range(8)]
    assert all(step[0] == "n" and len(step) == 2 for step in steps)
    assert sorted(step[1] for step in steps) == sorted("abcd" * 2), "each in its turn"
    wide = mixed(step_seconds=0.4)
    assert {len(advanced(wide)) for _ in range(8)} == {4}
    none = mixed(step_seconds=0.0)
    assert {len(advanced(none)) for _ in range(8)} == {2}, "they never stand still"


def test_offline_answers_have_all_of_a_step_that_nobody_waits_for() -> None:
    scheduler = mixed(step_seconds=0.2)
    online = next(one for one in scheduler.running if one.id == "n")
    scheduler.finish(online)
    assert sorted(advanced(scheduler)) == list("abcd")


def test_offline_prompts_do_not_slow_online_answers() -> None:
    scheduler = mixed(step_seconds=0.6)
    for name in "abcd":
        scheduler.finish(next(one for one in scheduler.running if one.id == name))
    scheduler.add(job("p", list(range(500)), 4, program="p", cls="offline"))
    plan = scheduler.plan()
    assert [(chunk.job.id, chunk.count) for chunk in plan.chunks] == [("n", 1), ("p", 50)]
    scheduler.commit(plan)
    plan.chunks[0].job.tokens.append(1)
    scheduler.add(job("q", list(range(900, 950)), 4, program="q"))
    rows = {chunk.job.id: chunk.count for chunk in scheduler.plan().chunks}
    assert rows == {"n": 1, "q": 50}, "the step is as long as it may be without it"


def test_online_work_is_never_evicted() -> None:
    scheduler = make(Limits(2, context=64, step_tokens=64, kv_tokens=64))
    for name in "ab":
        scheduler.add(job(name, [ord(name)], 30, program=name))
    advanced(scheduler)
    scheduler.add(job("c", [9], 30, program="c"))
    plan = scheduler.plan()
    assert not plan.evictions and not plan.admissions


def test_nobody_makes_room_in_vain() -> None:
    """What an eviction would not make room for evicts nobody."""
    scheduler = make(Limits(2, context=64, step_tokens=64, kv_tokens=64))
    scheduler.add(job("a", [1], 40, program="a"))
    scheduler.add(job("o", [2], 10, program="o", cls="offline"))
    advanced(scheduler)
    scheduler.add(job("b", [3], 40, program="b"))
    assert not scheduler.plan().evictions


def test_making_room_has_an_end() -> None:
    scheduler = make(Limits(1, context=64, step_tokens=64))
    scheduler.add(job("o", [2], 30, program="o", cls="offline"))
    advanced(scheduler)
    for number in range(5):
        scheduler.add(job(f"n{number}", [3], 1, program=f"n{number}"))
        for _ in range(3):
            advanced(scheduler)
            for one in list(scheduler.running):
                if one.cls == "online":
                    scheduler.finish(one)
    assert len([one for one in scheduler.waiting if one.cls == "online"]) == 2
    assert [one.id for one in scheduler.running] == ["o"], "after three times it stays"


def test_claims_hold_their_room_while_others_run() -> None:
    prefixes = NoPrefixes()
    scheduler = make(Limits(4, context=64, step_tokens=64, kv_tokens=100), ManualClock(), prefixes)
    scheduler.add(job("a", [1], 20, program="a"))
    advanced(scheduler)
    prefixes.holding = {"p": 60}
    scheduler.add(job("b", [2], 45, program="b"))
    assert not scheduler.plan().admissions
    scheduler.add(job("c", [2], 30, program="p"))
    assert [one.job.id for one in scheduler.plan().admissions] == ["c"], "it is its own claim"
    for one in list(scheduler.running):
        scheduler.finish(one)
    assert [one.job.id for one in scheduler.plan().admissions] == ["b"], "nothing else would run"
    assert not prefixes.holding


def test_who_lends_its_beginning_does_not_make_room_in_the_same_step() -> None:
    scheduler = make(Limits(3, context=64, step_tokens=64, kv_tokens=120))
    shared = list(range(20))
    scheduler.add(job("o", [*shared, 1], 20, program="o", cls="offline"))
    advanced(scheduler)
    scheduler.add(job("a", [*shared, 2], 20, program="a"))
    scheduler.add(job("b", [77], 50, program="b"))
    plan = scheduler.plan()
    assert [(one.job.id, one.source_slot) for one in plan.admissions] == [("a", 0)]
    assert not plan.evictions, "its row is still to be copied"
    scheduler.commit(plan)
    assert [one.job.id for one in scheduler.plan().evictions] == ["o"]


def test_hints_reach_a_program_that_gave_no_name(engine: Engine) -> None:
    done = drain(engine, ask("a", TEXTS[0], max_tokens=5))["a"]
    engine.hint(Hint(kind="close", program=done.program))
    assert not engine._prefixes.is_claimed(done.program)
    done = drain(engine, ask("b", TEXTS[0], max_tokens=5))["b"]
    engine.hint(Hint(kind="tool_started", program=done.program, detail="look"))
    assert engine._prefixes.is_claimed(done.program)
