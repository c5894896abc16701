"""Running programs at set times: one scheduler a workspace, each occurrence once.

A due program is started as a detached run of its own, whose first record names the occurrence: a
scheduler that was killed after starting it finds it there and does not start it again. Knows
nothing of terminals.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from edvac.core.errors import LeaseError, UsageError
from edvac.core.seams import Clock
from edvac.machine.cron import Cron
from edvac.machine.detach import COMMAND
from edvac.machine.when import When, due, parse_when
from edvac.program import Program
from edvac.store import Schedule, Store
from edvac.store.store import DIRECTORY

LOCK = "every.lock"
START_S = 1800.0  # a model may have to be fetched from a slow disk first
LOOK_S = 20.0  # how soon a clock that was set is noticed
SAID = 300  # characters of an error that are kept


class Spec(msgspec.Struct, frozen=True):
    """What a schedule starts.

    Attributes:
        when: as it was typed.
        program: path of the program's file.
        flags: of ``edvac run``, as they were typed.
        place: the directory in which they were typed.
        touches: what the program reads, writes and does, as its owner has approved it.
    """

    when: str
    program: str
    flags: list[str]
    place: str
    touches: str


@dataclass(frozen=True, slots=True)
class Started:
    """What became of a start: the run, or why there is none."""

    run: str = ""
    problem: str = ""


def read_spec(schedule: Schedule) -> Spec:
    return msgspec.json.decode(schedule.spec, type=Spec)


def write_spec(spec: Spec) -> str:
    return msgspec.json.encode(spec).decode()


def touch_digest(program: Program) -> str:
    """Of what a program reads, writes and does: an edit that changes it needs a new yes."""
    touched = program.touches
    shown = [sorted(touched.reads), sorted(touched.writes), sorted(program.outline().steps)]
    return hashlib.blake2b(json.dumps(shown).encode(), digest_size=16).hexdigest()


def occurrence_key(occurrence: str) -> str:
    """Under which the run of an occurrence is found."""
    return f"occurrence\n{occurrence}" if occurrence else ""


def local_zone() -> dt.tzinfo:
    """The zone that this machine is in now; UTC where it does not say."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if name:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return dt.UTC
    try:
        with Path("/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return dt.UTC


@contextmanager
def alone(workspace: Path, lock: str = LOCK) -> Iterator[None]:
    """The one process of a workspace that starts runs by itself, as long as it lives.

    Raises:
        LeaseError: there is one already.
    """
    descriptor = os.open(workspace / DIRECTORY / lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise LeaseError(
                "scheduler_running",
                "another process does that for this workspace",
                "Schedules and queues are each looked after by one process at a time.",
                "Nothing has to be done; or stop that one first.",
            ) from problem
        yield
    finally:
        os.close(descriptor)


class Scheduler:
    """Looks what is due and starts it; everything it knows is in the store.

    Args:
        start: starts a schedule's program for an occurrence.
        approved: why the program may not be started, as a clause; empty where it may.
        say: is told what happens, a line each.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        zone: Callable[[], dt.tzinfo] = local_zone,
        start: Callable[[Spec, str], Started] | None = None,
        approved: Callable[[Spec], str] = lambda _: "",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._zone = zone
        self._start = start or start_detached
        self._approved = approved
        self._say = say

    def look(self) -> float:
        """Start what is due; seconds until the next look makes sense, at most `LOOK_S`."""
        next_at = self._clock.wall() + LOOK_S
        for schedule in self._store.schedules():
            when = parse_when(read_spec(schedule).when)
            self._serve(schedule, when)
            next_at = min(next_at, when.upcoming(self._clock.wall(), self._zone()))
        return max(0.05, min(LOOK_S, next_at - self._clock.wall()))

    def _serve(self, schedule: Schedule, when: When | Cron) -> None:
        found = due(when, schedule.fired, self._clock.wall(), self._zone())
        if found.fired == schedule.fired:
            return
        schedule = replace(schedule, fired=found.fired)
        if found.name:
            if found.missed:
                self._say(f"{schedule.id}: {found.missed} earlier times were missed; it runs once")
            schedule = self._begin(schedule, f"{schedule.id} {found.name}")
        if any(one.id == schedule.id for one in self._store.schedules()):  # not removed meanwhile
            self._store.keep_schedule(schedule)

    def _begin(self, schedule: Schedule, occurrence: str) -> Schedule:
        spec = read_spec(schedule)
        known = self._store.reuse_get(occurrence_key(occurrence))
        if known is not None:  # begun by a scheduler that ended before it could write that down
            return replace(schedule, run=known.run, said="")
        problem = self._still_running(schedule) or self._approved(spec)
        started = Started(problem=problem) if problem else self._start(spec, occurrence)
        said = started.problem[:SAID]
        self._say(f"{occurrence}: not run: {said}" if said else f"{occurrence}: run {started.run}")
        return replace(schedule, run=started.run or schedule.run, said=said)

    def _still_running(self, schedule: Schedule) -> str:
        """Two runs of one schedule never go on at the same time; one that waits for a person does
        not go on."""
        try:
            found = self._store.run(schedule.run) if schedule.run else None
        except UsageError:
            return ""  # it was removed
        return f"run {found.id} still goes on" if found and found.owner else ""


def start_detached(spec: Spec, occurrence: str) -> Started:
    """``edvac run --detach`` in the schedule's directory."""
    flags = ["--yes", "--detach", "--json", "--occurrence", occurrence, *spec.flags]
    return detached(["run", spec.program, *flags], Path(spec.place))


def detached(arguments: list[str], place: Path) -> Started:
    """``edvac ARGUMENTS``, which are to say `--detach` and `--json`: what it began, or why not."""
    try:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=START_S,
            check=False,
        )
        answer = json.loads(done.stdout) if done.stdout.strip() else {}
    except (OSError, subprocess.TimeoutExpired, ValueError) as problem:
        return Started(problem=f"it could not be started: {problem}")
    if done.returncode == 0 and isinstance(answer.get("run"), str):
        return Started(run=answer["run"])
    error = answer.get("error") or {}
    said = done.stderr.strip().rpartition("\n")[2]  # what it says before is how far it came
    what = error.get("what") or said or f"exit status {done.returncode}"
    return Started(problem=f"{what} [{error['code']}]" if "code" in error else what)
