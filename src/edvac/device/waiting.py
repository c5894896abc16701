"""Signals, events and times: what a run and the world outside say to each other while it goes on.

`signal.wait` ends when somebody sends a signal of that name (`edvac signal`), `wait.*` when a time
has come: nothing is executed for them, whoever drives the run sees to it. `event.set` is done when
it is in the journal, where anybody can look. Knows nothing of clocks or inboxes.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from edvac.core.label import PROGRAM
from edvac.core.schema import ANY, FLOAT, NONE, STR
from edvac.core.signature import Effect, Param, Role, Signature
from edvac.core.span import LONGEST_S, moment_of
from edvac.core.value import Scalar
from edvac.device.port import Call, Reply

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
UNITS = {"wait.days": 86_400.0, "wait.hours": 3600.0, "wait.minutes": 60.0}
NAMING = "1 to 64 letters, digits, dots, dashes and underscores"


def wrong_name(name: Any) -> str:
    return "" if _NAME.fullmatch(str(name)) else f"{str(name)[:70]!r} is no name of {NAMING}"


def _wrong_moment(when: Any) -> str:
    if moment_of(when, dt.UTC) is not None:
        return ""
    return f"{str(when)[:40]!r} is no date and no time of one, as 2026-12-01 07:00"


def _length(unit: str) -> Param:
    most = LONGEST_S / UNITS[unit]

    def wrong(number: Any) -> str:
        return "" if 0 <= number <= most else f"{number} is not between 0 and {most:,.0f}"

    return Param("number", FLOAT, wrong=wrong)


def _name(of: str) -> Param:
    return Param("name", STR, role=Role.INSTRUCTION, doc=f"of the {of}: {NAMING}", wrong=wrong_name)


def _time(op: str, param: Param, doc: str) -> Signature:
    return Signature(
        op, (param,), NONE, Effect.READ, doc, awaits="time", yields=True, planned=False
    )


SIGNATURES = (
    Signature(
        "signal.wait",
        (_name("signal"), Param("T", ANY, role=Role.TYPE, doc="type of what comes with it")),
        None,
        Effect.READ,
        "Wait for the next signal of a name to this run (`edvac signal`); returns what came with "
        "it.",
        names=("name",),
        awaits="signal",
        yields=True,
        planned=False,
    ),
    Signature(
        "event.set",
        (_name("event"), Param("value", ANY)),
        NONE,
        Effect.WRITE,
        "Say something when all that is above has ended: `edvac show RUN --events` shows the "
        "latest value of each name.",
        names=("name",),
        yields=True,
        planned=False,
    ),
    _time(
        "wait.until",
        Param("when", ANY, doc="a date, or a text such as 2026-12-01 07:00", wrong=_wrong_moment),
        "Wait until a date begins or a time has come, by this machine's clock. Later steps wait "
        "too, but those that only compute.",
    ),
    _time("wait.days", _length("wait.days"), "Wait so many days from here; see wait.until."),
    _time("wait.hours", _length("wait.hours"), "Wait so many hours from here; see wait.until."),
    _time("wait.minutes", _length("wait.minutes"), "Wait so many minutes; see wait.until."),
)


class Events:
    """The `event` device: what it is to do is done with the record of it."""

    signatures = SIGNATURES
    version = "1"

    async def call(self, call: Call) -> Reply:
        return Reply(Scalar(None, PROGRAM))

    async def read_version(self, call: Call) -> str | None:
        return None
