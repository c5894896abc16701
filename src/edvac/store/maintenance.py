"""Checking everything that is stored, and removing what nothing refers to.

`verify` reads all of it and reports; it repairs nothing. `gc` holds the write lock while it
removes, and an append checks under the same lock that what it names is there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator

from edvac.core.errors import DamageError
from edvac.core.seams import durability_point
from edvac.store.chain import (
    LABEL_BYTES,
    REF_BYTES,
    SEQ_BITS,
    content_digest,
    unpack,
)
from edvac.store.filing import FilePart
from edvac.store.journal import JournalPart, restore_label
from edvac.store.lease import Holder, is_live
from edvac.store.model import Problem, Swept
from edvac.store.owner import Process
from edvac.store.pruning import PrunePart
from edvac.store.runs import RunPart
from edvac.store.schema import Execute
from edvac.store.seal import BROKEN, TABLES, sealed, sound
from edvac.store.segments import row_names, unpack_segment

GRACE_S = 3600.0
_USED = {
    "labels": "SELECT DISTINCT labels FROM record",
    "segments": "SELECT DISTINCT segments FROM record",
    "blobs": "SELECT DISTINCT blobs FROM record",
}
_USED_BLOBS = (
    "SELECT lower(hex(ref)) FROM record WHERE ref NOTNULL"
    " UNION ALL SELECT blob FROM file WHERE blob NOTNULL"
    " UNION ALL SELECT before FROM applied WHERE before NOTNULL"
)
_WORKERS = "SELECT id FROM run WHERE substr(id, 1, ?) = ?"
_ORPHANS = (
    "SELECT id FROM run WHERE instr(id, '.') > 0"
    " AND substr(id, 1, instr(id, '.') - 1) NOT IN (SELECT id FROM run)"
)
_RECORD_BLOBS = "SELECT lower(hex(ref)) FROM record WHERE ref NOTNULL AND id >= ? AND id < ?"
_FILE_BLOBS = "SELECT blob FROM file WHERE blob NOTNULL AND number = ?"
_APPLIED_BLOBS = "SELECT before FROM applied WHERE before NOTNULL AND number = ?"
_HELD = sealed(
    "SELECT owner, process, epoch, expires, seen, acquired, SOUND FROM head WHERE owner NOTNULL",
    "head",
)
_label_keys = functools.partial(unpack, size=LABEL_BYTES)
_refs = functools.partial(unpack, size=REF_BYTES)


class MaintenancePart(JournalPart, FilePart, RunPart, PrunePart):
    def verify(self) -> list[Problem]:
        """Everything that is wrong; an empty list means that every byte is what was written."""
        found: list[Problem] = []
        checks: tuple[Callable[[], Iterator[Problem]], ...] = (
            self._db.problems,
            self._verify_chains,
            self._verify_labels,
            self._verify_segments,
            self._verify_files,
            self._verify_blobs,
            self._verify_threads,
            self._verify_rows,
        )
        for check in checks:
            try:
                found.extend(check())
            except DamageError as error:
                found.append(Problem(error.code, "store.db", f"{error.what}: {error.why}"))
        return found

    def _verify_chains(self) -> Iterator[Problem]:
        known = {row[0] for row in self._db.rows("SELECT number FROM run")}
        used = self._db.rows("SELECT DISTINCT id >> ? FROM record", (SEQ_BITS,))
        for number in sorted({row[0] for row in used} - known):
            yield Problem("record_orphaned", f"run number {number}", "records of no known run")
        for (run,) in self._db.rows("SELECT id FROM run ORDER BY number"):
            try:
                for _ in self.records(run):
                    pass
            except DamageError as error:
                yield Problem(error.code, f"run {run}", f"{error.what}: {error.why}")

    def _verify_labels(self) -> Iterator[Problem]:
        known: set[str] = set()
        for key, form in self._db.rows("SELECT key, form FROM label"):
            known.add(key)
            try:
                restore_label(key, form)
            except DamageError as error:
                yield Problem(error.code, f"label {key}", error.what)
        for key in sorted(self._used("labels", _label_keys) - known):
            yield Problem("label_missing", f"label {key}", "a record refers to it")

    def _verify_segments(self) -> Iterator[Problem]:
        known: set[str] = set()
        for key, packed in self._db.rows("SELECT hash, packed FROM segment"):
            if not isinstance(key, bytes):
                yield Problem("segment_damaged", "table segment", "a row has no hash")
                continue
            known.add(key.hex())
            try:
                unpack_segment(key.hex(), packed)
            except DamageError as error:
                yield Problem(error.code, f"segment {key.hex()}", error.what)
        for hash_ in sorted(self._used("segments", row_names) - known):
            yield Problem("segment_missing", f"segment {hash_}", "a record refers to it")

    def _verify_files(self) -> Iterator[Problem]:
        sql = "SELECT number, path, version, content, digest FROM file WHERE content NOTNULL"
        for number, path, version, content, digest in self._db.rows(sql):
            if content_digest(content) != digest:
                where = f"run number {number}, {path!r} version {version}"
                yield Problem("file_damaged", where, "its content does not match its digest")
        for (run,) in self._db.rows("SELECT id FROM run"):
            try:
                self.file_versions(run)
            except DamageError as error:
                yield Problem(error.code, f"run {run}", error.what)

    def _verify_blobs(self) -> Iterator[Problem]:
        present = set(self._blobs.all())
        for ref in sorted(self._used_blobs() - present):
            yield Problem("blob_missing", f"blob {ref}", "something refers to it")
        for ref in sorted(present):
            try:
                why = self._blobs.check(ref)
            except DamageError as error:
                why = error.why
            if why is not None:
                yield Problem("blob_damaged", f"blob {ref}", why)

    def _verify_rows(self) -> Iterator[Problem]:
        for table in TABLES:
            broken = self._db.rows(BROKEN[table])[0][0]
            if broken:
                yield Problem("row_damaged", f"table {table}", f"{broken} rows are not as written")

    def gc(self, grace_s: float = GRACE_S) -> Swept:
        """Remove blobs, labels and segments that nothing refers to.

        What was touched within `grace_s`, or since the earliest live lease was taken, stays: a
        record that names it may be on its way. Removes runs, too, that worked for one that is gone.
        """
        for (orphan,) in self._db.rows(_ORPHANS):
            self.remove_run(orphan)
        return self._sweep(grace_s, set(self._blobs.all()))

    def forget_run(self, run: str) -> Swept:
        """Remove a run and, at once, its prompts and blobs that nothing else refers to, so that no
        byte of them stays in the store's files; with it those that worked for it. What somebody
        touched since a run that is being worked on was taken up stays for `gc`.

        Raises:
            LeaseError: somebody is working on it.
        """
        number = self._number(run)
        within = (number << SEQ_BITS, (number + 1) << SEQ_BITS)
        blobs: set[str] = set()
        for (packed,) in self._db.rows(
            "SELECT DISTINCT blobs FROM record WHERE id >= ? AND id < ?", within
        ):
            blobs.update(_refs(packed))
        blobs.update(row[0] for row in self._db.rows(_RECORD_BLOBS, within))
        for sql in (_FILE_BLOBS, _APPLIED_BLOBS):
            blobs.update(row[0] for row in self._db.rows(sql, (number,)))
        self.remove_run(run)
        swept = self._sweep(0.0, blobs)
        for (worker,) in self._db.rows(_WORKERS, (len(run) + 1, f"{run}.")):
            if "." not in worker[len(run) + 1 :]:  # those below it go with it
                self.forget_run(worker)
        return swept

    def _sweep(self, grace_s: float, among: set[str]) -> Swept:
        """Blobs of these, and labels and segments, to which nothing refers."""
        with self._db.write("collecting garbage", alone=True) as execute:
            cutoff = self._cutoff(execute, grace_s)
            blobs = bytes_ = 0
            for ref in sorted(among - self._used_blobs()):
                size = self._blobs.size(ref)
                if size is None or self._blobs.modified(ref) > cutoff:
                    continue
                self._blobs.remove(ref)
                blobs, bytes_ = blobs + 1, bytes_ + size
            stored = {row[0] for row in execute("SELECT key FROM label").fetchall()}
            labels = stored - self._used("labels", _label_keys)
            for key in labels:
                execute("DELETE FROM label WHERE key = ?", (key,))
            waiting = execute("SELECT hash FROM segment WHERE touched <= ?", (cutoff,)).fetchall()
            segments = {row[0].hex() for row in waiting} - self._used("segments", row_names)
            for hash_ in segments:
                execute("DELETE FROM segment WHERE hash = ?", (bytes.fromhex(hash_),))
            durability_point("store.gc.before_commit")
        self._db.shrink()
        self._db.checkpoint(truncate=True)
        return Swept(blobs, bytes_, len(labels), len(segments))

    def _cutoff(self, execute: Execute, grace_s: float) -> float:
        now = self._clock.wall()
        cutoff = now - grace_s
        rows = sound("head", execute(_HELD).fetchall())
        for owner, process, epoch, expires, seen, acquired in rows:
            holder = Holder(
                owner, Process.restore(process) if process else None, epoch, expires, seen
            )
            if is_live(holder, now, self._owners):
                cutoff = min(cutoff, acquired)
        return cutoff

    def _used(self, column: str, names: Callable[[bytes], Iterable[str]]) -> set[str]:
        found: set[str] = set()
        for (packed,) in self._db.rows(_USED[column]):
            if not isinstance(packed, bytes):
                raise DamageError(
                    "store_damaged", "the store is damaged", f"A record has no {column}."
                )
            found.update(names(packed))
        return found

    def _used_blobs(self) -> set[str]:
        found = self._used("blobs", _refs)
        found.update(row[0] for row in self._db.rows(_USED_BLOBS))
        return found
