"""The seam to the file system: the few operations that blobs need, each as durable as it says.

A file's content and its name in a directory are made durable apart: `write_new` syncs the
content, `sync_dir` the names. Knows nothing of blobs or databases.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

PRIVATE_DIR, PRIVATE_FILE = 0o700, 0o600


class Files(Protocol):
    def make_dir(self, path: Path) -> bool: ...
    def create(self, path: Path) -> None: ...
    def write_new(self, path: Path, chunks: Iterable[bytes]) -> int: ...
    def sync_dir(self, path: Path) -> None: ...
    def rename(self, source: Path, target: Path) -> None: ...
    def remove(self, path: Path) -> None: ...
    def open(self, path: Path) -> BinaryIO: ...
    def size(self, path: Path) -> int | None: ...
    def names(self, path: Path) -> list[str]: ...
    def modified(self, path: Path) -> float: ...
    def touch(self, path: Path) -> None: ...


class SystemFiles:
    """The real file system. Every method raises `OSError` as the system does."""

    def make_dir(self, path: Path) -> bool:
        """Make a private directory; whether it was missing."""
        try:
            path.mkdir(mode=PRIVATE_DIR)
        except FileExistsError:
            if path.stat().st_mode & 0o077:
                path.chmod(PRIVATE_DIR)
            return False
        return True

    def create(self, path: Path) -> None:
        """An empty private file.

        Raises:
            FileExistsError: it exists. Opening a database file that exists would, on closing it,
                drop the locks that other connections of this process hold.
        """
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, PRIVATE_FILE))

    def write_new(self, path: Path, chunks: Iterable[bytes]) -> int:
        """Write a new private file and sync its content (not its name); its size.

        The descriptor that wrote is the one that syncs: a failed write-back is reported there.
        """
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        size = 0
        with os.fdopen(os.open(path, flags, PRIVATE_FILE), "wb") as file:
            for chunk in chunks:
                size += file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return size

    def sync_dir(self, path: Path) -> None:
        """Make the names in a directory durable."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def open(self, path: Path) -> BinaryIO:
        return path.open("rb")

    def size(self, path: Path) -> int | None:
        """Bytes, or None where there is no such file."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None

    def names(self, path: Path) -> list[str]:
        try:
            return sorted(entry.name for entry in path.iterdir())
        except FileNotFoundError:
            return []

    def modified(self, path: Path) -> float:
        return path.stat().st_mtime

    def touch(self, path: Path) -> None:
        os.utime(path)
