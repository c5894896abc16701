"""A worker: what it does with its leases, its model, its end, and a store that is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet_kit import MODEL, Yard, answer, until

from edvac.core import errors, event
from edvac.core.errors import (
    ConfigError,
    DeviceError,
    EdvacError,
    LeaseError,
    ProcessorError,
    StepError,
    UnreachableError,
)
from edvac.machine.fleet import doing, wire, worker
from edvac.machine.fleet.doing import Doer
from edvac.processor import Message, Request, Segment
from edvac.processor.scripted import ScriptedProcessor
from edvac.store import Offer, RunInfo, Taken

ABLE = wire.capabilities(frozenset(wire.KINDS), MODEL)


def request(text: str) -> Request:
    return Request("r", "s", (Message("user", (Segment(f"<data 1>{text}</data"),)),))


def payload(text: str = "it") -> bytes:
    return wire.encode(wire.ModelStep(request(text), MODEL))


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


class Queue:
    """A run with steps in the queue, for workers alone."""

    def __init__(self, yard: Yard, *steps: bytes) -> None:
        self.yard = yard
        store: Any = yard.storage.open()
        store.create_run(RunInfo("r", 0.0))
        self.lease = store.acquire("r", "me", 600.0, 0.0)
        needs = wire.needs_model(MODEL)
        offers = [Offer(f"r/s{n}/0123456789abcdef", one, needs) for n, one in enumerate(steps)]
        yard.queue.offer(self.lease, offers)

    @property
    def outcomes(self) -> list[wire.Outcome]:
        return [wire.read_outcome(done.outcome) for done in self.yard.queue.finished("r")]

    @property
    def states(self) -> list[str]:
        return [entry.state for entry in self.yard.queue._entries.values()]


def slow(seconds: float) -> Doer:
    return Doer(ScriptedProcessor(answer, name=MODEL, delay_s=seconds))


def test_steps_are_done_at_once_as_far_as_there_are_places(yard: Yard) -> None:
    queue = Queue(yard, *[payload(str(n)) for n in range(6)])

    async def work() -> None:
        with yard.machine() as machine:
            async with yard.working(yard.worker(machine, slots=2, doer=slow(0.1))):
                await until(lambda: queue.states.count("taken") == 2)
                assert queue.states.count("waiting") == 4
                (about,) = yard.queue.workers()
                assert (about.slots, set(about.capabilities)) == (2, set(ABLE))
                await until(lambda: len(queue.outcomes) == 6)

    asyncio.run(work())
    texts = [one.answer.text for one in queue.outcomes if isinstance(one, wire.Answered)]
    assert texts == [f"<{n}>" for n in range(6)]
    assert yard.queue.workers() == [], "one that has ended is not listed"
    states = [one.state for one in yard.told if isinstance(one, event.WorkerState)]
    assert states[0] == "ready" and states[-1] == "stopped"


def test_leases_are_renewed_while_it_works(yard: Yard) -> None:
    queue = Queue(yard, payload())

    async def work() -> None:
        with yard.machine() as machine:
            first = yard.worker(machine, "a", doer=slow(0.9), lease_s=0.3)
            async with yard.working(first):
                await until(lambda: queue.states == ["taken"])
                async with yard.working(yard.worker(machine, "b", lease_s=0.3)):
                    await until(lambda: bool(queue.outcomes))

    asyncio.run(work())
    assert yard.how() == {"finished": 1} and not yard.counted
    (done,) = yard.queue.finished("r")
    assert (done.worker, done.fence) == ("a", 1)


def test_a_step_that_another_has_taken_is_stopped(yard: Yard) -> None:
    queue = Queue(yard, payload())

    async def work() -> None:
        with yard.machine() as machine:
            async with yard.working(yard.worker(machine, doer=slow(30), lease_s=0.3)):
                await until(lambda: queue.states == ["taken"])
                entry = next(iter(yard.queue._entries.values()))
                entry.taken = taken_since(entry.taken)
                await until(lambda: yard.how() == {"lost": 1})

    asyncio.run(asyncio.wait_for(work(), 10))


def taken_since(taken: Taken) -> Taken:
    return replace(taken, fence=taken.fence + 1, worker="somebody else")


def test_a_step_whose_lease_ended_unnoticed_is_not_begun_twice(yard: Yard) -> None:
    """The store was away for longer than a lease, and this worker itself is the first to ask."""
    queue = Queue(yard, payload())

    async def work() -> None:
        with yard.machine() as machine:
            async with yard.working(yard.worker(machine, doer=slow(1.0), slots=3)):
                await until(lambda: queue.states == ["taken"])
                entry = next(iter(yard.queue._entries.values()))
                entry.taken = replace(entry.taken, expires=0.0)
                await until(lambda: bool(queue.outcomes))
                assert entry.taken.fence == 2

    asyncio.run(work())
    taken = [one for one in yard.told if isinstance(one, event.StepTaken)]
    assert len(taken) == 1 and yard.how() == {"finished": 1}


def test_an_outcome_that_comes_late_is_dropped(yard: Yard) -> None:
    queue = Queue(yard, payload())

    async def work() -> None:
        with yard.machine() as machine:
            async with yard.working(yard.worker(machine, doer=slow(0.3))):
                await until(lambda: queue.states == ["taken"])
                entry = next(iter(yard.queue._entries.values()))
                entry.taken = taken_since(entry.taken)
                await until(lambda: yard.how() == {"late": 1})

    asyncio.run(work())
    assert queue.outcomes == []


@pytest.mark.parametrize("at_once", [False, True])
def test_at_its_end_it_finishes_or_hands_back(yard: Yard, at_once: bool) -> None:
    queue = Queue(yard, payload("a"), payload("b"), payload("c"))

    async def work() -> None:
        with yard.machine() as machine:
            made = yard.worker(machine, doer=slow(0.3), slots=2)
            task = asyncio.create_task(made.run())
            await until(lambda: queue.states.count("taken") == 2)
            made.stop(at_once=at_once)
            await task

    asyncio.run(work())
    done, left = ("waiting", "waiting") if at_once else ("finished", "waiting")
    assert queue.states == [done, done, left]
    assert yard.how() == ({"handed back": 2} if at_once else {"finished": 2})


def test_what_does_not_end_in_time_is_handed_back(yard: Yard) -> None:
    queue = Queue(yard, payload())

    async def work() -> None:
        with yard.machine() as machine:
            made = yard.worker(machine, doer=slow(30), grace_s=0.2)
            task = asyncio.create_task(made.run())
            await until(lambda: queue.states == ["taken"])
            made.stop()
            await asyncio.wait_for(task, 5)

    asyncio.run(work())
    assert queue.states == ["waiting"] and yard.how() == {"handed back": 1}


@pytest.mark.parametrize("broken", [b"", b"\xc1", b"\x81\xa4type\xa5model", payload()[:-3]])
def test_a_payload_that_cannot_be_read_is_a_failed_step(yard: Yard, broken: bytes) -> None:
    queue = Queue(yard, broken, payload())

    async def work() -> None:
        with yard.machine() as machine:
            async with yard.working(yard.worker(machine)):
                await until(lambda: len(queue.outcomes) == 2)

    asyncio.run(work())
    bad, good = queue.outcomes
    assert isinstance(bad, wire.Error) and bad.code == "step_unreadable"
    assert isinstance(good, wire.Answered)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "", "a\x00b"])
def test_files_of_a_step_stay_in_its_directory(tmp_path: Path, name: str) -> None:
    step = wire.SandboxStep("shell.run", "s", {}, {}, [], 5.0, {name: b"x"}, {"code": b"true"})
    found = asyncio.run(Doer(None).do(wire.encode(step)))
    assert isinstance(found, wire.Error) and found.code == "step_unreadable"


def test_a_step_for_another_model_is_refused() -> None:
    step = wire.ModelStep(request("x"), "another")
    for doer in (Doer(None), slow(0)):
        found = asyncio.run(doer.do(wire.encode(step)))
        assert isinstance(found, wire.Error) and found.code == "worker_model"


def test_a_step_that_was_lost_over_and_over_is_given_up(yard: Yard) -> None:
    queue = Queue(yard, payload())
    for _ in range(worker.MOST_TAKEN):
        yard.queue.hand_back(yard.queue.take("w", 1, ABLE, 30))

    async def work() -> None:
        with yard.machine() as machine:
            async with yard.working(yard.worker(machine)):
                await until(lambda: bool(queue.outcomes))

    asyncio.run(work())
    (found,) = queue.outcomes
    assert isinstance(found, wire.Error) and found.code == "step_lost_often"
    assert not yard.counted


def test_a_model_that_is_away_leaves_its_steps_alone(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "AWAY_S", 0.2)
    away = [True]

    def script(asked: Request) -> str:
        if away[0]:
            raise ProcessorError("endpoint_away", "it is away")
        return answer(asked)

    queue = Queue(yard, payload())

    async def work() -> None:
        with yard.machine() as machine:
            doer = Doer(ScriptedProcessor(script, name=MODEL))
            async with yard.working(yard.worker(machine, doer=doer)):
                await until(lambda: yard.how()["handed back"] == 1)
                await until(lambda: "llm" not in yard.queue.workers()[0].capabilities)
                assert queue.states == ["waiting"]
                away[0] = False
                await until(lambda: bool(queue.outcomes))
                await until(lambda: "llm" in yard.queue.workers()[0].capabilities)

    asyncio.run(work())
    assert isinstance(queue.outcomes[0], wire.Answered)
    assert yard.how() == {"handed back": 1, "finished": 1}


def test_an_error_of_a_model_that_answers_others_is_the_steps_own(yard: Yard) -> None:
    def script(asked: Request) -> str:
        if "it" in asked.messages[-1].text:
            raise ProcessorError("overloaded", "too much of it")
        return "yes"

    found = asyncio.run(Doer(ScriptedProcessor(script, name=MODEL)).do(payload()))
    assert isinstance(found, wire.Error) and found.kind == "ProcessorError"


def test_a_machine_without_a_sandbox_hands_its_calls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(laid: Any) -> Any:
        raise errors.SandboxError("no_isolation", "there is no sandbox")

    monkeypatch.setattr(doing, "carry_out", none)
    step = wire.SandboxStep("shell.run", "s", {}, {}, [], 5.0, {}, {"code": b"true"})
    with pytest.raises(doing.AwayError) as error:
        asyncio.run(Doer(None).do(wire.encode(step)))
    assert error.value.kinds == {"python", "shell"}


def test_a_store_that_is_away_is_waited_for(yard: Yard) -> None:
    queue, calls = Queue(yard, payload(), payload("more")), [0]
    real = yard.queue.finish

    def finish(held: Taken, outcome: bytes) -> None:
        calls[0] += 1
        if calls[0] < 4:
            raise UnreachableError("store_unreachable", "it is away")
        real(held, outcome)

    yard.queue.finish = finish  # type: ignore[method-assign]

    async def work() -> None:
        with yard.machine() as machine:
            async with yard.working(yard.worker(machine, slots=1)):
                await until(lambda: len(queue.outcomes) == 2)

    asyncio.run(work())
    notes = [one.text for one in yard.told if isinstance(one, event.Note)]
    assert [note[:21] for note in notes] == ["waiting for the store", "the store is there ag"]
    assert yard.how() == {"finished": 2} and sum(yard.counted.values()) == 2


def test_a_store_that_is_away_at_its_end_is_said(yard: Yard) -> None:
    Queue(yard, payload())

    async def work() -> None:
        with yard.machine() as machine:
            made = yard.worker(machine, doer=slow(30))
            task = asyncio.create_task(made.run())
            await until(lambda: bool(yard.queue.workers()))

            def away(*_: Any) -> Any:
                raise UnreachableError("store_unreachable", "it is away")

            yard.queue.hand_back = away  # type: ignore[method-assign]
            made.stop(at_once=True)
            with pytest.raises(UnreachableError):
                await asyncio.wait_for(task, 5)

    asyncio.run(work())


@pytest.mark.parametrize(
    "problem",
    [
        DeviceError("d", "what", "why", "fix"),
        ConfigError("c", "what"),
        ProcessorError("p", "what"),
        LeaseError("l", "what"),
    ],
)
def test_errors_cross_as_they_are(problem: EdvacError) -> None:
    found = wire.raised(wire.read_outcome(wire.encode(wire.error(problem))))  # type: ignore[arg-type]
    assert type(found) is type(problem)
    assert found.as_dict() == problem.as_dict()


@pytest.mark.parametrize(
    "kind", ["DamageError", "InternalError", "SystemExit", "Nonsense", "_KINDS"]
)
def test_errors_that_would_blame_this_machine_are_the_steps(kind: str) -> None:
    found = wire.raised(wire.Error(kind, "A bad; code", "what", "", "", 1e9))
    assert type(found) is StepError and found.code == "worker_failed"


def test_how_long_to_wait_crosses_within_bounds() -> None:
    busy = ProcessorError("busy", "busy")
    busy.wait_s = 7.0
    found = wire.raised(wire.error(busy))
    assert isinstance(found, ProcessorError) and found.wait_s == 7.0
    far = wire.raised(wire.Error("ProcessorError", "busy", "", "", "", 1e9))
    assert isinstance(far, ProcessorError) and far.wait_s == 3600.0
