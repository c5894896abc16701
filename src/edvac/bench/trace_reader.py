"""Branch traces of processors in the format of CBP-2025 (github.com/ramisheikh/cbp2025), as far as
branches go.

A record: address (8 bytes), class (1); of a load or store the address accessed (8), size (1),
whether the base register moves (1), of a store whether a register is added (1); of a branch
whether it was taken (1) and, if so, its target (8); then the numbers and names of registers read
and written, and the values written, 8 bytes each, 16 for vector registers.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edvac.core.errors import UsageError

_LOAD: Final = 1
_STORE: Final = 2
_CONDITIONAL: Final = 3
_BRANCHES: Final = frozenset({3, 4, 5, 9, 10, 11})
_VECTORS: Final = range(32, 64)
_ADDRESS: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Branch:
    """One execution of a branch; `back` says that it jumped to an earlier address."""

    address: int
    taken: bool
    conditional: bool
    back: bool


def read_trace(path: Path) -> tuple[list[Branch], int]:
    """The branches of a trace in their order, and how many instructions it has.

    Raises:
        UsageError: it is no such trace, or is cut off.
    """
    try:
        data = gzip.decompress(path.read_bytes())
        found = list(_records(data))
    except (OSError, EOFError, zlib.error, IndexError, struct.error) as problem:
        what = f"{path.name} is no branch trace, or is cut off"
        raise UsageError("trace_unreadable", what, str(problem), "Fetch it again.") from problem
    return [one for one in found if one is not None], len(found)


def _records(data: bytes) -> Iterator[Branch | None]:
    at, size = 0, len(data)
    while at < size:
        (address,) = _ADDRESS.unpack_from(data, at)
        kind = data[at + 8]
        at += 9
        branch = None
        if kind in (_LOAD, _STORE):
            at += 11 if kind == _STORE else 10
        elif kind in _BRANCHES:
            taken = bool(data[at])
            back = taken and _ADDRESS.unpack_from(data, at + 1)[0] < address
            at += 9 if taken else 1
            branch = Branch(address, taken, kind == _CONDITIONAL, back)
        at += 1 + data[at]
        written = data[at + 1 : at + 1 + data[at]]
        at += 1 + len(written) + sum(16 if name in _VECTORS else 8 for name in written)
        yield branch
    if at != size:
        raise EOFError("the last record is incomplete")
