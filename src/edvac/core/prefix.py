"""The items of a list that grows: version after version shares one buffer.

Appending to a tuple copies it, so a loop that appends is quadratic. Here a version is the first
entries of a buffer that only ever grows: appending to the newest version puts an entry behind it
and gives a longer prefix, in amortised constant time. Appending to an older version, behind which
another one has grown already, copies; so no version ever changes. A short prefix keeps the whole
buffer alive.

Knows nothing of labels or values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, overload


class Prefix(Sequence[Any]):
    """The first `size` entries of `buffer`; equal to the tuple of them."""

    __slots__ = ("_buffer", "_size")

    def __init__(self, buffer: list[Any], size: int) -> None:
        self._buffer = buffer
        self._size = size

    @property
    def newest(self) -> bool:
        """Is nothing in the buffer behind this prefix, so that it can grow in place?"""
        return self._size == len(self._buffer)

    def grown(self, more: Iterable[Any]) -> Prefix:
        """This prefix and then `more`; this one stays as it is."""
        buffer = self._buffer if self.newest else self._buffer[: self._size]
        buffer.extend(more)
        return Prefix(buffer, len(buffer))

    def replaced(self, at: int, item: Any) -> Prefix:
        """A copy with `item` in the place `at`, and a buffer of its own."""
        buffer = self._buffer[: self._size]
        buffer[at] = item
        return Prefix(buffer, self._size)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return islice(self._buffer, self._size)

    def __reversed__(self) -> Iterator[Any]:
        return map(self._buffer.__getitem__, range(self._size - 1, -1, -1))

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return tuple(map(self._buffer.__getitem__, range(self._size)[at]))
        if not -self._size <= at < self._size:
            raise IndexError("list index out of range")
        return self._buffer[at % self._size]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | Prefix):
            return NotImplemented
        return len(self) == len(other) and all(map(_same, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


def _same(left: object, right: object) -> bool:
    return left is right or left == right


def grown(items: Sequence[Any], more: Iterable[Any]) -> Prefix:
    """`items` and then `more`, sharing what can be shared."""
    return _prefix(items).grown(more)


def replaced(items: Sequence[Any], at: int, item: Any) -> Prefix:
    """`items` with another one in the place `at`; copies them all."""
    return _prefix(items).replaced(at, item)


def _prefix(items: Sequence[Any]) -> Prefix:
    return items if isinstance(items, Prefix) else Prefix(list(items), len(items))


def to_copy(items: Sequence[Any]) -> int:
    """How many entries `grown` would copy: none where a prefix can grow in place."""
    return 0 if isinstance(items, Prefix) and items.newest else len(items)
