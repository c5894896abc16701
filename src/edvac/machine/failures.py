"""What failed in a run, read from its journal: item, inputs, reason, remedy.

A failure that the program accepted (`attempt`, `ok`) is none of these once the run is over. Knows
nothing of terminals.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edvac.core.value import Failed
from edvac.machine.entry import Entry, decoder_of, read_entry
from edvac.store import Store

_PARTICULAR = re.compile(r"'[^']*'|\d+")  # what differs between items with one reason


@dataclass(frozen=True, slots=True)
class FailedItem:
    """One failure at its root.

    Attributes:
        item: address of the step; a line of the program where no step is at fault.
        inputs: files that went into it.
        holds_up: steps that were not done because of it.
    """

    item: str
    inputs: tuple[str, ...]
    code: str
    what: str
    why: str = ""
    remedy: str = ""
    holds_up: int = 0


def failed_items(store: Store, run: str) -> list[FailedItem]:
    """In the order in which they failed; only what is not mended by a later retry."""
    decoder = decoder_of(store)
    failed: dict[str, Entry] = {}
    blocked: dict[str, Entry] = {}
    unhandled: set[str] | None = None
    for record in store.records(run, kinds=("intent", "outcome", "blocked", "approved", "closed")):
        entry = read_entry(decoder, record)
        if entry.body.get("verdict") == "retry":
            unhandled = None
            for slot in entry.body["slots"]:
                failed.pop(slot, None)
            blocked.clear()
            continue
        if entry.kind == "closed":
            found = entry.body.get("unhandled")
            unhandled = None if found is None else set(found)
            continue
        failed.pop(entry.slot, None)
        blocked.pop(entry.slot, None)
        if entry.kind == "blocked":
            blocked[entry.slot] = entry
        elif entry.failed:
            failed[entry.slot] = entry
    held: Counter[str] = Counter()
    lines: dict[str, FailedItem] = {}
    for entry in blocked.values():
        cause = entry.value
        assert isinstance(cause, Failed)
        held[cause.slot or cause.what] += 1
        if cause.slot not in failed:
            line = FailedItem("", _inputs(cause), cause.code, cause.what)
            lines.setdefault(cause.slot or cause.what, line)
    wanted = [e for e in failed.values() if unhandled is None or e.slot in unhandled]
    items = [_item(entry, held[entry.slot]) for entry in wanted]
    return items + [
        FailedItem("", line.inputs, line.code, line.what, holds_up=held[cause])
        for cause, line in lines.items()
    ]


def _item(entry: Entry, held: int) -> FailedItem:
    value, body = entry.value, entry.body
    assert isinstance(value, Failed)
    why, fix = str(body.get("why", "")), str(body.get("fix", ""))
    return FailedItem(entry.address, _inputs(value), value.code, value.what, why, fix, held)


def _inputs(failed: Failed) -> tuple[str, ...]:
    """The files behind a failure, by its label."""
    sources = failed.label.integrity
    return tuple(sorted(name[5:] for name in sources if name.startswith("file:")))


@dataclass(frozen=True, slots=True)
class FailedGroup:
    """Items that failed for one reason; the first stands for all."""

    first: FailedItem
    count: int
    holds_up: int


def grouped(items: Sequence[FailedItem]) -> list[FailedGroup]:
    """By code and reason, whatever names and numbers are in it; the largest groups first."""
    groups: dict[tuple[str, str], list[FailedItem]] = {}
    for item in items:
        reason = _PARTICULAR.sub("…", f"{item.what}\n{item.why}")
        groups.setdefault((item.code, reason), []).append(item)
    made = [FailedGroup(g[0], len(g), sum(item.holds_up for item in g)) for g in groups.values()]
    return sorted(made, key=lambda group: -group.count)
