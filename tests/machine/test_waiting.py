"""Programs that wait: for signals, for times, for a person until a deadline; and events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_kit import Bench

from edvac.control import Intent, Record
from edvac.core import event
from edvac.core.errors import UsageError
from edvac.core.label import PROGRAM, PUBLIC
from edvac.core.schema import NONE
from edvac.core.seams import ManualClock
from edvac.core.signature import NO_ACCESS
from edvac.core.value import Failed, Scalar, plain, total_label
from edvac.device import CATALOGUE
from edvac.machine import Machine, Report
from edvac.machine.every import Started
from edvac.machine.machine import Terminal
from edvac.machine.signals import LONGEST, awaited, events, post_signal, signals
from edvac.machine.waits import SOON_S, Waits
from edvac.machine.wakes import AGAIN_S, Waker
from edvac.program import StepCall
from edvac.store import Store

DAY = 86_400.0
TWO = 'a = signal.wait("go", str)\nb = signal.wait("go", str)\nfiles.write("out", f"{a} {b}")\n'


class Timed(Bench):
    """A bench whose machines share a clock that moves when it is told to."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.clock = ManualClock()
        (work / "inbox").mkdir()

    def open(self, **options: Any) -> Machine:
        return super().open(clock=self.clock, **options)

    def sent(self, run: str, name: str, text: str, sender: str = "") -> int:
        with Store(self.work, clock=self.clock) as store:
            return post_signal(store, run, name, text, sender=sender)

    def entries(self, run: str, kind: str) -> list[Any]:
        with self.open() as machine:
            return [entry for entry in machine.history(run).entries if entry.kind == kind]

    def answer(self, run: str, text: str) -> None:
        with self.open() as machine:
            entries = machine.history(run).entries
            slot = next(e.slot for e in reversed(entries) if e.body.get("op") == "human.ask")
            machine.answer(run, slot, text)


@pytest.fixture
def timed(tmp_path: Path) -> Timed:
    return Timed(tmp_path)


# -- signals


def test_signals_are_taken_in_order_each_once_and_before_they_are_waited_for(timed: Timed) -> None:
    report = timed.run(TWO)
    assert report.state == "waiting" and report.counts["signals"] == 1
    assert [timed.sent(report.run, "go", f'"{text}"') for text in "xyz"] == [0, 1, 2]
    assert timed.resume(report.run).state == "done"
    assert timed.files(report.run) == {"out": "x y"}
    with Store(timed.work) as store:
        assert [one.text for one in signals(store, report.run)] == ['"z"']
        assert awaited(store, report.run) == []


def test_waits_for_one_name_take_turns_however_they_become_ready(timed: Timed) -> None:
    """The first wait's name is known last: until then any may be its own."""
    text = (
        'name = human.ask("?", ["yes", "go"])\na = signal.wait(f"{name}", str)\n'
        'b = signal.wait("yes", str)\nc = signal.wait("other", str)\n'
        'files.write("out", f"{a} {b} {c}")\n'
    )
    report = timed.run(text)
    with Store(timed.work) as store:
        assert awaited(store, report.run) == []
    for number in "12":
        timed.sent(report.run, "yes", f'"{number}"')
    timed.answer(report.run, "yes")
    assert timed.resume(report.run).state == "waiting"
    with Store(timed.work) as store:
        assert [one.name for one in awaited(store, report.run)] == ["other"]
    timed.sent(report.run, "other", '"3"')
    timed.resume(report.run)
    assert timed.files(report.run) == {"out": "1 2 3"}


