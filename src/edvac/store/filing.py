"""The versioned files of a run, and the record of applying them to the real directory.

A version is appended in the batch of the outcome that made it; an apply writes down first what it
is about to replace, so that it can be finished or undone after a crash. Knows nothing of the real
directory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from edvac.core.codec import INLINE_LIMIT
from edvac.core.errors import DamageError, InternalError, StoreError, UsageError
from edvac.core.seams import durability_point
from edvac.store.chain import content_digest, mark, row_id
from edvac.store.model import ApplyEntry, ApplyPlan, FileVersion
from edvac.store.part import Part, lock_run
from edvac.store.schema import Execute
from edvac.store.seal import reseal, sealed, sound

_COLUMNS = "SELECT path, version, slot, blob, size, digest, label, deleted, seq, mark FROM file"


_ROUND = "number = ? AND round = ?"
_LATEST = sealed(
    "SELECT round, root, phase, files, SOUND FROM apply"
    " WHERE number = ? AND phase <> 'undone' ORDER BY round DESC LIMIT 1",
    "apply",
)
_ENTRIES = sealed(
    "SELECT path, before, after, mode, state, SOUND FROM applied"
    " WHERE number = ? AND round = ? ORDER BY path",
    "applied",
)
_PUT_THERE = sealed(
    # In SQLite a cross join is one whose order it does not turn round.
    "SELECT 1, SOUND FROM apply CROSS JOIN applied USING (number, round)"
    " WHERE apply.root = ? AND applied.path = ? AND applied.after = ?"
    " AND apply.phase <> 'undone' AND applied.state <> 'undone' LIMIT 1",
    "apply",
    "applied",
)
_APPLIED_LABELS = sealed(
    "SELECT file.label, SOUND FROM apply CROSS JOIN applied USING (number, round)"
    " CROSS JOIN file ON file.number = apply.number AND file.path = applied.path"
    " AND file.digest = applied.after"
    " WHERE apply.root = ?1 AND applied.path = ?2 AND (?3 = '' OR applied.after = ?3)"
    " AND apply.phase <> 'undone' AND applied.state <> 'undone'",
    "apply",
    "applied",
)
_PLACED = sealed("SELECT 1, SOUND FROM placed WHERE key = ?", "placed")
_STANDING = (
    "SELECT apply.root, applied.path, applied.after FROM apply JOIN applied USING (number, round)"
    " WHERE number = ? AND after NOTNULL AND phase <> 'undone' AND applied.state <> 'undone'"
)
_MARKS = "SELECT id, files FROM record WHERE id > ? AND id < ? AND length(files) > 0"


def stage_file(entry: FileVersion, put: Callable[[bytes], str]) -> FileVersion:
    """The version as it will be stored: digest filled in, large content moved to a blob.

    Raises:
        InternalError: it has neither content nor blob, or both, or a deleted file has one.
    """
    given = (entry.content is not None) + (entry.blob is not None)
    if given != (0 if entry.deleted else 1) or not entry.path:
        raise InternalError("file_version_malformed", f"version of {entry.path!r} is malformed")
    if entry.content is None:
        return replace(entry, digest=entry.blob or "")
    digest, size = content_digest(entry.content), len(entry.content)
    if size <= INLINE_LIMIT:
        return replace(entry, digest=digest, size=size)
    return replace(entry, content=None, blob=put(entry.content), digest=digest, size=size)


def check_version(latest: int | None, entry: FileVersion) -> None:
    if latest is not None and entry.version <= latest:
        raise InternalError(
            "file_version_old", f"{entry.path!r} has version {latest}, {entry.version} came after"
        )


def insert_file(execute: Execute, number: int, run: str, seq: int, entry: FileVersion) -> None:
    sql = "SELECT max(version) FROM file WHERE number = ? AND path = ?"
    check_version(execute(sql, (number, entry.path)).get, entry)
    execute(
        "INSERT INTO file (number, path, version, slot, content, blob, size, digest, label,"
        " deleted, seq, mark) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            number,
            entry.path,
            entry.version,
            entry.slot,
            entry.content,
            entry.blob,
            entry.size,
            entry.digest,
            entry.label,
            int(entry.deleted),
            seq,
            mark(run, seq, entry),
        ),
    )


def place_key(root: str, path: str, digest: str) -> bytes:
    """What is kept of a file that a run put into a directory once the run itself is removed."""
    return bytes.fromhex(content_digest(msgspec.json.encode((root, path, digest))))


def keep_placed(execute: Execute, number: int) -> None:
    """Before a run is removed: its files in the user's directories stay known as edvac's."""
    for row in execute(_STANDING, (number,)).fetchall():
        key = place_key(*row)
        execute("INSERT INTO placed (key) VALUES (?) ON CONFLICT DO NOTHING", (key,))
        reseal(execute, "placed", "key = ?", (key,))


def glob_pattern(glob: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder, `**` crosses folders; all else is literal."""
    made = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", glob):
        match part:
            case "**/":
                made.append("(?:.*/)?")
            case "**":
                made.append(".*")
            case "*":
                made.append("[^/]*")
            case "?":
                made.append("[^/]")
            case _:
                made.append(re.escape(part))
    return re.compile("".join(made), re.DOTALL)


