"""Schedules: every day once, whatever clocks do."""

from __future__ import annotations

import datetime as dt
import itertools
import random
from zoneinfo import ZoneInfo

import pytest

from edvac.core.errors import UsageError
from edvac.core.seams import ManualClock
from edvac.machine import when as module
from edvac.machine.when import When, due, parse_when

BERLIN, YORK, TOKYO = map(ZoneInfo, ("Europe/Berlin", "America/New_York", "Asia/Tokyo"))
APIA = ZoneInfo("Pacific/Apia")  # it left out a whole day in 2011


def wall(text: str, zone: dt.tzinfo = BERLIN) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


class Watcher:
    """Looks every twenty seconds of a manual clock, as the scheduler does."""

    def __init__(self, text: str, start: str, zone: dt.tzinfo = BERLIN) -> None:
        self.when = parse_when(text)
        self.zone = zone
        self.clock = ManualClock(wall(start, zone))
        self.fired = self.when.latest(self.clock.wall(), zone)
        self.begun: list[tuple[str, str]] = []
        self.missed = 0

    def look(self) -> None:
        found = due(self.when, self.fired, self.clock.wall(), self.zone)
        self.fired = found.fired
        self.missed += found.missed
        if found.name:
            local = dt.datetime.fromtimestamp(self.clock.wall(), self.zone)
            self.begun.append((found.name, local.strftime("%d %H:%M")))

    def watch(self, hours: float, step_s: float = 60) -> list[str]:
        seen = len(self.begun)
        for _ in range(int(hours * 3600 / step_s)):
            self.clock.advance(step_s)
            self.look()
        return [at for _, at in self.begun[seen:]]


@pytest.mark.parametrize(
    ("text", "start", "times"),
    [
        ("07:00", "2026-03-28 12:00", ["29 07:00", "30 07:00"]),
        ("02:30", "2026-03-28 12:00", ["29 03:30", "30 02:30"]),  # left out
        ("02:30", "2026-10-24 12:00", ["25 02:30", "26 02:30"]),  # repeated
        ("03:00", "2026-10-24 12:00", ["25 03:00", "26 03:00"]),
        ("00:00", "2026-10-24 12:00", ["25 00:00", "26 00:00"]),
        ("mon 07:00", "2026-03-28 12:00", ["30 07:00"]),
        ("sat,sun 23:59", "2026-03-28 12:00", ["28 23:59", "29 23:59"]),
        ("weekdays 07:00", "2026-03-28 12:00", ["30 07:00"]),
    ],
)
def test_summer_time_both_ways(text: str, start: str, times: list[str]) -> None:
    assert Watcher(text, start).watch(48) == times


def test_an_interval_knows_no_summer_time() -> None:
    for start in ("2026-03-29 00:10", "2026-10-25 00:10"):
        assert len(Watcher("hourly", start).watch(6)) == 6
        assert len(Watcher("15min", start).watch(6)) == 24


def test_times_missed_while_nobody_watched_are_begun_once() -> None:
    watcher = Watcher("07:00", "2026-05-01 12:00")
    watcher.clock.advance(5 * 86_400)
    assert watcher.watch(1) == ["06 12:01"] and watcher.missed == 4
    assert watcher.watch(24) == ["07 07:00"]


def test_a_clock_set_back_a_little_doubles_nothing() -> None:
    watcher = Watcher("07:00", "2026-05-01 06:00")
    assert watcher.watch(1.1) == ["01 07:00"]
    watcher.clock.jump(-600)
    assert watcher.watch(24.5) == ["02 07:00"]


@pytest.mark.parametrize("days", [1, 2, 3, 400])
def test_a_clock_that_was_days_ahead_skips_no_day_once_it_is_right(days: int) -> None:
    watcher = Watcher("07:00", "2026-05-01 06:00")
    watcher.clock.jump(days * 86_400 + 7200)
    watcher.watch(0.5)
    watcher.clock.jump(-(days * 86_400 + 7200))
    assert watcher.watch(72) == ["01 07:00", "02 07:00", "03 07:00"]


def test_a_journey_round_the_world_neither_skips_nor_doubles_a_day() -> None:
    watcher = Watcher("07:00", "2026-05-01 06:30", BERLIN)
    watcher.watch(2)
    for zone in (TOKYO, YORK, BERLIN, APIA, YORK):
        watcher.zone = zone
        watcher.watch(30)
    names = [name for name, _ in watcher.begun]
    days = [dt.date.fromisoformat(name) for name in names]
    assert all(b - a == dt.timedelta(days=1) for a, b in itertools.pairwise(days)), names


def test_random_clocks_never_double_a_day(seed: int = 7) -> None:
    for number in range(60):
        chance = random.Random(seed + number)
        watcher = Watcher("07:00", "2026-03-27 12:00", chance.choice([BERLIN, YORK]))
        for _ in range(30):
            watcher.watch(chance.uniform(0, 20), step_s=600)
            watcher.clock.jump(chance.uniform(-3 * 3600, 3 * 3600))
        names = [name for name, _ in watcher.begun]
        assert len(names) == len(set(names)) and names == sorted(names)
        assert not watcher.missed, "no day was left out"