def test_a_signal_is_of_its_type_or_is_not_used(timed: Timed) -> None:
    text = (
        'class Yes:\n    by: str\n    upto: Decimal\n\na = signal.wait("go", Yes)\n'
        'b = signal.wait("go", Yes)\nfiles.write("out", f"{a.by} {a.upto} {b.by}")\n'
    )
    report = timed.run(text)
    for wrong in ("5", '{"by": 1, "upto": 1}', '{"by": "x"}', "[]", "null"):
        with pytest.raises(UsageError, match="waits for Yes"):
            timed.sent(report.run, "go", wrong)
    timed.sent(report.run, "go", '{"by": "ann", "upto": "1.50"}')
    timed.sent(report.run, "go", '"nonsense"')  # not known yet not to fit
    timed.sent(report.run, "go", '{"by": "bert", "upto": 3}')
    notes: list[str] = []
    terminal = Terminal(lambda e: notes.append(e.text) if isinstance(e, event.Note) else None)
    timed.resume(report.run, terminal)
    assert timed.files(report.run) == {"out": "ann 1.50 bert"}
    assert len(notes) == 1 and "is not used" in notes[0]
    refused = [e.body for e in timed.entries(report.run, "approved")]
    assert [body["verdict"] for body in refused] == ["signal_refused"]
    with Store(timed.work) as store:
        assert signals(store, report.run) == []


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("no name", "1", "signal_name"),
        ("go", "{", "signal_not_json"),
        ("go", "NaN", "signal_not_json"),
        ("go", "[" * 20_000, "signal_not_json"),
        ("go", '"\\ud800"', "signal_not_json"),
        ("go", " " * (LONGEST + 1), "signal_too_large"),
    ],
)
def test_what_is_no_signal_is_refused(timed: Timed, name: str, text: str, code: str) -> None:
    report = timed.run(TWO)
    with pytest.raises(UsageError) as refused:
        timed.sent(report.run, name, text)
    assert refused.value.code == code
    with Store(timed.work) as store:
        assert signals(store, report.run) == []


def test_a_run_that_is_over_takes_no_signal(timed: Timed) -> None:
    report = timed.run("files.write('a', 'b')\n")
    with pytest.raises(UsageError, match="waits for no signal"):
        timed.sent(report.run, "go", "1")


def test_what_an_outsider_sends_is_not_trusted(timed: Timed) -> None:
    text = 'a = signal.wait("go", str)\nb = mail.send(a)\n'
    states = {}
    for sender in ("", "shop"):
        report = timed.run(text)
        timed.sent(report.run, "go", '"x"', sender)
        states[sender] = timed.resume(report.run)
        outcome = timed.entries(report.run, "outcome")[0]
        who = f"sender:{sender}" if sender else "user"
        assert total_label(outcome.value).sources == {who, "program"}
    assert states[""].state == "done" and timed.post.sent == ["x"]
    assert states["shop"].state == "waiting" and states["shop"].counts["questions"] == 1


def test_a_stopped_run_waits_on_where_it_was(timed: Timed) -> None:
    """Stopping takes no signal and forgets none."""
    drivers: list[Any] = []

    def stop(happened: event.Event) -> None:
        if isinstance(happened, event.StepStarted) and happened.op == "signal.wait":
            drivers[0].stop("interrupted")

    terminal = Terminal(stop, on_driver=drivers.append, ask=_never)
    report = timed.run('q = human.ask("?")\n' + TWO, terminal)
    assert report.state == "interrupted"
    assert report.counts["signals"] == 1 and report.counts["questions"] == 1
    timed.sent(report.run, "go", '"x"')
    timed.sent(report.run, "go", '"y"')
    timed.answer(report.run, "z")
    assert timed.resume(report.run).state == "done"
    assert timed.files(report.run) == {"out": "x y"}


async def _never(*_: object) -> str:
    await asyncio.Event().wait()
    raise AssertionError


Op = tuple[str, str]


