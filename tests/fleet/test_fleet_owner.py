"""What the owner of a run makes of workers: with them a run comes to what it comes to without."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fleet_kit import EXPECTED, MODEL, PROGRAM, RUNS, Yard, answer, item, until

from edvac.core import event
from edvac.core.errors import DeviceError, ProcessorError, UnreachableError, UsageError
from edvac.machine import Job, Machine
from edvac.machine.fleet import errands, lack, wire
from edvac.machine.machine import Terminal
from edvac.processor import Answer, Request
from edvac.processor.scripted import ScriptedProcessor
from edvac.sandbox import probe
from edvac.store import Enlisted, Offer

sandboxed = pytest.mark.skipif(not probe().available, reason="there is no sandbox here")


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "LOOK_S", 0.05)
    monkeypatch.setattr(lack, "TOLD_AFTER_S", 0.1)


def test_workers_do_the_model_steps_and_the_run_is_the_same(yard: Yard, tmp_path: Path) -> None:
    report = asyncio.run(yard.run(PROGRAM, "a", "b"))
    assert (report.state, yard.file(report.run)) == ("done", EXPECTED)
    assert sum(yard.counted.values()) == 10 and not yard.own
    assert yard.queue._entries == {}, "nothing is left in the queue"
    (tmp_path / "alone").mkdir()
    with Machine(tmp_path / "alone", ScriptedProcessor(answer, name=MODEL)) as machine:
        alone = asyncio.run(machine.run(Job(PROGRAM, seed=1)))
        assert machine.ledger.call_now(lambda s: s.read_file(alone.run, "notes.txt")) == (
            EXPECTED.encode()
        )
        there = machine.ledger.call_now(lambda s: [r.payload for r in s.records(alone.run)])
    kept: Any = yard.storage.open()
    ours = [record.payload for record in kept.records(report.run)]
    assert len(ours) == len(there)
    assert report.counts["prompt"] == alone.counts["prompt"] > 0


@sandboxed
def test_sandboxed_calls_travel_with_what_they_read_and_write(yard: Yard) -> None:
    (yard.work / "inbox").mkdir()
    (yard.work / "inbox/a.txt").write_text("alpha\n")
    program = (
        'made = shell.run("tr a-z A-Z < inbox/a.txt > out/big.txt; echo $who",'
        ' data={"who": "me"}, reads=["inbox/*"], writes=["out/*"])\n'
        'told = python.run("print(sum(ns))", data={"ns": [1, 2, 3]})\n'
        'bad = python.run("raise SystemExit(3)")\n'
        'files.write("told.txt", made + told)\nfiles.write("sum.txt", told)\n'
    )

    async def work() -> Any:
        with yard.machine() as machine:
            async with yard.working(yard.worker(machine)):
                job = Job(program, roots={"inbox": yard.work / "inbox"})
                return await machine.run(job, yard.terminal)

    report = asyncio.run(work())
    assert report.state == "partial"
    assert yard.file(report.run, "out/big.txt") == "ALPHA\n"
    assert yard.file(report.run, "told.txt") == "me6"
    kept: Any = yard.storage.open()
    labels = {file.path: file.label for file in kept.list_files(report.run)}
    assert labels["out/big.txt"] != labels["sum.txt"], "labelled by what it has read"
    (failed,) = report.failures
    assert failed.failure is not None and failed.failure.code == "process_failed"
    assert yard.how() == {"finished": 3}


@sandboxed
def test_a_call_that_is_too_large_stays(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    from edvac.machine.fleet import travel

    monkeypatch.setattr(travel, "MOST", 10)
    report = asyncio.run(yard.run(RUNS, "a"))
    assert report.state == "done" and yard.how() == {}


@sandboxed
def test_what_a_worker_may_not_write_is_refused(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edvac.device.carried import Made
    from edvac.machine.fleet import doing
    from edvac.sandbox import Completed

    async def forged(laid: Any) -> Made:
        return Made(Completed(0, b"", b""), {"elsewhere.txt": b"x"})

    monkeypatch.setattr(doing, "carry_out", forged)
    report = asyncio.run(yard.run('shell.run("true", writes=["out/*"])\n', "a"))
    (failed,) = report.failures
    assert failed.failure is not None and failed.failure.code == "write_undeclared"
    kept: Any = yard.storage.open()
    assert kept.list_files(report.run) == []


def test_failures_come_back_as_what_they_were(yard: Yard) -> None:
    tries: list[str] = []

    def script(request: Request) -> str:
        if item(request) == "item 1":
            raise DeviceError("odd_thing", "it is odd", "For a reason.", "Do it.")
        if item(request) == "item 2":
            tries.append("")
            if len(tries) < 3:
                raise ProcessorError("busy", "it is busy")
        return answer(request)

    yard.script = script
    report = asyncio.run(yard.run(PROGRAM, "a"))
    (failed,) = report.failures[:1]
    assert failed.failure is not None
    assert (failed.failure.code, failed.failure.what) == ("odd_thing", "it is odd")
    assert len(tries) == 3, "what is transient is tried again"
    assert not yard.own and yard.queue._entries == {}


def test_outcomes_leave_the_queue_as_they_are_journalled(yard: Yard) -> None:
    most = [0]

    def script(request: Request) -> str:
        states = [entry.state for entry in list(yard.queue._entries.values())]
        most.append(states.count("finished"))
        return answer(request)

    yard.script = script
    lines = [f'a{n} = llm.write("Say", a{n - 1})' if n else 'a0 = "x"' for n in range(20)]
    report = asyncio.run(yard.run("\n".join(lines), "a"))
    assert report.state == "done" and len(most) == 20 and max(most) <= 3


def test_an_answer_that_does_not_fit_is_refused_by_the_owner(yard: Yard) -> None:
    yard.script = lambda request: "neither"
    report = asyncio.run(yard.run('x = llm.choose("Which?", ["a", "b"], "data")\n', "a"))
    (failed,) = report.failures
    assert failed.failure is not None and failed.failure.code == "answer_not_json"
    assert sum(yard.counted.values()) == 2, "and asked for once more"


def begun(yard: Yard, commits: int) -> str:
    """An owner that dies after so many commits, telling nobody; the run."""
    with pytest.MonkeyPatch.context() as patch, yard.machine() as machine:
        patch.setattr(errands.Errands, "_drop", lambda *_: None)
        left, real = [commits], machine.ledger.commit
        run = ""

        async def commit(lease: Any, *given: Any) -> None:
            nonlocal run
            run = lease.run
            await real(lease, *given)
            left[0] -= 1
            if left[0] < 0:
                raise UnreachableError("store_unreachable", "this owner is dead")

        machine.ledger.commit = commit  # type: ignore[method-assign]

        async def work() -> None:
            async with yard.working(yard.worker(machine, slots=1)):
                await machine.run(Job(PROGRAM, seed=1), yard.terminal)

        with pytest.raises(UnreachableError):
            asyncio.run(work())
    return run


def test_a_store_that_is_away_is_no_failure_of_a_step(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edvac.machine.executor import Executor

    async def away(self: Any, key: str) -> Any:
        raise UnreachableError("store_unreachable", "it is away")

    async def work() -> Any:
        with yard.machine(workers=None) as machine:
            run = await machine.create(Job(PROGRAM, seed=1))
            with monkeypatch.context() as patch, pytest.raises(UnreachableError):
                patch.setattr(Executor, "_reuse", away)
                await machine.resume(run)
            return await machine.resume(run)

    assert asyncio.run(work()).state == "done"


def leave(yard: Yard, run: str) -> None:
    """Two steps that an earlier owner offered and nobody will ask for, one of them finished."""
    kept: Any = yard.storage.open()
    lease, needs = kept.acquire(run, "me", 1.0, 0.0), frozenset({"what nobody has"})
    names = [f"{run}/{one}/0123456789abcdef" for one in ("done", "not done")]
    yard.queue.offer(lease, [Offer(name, b"", needs) for name in names])
    (taken,) = yard.queue.take("w", 1, needs, 30.0)
    told = wire.Answered(Answer("x", "stop", 1, 0, 1, ()), [])
    yard.queue.finish(taken, wire.encode(told))
    kept.release(lease)


@pytest.mark.parametrize("commits", [0, 1, 2, 3])
def test_an_owner_that_begins_anew_finds_what_it_had_offered(yard: Yard, commits: int) -> None:
    run = begun(yard, commits)
    leave(yard, run)

    async def go_on() -> Any:
        with yard.machine() as machine:
            async with yard.working(yard.worker(machine)):
                return await machine.resume(run, yard.terminal)

    report = asyncio.run(go_on())
    assert (report.state, yard.file(run)) == ("done", EXPECTED)
    assert set(yard.counted.values()) == {1}, "what was finished is not done again"
    assert yard.queue._entries == {}


def test_what_was_journalled_is_forgotten_at_the_next_beginning(yard: Yard) -> None:
    run = begun(yard, 3)
    kept: Any = yard.storage.open()
    slots = {record.slot for record in kept.records(run, kinds=["outcome"])}
    lease = kept.acquire(run, "another", 30.0, 0.0)
    slot = sorted(slots)[0]
    names = [slot, "not journalled"]
    ids = yard.queue.offer(lease, [Offer(f"{run}/{one}/0123456789abcdef", b"") for one in names])
    for taken in yard.queue.take("w", 99, wire.capabilities(frozenset(wire.KINDS), MODEL), 30):
        yard.queue.finish(taken, wire.encode(wire.Error("StepError", "x", "y", "", "")))

    async def look() -> None:
        with yard.machine() as machine:
            made = errands.Errands(yard.fleet(), machine.ledger, lease, machine.clock, print)
            await made.begin(slots)
            await made.close()

    asyncio.run(look())
    assert not set(ids) & set(yard.queue._entries)
    left = [entry for entry in yard.queue._entries.values() if entry.state == "finished"]
    outcomes = [wire.read_outcome(entry.outcome) for entry in left]
    assert all(isinstance(one, wire.Answered) for one in outcomes), "a failure is tried again"
    assert not {entry.taken.slot.split("/")[1] for entry in left} & slots


def test_a_run_that_is_stopped_takes_its_steps_back(yard: Yard) -> None:
    async def work() -> Any:
        with yard.machine() as machine:
            terminal = yard.terminal
            drivers: list[Any] = []
            terminal.on_driver = drivers.append
            run = await machine.create(Job(PROGRAM, seed=1))
            leave(yard, run)
            task = asyncio.create_task(machine.resume(run, terminal))
            await until(lambda: len(yard.queue._entries) > 2)
            drivers[0].stop()
            return await task

    report = asyncio.run(work())
    assert report.state == "interrupted"
    (left,) = yard.queue._entries.values()
    assert left.state == "finished", "an answer that is there is kept for who goes on"


@pytest.mark.usefixtures("hasty")
def test_without_a_worker_it_waits_says_so_and_then_does_it_here(yard: Yard) -> None:
    yard.patience_s = 0.5
    report = asyncio.run(yard.run())
    assert (report.state, yard.file(report.run)) == ("done", EXPECTED)
    assert sum(yard.own.values()) == 10
    assert any("waiting for a worker" in note and "llm steps" in note for note in yard.notes)
    assert any("are done here" in note for note in yard.notes)
    assert yard.queue._entries == {}


@pytest.mark.usefixtures("hasty")
def test_what_was_finished_at_the_last_moment_is_not_done_here(yard: Yard) -> None:
    yard.patience_s = 0.2
    real = yard.queue.withdraw

    def withdraw(lease: Any, steps: Any = None) -> list[int]:
        if steps and not yard.counted:
            (taken,) = yard.queue.take("w", 1, wire.capabilities(frozenset({"llm"}), MODEL), 30)
            step = wire.read_step(taken.payload)
            assert isinstance(step, wire.ModelStep)
            yard.counted[item(step.request)] += 1
            told = Answer(answer(step.request), "stop", 1, 0, 1, ())
            yard.queue.finish(taken, wire.encode(wire.Answered(told, [])))
        return real(lease, steps)

    yard.queue.withdraw = withdraw  # type: ignore[method-assign]
    report = asyncio.run(yard.run())
    assert (report.state, yard.file(report.run)) == ("done", EXPECTED)
    assert len(yard.own) == 9 and not set(yard.own) & set(yard.counted)


@pytest.mark.usefixtures("hasty")
def test_workers_that_come_late_get_the_rest(yard: Yard) -> None:
    yard.patience_s = 0.2

    async def work() -> Any:
        with yard.machine() as machine:
            program = "\n".join(
                f'a{n} = llm.write("Say", f"part {n} {{len(a{n - 1})}}")' if n else 'a0 = "x"'
                for n in range(60)
            )
            yard.here = slow
            task = asyncio.create_task(machine.run(Job(program, seed=1), yard.terminal))
            await until(lambda: bool(yard.own))
            async with yard.working(yard.worker(machine)):
                return await task

    def slow(request: Request) -> str:
        import time

        time.sleep(0.03)
        return answer(request)

    assert asyncio.run(work()).state == "done"
    assert yard.own and yard.counted, "first here, then there"
    assert any("go to workers again" in note for note in yard.notes)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("able", "version", "said"),
    [
        (("edvac 0.0.1 template 5 format 1", "llm"), "edvac 0.0.1", "is edvac 0.0.1, and this is"),
        ((wire.VERSION, "llm", "model another"), wire.VERSION, f"has not model {MODEL}"),
        ((wire.VERSION, "python"), wire.VERSION, "does no llm steps"),
    ],
)
def test_why_a_worker_gets_nothing_is_said(
    yard: Yard, able: tuple[str, ...], version: str, said: str
) -> None:
    yard.patience_s = 0.6
    yard.queue.enlist(Enlisted("id", "odd", "host", version, able))
    report = asyncio.run(yard.run())
    assert report.state == "done" and not yard.counted
    assert any(said in note and "odd on host" in note for note in yard.notes), yard.notes


def test_an_outcome_that_cannot_be_read_fails_the_step_alone(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = wire.encode

    def garbled(what: Any) -> bytes:
        garble = isinstance(what, wire.Answered) and "item 3" in what.answer.text
        return b"\xc1 no message" if garble else real(what)

    monkeypatch.setattr(wire, "encode", garbled)
    report = asyncio.run(yard.run(PROGRAM, "a"))
    codes = [step.failure.code for step in report.failures if step.failure]
    assert report.state == "partial" and set(codes) == {"outcome_unreadable"}
    assert yard.queue._entries == {}


def test_payloads_carry_no_key_and_no_setting(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    seen: list[bytes] = []
    real = yard.queue.offer
    yard.queue.offer = lambda lease, steps: (  # type: ignore[method-assign]
        seen.extend(step.payload for step in steps),
        real(lease, steps),
    )[1]
    asyncio.run(yard.run(PROGRAM, "a"))
    assert len(seen) == 10 and not any(b"sk-very-secret" in payload for payload in seen)


def test_workers_need_a_store_on_a_server(tmp_path: Path) -> None:
    from edvac.machine.storage import require_server

    require_server("postgresql://x/y")
    with pytest.raises(UsageError, match="EDVAC_STORE") as error:
        require_server("")
    assert error.value.code == "workers_need_server"


def test_a_child_of_a_run_sends_its_steps_too(yard: Yard) -> None:
    """Data that does not fit one context goes piece by piece, and each piece travels."""
    from edvac.core.errors import OperandError

    def script(request: Request) -> str:
        if len(request.messages[-1].text) > 9000:
            raise OperandError("operand_too_large", "too much")
        return "short"

    async def work() -> Any:
        with yard.machine() as machine:
            machine.processor.context_tokens = 4000  # type: ignore[misc]
            async with yard.working(yard.worker(machine)):
                program = f'x = llm.write("Sum it up", "{"word " * 3000}", over="split")\n'
                return await machine.run(Job(program, seed=1), yard.terminal)

    yard.script = script
    report = asyncio.run(work())
    assert report.state == "done", report.failures
    assert sum(yard.counted.values()) > 2 and not yard.own and yard.queue._entries == {}


def test_a_question_that_was_changed_is_another_step(yard: Yard) -> None:
    """What an earlier owner offered is used for the same question only."""

    async def work() -> list[Any]:
        with yard.machine() as machine:
            kept: Any = yard.storage.open()
            from edvac.store import RunInfo

            kept.create_run(RunInfo("r", 0.0))
            lease = kept.acquire("r", "me", 600.0, 0.0)
            made = errands.Errands(yard.fleet(), machine.ledger, lease, machine.clock, print)
            await made.begin(())
            needs = wire.needs_model(MODEL)
            asks = [asyncio.create_task(made.send("r", "s", b"x%d" % n, needs)) for n in range(2)]
            same = asyncio.create_task(made.send("r", "s", b"x0", needs))
            await asyncio.sleep(0.1)
            taken = yard.queue.take("w", 9, tuple(needs), 30.0)
            for number, one in enumerate(taken):
                error = wire.Error("DeviceError", f"e{number}", "no", "", "")
                yard.queue.finish(one, wire.encode(error))
            found = await asyncio.gather(*asks, same)
            asks[0] = asyncio.create_task(made.send("r", "s", b"x0", needs))
            await asyncio.sleep(0.1)
            assert [one.attempt for one in yard.queue.take("w", 9, tuple(needs), 30.0)] == [2]
            asks[0].cancel()
            await asyncio.sleep(0.1)
            assert len(yard.queue._entries) == 2, "one that nobody waits for is withdrawn"
            await made.close()
            return found

    first, second, same = asyncio.run(work())
    assert (first.code, second.code, same.code) == ("e0", "e1", "e0")


def test_the_owner_contacts_what_its_workers_did(yard: Yard) -> None:
    from edvac.machine.fleet.doing import Doer

    async def work() -> Any:
        with yard.machine() as machine:
            model = ScriptedProcessor(answer, name=MODEL)
            model.contacts.note("https://models.example:443")
            async with yard.working(yard.worker(machine, doer=Doer(model))):
                closed: list[event.RunClosed] = []

                def emit(happened: event.Event) -> None:
                    if isinstance(happened, event.RunClosed):
                        closed.append(happened)

                await machine.run(Job(PROGRAM, seed=1), Terminal(emit))
                return closed[0].endpoints

    assert asyncio.run(work()) == ["https://models.example:443"]
