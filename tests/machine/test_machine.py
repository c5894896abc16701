"""Runs as users meet them: failures as data, interruption, questions, leases, deadlines, disks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from machine_kit import Bench, Post

from edvac.core import event
from edvac.core.errors import LeaseError, StoreError, UsageError
from edvac.core.seams import ManualClock
from edvac.device import Call
from edvac.machine.history import read_history
from edvac.machine.machine import Terminal
from edvac.store import Store, journal
from edvac.store.database import Database

ITEMS = """
class Item:
    word: str

items = [llm.extract(files.read(p), Item) for p in files.list("inbox/*")]
"""


# -- failure is data --------------------------------------------------------------------------


def test_one_bad_item_blocks_what_uses_it_and_nothing_else(bench: Bench) -> None:
    bench.broken = {"bert"}
    report = bench.run(ITEMS + "note = llm.write('All of', items)\nfiles.write('a', 'b')\n")
    assert report.state == "partial"
    assert {s.call.address: s.state.value for s in report.failures} == {
        "items[1]": "failed",
        "note": "blocked",
    }
    assert bench.files(report.run) == {"a": "b"}


def test_an_accepted_failure_leaves_the_run_done_and_is_counted(bench: Bench) -> None:
    bench.broken = {"bert"}
    text = ITEMS + "good = [i for i in items if ok(i)]\nnote = llm.write('All of', good)\n"
    report = bench.run(text)
    assert report.state == "done" and not report.failures
    assert report.counts["failed"] == 1 and report.counts["handled"] == 1


def test_retry_runs_what_failed_and_what_that_blocked_and_nothing_else(bench: Bench) -> None:
    bench.broken = {"bert", "cleo"}
    text = ITEMS.replace("items =", "items =") + (
        "last = attempt(items[2], Item(word='none'))\n"
        "note = llm.write('All of', items[0], items[1])\nfiles.write('last.md', last.word)\n"
    )
    report = bench.run(text)
    assert report.state == "partial"
    bench.broken = set()
    bench.executed.clear()
    with pytest.raises(UsageError, match="partial") as unasked:
        bench.resume(report.run)
    assert f"edvac resume {report.run} --retry" in unasked.value.fix
    again = bench.resume(report.run, retry=True)
    assert again.state == "done"
    assert dict(bench.executed) == {"items[1]": 1, "note": 1}, "an accepted failure is kept"
    assert bench.files(report.run) == {"last.md": "none"}
    for retry in (False, True):
        with pytest.raises(UsageError, match="done") as ended:
            bench.resume(report.run, retry=retry)
        assert ended.value.code == "nothing_to_resume" and ended.value.why
        assert f"edvac show {report.run}" in ended.value.fix and "--fresh" in ended.value.fix
        assert "--retry" not in ended.value.fix, "nothing is left that it could try again"


def test_a_failure_accepted_here_and_used_there_is_named_as_the_cause(bench: Bench) -> None:
    bench.broken = {"poison"}
    text = "x = llm.write('poison')\ny = attempt(x, 'none')\nz = llm.write('more', x)\n"
    report = bench.run(text)
    assert [s.call.address for s in report.failures] == ["x", "z"]
    bench.broken = set()
    assert bench.resume(report.run, retry=True).state == "done"


def test_calls_not_reached_are_listed(bench: Bench) -> None:
    bench.broken = {"poison"}
    report = bench.run("x = llm.write('poison')\nif len(x) > 3:\n    files.write('a', 'b')\n")
    assert report.state == "partial" and report.counts["unreached"] == 1
    assert report.unreached[0].ops == ("files.write",)


# -- interruption -----------------------------------------------------------------------------


def stopping(after: int, reason: str = "interrupted") -> tuple[Terminal, list[event.Event]]:
    """A terminal that stops the run after some finished steps."""
    seen: list[event.Event] = []
    drivers: list[Any] = []
    left = [after]

    def emit(happened: event.Event) -> None:
        seen.append(happened)
        if isinstance(happened, event.StepFinished):
            left[0] -= 1
            if left[0] == 0:
                drivers[0].stop(reason)

    return Terminal(emit, on_driver=drivers.append), seen


@pytest.mark.parametrize("after", [1, 3, 5])
def test_an_interrupted_run_goes_on_where_it_was(bench: Bench, after: int) -> None:
    text = ITEMS + "note = llm.write('All of', items)\nfiles.write('a', note)\n"
    terminal, _ = stopping(after)
    report = bench.run(text, terminal)
    assert report.state == "interrupted"
    before = dict(bench.executed)
    seen: list[event.Event] = []
    again = bench.resume(report.run, Terminal(seen.append))
    assert again.state == "done" and "a" in bench.files(report.run)
    assert again.counts["replayed"] >= after
    opened = next(e for e in seen if isinstance(e, event.RunOpened))
    assert opened.resumed and opened.replayed == again.counts["replayed"]
    twice = {k for k, n in bench.executed.items() if n > 1}
    assert len(twice) <= sum(before.values()) - after, "only what was under way runs again"


def test_a_step_that_hangs_is_cancelled(bench: Bench) -> None:
    reached, ended = asyncio.Event(), []

    async def hang(call: Call) -> None:
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(call.address)

    bench.post = Post(hang)

    async def go() -> Any:
        drivers: list[Any] = []
        with bench.open() as machine:
            job = bench.job("x = mail.wait('x')\n")
            task = asyncio.create_task(machine.run(job, Terminal(on_driver=drivers.append)))
            await reached.wait()
            drivers[0].stop()
            return await task

    assert asyncio.run(go()).state == "interrupted" and ended == ["x"]


def test_kill_through_another_handle_and_a_stale_kill_is_ignored(bench: Bench) -> None:
    reached = asyncio.Event()

    async def hang(call: Call) -> None:
        reached.set()
        if len(bench.post.sent) == 0 and not allowed:
            await asyncio.Event().wait()

    allowed: list[bool] = []
    bench.post = Post(hang)

    async def go() -> Any:
        with bench.open() as machine:
            task = asyncio.create_task(machine.run(bench.job("x = mail.wait('x')\n")))
            await reached.wait()
            with Store(bench.work) as other:
                other.post(other.find_run(None).id, "kill")
            return await task

    report = asyncio.run(go())
    assert report.state == "cancelled"
    allowed.append(True)
    with Store(bench.work) as other:
        assert other.run(report.run).state == "cancelled"
        other.post(report.run, "kill")
    assert bench.resume(report.run).state == "done", "that kill was meant for an owner long gone"


# -- waiting for a person ---------------------------------------------------------------------

ASKING = "t = files.read('inbox/0.txt')\nmail.send(t)\n"


def test_an_external_effect_on_untrusted_data_waits_for_a_person(bench: Bench) -> None:
    report = bench.run(ASKING)
    assert report.state == "waiting" and bench.post.sent == []
    assert bench.resume(report.run).state == "waiting"
    with bench.open() as machine:
        slot = next(e for e in machine.history(report.run).entries if e.address == "t").slot
        machine.answer(report.run, slot, True)  # of another step: it changes nothing
    assert bench.resume(report.run).state == "waiting" and bench.post.sent == []


@pytest.mark.parametrize("yes", [True, False])
def test_an_answer_that_lies_in_the_inbox_is_found_by_the_next_resume(
    bench: Bench, yes: bool
) -> None:
    seen: list[event.Event] = []
    report = bench.run(ASKING, Terminal(seen.append))
    question = next(e for e in seen if isinstance(e, event.Question))
    with bench.open() as machine:
        machine.answer(report.run, question.slot, yes)
    again = bench.resume(report.run)
    assert again.state == ("done" if yes else "partial")
    assert bench.post.sent == (["word=ann\n"] if yes else [])
    with Store(bench.work) as store:
        assert store.inbox(report.run) == []
        entries = read_history(store, report.run).entries
    said = [entry.body["verdict"] for entry in entries if "verdict" in entry.body]
    assert said == ["asked", "yes" if yes else "no"]


def test_the_terminal_is_asked_one_question_at_a_time(bench: Bench) -> None:
    open_now, most = 0, 0

    async def reply(_: event.Question) -> bool:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0)
        open_now -= 1
        return True

    text = "for p in files.list('inbox/*'):\n    mail.send(files.read(p))\n"
    assert bench.run(text, Terminal(answer=reply)).state == "done"
    assert most == 1 and len(bench.post.sent) == 3


def test_a_question_of_the_program_is_answered_through_the_inbox(bench: Bench) -> None:
    text = "x = human.ask('Which?', ['red', 'blue'])\nfiles.write('a', x)\n"
    report = bench.run(text)
    assert report.state == "waiting"
    with bench.open() as machine:
        entries = machine.history(report.run).entries
        slot = next(e.slot for e in entries if e.kind == "intent")
        machine.answer(report.run, slot, "green")
        machine.answer(report.run, slot, "blue")
    seen: list[event.Event] = []
    assert bench.resume(report.run, Terminal(seen.append)).state == "done"
    assert bench.files(report.run) == {"a": "blue"}
    assert any(isinstance(e, event.Note) and "'green'" in e.text for e in seen)


def test_an_answer_that_comes_just_before_a_run_would_wait_for_it_is_taken(bench: Bench) -> None:
    async def answering(call: Call) -> None:
        with bench.open() as other:
            run = other.find(None).id
            asked = [e for e in other.history(run).entries if e.kind == "intent"]
            other.answer(run, next(e.slot for e in asked if e.body["op"] == "human.ask"), "blue")

    bench.post = Post(answering)
    text = "x = human.ask('Which?', ['red', 'blue'])\ny = mail.wait('y')\nfiles.write('a', x)\n"
    report = bench.run(text)
    assert report.state == "done" and bench.files(report.run) == {"a": "blue"}


# -- ownership, clocks, deadlines ---------------------------------------------------------------


def test_a_second_owner_is_refused_even_in_the_same_process(bench: Bench) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hang(call: Call) -> None:
        reached.set()
        await go_on.wait()

    bench.post = Post(hang)

    async def go() -> Any:
        with bench.open() as machine, bench.open() as second:
            task = asyncio.create_task(machine.run(bench.job("x = mail.wait('x')\n")))
            await reached.wait()
            run = machine.find(None).id
            for other in (machine, second):
                with pytest.raises(LeaseError):
                    await other.resume(run)
            go_on.set()
            return await task

    assert asyncio.run(go()).state == "done"


@pytest.mark.parametrize("fenced", [True, False])
def test_an_owner_that_lost_its_lease_writes_nothing(
    bench: Bench, fenced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second value plants the bug that the first one guards against."""
    if not fenced:
        row = journal.check_epoch

        def anybody(execute: Any, number: int, lease: Any) -> Any:
            found = execute("SELECT epoch, owner FROM head WHERE number = ?", (number,)).get
            return row(execute, number, type(lease)(lease.run, found[1], found[0], 0.0))

        monkeypatch.setattr(journal, "check_epoch", anybody)
    clock = ManualClock()
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hang(call: Call) -> None:
        reached.set()
        await go_on.wait()

    bench.post = Post(hang)

    async def go() -> int:
        with bench.open(clock=clock) as machine:
            task = asyncio.create_task(machine.run(bench.job("x = mail.wait('x')\n")))
            await reached.wait()
            with Store(bench.work, clock=clock) as other:
                run = other.find_run(None).id
                clock.jump(3600)
                other.acquire(run, "another", 1e9, clock.wall())
                go_on.set()
                await asyncio.gather(task, return_exceptions=True)
                assert isinstance(task.exception(), LeaseError)
                return sum(1 for r in other.records(run) if r.kind == "outcome")

    assert asyncio.run(go()) == (0 if fenced else 1)