@settings(max_examples=15, deadline=None)
@given(
    ops=st.lists(st.tuples(st.sampled_from(["send", "drive"]), st.sampled_from("ab")), max_size=12),
    waits=st.lists(st.sampled_from("ab"), min_size=1, max_size=5),
)
def test_sends_and_drives_in_any_order_come_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, ops: list[Op], waits: list[str]
) -> None:
    """Against an oracle: the n-th wait for a name has the n-th signal of that name."""
    timed = Timed(tmp_path_factory.mktemp("signals"))
    names = [f"x{at}" for at in range(len(waits))]
    lines = [f'{x} = signal.wait("{on}", int)' for x, on in zip(names, waits, strict=True)]
    shown = " ".join(f"{{{x}}}" for x in names)
    report = timed.run("\n".join([*lines, f'files.write("out", f"{shown}")', ""]))
    sent: dict[str, list[int]] = {"a": [], "b": []}
    over = False
    for number, (what, name) in enumerate(ops):
        if what == "send" and not over:
            timed.sent(report.run, name, str(number))
            sent[name].append(number)
        elif not over:
            over = timed.resume(report.run).state == "done"
    places = [waits[:at].count(name) for at, name in enumerate(waits)]
    wanted = [sent[on][at : at + 1] for on, at in zip(waits, places, strict=True)]
    if not over:
        over = timed.resume(report.run).state == "done"
    assert over is all(wanted)
    taken = [str(found[0]) for found in wanted if found]
    if over:
        assert timed.files(report.run) == {"out": " ".join(taken)}
    with Store(timed.work) as store:
        left = [one.text for one in signals(store, report.run)]
    assert sorted([*left, *taken]) == sorted(str(one) for found in sent.values() for one in found)


# -- times


def test_a_wait_of_days_is_fixed_when_it_begins_and_goes_on_where_it_was(timed: Timed) -> None:
    report = timed.run("wait.days(3)\nfiles.write('out', 'x')\n")
    due = timed.clock.wall() + 3 * DAY
    assert report.state == "waiting" and report.asleep and report.counts["due"] == due
    timed.clock.advance(DAY)
    assert timed.resume(report.run).counts["due"] == due
    timed.clock.advance(2 * DAY - SOON_S - 1)
    assert timed.resume(report.run).state == "waiting"
    timed.clock.advance(SOON_S + 1)
    assert timed.resume(report.run).state == "done"
    assert timed.files(report.run) == {"out": "x"}


def test_a_process_is_kept_for_a_time_that_is_about_to_come(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    report = Bench(tmp_path).run("wait.minutes(0.002)\nfiles.write('out', 'x')\n")
    assert report.state == "done"


def test_until_is_by_the_clock_and_its_zone(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    for when, wall in [
        ("2026-12-01", 1_796_079_600),
        ("2026-12-01 07:00", 1_796_104_800),
        ("2026-12-01T07:00+00:00", 1_796_108_400),
    ]:
        report = timed.run(f'wait.until("{when}")\n')
        assert report.counts["due"] == wall
    assert timed.run("wait.until(date.parse('1999-01-01'))\n").state == "done"


def test_a_time_of_no_sense_fails_the_step(timed: Timed) -> None:
    timed.file("inbox/a.txt", "soon")
    text = "x = files.read('inbox/a.txt')\nwait.until(x)\nwait.days(len(x) - 9)\n"
    report = timed.run(text)
    assert {step.failure.code for step in report.failures if step.failure} == {"operand_misfit"}


def test_what_comes_later_waits_but_for_what_only_computes(timed: Timed) -> None:
    timed.file("inbox/a.txt", "old")
    text = (
        "sent = mail.send('now')\nwait.days(1)\na = files.read('inbox/a.txt')\n"
        "b = llm.write('b', 1)\nq = human.ask('?')\nc = mail.send(a)\n"
    )
    report = timed.run(text)
    assert report.state == "waiting" and report.asleep
    assert timed.post.sent == ["now"] and timed.asked  # the model was asked already
    timed.file("inbox/a.txt", "new")
    timed.clock.advance(DAY)
    assert timed.resume(report.run).counts["questions"] == 2
    read = next(e for e in timed.entries(report.run, "outcome") if e.address == "a")
    assert plain(read.value) == "new"


def test_a_wait_begins_when_what_is_above_it_is_over(timed: Timed) -> None:
    """Each pass of a loop waits after the one before; a failure above does not hold it up."""
    text = (
        "bad = files.read('inbox/none.txt')\nfor n in [1, 2]:\n    wait.days(1)\n"
        "    files.write(f'{n}', 'x')\nx = attempt(bad, '')\n"
    )
    report = timed.run(text)
    assert timed.files(report.run) == {}
    timed.clock.advance(DAY)
    report = timed.resume(report.run)
    assert report.state == "waiting" and timed.files(report.run) == {"1": "x"}
    assert report.counts["due"] == timed.clock.wall() + DAY
    timed.clock.advance(DAY)
    assert timed.resume(report.run).state == "done"


def intent(op: str, number: float) -> Intent:
    values = {"number": Scalar(number, PROGRAM)}
    call = StepCall(
        "slot", op, CATALOGUE.signatures[op], {}, {}, NONE, PUBLIC, (0,), 1, "a", NO_ACCESS
    )
    return Intent(call, dict(values), NO_ACCESS, "digest")


def begun(known: dict[str, Any], clock: ManualClock, number: float) -> tuple[Waits, Record]:
    waits, step = Waits(known, clock), intent("wait.hours", number)
    record = waits.fixed([Record("intent", "slot", {})], [step])[0]
    assert waits.begin(step)
    return waits, record


Moves = list[tuple[str, float]]


@settings(max_examples=200, deadline=None)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["pass", "jump", "restart"]), st.floats(-5000, 5000)),
        max_size=20,
    )
)
def test_no_clock_makes_a_wait_longer_or_happen_twice(moves: Moves) -> None:
    """Of an hour: over when an hour of one process has passed, or when the wall clock says so; and
    never before the earlier of what two clocks say."""
    clock = ManualClock()
    waits, record = begun({}, clock, 1)
    until = record.body["until"][0]
    assert until == clock.wall() + 3600
    left = 3600.0  # by this process's own clock
    for what, by in moves:
        if what == "pass":
            clock.advance(abs(by))
            left -= abs(by)
        elif what == "jump":
            clock.jump(by)
        else:
            known = {"slot": _deadline(record)}
            waits, again = begun(known, clock, 1)
            assert again.body["until"] == record.body["until"]
            left = min(3600.0, until - clock.wall())
        over = left <= 1e-6 or clock.wall() >= until - 1e-6
        if abs(left) > 1e-3 and abs(clock.wall() - until) > 1e-3:
            assert waits.ready is over
        if over and waits.ready:
            return


