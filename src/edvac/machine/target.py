"""The directory that `apply` writes into: files replaced and removed atomically and durably, never
through a symbolic link.

Every directory of a path is opened below its parent without following links, so nothing outside the
target can be read, changed or removed, not even while somebody swaps directories. Knows nothing of
runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edvac.core.errors import StoreError, UsageError

NEW_MODE = 0o666  # less the umask
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Present:
    """A file as it is now."""

    content: bytes
    mode: int


def look(root: Path, path: str) -> Present | None:
    """The file below `root`; None when there is none.

    Raises:
        UsageError: a link is in the way.
        StoreError: it cannot be read.
    """
    try:
        with _parent(root, path, make=False) as (directory, name):
            return _read(directory, name)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise _refused(root, path, problem, "target_unreadable", "read") from problem


def put(root: Path, path: str, content: bytes | None, mode: int | None = None) -> None:
    """Replace the file, or remove it where `content` is None.

    Raises:
        UsageError: a link is in the way.
        StoreError: it could not be done; the file is as it was.
    """
    try:
        if content is None:
            with (
                contextlib.suppress(FileNotFoundError),
                _parent(root, path, make=False) as (directory, name),
            ):
                os.unlink(name, dir_fd=directory)
                os.fsync(directory)
            return
        root.mkdir(parents=True, exist_ok=True)
        with _parent(root, path, make=True) as (directory, name):
            _replace(directory, name, content, mode)
    except OSError as problem:
        raise _refused(root, path, problem, "apply_failed", "written") from problem


def sweep(root: Path, path: str) -> None:
    """Remove what a killed `put` of this file may have left beside it."""
    try:
        with _parent(root, path, make=False) as (directory, name):
            os.unlink(_temporary(name), dir_fd=directory)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise _refused(root, path, problem, "apply_failed", "written") from problem


def _replace(directory: int, name: str, content: bytes, mode: int | None) -> None:
    temporary = _temporary(name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, NEW_MODE, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)


def _read(directory: int, name: str) -> Present:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=directory)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(21, "not a regular file", name)
        return Present(file.read(), stat.S_IMODE(found.st_mode))


@contextlib.contextmanager
def _parent(root: Path, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
    """The directory that holds `path`, opened, and the last part of the path."""
    *parts, name = path.split("/")
    if ".." in parts or name in ("", ".", ".."):
        raise OSError(22, "not a path below the target", path)
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            below = _enter(here, part, make=make)
            os.close(here)
            here = below
        if _is_link(here, name):
            raise _is_in_the_way(path, name)
        yield here, name
    finally:
        os.close(here)


def _enter(here: int, part: str, *, make: bool) -> int:
    """The directory `part` of `here`, opened."""
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, dir_fd=here)
            os.fsync(here)
    if _is_link(here, part):
        raise _is_in_the_way(part, part)
    return os.open(part, _DIRECTORY, dir_fd=here)


def _is_link(directory: int, name: str) -> bool:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISLNK(found.st_mode)


def _temporary(name: str) -> str:
    """Beside its file, hidden, and short enough whatever the file's name."""
    return f".edvac-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"


def _is_in_the_way(path: str, name: str) -> UsageError:
    return UsageError(
        "target_is_link",
        f"{path!r} was left alone",
        f"{name!r} is a symbolic link, and may lead out of the target.",
        "Replace the link by a real file or directory, or apply to another directory.",
    )


def _refused(root: Path, path: str, problem: OSError, code: str, verb: str) -> StoreError:
    return StoreError(
        code,
        f"{str(root / path)!r} could not be {verb}",
        problem.strerror or str(problem),
        "Make room or grant access; `edvac apply` or `edvac undo` then goes on where it stopped.",
    )
