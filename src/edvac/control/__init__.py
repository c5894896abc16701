"""The control unit: issues steps when their operands are ready and no hazard stands, and retires
them.

Its core does no input or output: it is told what happened (`ControlUnit.finished`, `failed`,
`tick`, `answer`) and returns what to do next (`Work`). Knows nothing of HTTP, terminals, databases
or models.
"""

from edvac.control.journal import Record, Replay
from edvac.control.scoreboard import Scoreboard
from edvac.control.step import Failure, Intent, Limits, Outcome, Result, Step, StepState, Usage
from edvac.control.unit import ControlUnit
from edvac.control.work import Work

__all__ = [
    "ControlUnit",
    "Failure",
    "Intent",
    "Limits",
    "Outcome",
    "Record",
    "Replay",
    "Result",
    "Scoreboard",
    "Step",
    "StepState",
    "Usage",
    "Work",
]
