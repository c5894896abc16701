"""A disk that remembers what was written, synced and renamed, and makes the images that a power
cut could leave.

The real store runs on real files (in memory, if the machine has such a place) through a logging
SQLite VFS and a logging `Files`. The log is then replayed to any point, and there each write that
no sync covers may survive, be lost, be torn at 512 bytes, or land after a later one; names in
directories are covered only by a sync of the directory. Content under a sync that *failed* stays
in doubt for ever, whatever is synced later, as with kernels that mark such pages clean.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import apsw

from edvac.store.files import SystemFiles

SECTOR = 512
Op = tuple[Any, ...]
_names = itertools.count()


class Fault(OSError):
    """An injected failure."""


class SimDisk:
    """The log of one tree. `fail` decides, by the number of the sync, whether it fails."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[Op] = []
        self.syncs = 0
        self.fail: Callable[[int], bool] = lambda _number: False
        self.vfs_name = f"sim-{next(_names)}"
        self._inodes = itertools.count(1)
        self._known: dict[str, int] = {}
        for path in sorted(root.rglob("*")):
            if path.is_dir():
                self.note("mkdir", self.name(path))
            else:
                self.made(path)
                data = path.read_bytes()
                self.note("write", self._known[self.name(path)], 0, data)
        self.start = len(self.log)
        self.note("settle")
        self.vfs = LogVfs(self)
        self.files = LogFiles(self)

    def name(self, path: Path | str) -> str:
        return str(Path(path).relative_to(self.root))

    def note(self, *op: Any) -> None:
        self.log.append(op)

    def ack(self, what: int) -> None:
        self.note("ack", what)

    def inode(self, path: Path | str) -> int:
        return self._known[self.name(path)]

    def made(self, path: Path | str) -> None:
        name = self.name(path)
        self._known[name] = next(self._inodes)
        self.note("create", name, self._known[name])

    def moved(self, source: Path, target: Path) -> None:
        self._known[self.name(target)] = self._known.pop(self.name(source))
        self.note("rename", self.name(source), self.name(target))

    def gone(self, path: Path | str) -> None:
        if self._known.pop(self.name(path), None) is not None:
            self.note("unlink", self.name(path))

    def sync(self, kind: str, which: Any, silent: bool = False) -> bool:
        """Log a sync; whether it works. Of a `silent` one nobody hears."""
        self.syncs += 1
        if self.fail(self.syncs):
            self.note("ignored" if silent else "failed", kind, which)
            return False
        self.note(kind, which)
        return True


class Unheard:
    """A connection that could not be closed is closed by the collector, with nobody to tell."""

    def excepthook(self, kind: Any, error: Any, trace: Any) -> bool:
        if "injected" in str(error):
            return True
        return bool(super().excepthook(kind, error, trace))  # type: ignore[misc]


class LogVfs(Unheard, apsw.VFS):
    def __init__(self, disk: SimDisk, file: type[LogFile] | None = None) -> None:
        self._disk = disk
        self._file = file or LogFile
        super().__init__(disk.vfs_name, "unix")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        fresh = text is not None and not Path(text).exists()
        opened = self._file(self._disk, name, text, flags)
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            self._disk.note("opened")
        if fresh and text is not None:
            self._disk.made(text)
        return opened

    def xDelete(self, name: str, sync: bool) -> None:
        super().xDelete(name, sync)
        self._disk.gone(name)
        if sync:
            self._disk.sync("syncdir", self._disk.name(Path(name).parent), silent=True)


class LogFile(Unheard, apsw.VFSFile):
    def __init__(self, disk: SimDisk, name: Any, text: str | None, flags: list[int]) -> None:
        self._disk = disk
        self._path = text
        journal = flags[0] & (apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL)
        # As os_unix.c: the directory is synced with the first sync of a new journal, never of a
        # new database.
        self._new = bool(journal and flags[0] & apsw.SQLITE_OPEN_CREATE)
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        if self._path:
            self._disk.note("write", self._disk.inode(self._path), offset, bytes(data))

    def xTruncate(self, size: int) -> None:
        super().xTruncate(size)
        if self._path:
            self._disk.note("truncate", self._disk.inode(self._path), size)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        if not self._path:
            return
        if not self._disk.sync("sync", self._disk.inode(self._path)):
            raise apsw.IOError("injected: sync failed")
        if self._new:
            self._new = False
            # Nor does os_unix.c look at the result.
            self._disk.sync("syncdir", self._disk.name(Path(self._path).parent), silent=True)


class LogFiles(SystemFiles):
    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk

    def make_dir(self, path: Path) -> bool:
        made = super().make_dir(path)
        if made:
            self.disk.note("mkdir", self.disk.name(path))
        return made

    def create(self, path: Path) -> None:
        super().create(path)
        self.disk.made(path)

    def write_new(self, path: Path, chunks: Iterable[bytes]) -> int:
        size = self.write_unsynced(path, chunks)
        if not self.disk.sync("sync", self.disk.inode(path)):
            raise Fault(5, "injected: sync failed")
        return size

    def write_unsynced(self, path: Path, chunks: Iterable[bytes]) -> int:
        super().create(path)
        self.disk.made(path)
        size = 0
        with path.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                self.disk.note("write", self.disk.inode(path), size, chunk)
                size += len(chunk)
        return size

    def sync_dir(self, path: Path) -> None:
        if not self.disk.sync("syncdir", self.disk.name(path)):
            raise Fault(5, "injected: sync of a directory failed")

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.disk.moved(source, target)

    def remove(self, path: Path) -> None:
        super().remove(path)
        self.disk.gone(path)

    def open(self, path: Path) -> BinaryIO:
        return super().open(path)


