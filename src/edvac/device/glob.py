"""Patterns over paths: ``*`` stays within a directory, ``**`` does not.

A name that begins with a dot is found only by a part that begins with one; every name by itself,
whatever its characters mean in a pattern: `mail [old]/*` finds what lies in ``mail [old]``. Knows
nothing of disks: a walk asks, name by name, whether going on can lead anywhere.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TypeAlias

Places: TypeAlias = frozenset[int]  # parts that the next name may match; empty leads nowhere


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern, read once."""

    parts: tuple[str, ...]

    @staticmethod
    def of(pattern: str) -> Glob:
        parts: list[str] = []
        for part in pattern.split("/"):
            if part not in ("", ".") and not (part == "**" and parts[-1:] == ["**"]):
                parts.append(part)
        if parts[-1:] == ["**"]:
            parts.append("*")  # what lies below a directory, not the directory
        return Glob(tuple(parts))

    @property
    def start(self) -> Places:
        return self._close({0})

    def step(self, places: Places, name: str) -> Places:
        """Where one is after a further name of a path."""
        found: set[int] = set()
        for place in places:
            if place == len(self.parts):
                continue
            part = self.parts[place]
            if part == "**":
                found |= set() if name.startswith(".") else {place}
            elif _match(part, name):
                found.add(place + 1)
        return self._close(found)

    def accepts(self, places: Places) -> bool:
        return len(self.parts) in places

    def matches(self, path: str) -> bool:
        places = self.start
        for name in path.split("/"):
            places = self.step(places, name)
        return self.accepts(places)

    def _close(self, places: set[int]) -> Places:
        """A ``**`` may also stand for no directory at all."""
        more = {place + 1 for place in places if self.parts[place : place + 1] == ("**",)}
        return frozenset(places | more)


def is_glob(pattern: str) -> bool:
    return any(mark in pattern for mark in "*?[")


def covers(pattern: str, path: str) -> bool:
    """Is the path named by a declared pattern: itself, by its glob, or as what lies below it?"""
    return path == pattern or path.startswith(pattern + "/") or Glob.of(pattern).matches(path)


def _match(pattern: str, name: str) -> bool:
    if name.startswith(".") and not pattern.startswith("."):
        return False
    return name == pattern or fnmatch.fnmatchcase(name, pattern)
