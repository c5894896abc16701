"""Why each step of a run was executed, or was not: told from its journal and that of the run
before.

Knows nothing of how reuse is decided; it compares what decides it (design 2, Identity): operation,
operands, what was read, model.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from edvac.control.notices import preview
from edvac.core.value import Failed, digest
from edvac.machine.entry import Entry
from edvac.machine.history import History, read_history
from edvac.machine.overlay import newest
from edvac.program.tree import pieces, statements
from edvac.store import Store

MANY = 1000  # runs that are looked through for the one before


@dataclass(frozen=True, slots=True)
class Reason:
    """What is to be said of one step."""

    address: str
    op: str
    ran: bool
    why: str


def explain(store: Store, run: str) -> tuple[str, list[Reason]]:
    """The run that this one is compared with (empty if there is none), and a reason for each step.

    Raises:
        UsageError: there is no such run.
    """
    here = _Ended.read(store, run)
    name = run_before(store, run, here.history.opened.get("name", ""))
    before = _Ended.read(store, name) if name else None
    return name, [_reason(entry, here, before) for entry in here.outcomes.values()]


def run_before(store: Store, run: str, name: str) -> str:
    """The latest earlier run of the same program; empty where there is none."""
    found = [info.id for info in store.runs(MANY)]
    older = found[found.index(run) + 1 :] if run in found and name else []
    for other in older:
        for record in store.records(other, kinds=["opened"]):
            if msgspec.msgpack.decode(record.payload).get("name") == name:
                return other
            break
    return ""


@dataclass(slots=True)
class _Ended:
    """A run's outcomes by slot, in their order."""

    history: History
    outcomes: dict[str, Entry]

    @staticmethod
    def read(store: Store, run: str) -> _Ended:
        history = read_history(store, run)
        return _Ended(history, {e.slot: e for e in history.entries if e.kind == "outcome"})


def _reason(entry: Entry, here: _Ended, before: _Ended | None) -> Reason:
    body = entry.body
    if body.get("copied"):
        why = f"the run was begun from {body['copied']}, which had done it"
        return Reason(entry.address, body["op"], False, why)
    if body.get("reused"):
        why = (
            "an earlier result was taken: operation, operands, what it reads and model are the same"
        )
        return Reason(entry.address, body["op"], False, why)
    why = _why(entry, here, before)
    return Reason(entry.address, body["op"], True, why)


def _why(entry: Entry, here: _Ended, before: _Ended | None) -> str:
    body = entry.body
    if before is None:
        return "there is no earlier run of this program"
    if here.history.opened.get("fresh"):
        return "--fresh was given"
    old = before.outcomes.get(entry.slot)
    if old is None:
        return "its line, or what it is done for, is new"
    if old.failed:
        return "it failed the last time"
    device = body["op"].partition(".")[0]
    if body.get("digest") != old.body.get("digest"):
        return _operands(entry, here, before)
    if body.get("model") != old.body.get("model"):
        return f"another model: {body.get('model')} instead of {old.body.get('model')}"
    if body.get("read") != old.body.get("read"):
        return f"what it reads has changed: {_changed(body.get('read'), old.body.get('read'))}"
    if device == "files":
        return "files are read and written in every run; that is as cheap as to look it up"
    if device in ("human", "mail"):
        return "what a person says, or what cannot be undone, is never taken from another run"
    return "its earlier result is not kept, or the device has changed"


def _operands(entry: Entry, here: _Ended, before: _Ended) -> str:
    read = _names_read(here.history.text, int(entry.body.get("line", 0)))
    moved = sorted(read & _moved(here, before))
    if moved:
        return f"its operands differ: {', '.join(moved)} came out differently"
    return "its operands differ: the line, a parameter, the date or what it is done for"


def _moved(here: _Ended, before: _Ended) -> set[str]:
    """Names that hold something else than in the run before; a step on a line has none."""
    return {
        _base(entry.address)
        for slot, entry in here.outcomes.items()
        if "@" not in entry.address and _digest(entry) != _digest(before.outcomes.get(slot))
    }


def _digest(entry: Entry | None) -> str:
    return digest(entry.value) if entry is not None and entry.value is not None else ""


def _base(address: str) -> str:
    return re.split(r"[\[.#@]", address, maxsplit=1)[0]


def _names_read(program: str, line: int) -> frozenset[str]:
    body = ast.parse(program).body
    functions = [one.body for one in body if isinstance(one, ast.FunctionDef)]
    found: frozenset[str] = frozenset()
    for stmt in (one for block in (body, *functions) for one in statements(block)):
        if stmt.lineno <= line <= (stmt.end_lineno or stmt.lineno):
            found = frozenset(
                node.id
                for part in pieces(stmt)
                for node in ast.walk(part)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
            )
    return found


def _changed(now: Any, then: Any, most: int = 3) -> str:
    now, then = now or {}, then or {}
    paths = sorted(path for path in now.keys() | then.keys() if now.get(path) != then.get(path))
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(paths[:most]) + more


# -- two runs ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A step that two runs have apart; `change` is added, removed or changed."""

    address: str
    change: str
    left: str
    right: str

    @property
    def mark(self) -> str:
        return {"added": "+", "removed": "-"}.get(self.change, "~")


@dataclass(frozen=True, slots=True)
class Apart:
    """What two runs have apart.

    Attributes:
        programs: both texts.
        files: by path the text in either; empty where it is not there, or is no text.
    """

    programs: tuple[str, str]
    steps: list[Step]
    files: dict[str, tuple[str, str]]

    @property
    def empty(self) -> bool:
        return self.programs[0] == self.programs[1] and not self.steps and not self.files


def apart(store: Store, left: str, right: str) -> Apart:
    """Compare two runs, steps by their slots, so that other steps beside them change nothing.

    Raises:
        UsageError: there is no such run.
    """
    old, new = _Ended.read(store, left), _Ended.read(store, right)
    steps = []
    for slot in dict.fromkeys([*new.outcomes, *old.outcomes]):
        mine, theirs = old.outcomes.get(slot), new.outcomes.get(slot)
        if _digest(mine) == _digest(theirs):
            continue
        change = "added" if mine is None else "removed" if theirs is None else "changed"
        address = (theirs or mine).address  # type: ignore[union-attr]
        steps.append(Step(address, change, _shown(mine), _shown(theirs)))
    files: dict[str, tuple[str, str]] = {}
    texts = _texts(store, left), _texts(store, right)
    for path in sorted(texts[0].keys() | texts[1].keys()):
        pair = texts[0].get(path, ""), texts[1].get(path, "")
        if pair[0] != pair[1]:
            files[path] = pair
    return Apart((old.history.text, new.history.text), steps, files)


def _shown(entry: Entry | None) -> str:
    if entry is None or entry.value is None:
        return "not there"
    if isinstance(entry.value, Failed):
        return f"{entry.value.what} [{entry.value.code}]"
    return preview(entry.value)


def _texts(store: Store, run: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for version in newest(store.file_versions(run)):
        if not version.deleted:
            body = store.read_file(run, version.path)
            found[version.path] = body.decode("utf-8", "replace")
    return found
