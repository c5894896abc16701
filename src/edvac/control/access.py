"""What a step touches: the pattern claimed from the program's text, and the exact form of it once
the operands are known.

Paths are compared in one normal form, so ``./a.txt`` and ``a.txt`` are one file. Knows nothing of
devices: what a path means is their business.
"""

from __future__ import annotations

import fnmatch
import posixpath
from dataclasses import replace

from edvac.control.step import Failure
from edvac.core.signature import WILD, Access, Effect, Signature, unbracketed
from edvac.core.value import Value, plain
from edvac.program.host import StepCall
from edvac.program.operands import misfit


def exact_access(signature: Signature, operands: dict[str, Value]) -> Access:
    """The paths and globs that this call reads and writes, normalised, and the names it takes."""
    named = (plain(operands[name]) for name in signature.names)
    return Access(
        _paths(signature.reads, operands),
        _paths(signature.writes, operands),
        signature.effect is Effect.EXTERNAL,
        tuple(f"{signature.device}:{name}" for name in named) + signature.turns,
        signature.barrier,
        signature.effect is not Effect.PURE,
    )


def whole_access(call: StepCall, values: dict[str, Value]) -> Access:
    """What a step touches, once its operands are known."""
    return with_contents(call.signature, exact_access(call.signature, values))


def with_contents(signature: Signature, access: Access) -> Access:
    """The same, and everything below it where a path may be a directory's: the name that an earlier
    step has announced as ``out/*.md`` may turn out to lie in ``out/sub``."""
    if not any(param.glob for param in signature.params):
        return access
    return replace(access, reads=_and_below(access.reads), writes=_and_below(access.writes))


def _and_below(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for path in paths for part in (path, f"{path}/*"))


def claimed_access(static: Access) -> Access:
    """A pattern from the program's text in the form that exact paths are compared with."""
    if not (static.reads or static.writes):
        return static
    reads, writes = tuple(map(_pattern, static.reads)), tuple(map(_pattern, static.writes))
    return replace(static, reads=reads, writes=writes)


def unforeseen(claimed: Access, exact: Access) -> str | None:
    """A path outside the pattern that the program's text announced, such as a name with ``..``.

    Other steps have relied on the pattern and a person has approved it, so such a call is refused.
    """
    for patterns, paths in ((claimed.reads, exact.reads), (claimed.writes, exact.writes)):
        for path in paths:
            if not any(_covers(pattern, path) for pattern in patterns):
                return path
    return None


def unfit(call: StepCall, values: dict[str, Value]) -> Failure | None:
    """Why a step cannot be issued with these operands: a type, or a path that the text did not
    announce."""
    if call.options.wrong:
        return Failure("option_misfit", f"{call.address}: {call.options.wrong}")
    wrong = misfit(call, values)
    if wrong is not None:
        return Failure.of(wrong)
    if not (call.signature.reads or call.signature.writes):
        return None
    stray = unforeseen(claimed_access(call.static), exact_access(call.signature, values))
    if stray is None:
        return None
    what = f"{stray!r} is not a path that line {call.line} says it may touch"
    fix = "Keep `..` out of the parts that paths are made of."
    return Failure("path_unforeseen", what, "", fix)


def _paths(names: tuple[str, ...], operands: dict[str, Value]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        data = plain(operands[name]) if name in operands else None
        for path in data if isinstance(data, list | tuple) else [data]:
            if isinstance(path, str) and path:
                found.append(_pattern(path))
    return tuple(dict.fromkeys(found))


def _pattern(path: str) -> str:
    """``a/**/b`` also matches ``a/b``, which no plain glob says: it is widened to ``a/*b``."""
    if path == WILD:
        return WILD
    made = posixpath.normpath(path)
    if ".." in made.split("/") or ("*" in path and ".." in path.split("/")):
        return WILD  # what an unknown part before `..` leaves is not known either
    return made.replace("**/", "*") if "**/" in made else made


def _covers(pattern: str, path: str) -> bool:
    return pattern in (WILD, path) or fnmatch.fnmatchcase(path, unbracketed(pattern))