@dataclass
class Slice:
    """Changes of one file or one directory: a settled base and, in order, what is in doubt."""

    base: Any
    changes: list[list[Any]] = field(default_factory=list)  # [state, change]; "open" or "doomed"

    def add(self, change: Any) -> None:
        self.changes.append(["open", change])

    def settle(self, apply: Callable[[Any, Any], Any]) -> None:
        for entry in self.changes:
            if entry[0] == "open":
                entry[0] = "kept"
        while self.changes and self.changes[0][0] == "kept":
            self.base = apply(self.base, self.changes.pop(0)[1])

    def doom(self) -> None:
        for entry in self.changes:
            if entry[0] == "open":
                entry[0] = "doomed"


def apply_bytes(data: bytes, change: Any) -> bytes:
    kind, *rest = change
    if kind == "truncate":
        return data[: rest[0]].ljust(rest[0], b"\0")
    offset, new = rest
    return data[:offset].ljust(offset, b"\0") + new + data[offset + len(new) :]


def apply_names(names: dict[str, int | str], change: Any) -> dict[str, int | str]:
    made = dict(names)
    for name, target in change:
        if target is None:
            made.pop(name, None)
        else:
            made[name] = target
    return made


class State:
    """What may be on the disk after a part of the log."""

    def __init__(self) -> None:
        self.files: dict[int, Slice] = {}
        self.dirs: dict[str, Slice] = {".": Slice({})}
        self.where: dict[str, int] = {}

    def apply(self, op: Op) -> None:
        match op:
            case ("write", inode, offset, data):
                self.files[inode].add(("write", offset, data))
            case ("truncate", inode, size):
                self.files[inode].add(("truncate", size))
            case ("create", name, inode):
                self.files[inode] = Slice(b"")
                self.where[name] = inode
                self._entry(name, inode)
            case ("mkdir", name):
                self.dirs.setdefault(name, Slice({}))
                self._entry(name, name)
            case ("rename", source, target):
                inode = self.where[target] = self.where.pop(source)
                if Path(source).parent == Path(target).parent:
                    pair = [(Path(source).name, None), (Path(target).name, inode)]
                    self.dirs[str(Path(target).parent)].add(pair)
                else:
                    self._entry(target, inode)
                    self._entry(source, None)
            case ("unlink", name):
                self.where.pop(name)
                self._entry(name, None)
            case ("sync", inode):
                self.files[inode].settle(apply_bytes)
            case ("syncdir", name):
                self.dirs[name].settle(apply_names)
            case ("failed", "sync", inode):
                self.files[inode].doom()
            case ("failed", "syncdir", _):
                pass  # names ride in the file system's journal: a later sync covers them
            case ("settle",):
                for file in self.files.values():
                    file.settle(apply_bytes)
                for directory in self.dirs.values():
                    directory.settle(apply_names)

    def _entry(self, name: str, target: int | str | None) -> None:
        self.dirs[str(Path(name).parent)].add([(Path(name).name, target)])

    def image(self, choose: Choose, target: Path) -> None:
        """Write one image that a crash here could leave."""
        self._put(".", target, choose)

    def _put(self, directory: str, target: Path, choose: Choose) -> None:
        target.mkdir(mode=0o700, exist_ok=True)
        part = self.dirs[directory]
        names = part.base
        for state, change in part.changes:
            if state == "kept" or choose.name():
                names = apply_names(names, change)
        for name, what in names.items():
            if isinstance(what, str):
                self._put(what, target / name, choose)
            else:
                (target / name).write_bytes(self._content(what, choose))
                (target / name).chmod(0o600)

    def _content(self, inode: int, choose: Choose) -> bytes:
        part = self.files[inode]
        data: bytes = part.base
        for change in choose.order(part.changes):
            data = apply_bytes(data, change)
        return data


class Choose:
    """Which of the changes in doubt an image keeps. `how`: all, none, last (all but the last is
    kept and the last is torn), or random."""

    def __init__(self, how: str, rng: random.Random) -> None:
        self.how = how
        self.rng = rng
        self.share = rng.choice((0.1, 0.5, 0.9))

    def name(self) -> bool:
        if self.how == "random":
            return self.rng.random() < self.share
        return self.how != "none"

    def order(self, changes: list[list[Any]]) -> Iterator[Any]:
        """The changes that reach the disk, in the order in which they do."""
        doubtful = [entry for entry in changes if entry[0] != "kept"]
        for entry in changes:
            if entry[0] == "kept":
                yield entry[1]
            elif self.how == "last":
                yield from self._torn(entry[1]) if entry is doubtful[-1] else (entry[1],)
            elif self.how == "all":
                yield entry[1]
            elif self.how == "random" and self.rng.random() < self.share:
                yield from self._torn(entry[1]) if self.rng.random() < 0.3 else (entry[1],)

    def _torn(self, change: Any) -> Iterator[Any]:
        if change[0] != "write":
            return
        _, offset, data = change
        at = list(range(0, len(data), SECTOR))
        keep = at[: self.rng.randrange(len(at))] if self.rng.random() < 0.5 else at
        if keep is at:  # not a prefix: any sectors, which is also what reordering leaves
            keep = [start for start in at if self.rng.random() < 0.5]
        for start in keep:
            yield "write", offset + start, data[start : start + SECTOR]


def scratch() -> Path:
    """A fresh directory in memory where there is one."""
    import tempfile

    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="edvac-", dir=shared if shared.is_dir() else None))


def discard(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