def test_a_step_that_takes_too_long_fails_alone(bench: Bench) -> None:
    async def hang(call: Call) -> None:
        await asyncio.Event().wait()

    bench.post = Post(hang, timeout_s=0.01)
    report = bench.run("x = mail.wait('x')\nfiles.write('a', 'b')\n")
    assert report.state == "partial"
    assert [s.failure.code for s in report.failures if s.failure] == ["step_timeout"]
    assert bench.files(report.run) == {"a": "b"}


def test_an_external_effect_that_timed_out_is_asked_about_before_it_is_retried(
    bench: Bench,
) -> None:
    async def late(call: Call) -> None:
        bench.post.sent.append("maybe")
        await asyncio.Event().wait()

    bench.post = Post(late, timeout_s=0.01)
    report = bench.run("mail.send('x')\n")
    assert report.state == "partial"
    assert bench.resume(report.run, retry=True).state == "waiting"
    assert bench.post.sent == ["maybe"]


def test_what_a_person_refused_was_never_begun(bench: Bench) -> None:
    """A retry asks the guard's question again, with its reason, and no other."""
    text = "t = files.read('inbox/0.txt')\nmail.send(t)\n"
    asked: list[str] = []

    async def no(question: event.Question) -> bool:
        asked.append(question.text)
        return False

    report = bench.run(text, Terminal(answer=no))
    assert report.state == "partial"
    assert bench.resume(report.run, Terminal(answer=no), retry=True).state == "partial"
    assert len(asked) == 2 and asked[0] == asked[1] and "file:inbox/0.txt" in asked[0]


