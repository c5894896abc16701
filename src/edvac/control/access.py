"""What a step touches once its operands are known: the exact form of the pattern claimed before."""

from __future__ import annotations

import posixpath

from edvac.core.signature import Access, Effect, Signature
from edvac.core.value import Value, plain


def exact_access(signature: Signature, operands: dict[str, Value]) -> Access:
    """The paths and globs that this call reads and writes, normalised."""
    return Access(
        _paths(signature.reads, operands),
        _paths(signature.writes, operands),
        external=signature.effect is Effect.EXTERNAL,
    )


def _paths(names: tuple[str, ...], operands: dict[str, Value]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        data = plain(operands[name]) if name in operands else None
        for path in data if isinstance(data, list) else [data]:
            if isinstance(path, str) and path:
                found.append(posixpath.normpath(path))
    return tuple(found)
