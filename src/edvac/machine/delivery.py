"""From the run's own files to the user's: diff, apply, undo.

Apply is crash-safe: the plan and the content that it replaces are durable before the first file
changes, each file is replaced atomically, and running it again goes on where it stopped. Nothing is
overwritten that changed since the plan was made, or that the run has not seen, unless forced. A run
that wrote more after it was applied is applied in a further round, and `undo` takes the rounds back
one by one. Directories that apply made stay.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edvac.core.errors import StoreError, UsageError
from edvac.core.seams import durability_point
from edvac.device.roots import fingerprint
from edvac.machine.overlay import newest
from edvac.machine.patch import file_patch
from edvac.machine.previous import seen
from edvac.machine.rows import SHOWN, TableChange, described, is_database
from edvac.machine.target import Present, look, put, sweep
from edvac.store import ApplyEntry, ApplyPlan, FileVersion, Store

MAX_DIFF = 2 * 1024 * 1024  # bytes of a file shown as a text diff
NEW_FILE = 0  # mode of an entry whose file apply makes: then the umask decides

DURABILITY_POINTS = (
    "apply.after_file",
    "apply.before_file",
    "undo.after_file",
    "undo.before_file",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One file as the run would leave it: `kind` is new, changed, same, removed or moved.

    Attributes:
        source: where a moved file was; its content is the same.
        diff: lines for people.
        tables: what differs in an SQLite file.
    """

    path: str
    kind: str
    size: int
    diff: str
    tables: tuple[TableChange, ...] = ()
    source: str = ""


def changes(store: Store, run: str, target: Path, *, rows: int = SHOWN) -> list[Change]:
    """What `apply` would do to `target`, with unified diffs of texts and at most so many `rows` of
    each table of a database."""
    found = []
    versions = newest(store.file_versions(run))
    moves = _moves(versions, target)
    moved = set(moves.values())
    for version in versions:
        before = _content(target, version.path)
        if version.deleted:
            if before is not None and version.path not in moved:
                found.append(Change(version.path, "removed", 0, ""))
            continue
        after = store.read_file(run, version.path)
        if source := moves.get(version.path, ""):
            found.append(Change(version.path, "moved", len(after), "", source=source))
            continue
        kind = "new" if before is None else "same" if before == after else "changed"
        diff, tables = "", list[TableChange]()
        if kind != "same" and is_database(after) and (before is None or is_database(before)):
            diff, tables = described(version.path, before or b"", after, rows)
        elif kind != "same":
            diff = _diff(version.path, before or b"", after)
        found.append(Change(version.path, kind, len(after), diff, tuple(tables)))
    return found


def _moves(versions: list[FileVersion], target: Path) -> dict[str, str]:
    """Where each new file was, if one with this content goes; by its new path."""
    gone: dict[str, list[str]] = {}
    for version in versions:
        before = _content(target, version.path) if version.deleted else None
        if before is not None:
            gone.setdefault(fingerprint(before), []).append(version.path)
    return {
        version.path: gone[version.digest].pop(0)
        for version in versions
        if gone.get(version.digest)
        and not version.deleted
        and _content(target, version.path) is None
    }


def patch(store: Store, run: str, target: Path) -> bytes:
    """The same as a patch that git takes: see `machine.patch`."""
    parts = []
    for version in newest(store.file_versions(run)):
        found = look(target, version.path) if target.is_dir() else None
        after = None if version.deleted else store.read_file(run, version.path)
        before, mode = (found.content, found.mode) if found is not None else (None, 0o644)
        parts.append(file_patch(version.path, before, after, mode))
    return b"".join(parts)


def apply(store: Store, run: str, target: Path, *, force: bool = False) -> list[str]:
    """Make the run's files real below `target`; returns the paths that changed.

    Raises:
        StoreError: a file could not be written; run it again to go on.
        UsageError: a file in the way is neither what the run read there nor what an earlier one
            put there, and `force` is not given.
    """
    plan = store.applied(run)
    if plan is None or plan.phase != "begun":
        entries = _plan(store, run, target, force=force)
        if not entries:
            return []
        store.begin_apply(run, str(target.resolve()), entries)
        plan = store.applied(run)
    assert plan is not None
    if Path(plan.root) != target.resolve():
        raise UsageError(
            "apply_elsewhere",
            f"run {run} is half applied to {plan.root!r}",
            "An apply that was cut off has to be finished or undone first.",
            f"Repeat it with --output {plan.root}, or run `edvac undo {run}`.",
        )
    done = []
    for entry in plan.entries:
        if entry.state != "applied":
            _carry_out(store, plan, entry, force=force)
        done.append(entry.path)
    store.finish_apply(run)
    return done