def _deadline(record: Record) -> Any:
    from edvac.control.journal import Deadline

    return Deadline(*record.body["until"], "digest")


# -- a person, until a deadline

ASK = "x = attempt(human.ask('?', within='2h'), 'nobody')\nfiles.write('out', x)\n"


def test_a_question_is_given_up_at_its_deadline(timed: Timed) -> None:
    report = timed.run(ASK)
    assert report.state == "waiting" and report.counts["due"] == timed.clock.wall() + 7200
    timed.clock.advance(7200)
    report = timed.resume(report.run)
    assert report.state == "done" and timed.files(report.run) == {"out": "nobody"}
    outcome = timed.entries(report.run, "outcome")[0]
    assert isinstance(outcome.value, Failed) and outcome.value.code == "answer_deadline"
    assert report.counts["questions"] == 0


def test_an_answer_in_time_counts_however_late_it_is_read(timed: Timed) -> None:
    report = timed.run(ASK)
    timed.clock.advance(7000)
    timed.answer(report.run, "ann")
    timed.clock.advance(7000)
    assert timed.resume(report.run).state == "done"
    assert timed.files(report.run) == {"out": "ann"}


def test_an_answer_after_the_deadline_does_not_count(timed: Timed) -> None:
    report = timed.run(ASK)
    timed.clock.advance(7201)
    timed.answer(report.run, "ann")
    notes: list[str] = []
    terminal = Terminal(lambda e: notes.append(e.text) if isinstance(e, event.Note) else None)
    assert timed.resume(report.run, terminal).state == "done"
    assert timed.files(report.run) == {"out": "nobody"}
    assert len(notes) == 1 and "after its time" in notes[0]


def test_a_retry_waits_anew(timed: Timed) -> None:
    report = timed.run("x = human.ask('?', within='2h')\nfiles.write('out', x)\n")
    timed.clock.advance(7200)
    assert timed.resume(report.run).state == "partial"
    report = timed.resume(report.run, retry=True)
    assert report.state == "waiting" and report.counts["due"] == timed.clock.wall() + 7200
    timed.answer(report.run, "ann")
    assert timed.resume(report.run).state == "done"
    assert timed.files(report.run) == {"out": "ann"}


