"""The bytes of a file, opened once and read where they are needed, with their label."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from edvac.core.label import Label

_BLOCK = 1 << 20


@dataclass(slots=True)
class Content:
    """What was opened: bytes in memory, or a descriptor that whoever opened it closes.

    Attributes:
        size: bytes, as it was when it was opened.
        identity: what of the file system changes when the content does; empty in memory.
    """

    size: int
    label: Label
    data: bytes = b""
    descriptor: int = -1
    identity: tuple[int, ...] = ()

    @staticmethod
    def held(data: bytes, label: Label) -> Content:
        return Content(len(data), label, data)

    @staticmethod
    def opened(descriptor: int, label: Label) -> Content:
        found = os.fstat(descriptor)
        return Content(found.st_size, label, b"", descriptor, _identity(found))

    def read(self, offset: int, size: int) -> bytes:
        """The bytes there; fewer where the file has become shorter.

        Raises:
            OSError: the disk refused.
        """
        end = min(offset + size, self.size)
        if self.descriptor < 0:
            return self.data[offset:end]
        parts: list[bytes] = []
        while offset < end and (part := os.pread(self.descriptor, end - offset, offset)):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def fingerprint(self, *stretches: tuple[int, int]) -> str:
        """The hash of stretches (from, to) put together; of everything where none is given."""
        state = hashlib.blake2b(digest_size=20)
        for start, end in stretches or ((0, self.size),):
            for offset in range(start, min(end, self.size), _BLOCK):
                state.update(self.read(offset, min(_BLOCK, end - offset)))
        return state.hexdigest()

    def unchanged(self) -> bool:
        """Is the file still as it was opened?"""
        return self.descriptor < 0 or _identity(os.fstat(self.descriptor)) == self.identity

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