def undo(store: Store, run: str, *, force: bool = False) -> list[str]:
    """Put back what the last `apply` replaced, finished or cut off; returns the paths restored.

    Raises:
        UsageError: nothing was applied, or a file has changed since and `force` is not given.
    """
    plan = store.applied(run)
    if plan is None:
        raise UsageError(
            "nothing_applied", f"run {run} has not been applied", "", "See `edvac diff`."
        )
    root = Path(plan.root)
    taken = [entry for entry in reversed(plan.entries) if entry.state != "undone"]
    # All are looked at before the first is changed, so that a refusal leaves the whole as it is.
    now = {entry.path: _restorable(store, root, entry, force=force) for entry in taken}
    done = []
    for entry in taken:
        before = store.get_blob(entry.before) if entry.before is not None else None
        if now[entry.path] != before:
            durability_point("undo.before_file")
            put(root, entry.path, before, entry.mode or None)
            durability_point("undo.after_file")
            done.append(entry.path)
        sweep(root, entry.path)
        store.mark_undone(run, entry.path)
    store.mark_undone(run)
    return done


def _carry_out(store: Store, plan: ApplyPlan, entry: ApplyEntry, *, force: bool) -> None:
    """One planned file; a cut-off apply may have changed it already."""
    root = Path(plan.root)
    now = _content(root, entry.path)
    before = store.get_blob(entry.before) if entry.before is not None else None
    is_done = _digest(now) == entry.after
    if not is_done and now != before and not force:
        raise _changed(entry.path, "it has changed since the run was to be applied")
    if not is_done:
        durability_point("apply.before_file")
        put(root, entry.path, _wanted(store, plan.run, entry), entry.mode or None)
        durability_point("apply.after_file")
    sweep(root, entry.path)
    store.mark_applied(plan.run, entry.path)


def _restorable(store: Store, root: Path, entry: ApplyEntry, *, force: bool) -> bytes | None:
    """The file as it is now, if putting back what was there before loses nothing."""
    now = _content(root, entry.path)
    before = store.get_blob(entry.before) if entry.before is not None else None
    if _digest(now) != entry.after and now != before and not force:
        raise _changed(entry.path, "it has changed since it was applied")
    return now


def refused(store: Store, run: str, target: Path) -> dict[str, str]:
    """Why `apply` would leave a file alone unless forced, as a clause; by path."""
    differing = _differing(store, run, target, force=False)
    return {version.path: why for version, _, why in differing if why}


def _plan(store: Store, run: str, target: Path, *, force: bool) -> list[ApplyEntry]:
    entries = []
    for version, found, why in _differing(store, run, target, force=force):
        if why:
            raise _changed(version.path, why)
        blob = store.put_blob(found.content) if found is not None else None
        mode = found.mode if found is not None else NEW_FILE
        after = None if version.deleted else version.digest
        entries.append(ApplyEntry(version.path, blob, after, mode))
    return entries


def _differing(
    store: Store, run: str, target: Path, *, force: bool
) -> Iterator[tuple[FileVersion, Present | None, str]]:
    """Each file that is not yet as the run would leave it, what is there now, and why that may not
    be replaced; empty where it may."""
    read: dict[str, str] | None = None
    for version in newest(store.file_versions(run)):
        found = look(target, version.path) if target.is_dir() else None
        now = fingerprint(found.content) if found is not None else None
        if now == (None if version.deleted else version.digest):
            continue
        why = ""
        if found is not None and not force:
            read = seen(store, run)[1] if read is None else read
            if read.get(version.path) != now and not _ours(store, target, version, found):
                why = _SINCE_READ if version.path in read else _ANOTHER
        yield version, found, why


_SINCE_READ = "it has changed since the run read it"
_ANOTHER = "a different file is already there"


def _ours(store: Store, target: Path, version: FileVersion, found: Present) -> bool:
    """Was the file that is there now put there by an earlier run, and untouched since?"""
    return store.was_applied(str(target.resolve()), version.path, fingerprint(found.content))


def _wanted(store: Store, run: str, entry: ApplyEntry) -> bytes | None:
    """What the plan promised, though the run may have written newer versions since."""
    if entry.after is None:
        return None
    for version in reversed(store.file_versions(run)):
        if version.path == entry.path and version.digest == entry.after:
            return store.read_file(run, entry.path, version.version)
    raise StoreError("version_missing", f"the version of {entry.path!r} to apply is gone")


def _content(root: Path, path: str) -> bytes | None:
    found = look(root, path)
    return found.content if found is not None else None


def _digest(content: bytes | None) -> str | None:
    return fingerprint(content) if content is not None else None


def _changed(path: str, why: str) -> UsageError:
    return UsageError(
        "target_changed",
        f"{path!r} was left alone",
        f"{why[0].upper()}{why[1:]}.",
        "Look at `edvac diff`; `edvac apply --force` (or `edvac undo --force`) replaces it.",
    )


def _diff(path: str, before: bytes, after: bytes) -> str:
    if len(before) + len(after) > MAX_DIFF:
        return f"{path}: {len(before):,} -> {len(after):,} bytes\n"
    try:
        old, new = before.decode().splitlines(True), after.decode().splitlines(True)
    except UnicodeDecodeError:
        return f"{path}: binary, {len(before):,} -> {len(after):,} bytes\n"
    lines = difflib.unified_diff(old, new, f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)
