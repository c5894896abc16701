"""The tasks that planning is measured on: documents, what is true of them, and what must come out.

One TOML file in `tasks/` is a *world*: a few documents, the facts that hold for each of them, and
tasks over them. A task is text as a user would write it, checks on the files that result, and a
program that a person wrote, which shows that the task can be done. Worlds that are held out are run
only to publish. The worlds in `tuning/` are of the same kind: the planner is tuned on them, so that
those in `tasks/` stay a measure. In `documented/` are the tasks that the documentation shows.
"""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edvac.bench.checks import Check, read_check
from edvac.bench.oracle import Entity, Oracle

Level = Literal["easy", "hard"]
Folder = Literal["tasks", "tuning", "documented"]


@dataclass(frozen=True, slots=True)
class World:
    name: str
    held_out: bool
    documents: Mapping[str, str]  # text by path
    oracle: Oracle


@dataclass(frozen=True, slots=True)
class Task:
    id: str
    level: Level
    text: str
    world: World
    checks: tuple[Check, ...]
    solution: str

    def problems(self, files: Mapping[str, str]) -> list[str]:
        """What is wrong with the files of a run; nothing where all is right."""
        return [problem for check in self.checks for problem in check(files)]


@functools.cache
def tasks(folder: Folder = "tasks") -> tuple[Task, ...]:
    """Every task of the evaluation set, or of another one, by world."""
    worlds = importlib.resources.files("edvac.bench") / folder
    found: list[Task] = []
    for entry in sorted(worlds.iterdir(), key=lambda file: file.name):
        data = tomllib.loads(entry.read_text(encoding="utf-8"))
        world = _world(entry.name.removesuffix(".toml"), data)
        for one in data["tasks"]:
            checks = tuple(read_check(check) for check in one["checks"])
            found.append(Task(one["id"], one["level"], one["task"], world, checks, one["solution"]))
    return tuple(found)


def _world(name: str, data: Mapping[str, Any]) -> World:
    facts = {fact: tuple(words.split()) for fact, words in data["facts"].items()}
    documents = {path: one["text"] for path, one in data["docs"].items()}
    entities = [
        Entity(one.get("shown", one["text"]), _facts(one, facts))
        for one in data["docs"].values()
        if _facts(one, facts)
    ]
    snippets = data.get("snippets", {})
    entities += [Entity(text, _facts(one, facts)) for text, one in snippets.items()]
    return World(name, data.get("held_out", False), documents, Oracle(facts, tuple(entities)))


def _facts(one: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(one) - set(known) - {"text", "shown"}
    if unknown:
        raise ValueError(f"facts that are not declared: {sorted(unknown)}")
    return {name: value for name, value in one.items() if name in known}
