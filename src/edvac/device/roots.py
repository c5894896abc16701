"""Input roots: the directories that a run may read, opened by descriptor.

Every component of a path is opened relative to its parent's descriptor without following symbolic
links, so a path can never leave its root, not even while somebody swaps directories. Knows nothing
of the run's own files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from edvac.core.errors import ConfigError, DeviceError
from edvac.device.glob import Glob, Places

MAX_FILE = 256 * 1024 * 1024  # bytes read into one value
MAX_ENTRIES = 200_000  # files that one listing may find
MAX_DEPTH = 128  # directories inside each other that a listing enters

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})  # nothing is wrong with what was asked for
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Stat:
    size: int
    modified: float


@dataclass(slots=True)
class Listing:
    """Regular files that match, sorted by name, and what was left out and why."""

    found: list[tuple[str, Stat]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        return [f"left out {count}: {why}" for why, count in sorted(self.left_out.items())]


class Roots:
    """Names a directory each. The empty name grants a directory's own entries: ``inbox/a.txt``."""

    def __init__(self, roots: dict[str, Path]) -> None:
        self._roots: dict[str, int] = {}
        for name, path in roots.items():
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                self._roots[name] = os.open(path, flags)
            except OSError as problem:
                self.close()
                raise ConfigError(
                    "input_root_missing",
                    f"the input directory {str(path)!r} cannot be opened",
                    f"{problem.strerror or problem}.",
                    "Name an existing directory with --input.",
                ) from problem

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for descriptor in self._roots.values():
            os.close(descriptor)
        self._roots.clear()

    def read(self, path: str, limit: int = MAX_FILE) -> bytes:
        """The whole content.

        Raises:
            DeviceError: not there, not a regular file, outside every root, or too large.
        """
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _refused(path, _kind(found.st_mode))
            if found.st_size > limit:
                raise _refused(path, f"it has {found.st_size:,} bytes, the limit is {limit:,}")
            return _all(descriptor, path, limit)
        except OSError as problem:
            raise _refused(path, _said(problem)) from problem
        finally:
            os.close(descriptor)

    def beginning(self, path: str, most: int) -> bytes:
        """At most so many bytes.

        Raises:
            DeviceError: as `read`.
        """
        descriptor = self.open(path)
        try:
            return os.read(descriptor, most)
        except OSError as problem:
            raise _refused(path, _said(problem)) from problem
        finally:
            os.close(descriptor)

    def open(self, path: str) -> int:
        """A descriptor to read a regular file from; whoever gets it closes it.

        Raises:
            DeviceError: not there, not a regular file, or outside every root.
        """
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind):
            os.close(descriptor)
            raise _refused(path, _kind(kind))
        return descriptor

    def stat(self, path: str) -> Stat:
        descriptor = self._open(path, os.O_PATH)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _refused(path, _kind(found.st_mode))
            return Stat(found.st_size, found.st_mtime)
        finally:
            os.close(descriptor)

    def exists(self, path: str) -> bool:
        """Is a regular file there?

        Raises:
            DeviceError: no file can be opened any more to find out.
        """
        try:
            self.stat(path)
        except DeviceError as refused:
            if isinstance(refused.__cause__, OSError) and refused.__cause__.errno in _EXHAUSTED:
                raise
            return False
        return True

    def matching(self, pattern: str) -> Listing:
        """The files that match the pattern.

        Raises:
            DeviceError: the pattern is no path, it matches too much, or no directory can be
                opened any more to look into.
        """
        _parts(pattern)
        listing = Listing()
        try:
            for found in self._found(Glob.of(pattern), listing.left_out):
                listing.found.append(found)
                if len(listing.found) > MAX_ENTRIES:
                    raise _refused(pattern, f"it matches more than {MAX_ENTRIES:,} files")
        except OSError as problem:
            raise _refused(pattern, _said(problem)) from problem
        listing.found.sort()
        return listing

    def _found(self, glob: Glob, left_out: Counter[str]) -> Iterator[tuple[str, Stat]]:
        walk = _Walk(glob, left_out)
        for name, root in self._roots.items():
            places = glob.step(glob.start, name) if name else glob.start
            hidden = frozenset(self._roots) if name == "" else frozenset()
            prefix = f"{name}/" if name else ""
            here = os.open(".", _DIRECTORY, dir_fd=root)  # an offset of its own: walks run at once
            yield from walk.below(here, places, prefix, hidden=hidden)

    def _split(self, path: str) -> tuple[str, list[str]]:
        parts = _parts(path)
        if parts and parts[0] in self._roots:
            return parts[0], parts[1:]
        if "" in self._roots:
            return "", parts
        granted = ", ".join(f"{name}/" for name in sorted(self._roots)) or "none"
        raise DeviceError(
            "path_not_granted",
            f"{path!r} lies outside the input directories of this run",
            f"Granted: {granted}.",
            "Grant its directory with --input.",
        )

    def _open(self, path: str, flags: int) -> int:
        root, parts = self._split(path)
        try:
            here = os.dup(self._roots[root])
        except OSError as problem:
            raise _refused(path, _said(problem)) from problem
        for place, part in enumerate(parts):
            last = place == len(parts) - 1
            step = flags if last else os.O_PATH | os.O_DIRECTORY
            try:
                below = os.open(part, step | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            except OSError as problem:
                raise _refused(path, _why(problem, part, here)) from problem
            finally:
                os.close(here)
            here = below
        return here


def fingerprint(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=20).hexdigest()


def _all(descriptor: int, path: str, limit: int) -> bytes:
    """Everything, though the file may grow meanwhile."""
    parts: list[bytes] = []
    size = 0
    while part := os.read(descriptor, min(limit + 1 - size, 1 << 20)):
        size += len(part)
        if size > limit:
            raise _refused(path, f"it has more than {limit:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _parts(path: str) -> list[str]:
    if "\x00" in path or path.startswith("/"):
        raise _refused(path, "a path is relative and without NUL")
    if not _is_utf8(path):
        raise _refused(path, "it is not UTF-8")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(path, "a path never goes up (..)")
    return parts


@dataclass(slots=True)
class _Walk:
    """One listing: files below open directories that match, in no order."""

    glob: Glob
    left_out: Counter[str]

    def below(
        self, here: int, places: Places, prefix: str, *, hidden: frozenset[str] = frozenset()
    ) -> Iterator[tuple[str, Stat]]:
        """Files below the directory `here`, which is closed at the end; names in `hidden` do not
        count."""
        try:
            if not places:
                return
            with os.scandir(here) as entries:
                names = [entry.name for entry in entries if entry.name not in hidden]
            for name in names:
                after = self.glob.step(places, name)
                if after and not _is_utf8(name):
                    self.left_out["a name that is not UTF-8"] += 1
                elif after:
                    yield from self._entry(here, name, after, prefix)
        finally:
            os.close(here)

    def _entry(
        self, here: int, name: str, after: Places, prefix: str
    ) -> Iterator[tuple[str, Stat]]:
        found = _look(here, name, self.left_out)
        if found is None:
            return
        if stat.S_ISREG(found.st_mode):
            if self.glob.accepts(after):
                yield prefix + name, Stat(found.st_size, found.st_mtime)
        elif after - {len(self.glob.parts)}:
            path = f"{prefix}{name}/"
            if path.count("/") > MAX_DEPTH:
                self.left_out[f"below more than {MAX_DEPTH} directories"] += 1
                return
            below = _enter(here, name, self.left_out)
            if below is not None:
                yield from self.below(below, after, path)


def _look(here: int, name: str, left_out: Counter[str]) -> os.stat_result | None:
    """The status of a file or directory; None for anything else and for what went away."""
    try:
        found = os.stat(name, dir_fd=here, follow_symlinks=False)
    except OSError:
        return None
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
        return found
    left_out[_kind(found.st_mode)] += 1
    return None


def _enter(here: int, name: str, left_out: Counter[str]) -> int | None:
    try:
        return os.open(name, _DIRECTORY, dir_fd=here)
    except OSError as problem:
        if problem.errno in _EXHAUSTED:
            raise  # what could not be looked into would be missing from the list
        if problem.errno != errno.ENOENT:
            left_out[f"a directory ({problem.strerror})"] += 1
        return None


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link, which is not followed"
    return "a directory, not a file" if stat.S_ISDIR(mode) else "not a regular file"


def _why(problem: OSError, part: str, here: int) -> str:
    """The reason in words; a link in the way is called one."""
    if problem.errno in (errno.ELOOP, errno.ENOTDIR):
        try:
            mode = os.stat(part, dir_fd=here, follow_symlinks=False).st_mode
        except OSError:
            mode = 0
        if stat.S_ISLNK(mode):
            return f"{part!r} is {_kind(mode)}"
    return _said(problem)


def _said(problem: OSError) -> str:
    if problem.errno in _EXHAUSTED:
        whose = "this process has" if problem.errno == errno.EMFILE else "the system has"
        return f"{whose} too many open files (`ulimit -n` says how many it may have)"
    return problem.strerror or str(problem)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused(path: str, why: str) -> DeviceError:
    return DeviceError(
        "file_unreadable",
        f"{path!r} cannot be read",
        f"{why[0].upper()}{why[1:]}.",
        "Mend that, then run `edvac resume --retry`.",
    )
