"""The five fields of a crontab: ``30 7 * * mon-fri``, ``*/15 * * * *``.

As `when` has it, an occurrence has a name that does not depend on how the clock came there. Where
the hour is fixed it is the local time, so that a night on which clocks change neither skips nor
doubles it; where the hour is ``*`` it is the minute itself, as such a schedule means how often.
Days of the month and of the week that are both given are alternatives, as cron has it.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edvac.core.errors import UsageError

YEARS = 41  # within which a 29 February falls on each day of the week, also around 2100
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


@dataclass(frozen=True, slots=True)
class _Field:
    what: str
    least: int
    most: int
    names: Mapping[str, int] = field(default_factory=dict)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, {name: at for at, name in enumerate(_MONTHS, 1)}),
    _Field("day of the week", 0, 7, {name: at for at, name in enumerate(_DAYS)}),
)
MOST_COUNTED = 10_000  # missed occurrences that are counted one by one


@dataclass(frozen=True, slots=True)
class Cron:
    """`either`: a day has to be among `days` or among `weekdays` (0 is Sunday), not both."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def latest(self, wall: float, zone: dt.tzinfo) -> str:
        """The name of the last occurrence that is not after `wall` (UTC seconds)."""
        name, _ = next(self._backwards(wall, zone))
        return name

    def upcoming(self, wall: float, zone: dt.tzinfo) -> float:
        """When the first occurrence after `wall` is, in UTC seconds."""
        after = (at for _, at in self._forwards(wall, zone) if at > wall)
        return next(after)

    def between(self, first: str, last: str, wall: float, zone: dt.tzinfo) -> int:
        """How many there are after one and before the other, which is not after `wall`."""
        names = itertools.islice(self._backwards(wall, zone), MOST_COUNTED)
        return sum(1 for name, _ in itertools.takewhile(lambda one: one[0] > first, names)) - 1

    @property
    def _often(self) -> bool:
        return len(self.hours) == 24

    def _day(self, day: dt.date) -> bool:
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return in_month or in_week if self.either else in_month and in_week

    def _of_day(self, day: dt.date, zone: dt.tzinfo) -> list[tuple[str, float]]:
        """The occurrences of a day, in the order of their names."""
        if self._often:
            start = dt.datetime.combine(day, dt.time(), zone).timestamp()
            end = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), zone).timestamp()
            minutes = range(int(start) // 60, int(end) // 60)
            return [
                (f"{minute:012d}", minute * 60.0)
                for minute in minutes
                if dt.datetime.fromtimestamp(minute * 60, zone).minute in self.minutes
            ]
        times = [dt.time(hour, minute) for hour in self.hours for minute in self.minutes]
        moments = (dt.datetime.combine(day, time, zone) for time in times)
        return [(f"{one:%Y-%m-%dT%H:%M}", one.timestamp()) for one in moments]

    def _days(self, wall: float, zone: dt.tzinfo, step: int) -> Iterator[dt.date]:
        """Days on which it occurs, from the day around `wall` on."""
        day = dt.datetime.fromtimestamp(wall, zone).date() - dt.timedelta(days=step)
        for _ in range(YEARS * 366):
            if self._day(day):
                yield day
            day += dt.timedelta(days=step)

    def _backwards(self, wall: float, zone: dt.tzinfo) -> Iterator[tuple[str, float]]:
        for day in self._days(wall, zone, -1):
            yield from (one for one in reversed(self._of_day(day, zone)) if one[1] <= wall)

    def _forwards(self, wall: float, zone: dt.tzinfo) -> Iterator[tuple[str, float]]:
        for day in self._days(wall, zone, 1):
            yield from sorted(self._of_day(day, zone), key=lambda one: one[1])


def parse_cron(text: str) -> Cron | None:
    """The schedule that five fields write; None where there are not five.

    Raises:
        UsageError: a field is malformed, or no day is ever meant.
    """
    words = text.lower().split()
    if len(words) != len(_FIELDS):
        return None
    sets = [_values(text, word, of) for word, of in zip(words, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = sets
    weekdays = {day % 7 for day in weekdays}
    either = not words[2].startswith("*") and not words[4].startswith("*")
    made = Cron(
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(weekdays),
        either,
    )
    if not any(made._days(0.0, dt.UTC, 1)):
        raise _malformed(text, "there is no such day")
    return made


def _values(text: str, word: str, of: _Field) -> set[int]:
    found: set[int] = set()
    for part in word.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        low, high = of.least, of.most
        if span != "*":
            low = _number(text, first, of)
            high = _number(text, last, of) if dash else high if step else low
        is_step = not step or (step.isdecimal() and int(step) > 0)
        if not of.least <= low <= high <= of.most or not is_step:
            raise _malformed(text, f"{part!r} is no {of.what}")
        found.update(range(low, high + 1, int(step or 1)))
    return found


def _number(text: str, word: str, of: _Field) -> int:
    if word in of.names:
        return of.names[word]
    if not word.isdecimal() or not word.isascii():
        raise _malformed(text, f"{word!r} is no {of.what}")
    return int(word)


def _malformed(text: str, why: str) -> UsageError:
    return UsageError(
        "schedule_malformed",
        f"{text[:60]!r} is no schedule",
        f"Of its five fields, as in a crontab, {why}.",
        "Such as '30 7 * * mon-fri': minute, hour, day of the month, month, day of the week.",
    )
