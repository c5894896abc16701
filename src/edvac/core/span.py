"""Lengths of time as people write them: ``90s``, ``15min``, ``2h``, ``3d``; and points in time.

Pure arithmetic; knows nothing of clocks.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

LONGEST_S: Final = 3650 * 86_400.0
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?(s|min|m|h|d)")
_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(text: str) -> float | None:
    """The seconds of a length of time; None where it is none, or longer than ten years."""
    found = _SPAN.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else -1.0
    return seconds if 0 <= seconds <= LONGEST_S else None


def moment_of(when: object, zone: dt.tzinfo) -> float | None:
    """A date (its beginning) or a date with a time, ``2026-12-01 07:00``, as UTC seconds; None
    where it is none. What names no zone of its own is in `zone`."""
    try:
        if isinstance(when, str):
            made = dt.datetime.fromisoformat(when.strip())
        elif isinstance(when, dt.date):
            made = dt.datetime.combine(when, dt.time())
        else:
            return None
        return (made if made.tzinfo else made.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):
        return None


def spelt(seconds: float) -> str:
    """A length of time, short: the largest unit that keeps a whole number of them."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:g} s"
