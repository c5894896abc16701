"""A simulated disk on which single operations fail: a write that stops half way, a rename, a file
that cannot be opened. (`SimDisk` itself fails syncs.)

What an operation had done before it failed is in the log, so images of a crash hold it too.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import apsw
from sim_disk import LogFile, LogFiles, LogVfs, SimDisk

# What may fail for which reason; the number of such operations is what `strike` is asked with.
REACH = {
    "full": frozenset({"write", "blob", "mkdir", "create", "rename"}),
    "io": frozenset({"write", "read", "truncate", "delete", "open", "blob", "mkdir", "create"})
    | {"rename", "remove", "look", "touch"},
    "files": frozenset({"open", "blob", "create", "look", "names"}),
}
_ERRNO = {"full": errno.ENOSPC, "io": errno.EIO, "files": errno.EMFILE}


class FaultDisk(SimDisk):
    def __init__(self, root: Path, reason: str, strike: Callable[[int], bool]) -> None:
        self.ops: list[str] = []  # those that the reason reaches, in order
        self.strikes = 0
        self._reason = reason
        self._strike = strike
        self._calm = False
        super().__init__(root)
        self.vfs_name += "-fault"
        self.vfs = FaultVfs(self, FaultFile)
        self.files = FaultFiles(self)

    def struck(self, op: str) -> bool:
        if self._calm or op not in REACH[self._reason]:
            return False
        self.ops.append(op)
        if not self._strike(len(self.ops)):
            return False
        self.strikes += 1
        self.note("struck", op)
        return True

    def calm(self) -> None:
        """The life is over: what it left behind is thrown away in peace, and not in the log."""
        self._calm = True

    def note(self, *op: Any) -> None:
        if not self._calm:
            super().note(*op)

    def may(self, op: str) -> None:
        """For the store's own files: raises what the system would."""
        if self.struck(op):
            raise OSError(_ERRNO[self._reason], f"injected: {op}")

    def allow(self, op: str, error: type[apsw.Error] = apsw.IOError) -> None:
        """For SQLite's."""
        if self.struck(op):
            raise (apsw.FullError if self._reason == "full" else error)(f"injected: {op}")


class FaultVfs(LogVfs):
    _disk: FaultDisk

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        if name is not None:
            self._disk.allow("open", apsw.CantOpenError)
        return super().xOpen(name, flags)

    def xDelete(self, name: str, sync: bool) -> None:
        self._disk.allow("delete")
        super().xDelete(name, sync)


class FaultFile(LogFile):
    _disk: FaultDisk

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._path and self._disk.struck("write"):
            super().xWrite(data[: len(data) // 2], offset)
            full = self._disk._reason == "full"
            raise (apsw.FullError if full else apsw.IOError)("injected: half a write")
        super().xWrite(data, offset)

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._path:
            self._disk.allow("read")
        return bytes(super().xRead(amount, offset))

    def xTruncate(self, size: int) -> None:
        self._disk.allow("truncate")
        super().xTruncate(size)


class FaultFiles(LogFiles):
    disk: FaultDisk

    def make_dir(self, path: Path) -> bool:
        if not path.exists():
            self.disk.may("mkdir")
        return super().make_dir(path)

    def create(self, path: Path) -> None:
        self.disk.may("create")
        super().create(path)

    def write_unsynced(self, path: Path, chunks: Iterable[bytes]) -> int:
        if self.disk.struck("blob"):
            super().write_unsynced(path, (next(iter(chunks))[:100],))
            raise OSError(_ERRNO[self.disk._reason], "injected: half a file")
        return super().write_unsynced(path, chunks)

    def sync_dir(self, path: Path) -> None:
        self.disk.may("names")
        super().sync_dir(path)

    def rename(self, source: Path, target: Path) -> None:
        self.disk.may("rename")
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self.disk.may("remove")
        super().remove(path)

    def open(self, path: Path) -> BinaryIO:
        self.disk.may("look")
        return super().open(path)

    def touch(self, path: Path) -> None:
        self.disk.may("touch")
        super().touch(path)
