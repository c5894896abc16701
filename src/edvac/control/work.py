"""What a control unit wants done after it was told of something.

Knows nothing of who does it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edvac.control.journal import Record
from edvac.control.step import Intent
from edvac.core import event


@dataclass(slots=True)
class Work:
    """What the driver has to do, in this order: records durable, then everything else."""

    records: list[Record] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    aborts: list[str] = field(default_factory=list)
    questions: list[event.Question] = field(default_factory=list)
    events: list[event.Event] = field(default_factory=list)
    wake_at: float | None = None  # clock time of the next tick; None when no timer runs
    closed: str = ""  # done, partial or the reason of `cancel`, once nothing is left to do
