"""The type of `run.previous`, and its value where there was no earlier run.

Knows nothing of runs.
"""

from __future__ import annotations

from edvac.core.label import PROGRAM
from edvac.core.schema import DATE, STR, DictOf, Field, Maybe, Record
from edvac.core.value import Instance, Mapping, Scalar, Value

PREVIOUS = Record(
    "Previous",
    (
        Field("date", Maybe(DATE), "run.date of that run; None where there was none"),
        Field("files", DictOf(STR), "path and hash of each input file that it read"),
        Field("written", DictOf(STR), "path and text of each file that it wrote"),
    ),
)


def no_previous() -> Value:
    """Nothing seen, nothing made."""
    empty: dict[str, Value] = {
        "date": Scalar(None, PROGRAM),
        "files": Mapping({}, PROGRAM),
        "written": Mapping({}, PROGRAM),
    }
    return Instance(PREVIOUS.name, empty, PROGRAM)
