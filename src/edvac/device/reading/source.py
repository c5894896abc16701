"""The bytes of one document, read where they are needed and never held as a whole."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from edvac.device.reading.refusal import Unreadable

BLOCK = 1 << 17  # bytes that are asked for at once
_KEPT = 256  # blocks, for what is read back and forth
MAX_WHOLE = 64 * 1024 * 1024  # bytes of what can only be read as a whole


class Source:
    """Random access by a function that returns exactly the bytes asked for."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self.size = size
        self._read = read
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    @staticmethod
    def of(data: bytes) -> Source:
        return Source(len(data), lambda offset, size: data[offset : offset + size])

    @property
    def head(self) -> bytes:
        return self.at(0, 65_536)

    def at(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`, or to the end of the document."""
        end = min(end, self.size)
        parts = []
        while start < end:
            number, within = divmod(start, BLOCK)
            part = self._block(number)[within : within + end - start]
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def whole(self, limit: int = MAX_WHOLE) -> bytes:
        if self.size > limit:
            why = f"it has {self.size:,} bytes, the limit for its format is {limit:,}"
            raise Unreadable(why, "too_large")
        return self.at(0, self.size)

    def blocks(self) -> Iterator[bytes]:
        for start in range(0, self.size, BLOCK):
            yield self.at(start, start + BLOCK)

    def file(self) -> io.BufferedReader:
        """The document as a file to read from."""
        return io.BufferedReader(_File(self))

    def _block(self, number: int) -> bytes:
        found = self._blocks.get(number)
        if found is None:
            start = number * BLOCK
            found = self._read(start, min(BLOCK, self.size - start))
            self._blocks[number] = found
            if len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return found


class _File(io.RawIOBase):
    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if start + offset < 0:
            raise OSError("a place before the beginning")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        found = self._source.at(self._at, self._at + min(len(buffer), BLOCK))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def fingerprint(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=20).hexdigest()