def file_missing(run: str, path: str, version: int | None) -> UsageError:
    which = "" if version is None else f" version {version}"
    return UsageError(
        "file_unknown",
        f"run {run} has no file {path!r}{which}",
        "",
        f"See `edvac diff {run}` for the files that it wrote.",
    )


class FilePart(Part):
    def file_latest(self, run: str, path: str) -> FileVersion | None:
        """The newest version of a path, which may be a deletion."""
        sql = f"{_COLUMNS} WHERE number = ? AND path = ? ORDER BY version DESC LIMIT 1"
        rows = self._db.rows(sql, (self._number(run), path))
        return _version(run, rows[0]) if rows else None

    def file_versions(self, run: str) -> list[FileVersion]:
        """Every version of every path, by path and version.

        Raises:
            DamageError: one is missing or not what was written.
        """
        number = self._number(run)
        with self._db.read("reading the files of a run") as execute:
            rows = execute(f"{_COLUMNS} WHERE number = ? ORDER BY id", (number,)).fetchall()
            held = execute(_MARKS, (row_id(number, 0), row_id(number + 1, 0))).fetchall()
        marks: dict[int, bytes] = {}
        for *_, seq, stored in rows:
            marks[row_id(number, seq)] = marks.get(row_id(number, seq), b"") + stored
        if marks != dict(held):
            raise DamageError(
                "file_damaged",
                f"the files of run {run} are not all there",
                "The journal vouches for others than the table holds.",
                "Run `edvac doctor` to verify the workspace.",
            )
        found = [_version(run, row) for row in rows]
        return sorted(found, key=lambda entry: (entry.path, entry.version))

    def list_files(self, run: str, glob: str = "**") -> list[FileVersion]:
        """The newest version of each path that matches and is not deleted, by path."""
        pattern = glob_pattern(glob)
        latest = {entry.path: entry for entry in self.file_versions(run)}
        return [e for e in latest.values() if not e.deleted and pattern.fullmatch(e.path)]

    def read_file(self, run: str, path: str, version: int | None = None) -> bytes:
        """The bytes of a version, by default the newest.

        Raises:
            UsageError: there is no such version, or it is a deletion.
            DamageError: the bytes are not what was written.
        """
        latest = "(SELECT max(version) FROM file WHERE number = ?1 AND path = ?2)"
        sql = (
            _COLUMNS.replace("SELECT ", "SELECT content, ")
            + f" WHERE number = ?1 AND path = ?2 AND version = coalesce(?3, {latest})"
        )
        rows = self._db.rows(sql, (self._number(run), path, version))
        if not rows or rows[0][8]:
            raise file_missing(run, path, version)
        content: bytes | None = rows[0][0]
        entry = _version(run, rows[0][1:])
        data = self._blobs.get(entry.blob) if entry.blob else content
        if data is None or content_digest(data) != entry.digest:
            raise _damaged_file(run, entry.path, entry.version)
        return data

    def begin_apply(self, run: str, root: str, entries: Sequence[ApplyEntry]) -> int:
        """Write down what is about to be replaced, before anything is; the round's number.

        Raises:
            StoreError: an earlier apply of this run is neither finished nor undone.
        """
        number = self._number(run)
        for entry in entries:
            if entry.before is not None and self._blobs.size(entry.before) is None:
                raise StoreError("blob_missing", f"blob {entry.before} is not in the store")
        with self._db.write("planning an apply") as execute:
            lock_run(execute, run, number)
            latest = execute(
                "SELECT round, phase FROM apply WHERE number = ? ORDER BY round DESC LIMIT 1",
                (number,),
            ).get
            if latest is not None and latest[1] == "begun":
                raise apply_unfinished(run)
            round_ = 1 if latest is None else latest[0] + 1
            execute(
                "INSERT INTO apply (number, round, root, files, phase) VALUES (?,?,?,?,'begun')",
                (number, round_, root, len(entries)),
            )
            for e in entries:
                values = (number, round_, e.path, e.before, e.after, e.mode, e.state)
                execute(
                    "INSERT INTO applied (number, round, path, before, after, mode, state)"
                    " VALUES (?,?,?,?,?,?,?)",
                    values,
                )
            reseal(execute, "apply", _ROUND, (number, round_))
            reseal(execute, "applied", _ROUND, (number, round_))
            durability_point("store.apply.before_commit")
        durability_point("store.apply.begun")
        return round_

    def mark_applied(self, run: str, path: str) -> None:
        """This file has been replaced."""
        self._mark(run, (path,), "applied")

    def finish_apply(self, run: str) -> None:
        """Every file has been replaced."""
        self._phase(run, "finished")
        durability_point("store.apply.finished")

    def mark_undone(self, run: str, path: str | None = None) -> None:
        """This file is as it was before; without a path, all of them, and the round is over."""
        if path is not None:
            self._mark(run, (path,), "undone")
            return
        self._phase(run, "undone")

    def applied(self, run: str) -> ApplyPlan | None:
        """The latest round that has not been undone."""
        number = self._number(run)
        rows = sound("apply", self._db.rows(_LATEST, (number,)))
        if not rows:
            return None
        round_, root, phase, count = rows[0]
        entries = sound("applied", self._db.rows(_ENTRIES, (number, round_)))
        if len(entries) != count:
            raise DamageError(
                "apply_damaged",
                f"the record of applying run {run} has lost files",
                f"{len(entries)} of {count} are there.",
                "Run `edvac doctor`; compare the directory with a backup before anything else.",
            )
        return ApplyPlan(run, round_, root, phase, tuple(ApplyEntry(*row) for row in entries))

    def was_applied(self, root: str, path: str, digest: str) -> bool:
        """Has some run, which may be removed by now, put this content there and not taken it
        back?"""
        found = self._db.rows(_PUT_THERE, (root, path, digest))
        found = sound("applied", found) or sound(
            "placed", self._db.rows(_PLACED, (place_key(root, path, digest),))
        )
        return bool(found)

    def applied_roots(self) -> list[str]:
        """The directories that runs have been applied to, those of removed runs left out."""
        return [root for (root,) in self._db.rows("SELECT DISTINCT root FROM apply ORDER BY root")]

    def applied_labels(self, root: str, path: str, digest: str) -> list[str]:
        """The keys of the labels of what runs have put there with this content, empty for any, and
        not taken back."""
        found = sound("applied", self._db.rows(_APPLIED_LABELS, (root, path, digest)))
        return sorted({label for (label,) in found})

    def _mark(self, run: str, paths: Sequence[str], state: str) -> None:
        plan = self._current(run)
        with self._db.write("noting an apply") as execute:
            for path in paths:
                execute(
                    "UPDATE applied SET state = ? WHERE number = ? AND round = ? AND path = ?",
                    (state, self._numbers[run], plan.round, path),
                )
            reseal(execute, "applied", _ROUND, (self._numbers[run], plan.round))

    def _phase(self, run: str, phase: str) -> None:
        plan = self._current(run)
        key = (self._numbers[run], plan.round)
        with self._db.write("noting an apply") as execute:
            execute("UPDATE apply SET phase = ? WHERE number = ? AND round = ?", (phase, *key))
            reseal(execute, "apply", _ROUND, key)
            if phase == "undone":
                execute("UPDATE applied SET state = 'undone' WHERE number = ? AND round = ?", key)
                reseal(execute, "applied", _ROUND, key)

    def _current(self, run: str) -> ApplyPlan:
        plan = self.applied(run)
        if plan is None:
            raise apply_missing(run)
        return plan


def apply_unfinished(run: str) -> StoreError:
    return StoreError(
        "apply_unfinished",
        f"an earlier apply of run {run} was interrupted",
        "Some files are new and some are old.",
        f"Finish it with `edvac apply {run}` or restore with `edvac undo {run}`.",
    )


def apply_missing(run: str) -> UsageError:
    return UsageError(
        "apply_unknown", f"run {run} has not been applied", "", f"See `edvac diff {run}`."
    )


def _version(run: str, row: tuple[Any, ...]) -> FileVersion:
    path, version, slot, blob, size, digest, label, deleted, seq, stored = row
    entry = FileVersion(path, version, slot, None, blob, size, digest, label, bool(deleted), seq)
    if mark(run, seq, entry) != stored:
        raise _damaged_file(run, path, version)
    return entry


def _damaged_file(run: str, path: str, version: int) -> DamageError:
    return DamageError(
        "file_damaged",
        f"version {version} of {path!r} in run {run} is not what was written",
        "Its checksum does not match.",
        "Run `edvac doctor` to verify the workspace.",
    )
