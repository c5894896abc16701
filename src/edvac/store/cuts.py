"""Where a serialised value is cut, so that values that are alike in part share that part.

MessagePack is cut behind its elements, whatever else by size alone. Where the cuts lie changes what
is shared and never what is read: the pieces of a value, joined, are the value, also where the bytes
are not what they are taken for. Knows nothing of what the elements mean.

The format is the one of https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

from collections.abc import Iterator

LARGEST = 64 * 1024  # bytes of a piece
_LEAST = 128  # a piece is not cut off before, behind an element of the value itself,
_LEAST_INSIDE = 1024  # or behind an element of an element
_MOST_ELEMENTS = 20_000  # looked at in one value; what follows is cut by size

# First byte: how many bytes follow it that say how much comes, and whether that counts bytes,
# elements, or pairs.
_BYTES, _ELEMENTS, _PAIRS = "bytes", "elements", "pairs"
_LENGTHS: dict[int, tuple[int, str]] = {
    0xC4: (1, _BYTES),
    0xC5: (2, _BYTES),
    0xC6: (4, _BYTES),
    0xC7: (1, _BYTES),
    0xC8: (2, _BYTES),
    0xC9: (4, _BYTES),
    0xD9: (1, _BYTES),
    0xDA: (2, _BYTES),
    0xDB: (4, _BYTES),
    0xDC: (2, _ELEMENTS),
    0xDD: (4, _ELEMENTS),
    0xDE: (2, _PAIRS),
    0xDF: (4, _PAIRS),
}
_EXTENSIONS = frozenset({0xC7, 0xC8, 0xC9})  # a byte that names the type comes behind the length
_FIXED: dict[int, int] = {  # first byte: how many follow it
    **dict.fromkeys((0xCC, 0xD0), 1),
    **dict.fromkeys((0xCD, 0xD1), 2),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 4),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 8),
    **{0xD4 + power: 1 + (1 << power) for power in range(5)},
}


def head_size(data: bytes) -> int:
    """The bytes that say how long a value is: they change when it grows, what follows does not."""
    first = data[0] if data else 0
    if first in _LENGTHS:
        size = 1 + _LENGTHS[first][0] + (first in _EXTENSIONS)
    else:
        size = int(0x80 <= first <= 0xBF)
    return min(size, len(data))


def cuts(body: bytes, start: int, *, packed: bool) -> Iterator[int]:
    """Where the pieces of ``body[start:]`` end; the last ends with it.

    Args:
        packed: it is made of MessagePack elements, and one begins at `start`.
    """
    at = start
    for end in _element_ends(body, start) if packed else ():
        yield from _by_size(at, end)
        at = end
    if at < len(body):
        yield from _by_size(at, len(body))


def _by_size(at: int, end: int) -> Iterator[int]:
    yield from range(at + LARGEST, end, LARGEST)
    yield end


def _element_ends(body: bytes, start: int) -> Iterator[int]:
    """The ends of elements that are worth a cut."""
    at = last = start
    # How many elements are left at each depth; at the outermost there is no telling.
    left: list[int] = []
    for _ in range(_MOST_ELEMENTS):
        if at >= len(body):
            return
        at, inside = _step(body, at)
        if at > len(body):
            return  # this was no MessagePack
        if inside:
            left.append(inside)
            continue
        while left:
            left[-1] -= 1
            if left[-1]:
                break
            left.pop()
        if at - last >= (_LEAST_INSIDE if left else _LEAST):
            yield at
            last = at


def _step(body: bytes, at: int) -> tuple[int, int]:
    """Behind a whole element, or behind the head of a container; how many elements that has."""
    first = body[at]
    if first in _LENGTHS:
        width, counts = _LENGTHS[first]
        behind = at + 1 + width
        length = int.from_bytes(body[at + 1 : behind], "big")
        if counts == _BYTES:
            return behind + length + (first in _EXTENSIONS), 0
        return behind, length * (2 if counts == _PAIRS else 1)
    if 0x80 <= first <= 0x8F:
        return at + 1, 2 * (first & 0x0F)
    if 0x90 <= first <= 0x9F:
        return at + 1, first & 0x0F
    if 0xA0 <= first <= 0xBF:
        return at + 1 + (first & 0x1F), 0
    return at + 1 + _FIXED.get(first, 0), 0
