"""When a schedule is due: ``07:00``, ``mon,thu 07:00``, ``hourly``, ``15min``, or as a crontab.

Pure arithmetic on a wall clock that may jump. An occurrence has a name that does not depend on how
the clock came there: a day's is its local date, so that the hour that DST repeats or leaves out, a
new time zone and a clock that is set neither skip nor double a day.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

from edvac.core.errors import UsageError
from edvac.machine.cron import MOST_COUNTED, Cron, parse_cron

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_GROUPS = {"weekdays": _DAYS[:5], "weekends": _DAYS[5:], "daily": _DAYS}
_UNITS = {"min": 60, "h": 3600}
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_EVERY = re.compile(r"(\d{1,4}) ?(min|h)")


@dataclass(frozen=True, slots=True)
class When:
    """Either at a time of day on some days of the week (0 is Monday), or every so many seconds."""

    days: frozenset[int] = frozenset()
    at: dt.time = dt.time()
    every_s: int = 0

    def latest(self, wall: float, zone: dt.tzinfo) -> str:
        """The name of the last occurrence that is not after `wall` (UTC seconds). Names sort as
        occurrences follow each other."""
        if self.every_s:
            return f"{int(wall // self.every_s):015d}"
        day = _local(wall, zone).date() + dt.timedelta(days=1)
        while day.weekday() not in self.days or self._instant(day, zone) > wall:
            day -= dt.timedelta(days=1)
        return day.isoformat()

    def upcoming(self, wall: float, zone: dt.tzinfo) -> float:
        """When the first occurrence after `wall` is, in UTC seconds."""
        if self.every_s:
            return float((wall // self.every_s + 1) * self.every_s)
        day = _local(wall, zone).date() - dt.timedelta(days=1)
        while day.weekday() not in self.days or self._instant(day, zone) <= wall:
            day += dt.timedelta(days=1)
        return self._instant(day, zone)

    def between(self, first: str, last: str, wall: float, zone: dt.tzinfo) -> int:
        """How many there are after one and before the other, which is not after `wall`."""
        if self.every_s:
            return int(last) - int(first) - 1
        begin, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
        span = range(1, min((end - begin).days, MOST_COUNTED))
        return sum((begin + dt.timedelta(days=day)).weekday() in self.days for day in span)

    def _instant(self, day: dt.date, zone: dt.tzinfo) -> float:
        """A time that DST leaves out is as much later as the clock was put forward; of one that
        it repeats the first counts."""
        return dt.datetime.combine(day, self.at, zone).timestamp()


@dataclass(frozen=True, slots=True)
class Due:
    """`name` is the occurrence to begin now, if any; `fired` what counts as begun from now on;
    `missed` how many before it were not begun, because nobody was there."""

    fired: str
    name: str = ""
    missed: int = 0


def due(when: When | Cron, fired: str, wall: float, zone: dt.tzinfo) -> Due:
    """What is to be begun at `wall`, after `fired` was begun last. Of several that were missed only
    the last one is."""
    latest = when.latest(wall, zone)
    if latest > fired:
        return Due(latest, latest, when.between(fired, latest, wall, zone))
    coming = when.latest(when.upcoming(wall, zone), zone)
    # Begun although another comes before it: the clock was wrong then, and the days until it count.
    return Due(latest if fired > coming else fired)


def _local(wall: float, zone: dt.tzinfo) -> dt.datetime:
    return dt.datetime.fromtimestamp(wall, zone)


def parse_when(text: str) -> When | Cron:
    """A schedule as people write it.

    Raises:
        UsageError: it is none.
    """
    words = text.strip().lower()
    if words == "hourly":
        return When(every_s=3600)
    found = _EVERY.fullmatch(words)
    if found and int(found[1]):
        return When(every_s=int(found[1]) * _UNITS[found[2]])
    cron = parse_cron(words)
    if cron is not None:
        return cron
    days, _, time = words.rpartition(" ")
    clock = _TIME.fullmatch(time)
    names = [
        name for part in days.split(",") for name in _GROUPS.get(part.strip(), (part.strip(),))
    ]
    names = list(_DAYS) if not days else names
    if clock is None or not set(names) <= set(_DAYS):
        raise UsageError(
            "schedule_malformed",
            f"{text[:60]!r} is no schedule",
            "It is a time of day, days of the week with one, or how often.",
            "Such as 07:00, mon 07:00, weekdays 18:30, hourly, 15min, or '30 7 * * mon-fri'.",
        )
    at = dt.time(int(clock[1]), int(clock[2]))
    return When(frozenset(map(_DAYS.index, names)), at)
