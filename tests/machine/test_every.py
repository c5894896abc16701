"""The scheduler: each occurrence once, whatever is killed when; nothing twice at a time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from edvac.core.errors import LeaseError
from edvac.core.seams import ManualClock
from edvac.machine import Job
from edvac.machine.every import Scheduler, Spec, Started, alone, occurrence_key, write_spec
from edvac.store import NewRecord, RunInfo, Schedule, Store

BERLIN = ZoneInfo("Europe/Berlin")


class Rig:
    """A store, a clock and a start that stores a run as a real one would."""

    def __init__(self, root: Path, when: str = "07:00") -> None:
        start = dt.datetime(2026, 5, 1, 6, 0, tzinfo=BERLIN).timestamp()
        self.clock = ManualClock(start)
        self.store = Store(root, clock=self.clock)
        self.started: list[str] = []
        self.said: list[str] = []
        self.dies = ""
        self.refused = ""
        self.running = False
        spec = Spec(when, "p.edv", [], str(root), "")
        self.store.keep_schedule(Schedule("s1", write_spec(spec), 0.0, "2026-04-30"))

    def start(self, spec: Spec, occurrence: str) -> Started:
        if self.dies == "before":
            raise KeyboardInterrupt
        run = f"run{len(self.started)}"
        self.started.append(occurrence)
        self.store.create_run(RunInfo(run, self.clock.wall()))
        lease = self.store.acquire(run, "me", 1e9, self.clock.wall())
        opened = NewRecord("", "opened", reuse_key=occurrence_key(occurrence))
        self.store.append(lease, [opened])
        if not self.running:
            self.store.release(lease)
        if self.dies == "after":
            raise KeyboardInterrupt
        return Started(run)

    def look(self, hours: float = 0.0) -> float:
        self.clock.advance(hours * 3600)
        scheduler = Scheduler(
            self.store,
            self.clock,
            zone=lambda: BERLIN,
            start=self.start,
            approved=lambda _: self.refused,
            say=self.said.append,
        )
        return scheduler.look()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_what_is_due_is_started_once(rig: Rig) -> None:
    assert rig.look(0.5) == 20.0 and not rig.started
    assert rig.look(0.4999) < 1.0, "it wakes in time"
    for _ in range(5):
        rig.look(0.1)
    assert rig.started == ["s1 2026-05-01"]
    rig.look(24)
    assert rig.started == ["s1 2026-05-01", "s1 2026-05-02"]


def test_missed_times_run_once_and_it_says_so(rig: Rig) -> None:
    rig.look(24 * 4 + 2)
    assert rig.started == ["s1 2026-05-05"]
    assert "4 earlier times were missed; it runs once" in rig.said[0]


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_scheduler_killed_while_it_starts_neither_skips_nor_doubles(rig: Rig, dies: str) -> None:
    rig.dies = dies
    with pytest.raises(KeyboardInterrupt):
        rig.look(2)
    rig.dies = ""
    rig.look()
    rig.look(1)
    assert rig.started == ["s1 2026-05-01"]
    assert rig.store.schedules()[0].run == "run0"


def test_a_run_that_still_goes_on_is_not_joined_by_another(rig: Rig) -> None:
    rig.running = True
    rig.look(2)
    rig.look(24)
    assert rig.started == ["s1 2026-05-01"] and "still goes on" in rig.said[-1]
    assert "still goes on" in rig.store.schedules()[0].said
    with rig.store._db.write("test") as execute:
        execute("UPDATE head SET owner = NULL")
        from edvac.store.seal import reseal

        reseal(execute, "head", "1", ())
    rig.look(24)
    assert len(rig.started) == 2 and rig.store.schedules()[0].said == ""


def test_a_program_that_touches_other_things_is_not_started(rig: Rig) -> None:
    rig.refused = "it writes more"
    rig.look(2)
    assert not rig.started and rig.store.schedules()[0].said == "it writes more"
    rig.refused = ""
    rig.look(1)
    assert not rig.started, "that occurrence is over"
    rig.look(24)
    assert len(rig.started) == 1


def test_a_start_that_fails_is_kept_and_the_next_day_tries_again(rig: Rig) -> None:
    start, rig.start = rig.start, lambda *_: Started(problem="no model " * 100)  # type: ignore[method-assign]
    rig.look(2)
    assert rig.store.schedules()[0].said.startswith("no model")
    assert len(rig.store.schedules()[0].said) <= 300
    rig.start = start  # type: ignore[method-assign]
    rig.look(24)
    assert rig.started == ["s1 2026-05-02"]


def test_a_schedule_removed_while_it_starts_stays_removed(rig: Rig) -> None:
    start = rig.start

    def removes(spec: Spec, occurrence: str) -> Started:
        rig.store.drop_schedule("s1")
        return start(spec, occurrence)

    rig.start = removes  # type: ignore[method-assign]
    rig.look(2)
    assert rig.started and rig.store.schedules() == []


def test_one_scheduler_a_workspace(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with alone(tmp_path), pytest.raises(LeaseError), alone(tmp_path):
        pass
    with alone(tmp_path):
        assert Job("").occurrence == ""