@pytest.mark.parametrize("plant", ["by_utc", "forgets"])
def test_planted_bugs_are_found(plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if plant == "by_utc":
        monkeypatch.setattr(module, "_local", lambda at, _: dt.datetime.fromtimestamp(at, dt.UTC))
        monkeypatch.setattr(
            When,
            "_instant",
            lambda self, day, _: dt.datetime.combine(day, self.at, dt.UTC).timestamp(),
        )
        with pytest.raises(AssertionError):
            test_summer_time_both_ways("07:00", "2026-03-28 12:00", ["29 07:00", "30 07:00"])
    else:
        monkeypatch.setattr(When, "upcoming", lambda self, at, zone: at)
        with pytest.raises(AssertionError):
            test_a_clock_set_back_a_little_doubles_nothing()


@pytest.mark.parametrize(
    "text",
    ["", "7", "24:00", "07:60", "0min", "mo 07:00", "mon", "7am", "min", "99999min", "07:00 mon",
     "mon; 07:00", "-5min", "07:00:00"],
)  # fmt: skip
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(UsageError) as wrong:
        parse_when(text)
    assert wrong.value.code == "schedule_malformed"


@pytest.mark.parametrize(
    ("text", "start", "hours", "times"),
    [
        ("30 7 * * mon-fri", "2026-03-27 12:00", 96, ["30 07:30", "31 07:30"]),
        ("30 7 * * 0,7", "2026-03-27 12:00", 72, ["29 07:30"]),  # Sunday has two numbers
        ("0 9-17/4 * * *", "2026-03-27 12:00", 24, ["27 13:00", "27 17:00", "28 09:00"]),
        ("0 0 31 * *", "2026-03-01 12:00", 24 * 62, ["31 00:00"]),  # April has none
        ("0 0 13 * fri", "2026-03-05 12:00", 24 * 9, ["06 00:00", "13 00:00"]),  # either
        ("0 0 1 jan *", "2026-12-31 12:00", 24, ["01 00:00"]),
        ("30 2 * * *", "2026-03-28 12:00", 48, ["29 03:30", "30 02:30"]),  # left out
        ("30 2 * * *", "2026-10-24 12:00", 48, ["25 02:30", "26 02:30"]),  # repeated
        (
            "*/30 * * * *",
            "2026-10-25 01:40",
            2.4,
            ["25 02:00", "25 02:30", "25 02:00", "25 02:30", "25 03:00"],  # how often, not when
        ),
    ],
)
def test_crontab(text: str, start: str, hours: float, times: list[str]) -> None:
    assert Watcher(text, start).watch(hours, 60 if hours < 100 else 600) == times


@pytest.mark.parametrize("seed", range(20))
def test_a_crontab_against_looking_at_every_minute(seed: int) -> None:
    chance = random.Random(seed)
    fields = [
        chance.choice(["*", "*/7", str(chance.randint(0, 59)), "5-50/9"]),
        chance.choice(["*", "3,15", "9-17"]),
        chance.choice(["*", "1-7", "13"]),
        chance.choice(["*", "mar,apr"]),
        chance.choice(["*", "mon", "1-5"]),
    ]
    when, zone = parse_when(" ".join(fields)), dt.UTC
    start = wall("2026-03-01 00:00", zone)
    named = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

    def fits(field: str, value: int, names: tuple[str, ...] = ()) -> bool:
        for part in field.split(","):
            span, _, step = part.partition("/")
            low, _, high = span.partition("-")
            low = str(names.index(low)) if low in names else low
            if span == "*":
                low, high = "0", "99"
            ends = int(low), int(high or low)
            if ends[0] <= value <= ends[1] and (value - ends[0]) % int(step or 1) == 0:
                return True
        return False

    month = "*" if fields[3] == "*" else "3,4"
    minutes, hours, months, days, weekdays = (
        {value for value in range(60) if fits(field, value, named)}
        for field in (fields[0], fields[1], month, fields[2], fields[4])
    )

    def matches(at: dt.datetime) -> bool:
        if not (at.minute in minutes and at.hour in hours and at.month in months):
            return False
        day, week = at.day in days, at.isoweekday() % 7 in weekdays
        return day or week if fields[2] != "*" and fields[4] != "*" else day and week

    expected = [
        start + 60 * minute
        for minute in range(60 * 24 * 45)
        if matches(dt.datetime.fromtimestamp(start + 60 * minute, zone))
    ]
    found, at = [], start - 1
    while len(found) < min(200, len(expected)):
        at = when.upcoming(at, zone)
        found.append(at)
    assert found == expected[:200]
    for one, following in itertools.pairwise(found[:50]):
        assert (
            when.latest(following - 1, zone)
            == when.latest(one, zone)
            != when.latest(following, zone)
        )


@pytest.mark.parametrize(
    "text", ["60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *",
             "5-1 * * * *", "x * * * *", "0 0 30 feb *", "1,, * * * *"],
)  # fmt: skip
def test_a_crontab_that_is_none(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_when(text)
    assert caught.value.code == "schedule_malformed"
