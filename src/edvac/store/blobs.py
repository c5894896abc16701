"""Content-addressed files: a blob's name is the hash of its bytes, checked on each read.

Order of a write: temporary file, sync of its content, rename, sync of the directory. A name that
can be seen therefore has its content, and a reference that was returned has its name. Knows
nothing of records; which blobs are still needed is `gc`'s business.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from edvac.core.errors import DamageError, InternalError, StoreError
from edvac.core.seams import Entropy, durability_point
from edvac.store.chain import REF_BYTES, is_ref
from edvac.store.database import FULL, TOO_MANY, disk_full, io_failed, too_many_files
from edvac.store.files import Files
from edvac.store.owner import Owners

CHUNK = 1 << 20
_STALE_S = 3600.0  # a temporary file of a process that cannot be seen from here
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def explain_os(error: OSError, what: str) -> StoreError:
    """The typed error for what the file system said."""
    why = error.strerror or str(error)
    if error.errno in FULL:
        return disk_full(what)
    if error.errno in TOO_MANY:
        return too_many_files(what)
    if error.errno in _DENIED:
        return StoreError(
            "store_unwritable",
            f"the workspace cannot be written while {what}",
            why,
            "Check the permissions of the workspace's .edvac directory.",
        )
    return io_failed(what, why)


class _SourceError(Exception):
    """The stream to be stored failed; carries its error past the handling of the disk's."""


