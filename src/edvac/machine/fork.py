"""`fork`: another run that begins with what one has done, up to a step.

The step is forgotten, and with it what comes out differently because of it: everything else is
copied, so that the new run executes only what depends on the step. The old run stays as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from edvac.control import Record
from edvac.control.step import WrittenFile
from edvac.core.seams import Clock, Entropy
from edvac.core.signature import Catalogue
from edvac.machine.driver import LEASE_S
from edvac.machine.entry import Entry, decoder_of, read_entry, step_unknown
from edvac.machine.job import program_parameters
from edvac.machine.ledger import append
from edvac.program import parse
from edvac.store import RunInfo, Store

_TAKEN = frozenset({"tokens", "cost", "seconds"})
_COPIED = ("intent", "outcome", "approved")


def fork(
    store: Store,
    run: str,
    step: str,
    catalogue: Catalogue,
    *,
    clock: Clock,
    entropy: Entropy,
    program: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> tuple[str, int]:
    """Make the new run; its name, and how many outcomes it begins with.

    Args:
        step: address of the step to begin from, ``note`` or ``notes[3]``; ``notes`` for all of it.
        program: an edited text; steps of lines that are the same keep what they have.
        settings: values of parameters that are to be others.

    Raises:
        UsageError: there is no such run or step.
        ProgramError: the edited program is not legal; nothing was stored.
    """
    entries = _entries(store, run)
    forgotten = {entry.slot for entry in entries if _is_at(entry.address, step)}
    if not forgotten:
        raise step_unknown(run, step, entries)
    opened = next(dict(entry.body) for entry in entries if entry.kind == "opened")
    parsed = parse(program or _program(entries), catalogue)
    opened["settings"] = dict(opened.get("settings") or {}) | dict(settings or {})
    program_parameters(parsed, opened["settings"])
    opened |= {"forked": [run, step], "growing": False}
    info = store.run(run)
    name = entropy.token(4)
    made = RunInfo(name, clock.wall(), task=info.task, program=parsed.digest, title=info.title)
    before = next(entry.value for entry in entries if entry.kind == "opened")
    records = [
        Record("opened", "", opened, before),
        Record("program", "", {"text": parsed.text}),
        *_copies(store, run, entries, forgotten),
        Record.retry(()),  # operands may differ from now on
    ]
    store.create_run(made)
    lease = store.acquire(name, f"fork {entropy.token(4)}", LEASE_S, clock.wall())
    append(store, lease, records)
    store.release(lease)
    return name, sum(record.kind == "outcome" for record in records)


def _entries(store: Store, run: str) -> list[Entry]:
    decoder = decoder_of(store)
    return [read_entry(decoder, record) for record in store.records(run)]


def _program(entries: list[Entry]) -> str:
    texts = [entry.body["text"] for entry in entries if entry.kind in ("program", "extended")]
    return "".join(texts)


def _is_at(address: str, step: str) -> bool:
    return address == step or address.startswith((f"{step}[", f"{step}."))


def _copies(store: Store, run: str, entries: list[Entry], forgotten: set[str]) -> list[Record]:
    files = _files(store, run)
    copies: list[Record] = []
    for entry in entries:
        about_step = entry.slot and entry.slot not in forgotten
        if entry.kind not in _COPIED or not about_step:
            continue
        prompt = tuple(store.segment(name) for name in entry.prompt)
        written = tuple(files.pop(entry.slot, ())) if entry.kind == "outcome" else ()
        # What it took is the old run's, which has been counted.
        body = {name: part for name, part in entry.body.items() if name not in _TAKEN}
        body["copied"] = run
        kind: Any = entry.kind
        copies.append(Record(kind, entry.slot, body, entry.value, written, prompt))
    return copies


def _files(store: Store, run: str) -> dict[str, list[WrittenFile]]:
    """What each step wrote."""
    found: defaultdict[str, list[WrittenFile]] = defaultdict(list)
    for version in store.file_versions(run):
        deleted = version.deleted
        body = None if deleted else store.read_file(run, version.path, version.version)
        found[version.slot].append(WrittenFile(version.path, body, store.label(version.label)))
    return dict(found)
