"""The library of the language: every pure function and method in one registry.

The verifier, the evaluator, the planner's grammar and the documentation read the same entries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edvac.core.schema import show
from edvac.program.alike import ALIKE
from edvac.program.basics import BASICS
from edvac.program.formats import FORMATS
from edvac.program.lists import CHANGES, READS
from edvac.program.native import Native, Registry
from edvac.program.places import PLACES
from edvac.program.regex import REGEX
from edvac.program.tables import TABLES
from edvac.program.textual import STRINGS, TEXT
from edvac.program.views import VIEWS

_PLACED = {name: one for name, one in PLACES.items() if ":" not in name}
_OWNED = {
    name.replace(":", "."): replace(one, name=name.replace(":", "."))
    for name, one in PLACES.items()
    if ":" in name
}
FUNCTIONS: dict[str, Native] = {
    **BASICS,
    **TEXT,
    **VIEWS,
    **ALIKE,
    **TABLES,
    **FORMATS,
    **REGEX,
    **_PLACED,
}
METHODS: dict[str, Native] = {**READS, **STRINGS, **_OWNED}
NAMESPACES = frozenset(name.partition(".")[0] for name in FUNCTIONS if "." in name)

__all__ = ["CHANGES", "FUNCTIONS", "METHODS", "NAMESPACES", "FunctionDoc", "Registry", "library"]


@dataclass(frozen=True, slots=True)
class FunctionDoc:
    """One entry of the library as documentation shows it."""

    name: str
    signature: str
    doc: str
    result: str


def library() -> list[FunctionDoc]:
    """Every function, then every method, by name."""
    entries = [*FUNCTIONS.values(), *METHODS.values(), *CHANGES.values()]
    return [
        FunctionDoc(
            one.name, one.text, one.doc, "any" if callable(one.result) else show(one.result)
        )
        for one in entries
    ]
