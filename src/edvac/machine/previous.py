"""`run.previous`: what the last finished run of the same program saw and made.

It is looked up when a run is created and stored in its first record, so that the run sees the same
when it is resumed, whatever other runs end or are removed meanwhile. Knows nothing of how programs
are evaluated.
"""

from __future__ import annotations

import datetime as dt
import posixpath
from dataclasses import dataclass
from typing import Any

import msgspec

from edvac.core.label import PROGRAM, UNBOUNDED, Label, combine
from edvac.core.value import Instance, Mapping, Scalar, Value
from edvac.device.port import file_label
from edvac.guard.policy import TRUSTED
from edvac.machine.overlay import newest
from edvac.program import PREVIOUS, no_previous
from edvac.store import FileVersion, Store

LARGEST = 16 << 20  # bytes of a file that the next run may have as text
MOST = 256 << 20  # of all of them
MANY = 64  # principals of one label; more are called by the name of their run


@dataclass(frozen=True, slots=True)
class Previous:
    """The value of `run.previous`; `left_out` are written files that it does not hold, because
    they are no text or too large."""

    value: Value
    left_out: list[str]


def mentions_previous(text: str) -> bool:
    """May the program ask? Looking is only worth it then."""
    return "previous" in text


def reuse_key(name: str) -> str:
    """Under which the end of a finished run is found by the next run of the same program."""
    return f"previous\n{name}" if name else ""


def previous_run(store: Store, name: str, wanted: bool) -> Previous:
    """Of the newest run of this name that was done; empty where there is none."""
    found = store.reuse_get(reuse_key(name)) if wanted and name else None
    if found is None:
        return Previous(no_previous(), [])
    date, read = seen(store, found.run)
    versions = [one for one in newest(store.file_versions(found.run)) if not one.deleted]
    texts, left_out = _texts(store, found.run, versions)
    shape = combine([_few(store.label(one.label), found.run) for one in versions] or [PROGRAM])
    fields: dict[str, Value] = {
        "date": Scalar(date, PROGRAM),
        "files": Mapping(
            {path: Scalar(digest, file_label(path).cap(64)) for path, digest in read.items()},
            _directories(read),
        ),
        "written": Mapping(texts, shape),
    }
    return Previous(Instance(PREVIOUS.name, fields, PROGRAM), left_out)


def seen(store: Store, run: str) -> tuple[dt.date, dict[str, str]]:
    """The run's date, and the hashes of the input files that its steps read, by path."""
    date = dt.date.min
    read: dict[str, str] = {}
    for record in store.records(run, kinds=("opened", "outcome")):
        body: dict[str, Any] = msgspec.msgpack.decode(record.payload)
        if record.kind == "opened":
            date = dt.date.fromisoformat(body["date"])
        read |= body.get("read") or {}
    return date, dict(sorted(read.items()))


def _texts(
    store: Store, run: str, versions: list[FileVersion]
) -> tuple[dict[str, Value], list[str]]:
    texts: dict[str, Value] = {}
    left_out: list[str] = []
    room = MOST
    for version in versions:
        room -= version.size
        try:
            if version.size > LARGEST or room < 0:
                raise ValueError
            text = store.read_file(run, version.path).decode("utf-8-sig")
        except ValueError:
            left_out.append(version.path)
            continue
        texts[version.path] = Scalar(text, _few(store.label(version.label), run))
    return texts, left_out


def _directories(paths: dict[str, str]) -> Label:
    """Whoever decides which files exist there decides which were read."""
    places = {posixpath.dirname(path) or "." for path in paths}
    if not places:
        return PROGRAM
    return Label.of([f"shape:{place}" for place in places], readers=["user"], bits=UNBOUNDED)


def _few(label: Label, run: str) -> Label:
    """The same label, or one that names the run in place of very many principals: thousands of
    values of thousands of names each would fill the disk. It is trusted no more than they are."""
    if len(label.sources) + len(label.steered) <= MANY:
        return label

    def named(principals: frozenset[str]) -> frozenset[str]:
        few = principals & TRUSTED
        return few if few == principals else few | {f"run:{run}"}

    return Label.of(named(label.sources), named(label.steered), label.readers, label.bits)


def left_out(paths: list[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"no text or too large for run.previous.written: {', '.join(paths[:3])}{more}"
