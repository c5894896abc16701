"""From the run's own files to the user's: diff, apply, undo.

Apply is crash-safe: the plan and the content that it replaces are durable before the first file
changes, each file is replaced atomically, and running it again goes on where it stopped. Nothing is
overwritten that changed since the run
looked, unless forced.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from edvac.core.errors import StoreError, UsageError
from edvac.core.seams import durability_point
from edvac.device.roots import fingerprint
from edvac.machine.overlay import newest
from edvac.store import ApplyEntry, FileVersion, Store

MAX_DIFF = 2 * 1024 * 1024  # bytes of a file shown as a text diff


@dataclass(frozen=True, slots=True)
class Change:
    """One file as the run would leave it: `kind` is new, changed, same or removed."""

    path: str
    kind: str
    size: int
    diff: str


def changes(store: Store, run: str, target: Path) -> list[Change]:
    """What `apply` would do to `target`, with unified diffs of texts."""
    found = []
    for version in newest(store.file_versions(run)):
        before = _content(target / version.path)
        if version.deleted:
            if before is not None:
                found.append(Change(version.path, "removed", 0, ""))
            continue
        after = store.read_file(run, version.path)
        kind = "new" if before is None else "same" if before == after else "changed"
        diff = _diff(version.path, before or b"", after) if kind != "same" else ""
        found.append(Change(version.path, kind, len(after), diff))
    return found


def apply(store: Store, run: str, target: Path, *, force: bool = False) -> list[str]:
    """Make the run's files real below `target`; returns the paths that changed.

    Raises:
        StoreError: a file could not be written; run it again to go on.
        UsageError: a file in the way was not made by this run, and `force` is not given.
    """
    plan = store.applied(run)
    if plan is None or plan.phase == "undone":
        entries = _plan(store, run, target, force=force)
        if not entries:
            return []
        store.begin_apply(run, str(target.resolve()), entries)
        plan = store.applied(run)
    assert plan is not None
    if plan.phase == "finished":
        return []
    root = Path(plan.root)
    done = []
    for entry in plan.entries:
        if entry.state == "planned":
            durability_point("apply.before_file")
            _put(root, entry.path, _wanted(store, run, entry))
            durability_point("apply.after_file")
            store.mark_applied(run, entry.path)
        done.append(entry.path)
    store.finish_apply(run)
    return done


def undo(store: Store, run: str, *, force: bool = False) -> list[str]:
    """Put back what `apply` replaced; returns the paths restored.

    Raises:
        UsageError: nothing was applied, or a file has changed since and `force` is not given.
    """
    plan = store.applied(run)
    if plan is None or plan.phase == "undone":
        raise UsageError(
            "nothing_applied", f"run {run} has not been applied", "", "See `edvac diff`."
        )
    root = Path(plan.root)
    done = []
    for entry in reversed(plan.entries):
        if entry.state != "applied":
            continue
        now = _content(root / entry.path)
        before = store.get_blob(entry.before) if entry.before is not None else None
        is_ours = (fingerprint(now) if now is not None else None) == entry.after
        if not is_ours and now != before and not force:
            raise _changed(entry.path, "it has changed since it was applied")
        _put(root, entry.path, before)
        store.mark_undone(run, entry.path)
        done.append(entry.path)
    store.mark_undone(run)
    return done


def _plan(store: Store, run: str, target: Path, *, force: bool) -> list[ApplyEntry]:
    entries = []
    for version in newest(store.file_versions(run)):
        before = _content(target / version.path)
        after = None if version.deleted else version.digest
        if (fingerprint(before) if before is not None else None) == after:
            continue
        if before is not None and not force and not _ours(store, target, version, before):
            raise _changed(version.path, "a different file is already there")
        blob = store.put_blob(before) if before is not None else None
        entries.append(ApplyEntry(version.path, blob, after))
    return entries


def _ours(store: Store, target: Path, version: FileVersion, before: bytes) -> bool:
    """Was the file that is there now put there by an earlier run, and untouched since?"""
    root = str(target.resolve())
    wanted = fingerprint(before)
    for info in store.runs(limit=1000):
        plan = store.applied(info.id)
        if plan is None or plan.root != root:
            continue
        if any(e.path == version.path and e.after == wanted for e in plan.entries):
            return True
    return False


def _wanted(store: Store, run: str, entry: ApplyEntry) -> bytes | None:
    return None if entry.after is None else store.read_file(run, entry.path)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise StoreError(
            "target_unreadable", f"{str(path)!r} cannot be read", problem.strerror or "", ""
        ) from problem


def _put(root: Path, path: str, content: bytes | None) -> None:
    """Replace or remove one file, atomically and durably."""
    target = root / path
    try:
        if content is None:
            target.unlink(missing_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(root.resolve()):
                raise _changed(path, "its directory is a link that leads out of the target")
            temporary = target.with_name(f".{target.name}.edvac")
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        _sync_directory(target.parent)
    except OSError as problem:
        raise StoreError(
            "apply_failed",
            f"{str(target)!r} could not be written",
            problem.strerror or str(problem),
            "Make room or grant access, then run `edvac apply` again: it goes on where it stopped.",
        ) from problem


def _sync_directory(path: Path) -> None:
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _changed(path: str, why: str) -> UsageError:
    return UsageError(
        "target_changed",
        f"{path!r} was left alone",
        f"{why[0].upper()}{why[1:]}.",
        "Look at `edvac diff`, then repeat with --force to replace it.",
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