def test_a_copy_is_done_again_where_a_retry_has_changed_what_is_copied(bench: Bench) -> None:
    bench.broken = {"Which"}
    text = (
        "best = llm.choose('Which', ['yes', 'no'])\n"
        "files.copy('inbox/' + attempt({'yes': '0', 'no': '1'}[best], '1') + '.txt', 'best.txt')\n"
        "files.write('why.txt', llm.write('Explain', best))\n"
    )
    report = bench.run(text)
    first = bench.files(report.run)["best.txt"]
    bench.broken = set()
    assert bench.resume(report.run, retry=True).state == "done"
    assert bench.files(report.run)["best.txt"] != first


def test_the_wall_clock_may_go_back(bench: Bench) -> None:
    clock = ManualClock()

    async def back(call: Call) -> None:
        clock.jump(-1_000_000)

    bench.post = Post(back)

    async def go() -> tuple[str, str]:
        with bench.open(clock=clock) as machine:
            terminal, _ = stopping(1)
            first = await machine.run(bench.job("x = mail.wait('a')\ny = mail.wait(x)\n"), terminal)
            clock.jump(-1_000_000)
            second = await machine.resume(first.run)
            return first.state, second.state

    assert asyncio.run(go()) == ("interrupted", "done")


def test_two_runs_side_by_side_in_one_workspace(bench: Bench) -> None:
    async def go() -> list[Any]:
        with bench.open() as one, bench.open() as two:
            text = ITEMS + "files.write('a', items[0].word)\n"
            jobs = [one.run(bench.job(text)), two.run(bench.job(text)), one.run(bench.job(text))]
            return list(await asyncio.gather(*jobs))

    reports = asyncio.run(go())
    assert [r.state for r in reports] == ["done"] * 3
    assert len({r.run for r in reports}) == 3
    assert all(bench.files(r.run) == {"a": "ann"} for r in reports)


