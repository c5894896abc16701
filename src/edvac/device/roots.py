"""Input roots: the directories that a run may read, opened by descriptor.

Every component of a path is opened relative to its parent's descriptor without following symbolic
links, so a path can never leave its root, not even while somebody swaps directories. Knows nothing
of the run's own files.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edvac.core.errors import ConfigError, DeviceError

MAX_FILE = 256 * 1024 * 1024  # bytes read into one value
MAX_ENTRIES = 200_000  # files that one listing may find


@dataclass(frozen=True, slots=True)
class Stat:
    size: int
    modified: float
    identity: str  # changes whenever the content may have changed


class Roots:
    """Names a directory each. The empty name grants a directory's own entries: ``inbox/a.txt``."""

    def __init__(self, roots: dict[str, Path]) -> None:
        self._roots: dict[str, int] = {}
        self._paths = dict(roots)
        for name, path in roots.items():
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                self._roots[name] = os.open(path, flags)
            except OSError as problem:
                raise ConfigError(
                    "input_root_missing",
                    f"the input directory {str(path)!r} cannot be opened",
                    problem.strerror or str(problem),
                    "Name an existing directory with --input.",
                ) from problem

    def close(self) -> None:
        for descriptor in self._roots.values():
            os.close(descriptor)
        self._roots.clear()

    def host_path(self, path: str) -> Path:
        """Where the path lies on the host, for a sandbox's mounts; checked by opening it."""
        os.close(self._open(path, os.O_PATH))
        root, parts = self._split(path)
        return self._paths[root].resolve().joinpath(*parts)

    def read(self, path: str, limit: int = MAX_FILE) -> bytes:
        """The whole content.

        Raises:
            DeviceError: not there, not a regular file, outside every root, or too large.
        """
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _refused(path, "it is not a regular file")
            if found.st_size > limit:
                raise _refused(path, f"it has {found.st_size:,} bytes, the limit is {limit:,}")
            with os.fdopen(os.dup(descriptor), "rb") as file:
                return file.read(limit + 1)
        finally:
            os.close(descriptor)

    def stat(self, path: str) -> Stat:
        descriptor = self._open(path, os.O_PATH)
        try:
            return _stat(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def matching(self, glob: str) -> list[tuple[str, Stat]]:
        """Regular files that match, sorted by name; ``*`` stays within a directory, ``**`` does
        not.

        Hidden files are found only by a pattern that names the dot.
        """
        parts = _parts(glob)
        found: list[tuple[str, Stat]] = []
        for name, descriptor in self._roots.items():
            inner = parts if name == "" else parts[1:]
            if name not in ("", parts[0] if parts else "") and not _match(parts[0], name):
                continue
            for path, status in _walk(descriptor, inner):
                found.append((f"{name}/{path}" if name else path, status))
                if len(found) > MAX_ENTRIES:
                    raise _refused(glob, f"it matches more than {MAX_ENTRIES:,} files")
        return sorted(found)

    def _split(self, path: str) -> tuple[str, list[str]]:
        parts = _parts(path)
        if parts and parts[0] in self._roots:
            return parts[0], parts[1:]
        if "" in self._roots:
            return "", parts
        granted = ", ".join(sorted(self._roots)) or "none"
        raise DeviceError(
            "path_not_granted",
            f"{path!r} lies outside the input directories of this run",
            f"Granted: {granted}.",
            "Grant its directory with --input.",
        )

    def _open(self, path: str, flags: int) -> int:
        root, parts = self._split(path)
        here = os.dup(self._roots[root])
        try:
            for place, part in enumerate(parts):
                last = place == len(parts) - 1
                step = flags if last else os.O_PATH | os.O_DIRECTORY
                below = os.open(part, step | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = below
        except OSError as problem:
            os.close(here)
            raise _refused(path, problem.strerror or str(problem)) from problem
        return here


def fingerprint(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=20).hexdigest()


def _parts(path: str) -> list[str]:
    if "\x00" in path or path.startswith("/"):
        raise _refused(path, "a path is relative and without NUL")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(path, "a path never goes up (..)")
    return parts


def _stat(found: os.stat_result) -> Stat:
    identity = f"{found.st_size}.{found.st_mtime_ns}.{found.st_ino}"
    return Stat(found.st_size, found.st_mtime, identity)


def _walk(directory: int, parts: list[str]) -> Iterator[tuple[str, Stat]]:
    """Files below an open directory that match the pattern's parts."""
    if not parts:
        return
    head, rest = parts[0], parts[1:]
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        if head == "**":
            yield from _below(directory, name, parts)
        elif _match(head, name):
            yield from _below(directory, name, rest)
    if head == "**":
        yield from _walk(directory, rest)


def _below(directory: int, name: str, rest: list[str]) -> Iterator[tuple[str, Stat]]:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            if not rest or rest == ["**"]:
                yield name, _stat(found)
            return
        if not stat.S_ISDIR(found.st_mode) or not rest or (rest[0] == "**" and name[0] == "."):
            return
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError:
        return  # it went away, or may not be read: a listing shows what can be read
    try:
        for path, status in _walk(descriptor, rest):
            yield f"{name}/{path}", status
    finally:
        os.close(descriptor)


def _match(pattern: str, name: str) -> bool:
    if name.startswith(".") and not pattern.startswith("."):
        return False
    return fnmatch.fnmatchcase(name, pattern)


def _refused(path: str, why: str) -> DeviceError:
    return DeviceError("file_unreadable", f"{path!r} cannot be read", f"{why}.", "")
