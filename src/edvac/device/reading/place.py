"""Where a part of a document lies, as both sides of the pipe to the parser say it.

Imports nothing: the side that asks must not load what reads hostile documents.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """One part of a document; `edvac.device.parts` says what its fields mean."""

    name: str
    kind: str
    number: int
    first: int
    last: int
    start: int
    end: int
    head: int
    encoding: str
    digest: str
