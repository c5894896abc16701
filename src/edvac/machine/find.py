"""Which step of which run had something to do with this text?

Looks through what people can read of runs: tasks, operations, results, reasons of failures,
questions, and where it is asked for the prompts. Newest runs first. Knows nothing of terminals.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from edvac.core.value import Failed, plain
from edvac.machine.entry import Entry, decoder_of, read_entry
from edvac.store import RunInfo, Store

AROUND = 40  # characters shown on each side of what was found
RUNS = 1_000_000  # of a list: all


@dataclass(frozen=True, slots=True)
class Found:
    """`where` it was: task, result, reason, question, program or prompt; `excerpt` what stands
    around it; `step` is empty where it was in the run as a whole."""

    run: str
    state: str
    step: str
    where: str
    excerpt: str


def find(store: Store, text: str, *, run: str = "", prompts: bool = False) -> Iterator[Found]:
    """Where the text occurs, whatever its capitals; one finding a step.

    Raises:
        DamageError: a record is not what was written.
    """
    wanted = text.casefold()
    runs = [store.run(run)] if run else store.runs(limit=RUNS)
    for info in runs:
        yield from _of_run(store, info, wanted, prompts=prompts)


def _of_run(store: Store, info: RunInfo, wanted: str, *, prompts: bool) -> Iterator[Found]:
    for title in dict.fromkeys((info.task, info.title)):
        if wanted in title.casefold():
            yield Found(info.id, info.state, "", "task", _excerpt(title, wanted))
            break
    decoder = decoder_of(store)
    for record in store.records(info.id):
        entry = read_entry(decoder, record)
        for where, told in _texts(store, entry, prompts=prompts):
            if wanted in told.casefold():
                step = "" if entry.kind in ("program", "extended") else entry.address
                yield Found(info.id, info.state, step, where, _excerpt(told, wanted))
                break


def _texts(store: Store, entry: Entry, *, prompts: bool) -> Iterator[tuple[str, str]]:
    match entry.kind:
        case "outcome" | "blocked":
            value = entry.value
            if isinstance(value, Failed):
                yield "reason", f"{value.code}: {value.what}"
            elif value is not None:
                data = plain(value)
                as_text = data if isinstance(data, str) else json.dumps(data, default=str)
                yield "result", as_text
            if prompts:
                yield "prompt", "".join(store.segment(name) for name in entry.prompt)
        case "approved":
            yield "question", str(entry.body.get("text", ""))
        case "program" | "extended":
            yield "program", str(entry.body["text"])


def _excerpt(text: str, wanted: str) -> str:
    at = max(0, text.casefold().find(wanted))
    start, end = max(0, at - AROUND), at + len(wanted) + AROUND
    cut = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{cut}{'…' if end < len(text) else ''}"