def test_a_run_moves_between_processes_and_goes_on_numbering_its_files(bench: Bench) -> None:
    """A machine must not remember versions that another has raised."""
    text = "files.write('a', '1')\nmail.wait('x')\nfiles.write('a', files.read('a') + '2')\n"
    text += "mail.wait(files.read('a'))\nfiles.write('a', files.read('a') + '3')\n"

    async def go() -> str:
        with bench.open() as one, bench.open() as two:
            first = await one.run(bench.job(text), stopping(1)[0])
            await two.resume(first.run, stopping(3)[0])
            return (await one.resume(first.run)).run

    assert bench.files(asyncio.run(go())) == {"a": "123"}


# -- the disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [2, 3, 5, 8])
def test_a_failing_disk_ends_the_run_with_a_typed_error_and_it_goes_on_later(
    bench: Bench, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = Database.write, [at]

    def full(self: Database, doing: str) -> Any:
        if "journal" in doing:
            left[0] -= 1
            if left[0] <= 0:
                raise StoreError("disk_full", "the disk is full")
        return write(self, doing)

    text = ITEMS + "note = llm.write('All of', items)\nfiles.write('a', note)\nmail.send('x')\n"
    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", full)
        with pytest.raises(StoreError, match="full"):
            bench.run(text)
    with bench.open() as machine:
        run = machine.find(None).id
    terminal = Terminal(answer=yes)
    assert bench.resume(run, terminal).state == "done"
    assert bench.post.sent.count("x") <= 2 and "a" in bench.files(run)


async def yes(_: event.Question) -> bool:
    return True


def test_a_run_whose_inputs_are_gone_says_so_and_is_not_left_owned(bench: Bench) -> None:
    report = bench.run(ITEMS, stopping(1)[0])
    (bench.work / "inbox").rename(bench.work / "away")
    with pytest.raises(UsageError):
        bench.resume(report.run)
    (bench.work / "away").rename(bench.work / "inbox")
    assert bench.resume(report.run).state == "done"


def test_a_device_name_cannot_be_taken_twice(tmp_path: Path) -> None:
    from edvac.machine import Machine
    from edvac.processor.scripted import ScriptedProcessor

    with pytest.raises(UsageError, match="device"):
        Machine(tmp_path, ScriptedProcessor(str), devices={"files": Post()})


EQUAL = """
texts = [files.read("inbox/a.txt") for n in range(5)]
notes = [attempt(llm.write("Shorten this", t), "none") for t in texts]
files.write("n.txt", ",".join(notes))
"""


def test_equal_steps_side_by_side_are_done_once(bench: Bench) -> None:
    bench.file("inbox/a.txt", "apple")
    report = bench.run(EQUAL)
    assert len(bench.asked) == 1
    assert report.counts["reused"] == 4
    assert bench.files(report.run)["n.txt"].count("<apple") == 5
    assert bench.run(EQUAL, fresh=True).counts["reused"] == 0


def test_each_of_equal_steps_tries_for_itself_where_the_first_fails(bench: Bench) -> None:
    bench.file("inbox/a.txt", "apple")
    bench.broken = {"apple"}
    report = bench.run(EQUAL)
    assert bench.files(report.run)["n.txt"] == "none,none,none,none,none"
    assert len(bench.asked) % 5 == 0 and bench.asked
    assert report.counts["reused"] == 0
