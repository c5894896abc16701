"""The damage harness: changes behind the store's back, each of which must be noticed.

Damaged bytes may be refused; what is returned must be what was written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import crash_harness as harness

from edvac.core.errors import EdvacError

SQL: dict[str, str] = {
    "payload": "UPDATE record SET payload = x'00' WHERE id & 0xffffffff = 2",
    "slot": "UPDATE record SET slot = slot || 'x' WHERE id & 0xffffffff = 3",
    "kind": "UPDATE record SET kind = 'approved' WHERE id & 0xffffffff = 3",
    "epoch": "UPDATE record SET epoch = epoch + 1 WHERE id & 0xffffffff = 1",
    "labels": "UPDATE record SET labels = x'' WHERE id & 0xffffffff = 2",
    "segments": "UPDATE record SET segments = x'' WHERE length(segments) > 0",
    "segment names": "UPDATE record SET segments = x'9102' WHERE length(segments) > 0",
    "stale": "UPDATE record SET payload = (SELECT payload FROM record b WHERE b.id = record.id - 1)"
    " WHERE id & 0xffffffff = 4",
    "misdirected": "UPDATE record SET (payload, hash) = (SELECT payload, hash FROM record b WHERE"
    " b.id = record.id - 1) WHERE id & 0xffffffff = 4",
    "other run's": "UPDATE record SET (slot, payload, labels, hash) = (SELECT slot, payload,"
    " labels, hash FROM record b WHERE b.id = (2 << 32 | 1)) WHERE id = (1 << 32 | 1)",
    "hole": "DELETE FROM record WHERE id & 0xffffffff = 3",
    "tail": "DELETE FROM record WHERE id = (SELECT max(id) FROM record)",
    "head": "UPDATE head SET last = last - 1",
    "label": "UPDATE label SET form = (SELECT form FROM label b ORDER BY key DESC LIMIT 1)",
    "no label": "DELETE FROM label",
    "segment": "UPDATE segment SET packed = x'00'",
    "no segment": "DELETE FROM segment",
    "file": "UPDATE file SET content = x'00' WHERE content NOTNULL",
    "file row": "UPDATE file SET size = size + 1",
    "no file": "DELETE FROM file WHERE version = 1",
    "run": "UPDATE run SET title = 'another'",
    "state": "UPDATE run SET state = 'done'",
    "message": "UPDATE inbox SET payload = x'00'",
    "grant": "UPDATE permission SET scope = 'always'",
    "schedule": "UPDATE schedule SET spec = '[]'",
    "apply": "UPDATE apply SET root = '/'",
    "applied": "UPDATE applied SET mode = 511",
    "no entry": "DELETE FROM applied WHERE path = 'a'",
    "reuse": "UPDATE record SET reuse = zeroblob(16) WHERE reuse NOTNULL",
    "no reuse": "UPDATE record SET reuse = NULL WHERE reuse NOTNULL",
    "checkpoint": "UPDATE checkpoint SET payload = x'00'",
    "checkpoint's values": "UPDATE checkpoint SET channels = x'90'",
    "checkpoint's parent": "UPDATE checkpoint SET parent = NULL WHERE id = 'c2'",
    "no checkpoint": "DELETE FROM checkpoint WHERE id = 'c2'",
    "no newest": "DELETE FROM checkpoint WHERE id = 'c3'",
    "other's checkpoint": "UPDATE checkpoint SET (channels, mark) = (SELECT channels, mark FROM"
    " checkpoint b WHERE b.id = 'c1') WHERE id = 'c2'",
    "thread": "UPDATE thread SET newest = 'c2'",
    "writes": "UPDATE task SET writes = x'90'",
    "piece": "UPDATE piece SET data = x'00' || substr(data, 2) WHERE data NOTNULL",
    "piece's size": "UPDATE piece SET size = size + 1",
    "no piece": "DELETE FROM piece WHERE at > 0",
    "swapped pieces": "UPDATE piece SET chunk = (SELECT max(chunk) FROM piece)",
    "chunk": "UPDATE chunk SET packed = zeroblob(length(packed))",
    "chunk cut": "UPDATE chunk SET packed = substr(packed, 1, length(packed) - 1)",
    "no chunk": "DELETE FROM chunk",
}


def flip_blob(root: Path) -> None:
    path = max(p for p in (root / ".edvac/blobs").rglob("*") if p.is_file())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut_blob(root: Path) -> None:
    path = max(p for p in (root / ".edvac/blobs").rglob("*") if p.is_file())
    path.write_bytes(path.read_bytes()[:-1])


def lose_blob(root: Path) -> None:
    for path in [p for p in (root / ".edvac/blobs").rglob("*") if p.is_file()]:
        path.unlink()


def by_sql(sql: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        made = apsw.Connection(str(root / ".edvac/store.db"))
        made.execute(sql)
        assert made.total_changes() > 0, sql
        made.close()

    return change


DAMAGES: dict[str, Callable[[Path], None]] = {
    **{name: by_sql(sql) for name, sql in SQL.items()},
    "blob flipped": flip_blob,
    "blob cut": cut_blob,
    "blob lost": lose_blob,
}


def build(root: Path, until: int = 28, **seams: Any) -> Any:
    """A closed store after the first steps of the crash workload; what it holds."""
    root.mkdir(exist_ok=True)
    work = harness.Workload(lambda: harness.open_store(root, **seams))
    for number, step in enumerate(harness.steps()[:until], start=1):
        work.at = number
        step(work)
    work.store.post("r1", "kill", b"now")
    found = harness.dump(work.store)
    work.close()
    return found


def seen(root: Path, truth: Any) -> str:
    """How a changed store answers: "clean" (nothing noticed), "told" (verify says so, nothing wrong
    was read), "refused" (reading raised), or "lied" (wrong data came back)."""
    try:
        store = harness.open_store(root)
    except EdvacError:
        return "refused"
    try:
        told = bool(store.verify())
        found = harness.dump(store)
    except EdvacError:
        return "refused"
    finally:
        store.close()
    if told:  # a reuse key that is gone costs a step run again, and nothing else
        reuse = [new and old for new, old in zip(found[1], truth[1], strict=True)]
        truth = (truth[0], reuse, *truth[2:])
    if found != truth:
        return "lied"
    return "told" if told else "clean"


def unnoticed(scratch: Path) -> list[str]:
    """The damages that get past the store."""
    truth = build(scratch / "whole")
    missed = []
    for name, change in DAMAGES.items():
        copy = scratch / name
        shutil.copytree(scratch / "whole", copy)
        change(copy)
        if seen(copy, truth) not in ("refused", "told"):
            missed.append(name)
        shutil.rmtree(copy)
    return missed