class Blobs:
    """The blobs of one workspace. `failed` is told of I/O errors, so that the whole store stops
    trusting itself."""

    def __init__(
        self,
        root: Path,
        files: Files,
        owners: Owners,
        entropy: Entropy,
        failed: Callable[[], None],
    ) -> None:
        self._dir = root / "blobs"
        self._tmp = root / "tmp"
        self._files = files
        self._owners = owners
        self._entropy = entropy
        self._failed = failed
        self._durable: set[str] = set()  # synced by this object: no need to sync a name again
        self._doubted: set[str] = set()  # a sync failed: only writing it anew proves anything
        self._fans: set[str] = set()  # directories whose own names are durable

    def prepare(self, now: float) -> None:
        """Make the directories and remove what dead writers left."""
        made = [self._files.make_dir(path) for path in (self._dir, self._tmp)]
        if any(made):
            self._files.sync_dir(self._dir.parent)
        me = self._owners.me()
        for name in self._files.names(self._tmp):
            space, pid, start = (*name.split("-"), "", "", "")[:3]
            here = space == _plain(me.space) and pid.isdecimal()
            path = self._tmp / name
            if here:
                left = type(me)(me.machine, me.boot, me.space, int(pid), start)
                stale = self._owners.alive(left) is False
            else:
                stale = now - self._files.modified(path) > _STALE_S
            if stale:
                self._files.remove(path)

    def path(self, ref: str) -> Path:
        """Where a blob lies. The one place where a reference becomes a path.

        Raises:
            DamageError: it is not a blob reference.
        """
        check_ref(ref)
        return self._dir / ref[:2] / ref[2:]

    def put(self, data: bytes) -> str:
        """Store bytes; durable on return."""
        ref = hashlib.blake2b(data, digest_size=REF_BYTES).hexdigest()
        if not self._known(ref):
            self._write((data,), ref)
        return ref

    def put_stream(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Store a stream without holding it; its reference and size."""
        return self._write(chunks, None)

    def get(self, ref: str) -> bytes:
        """The bytes.

        Raises:
            DamageError: they are missing or not what was stored.
        """
        with self._open(ref) as file:
            data = file.read()
        if hashlib.blake2b(data, digest_size=REF_BYTES).hexdigest() != ref:
            raise blob_damaged(ref, "Its content does not match its name.")
        return data

    def open(self, ref: str) -> BinaryIO:
        """A file to read from, its content checked before it is handed out."""
        file = self._open(ref)
        if _digest(iter(lambda: file.read(CHUNK), b"")) != ref:
            file.close()
            raise blob_damaged(ref, "Its content does not match its name.")
        file.seek(0, io.SEEK_SET)
        return file

    def size(self, ref: str) -> int | None:
        return self._files.size(self.path(ref))

    def check(self, ref: str) -> str | None:
        """What is wrong with a blob, if anything."""
        try:
            self.open(ref).close()
        except DamageError as error:
            return error.why
        return None

    def all(self) -> Iterator[str]:
        for fan in self._files.names(self._dir):
            for name in self._files.names(self._dir / fan):
                yield fan + name

    def modified(self, ref: str) -> float:
        return self._files.modified(self.path(ref))

    def remove(self, ref: str) -> None:
        self._durable.discard(ref)
        self._files.remove(self.path(ref))

    def forget_durable(self) -> None:
        """After a failure no earlier sync is relied on."""
        self._durable.clear()
        self._fans.clear()

    def _open(self, ref: str) -> BinaryIO:
        try:
            return self._files.open(self.path(ref))
        except FileNotFoundError as error:
            raise blob_damaged(ref, "The file is missing.") from error
        except OSError as error:
            self._fail(error, "reading a blob")

    def _known(self, ref: str) -> bool:
        """Whether the blob is there, whole and durable. Another writer may have renamed it and not
        yet synced the directory, so its name is synced again before anyone relies on it."""
        path = self.path(ref)
        if ref in self._doubted:
            return False
        try:
            if self._files.size(path) is None or (
                ref not in self._durable and self.check(ref) is not None
            ):
                return False
            self._files.touch(path)  # keeps `gc` away until a record names it
            if ref not in self._durable:
                self._sync_names(path)
                self._durable.add(ref)
        except FileNotFoundError:
            return False  # `gc` took it in between
        except OSError as error:
            self._doubted.add(ref)
            self._fail(error, "storing a blob")
        return True

    def _write(self, chunks: Iterable[bytes], ref: str | None) -> tuple[str, int]:
        me = self._owners.me()
        unique = self._entropy.token(8)
        temporary = self._tmp / f"{_plain(me.space)}-{me.pid}-{me.start}-{unique}"
        state = hashlib.blake2b(digest_size=REF_BYTES)

        def hashed() -> Iterator[bytes]:
            try:
                for chunk in chunks:
                    state.update(chunk)
                    yield chunk
            except OSError as error:  # the giver's trouble, not this disk's
                raise _SourceError from error

        placed = False
        try:
            size = self._files.write_new(temporary, hashed())
            found = state.hexdigest()
            if ref is not None and found != ref:
                raise InternalError("blob_changed", "bytes changed while they were stored")
            self._place(temporary, found)
            placed = True
        except OSError as error:
            self._doubted.add(state.hexdigest())
            self._fail(error, "storing a blob")
        except _SourceError as error:
            raise error.__cause__ or error from None
        finally:
            if not placed:
                self._clean(temporary)
        return found, size

    def _place(self, temporary: Path, ref: str) -> None:
        path = self.path(ref)
        self._files.make_dir(path.parent)
        durability_point("store.blob.before_rename")
        self._files.rename(temporary, path)
        durability_point("store.blob.after_rename")
        self._sync_names(path)
        self._durable.add(ref)
        self._doubted.discard(ref)

    def _sync_names(self, path: Path) -> None:
        durability_point("store.blob.before_dirsync")
        self._files.sync_dir(path.parent)
        if path.parent.name not in self._fans:
            # The directory itself may be new, made here or by another process a moment ago.
            self._files.sync_dir(self._dir)
            self._fans.add(path.parent.name)
        durability_point("store.blob.after_dirsync")

    def _clean(self, temporary: Path) -> None:
        try:
            self._files.remove(temporary)
        except OSError:
            self._failed()  # the next opening cleans

    def _fail(self, error: OSError, what: str) -> NoReturn:
        problem = explain_os(error, what)
        if problem.code == "store_io_failed":
            self._failed()
        raise problem from error


def _plain(space: str) -> str:
    return "".join(c for c in space if c.isalnum())


def _digest(chunks: Iterable[bytes]) -> str:
    state = hashlib.blake2b(digest_size=REF_BYTES)
    for chunk in chunks:
        state.update(chunk)
    return state.hexdigest()


def check_ref(ref: str) -> None:
    """
    Raises:
        DamageError: it is not a blob reference.
    """
    if not is_ref(ref):
        raise DamageError(
            "blob_reference_malformed",
            f"{ref[:60]!r} is not a blob reference",
            "A reference is 40 lower-case hexadecimal digits.",
            "Run `edvac doctor` to verify the workspace.",
        )


def blob_damaged(ref: str, why: str) -> DamageError:
    return DamageError(
        "blob_damaged",
        f"blob {ref} cannot be used",
        why,
        "Run `edvac doctor`; a step whose result it was runs again with `edvac resume --retry`.",
    )
