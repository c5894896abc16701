"""Files: reads inside the granted roots, writes into the run's own versioned store.

The run's own versions lie over the roots: what a program wrote, it reads back. Nothing on the host
changes before ``edvac apply``.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import posixpath

from edvac.core.errors import DeviceError
from edvac.core.label import PROGRAM, UNBOUNDED, Label
from edvac.core.schema import DATE, INT, STR, Field, ListOf, Record
from edvac.core.signature import Effect, Param, Signature, address_param
from edvac.core.value import Instance, Scalar, Sequence, Value, total_label
from edvac.device.port import Call, Held, NewFile, Reply, RunFiles, file_label, name_label
from edvac.device.roots import Roots, fingerprint

FILE_STAT = Record(
    "FileStat",
    (
        Field("path", STR),
        Field("size", INT, "bytes"),
        Field("modified", DATE, "date of the last change"),
    ),
)

_PATTERN = "glob relative to the input root: inbox/*.txt; ** crosses directories"

SIGNATURES = (
    Signature(
        "files.list",
        (address_param("pattern", _PATTERN),),
        ListOf(STR),
        Effect.READ,
        "The paths that match a pattern, sorted.",
        reads=("pattern",),
    ),
    Signature(
        "files.read",
        (address_param(),),
        STR,
        Effect.READ,
        "The text of a UTF-8 file. For other encodings and formats use doc.text.",
        reads=("path",),
    ),
    Signature(
        "files.stat",
        (address_param(),),
        FILE_STAT,
        Effect.READ,
        "Size and date of a file.",
        reads=("path",),
    ),
    Signature(
        "files.write",
        (address_param(), Param("text", STR, doc="the whole new content")),
        STR,
        Effect.WRITE,
        "Write a file; returns its path. Nothing outside the run changes before `edvac apply`.",
        writes=("path",),
    ),
    Signature(
        "files.copy",
        (address_param("source"), address_param("target")),
        STR,
        Effect.WRITE,
        "Copy a file; returns the target.",
        reads=("source",),
        writes=("target",),
    ),
    Signature(
        "files.move",
        (address_param("source"), address_param("target")),
        STR,
        Effect.WRITE,
        "Move a file; returns the target.",
        reads=("source",),
        writes=("source", "target"),
    ),
)


class Files:
    """The `files` device."""

    signatures = SIGNATURES
    version = "1"

    def __init__(self, roots: Roots, held: RunFiles) -> None:
        self._roots = roots
        self._held = held

    async def call(self, call: Call) -> Reply:
        match call.signature.function:
            case "list":
                return await self._list(call)
            case "read":
                path = clean(call.text("path"))
                found = await self.fetch(path)
                return Reply(Scalar(_utf8(path, found.content), found.label))
            case "stat":
                return await self._stat(clean(call.text("path")))
            case "write":
                path = clean(call.text("path"))
                label = total_label(call.operands["text"])
                content = call.text("text").encode()
                return Reply(_path_value(path), (NewFile(path, content, label),))
        return await self._copy(call, move=call.signature.function == "move")

    async def read_version(self, call: Call) -> str | None:
        match call.signature.function:
            case "list":
                return None  # as cheap as finding out
            case "read" | "stat":
                return fingerprint((await self.fetch(clean(call.text("path")))).content)
        return None

    async def fetch(self, path: str) -> Held:
        """Content and label: the run's own version, else the input file's."""
        held = await self._held.latest(path)
        if held is not None:
            return held
        if await self._held.deleted(path):
            raise DeviceError("file_unreadable", f"{path!r} cannot be read", "The run moved it.")
        content = await asyncio.to_thread(self._roots.read, path)
        return Held(content, file_label(path))

    async def _list(self, call: Call) -> Reply:
        pattern = posixpath.normpath(call.text("pattern"))
        labels = await self._matching(pattern)
        root = posixpath.dirname(pattern) or "."
        shape = Label.of([f"shape:{root}"], readers=["user"], bits=UNBOUNDED)
        items = tuple(Scalar(path, labels[path]) for path in sorted(labels))
        notes = () if items else (f"no file matches {pattern!r}",)
        return Reply(Sequence(items, shape), notes=notes)

    async def _matching(self, pattern: str) -> dict[str, Label]:
        """Paths with the labels of their names."""
        found = await asyncio.to_thread(self._roots.matching, pattern)
        labels = {path: name_label(path) for path, _ in found if not await self._held.deleted(path)}
        for path, label in await self._held.matching(pattern):
            labels[path] = label
        return labels

    async def paths(self, pattern: str) -> list[str]:
        """The paths that match, sorted."""
        return sorted(await self._matching(pattern))

    async def _stat(self, path: str) -> Reply:
        held = await self._held.latest(path)
        if held is not None:
            size, modified = len(held.content), None
        else:
            found = await asyncio.to_thread(self._roots.stat, path)
            size = found.size
            modified = dt.datetime.fromtimestamp(found.modified, dt.UTC).date()
        label = file_label(path).cap(64)
        fields: dict[str, Value] = {
            "path": Scalar(path, label),
            "size": Scalar(size, label),
            "modified": Scalar(modified, label),
        }
        return Reply(Instance("FileStat", fields, label))

    async def _copy(self, call: Call, *, move: bool) -> Reply:
        source, target = clean(call.text("source")), clean(call.text("target"))
        found = await self.fetch(source)
        made = [NewFile(target, found.content, found.label)]
        if move and source != target:
            made.append(NewFile(source, None, found.label))
        return Reply(_path_value(target), tuple(made))


def clean(path: str) -> str:
    """A normalised relative path.

    Raises:
        DeviceError: absolute, upward, empty or with control characters.
    """
    found = posixpath.normpath(path)
    hidden = any(ord(char) < 32 or ord(char) == 127 for char in path)
    if path.startswith("/") or hidden or found.split("/")[0] == ".." or found in (".", ""):
        raise DeviceError(
            "path_illegal",
            f"{path!r} is not a path of a run",
            "A path is relative, stays below its root and has no control characters.",
            "Use a path like reports/totals.csv.",
        )
    if len(found.encode()) > 1024 or any(len(part.encode()) > 255 for part in found.split("/")):
        raise DeviceError("path_illegal", f"{path[:60]!r}… is too long for a path", "", "")
    return found


def _path_value(path: str) -> Value:
    return Scalar(path, PROGRAM)


def _utf8(path: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise DeviceError(
            "not_utf8",
            f"{path!r} is not UTF-8 text",
            f"Byte {problem.start} does not fit.",
            "Read it with doc.text, which finds the encoding and says so.",
        ) from problem