def test_a_signal_that_came_too_late_is_the_next_waits(timed: Timed) -> None:
    text = (
        "a = attempt(signal.wait('go', int, within='1h'), 0)\nb = signal.wait('go', int)\n"
        "files.write('out', f'{a} {b}')\n"
    )
    report = timed.run(text)
    timed.clock.advance(3601)
    timed.sent(report.run, "go", "5")
    assert timed.resume(report.run).state == "done"
    assert timed.files(report.run) == {"out": "0 5"}


def test_a_signal_in_time_counts_however_late_it_is_read(timed: Timed) -> None:
    report = timed.run("a = signal.wait('go', int, within='1h')\nfiles.write('out', f'{a}')\n")
    timed.clock.advance(3599)
    timed.sent(report.run, "go", "5")
    timed.clock.advance(3599)
    assert timed.resume(report.run).state == "done"
    assert timed.files(report.run) == {"out": "5"}


def test_a_deadline_ends_a_question_at_the_terminal_too(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    report = Bench(tmp_path).run(ASK.replace("2h", "1s"), Terminal(ask=_never))
    assert report.state == "done"


# -- events


def test_events_show_the_latest_value_of_each_name(timed: Timed) -> None:
    text = (
        "event.set('stage', 'one')\nevent.set('count', [1, 2])\nx = signal.wait('go', str)\n"
        "event.set('stage', x)\n"
    )
    report = timed.run(text)
    with timed.open() as machine:
        assert machine.events(report.run) == {"stage": "one", "count": [1, 2]}
        machine.signal(report.run, "go", "two", sender="")
    timed.resume(report.run)
    with Store(timed.work) as store:
        assert [(one.name, one.value) for one in events(store, report.run)] == [
            ("count", [1, 2]),
            ("stage", "two"),
        ]


# -- who goes on with what waits


class Resumes:
    def __init__(self, then: Callable[[str], None] = lambda _: None) -> None:
        self.runs: list[str] = []
        self._then = then

    def __call__(self, place: Path, run: str, retry: bool) -> Started:
        self.runs.append(run)
        self._then(run)
        return Started(run)


def test_a_run_goes_on_when_its_time_or_its_signal_has_come(timed: Timed) -> None:
    sleeps = timed.run("wait.days(1)\n").run
    listens = timed.run(TWO).run
    asks = timed.run("x = human.ask('?')\n").run
    resumes = Resumes()
    with Store(timed.work, clock=timed.clock) as store:
        waker = Waker(store, timed.clock, resume=resumes)
        waker.look()
        assert resumes.runs == []
        post_signal(store, listens, "other")
        waker.look()
        assert resumes.runs == []
        post_signal(store, listens, "go", '"x"')
        waker.look()
        assert resumes.runs == [listens]
        timed.clock.advance(DAY)
        waker.look()
        assert sorted(resumes.runs) == sorted([listens, sleeps, listens])
        waker.look()
        assert len(resumes.runs) == 3
        timed.clock.advance(AGAIN_S)
        waker.look()
        assert len(resumes.runs) == 5 and asks not in resumes.runs


def test_what_a_served_run_waits_for_ends_it(timed: Timed) -> None:
    run = timed.run("wait.days(1)\nfiles.write('out', 'x')\n").run
    reports: list[Report] = []
    timed.clock.advance(DAY)
    with Store(timed.work, clock=timed.clock) as store:
        resumes = Resumes(lambda found: reports.append(timed.resume(found)))
        Waker(store, timed.clock, resume=resumes).look()
    assert [report.state for report in reports] == ["done"] and resumes.runs == [run]


def test_an_event_is_set_when_all_that_is_above_it_has_ended(timed: Timed) -> None:
    """Whatever failed there, and though nothing of it goes into the event."""
    text = (
        "bad = files.read('inbox/none.txt')\nevent.set('stage', 'one')\n"
        "x = signal.wait('go', bool)\nevent.set('stage', 'two')\n"
    )
    report = timed.run(text)
    with timed.open() as machine:
        assert machine.events(report.run) == {"stage": "one"}
        machine.signal(report.run, "go", sender="")
    assert timed.resume(report.run).state == "partial"
    with timed.open() as machine:
        assert machine.events(report.run) == {"stage": "two"}
