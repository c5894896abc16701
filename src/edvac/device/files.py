"""Files: reads inside the granted roots, writes into the run's own versioned store.

The run's own versions lie over the roots: what a program wrote, it reads back. Nothing on the host
changes before ``edvac apply``.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import posixpath
from dataclasses import dataclass

from edvac.core.errors import DeviceError
from edvac.core.label import PROGRAM, UNBOUNDED, Label, combine
from edvac.core.schema import DATE, INT, STR, Field, ListOf, Maybe, Record
from edvac.core.signature import Effect, Param, Signature, address_param, overlap
from edvac.core.value import Instance, Scalar, Sequence, Value, total_label
from edvac.device.content import Content
from edvac.device.glob import Glob, is_glob
from edvac.device.port import (
    Call,
    Held,
    NewFile,
    Reply,
    RunFiles,
    Version,
    file_label,
    name_label,
)
from edvac.device.roots import Roots, fingerprint

FILE_STAT = Record(
    "FileStat",
    (
        Field("path", STR),
        Field("size", INT, "bytes"),
        Field("modified", Maybe(DATE), "date of the last change; None for what the run wrote"),
    ),
)

_PATTERN = "glob relative to the input root: inbox/*.txt; ** crosses directories"

SIGNATURES = (
    Signature(
        "files.list",
        (address_param("pattern", _PATTERN, glob=True),),
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
        "files.hash",
        (address_param(),),
        STR,
        Effect.READ,
        "The hash of a file's content: two files with one hash are equal. See run.previous.",
        reads=("path",),
    ),
    Signature(
        "files.write",
        (
            address_param(),
            Param("text", STR, doc="the whole new content"),
            Param("was", STR, default="", keyword_only=True, doc="hash of what it replaces"),
        ),
        STR,
        Effect.WRITE,
        "Write a file; returns its path. With was=, only if that is what the file holds now. "
        "Nothing outside the run changes before `edvac apply`.",
        writes=("path",),
    ),
    Signature(
        "files.copy",
        (address_param("source"), address_param("target")),
        STR,
        Effect.WRITE,
        "Copy a file; returns the target. Refuses to replace a file that this run has made.",
        reads=("source",),
        writes=("target",),
    ),
    Signature(
        "files.move",
        (address_param("source"), address_param("target")),
        STR,
        Effect.WRITE,
        "Move a file; returns the target. Refuses to replace a file that this run has made.",
        reads=("source",),
        writes=("source", "target"),
    ),
)


RESERVED = frozenset({".edvac", ".git"})


@dataclass(frozen=True, slots=True)
class Found:
    """Paths that match, each with the label of its name; `shape` labels that these are all."""

    labels: dict[str, Label]
    shape: Label
    notes: tuple[str, ...]


class Files:
    """The `files` device."""

    signatures = SIGNATURES
    version = "1"

    def __init__(self, roots: Roots, held: RunFiles) -> None:
        self._roots = roots
        self._held = held
        self._read: dict[str, str] = {}  # input files read so far, with their hashes

    async def call(self, call: Call) -> Reply:
        match call.signature.function:
            case "list":
                return await self._list(call)
            case "read":
                path = clean(call.text("path"))
                found = await self.fetch(path)
                return Reply(Scalar(_utf8(path, found.content), found.label))
            case "hash":
                found = await self.fetch(clean(call.text("path")))
                digest = await asyncio.to_thread(fingerprint, found.content)
                return Reply(Scalar(digest, found.label.cap(64)))
            case "stat":
                return await self._stat(clean(call.text("path")))
            case "write":
                path = writable(call.text("path"))
                label = total_label(call.operands["text"])
                if call.text("was"):
                    label = label.steer(await self._compared(path, call))
                content = _encoded(path, call.text("text"))
                return Reply(Scalar(path, PROGRAM), (NewFile(path, content, label),))
        return await self._copy(call, move=call.signature.function == "move")

    async def _compared(self, path: str, call: Call) -> Label:
        """Who decided that a compare-and-set may go ahead.

        Raises:
            DeviceError: the file holds something else, or is not there.
        """
        now = await self.fetch(path)
        if await asyncio.to_thread(fingerprint, now.content) != call.text("was"):
            raise DeviceError(
                "file_changed",
                f"{path!r} no longer holds what was to be replaced",
                "It was written after the version that this step was made from.",
                "Read it again and make the change from what it holds now.",
            )
        return total_label(call.operands["was"]).join(now.label.cap(1))

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
        await self._refuse_deleted(path)
        content = await asyncio.to_thread(self._roots.read, path)
        digest = await asyncio.to_thread(fingerprint, content)
        self.note_read(path, digest)
        return Held(content, await self.label_of(path, digest))

    async def label_of(self, path: str, digest: str = "") -> Label:
        """Of an input file with this content; where that is not known, whatever it may be."""
        return file_label(path).join(await self._held.origin(path, digest))

    def note_read(self, path: str, digest: str) -> None:
        """An input file was read, whole, and had this hash."""
        self._read[path] = digest

    def read_of(self, patterns: tuple[str, ...], *, below: bool) -> dict[str, str]:
        """The input files among these paths that were read, with their hashes; with `below` also
        those that a pattern matches or a directory holds."""
        found: dict[str, str] = {}
        for pattern in map(posixpath.normpath, patterns):
            if pattern in self._read:
                found[pattern] = self._read[pattern]
            elif below:
                glob = Glob.of(pattern if is_glob(pattern) else f"{pattern}/**")
                found |= {path: seen for path, seen in self._read.items() if glob.matches(path)}
        return found

    async def open(self, path: str) -> Content:
        """The same for reading it piece by piece; whoever gets it closes it."""
        held = await self._held.latest(path)
        if held is not None:
            return Content.held(held.content, held.label)
        await self._refuse_deleted(path)
        descriptor = await asyncio.to_thread(self._roots.open, path)
        return Content.opened(descriptor, await self.label_of(path))

    async def _refuse_deleted(self, path: str) -> None:
        if await self._held.deleted(path):
            raise DeviceError(
                "file_unreadable",
                f"{path!r} cannot be read",
                "An earlier step of this run moved or removed it.",
                "Read it before, or from where it is now.",
            )

    async def _list(self, call: Call) -> Reply:
        pattern = clean(call.text("pattern"))
        held = await self._held.versions()
        found = await self._matching(pattern, held)
        items = tuple(Scalar(path, label) for path, label in sorted(found.labels.items()))
        notes = list(found.notes)
        if not items:
            notes.insert(0, f"no file matches {pattern!r}")
            if not is_glob(pattern) and (await self._matching(f"{pattern}/*", held)).labels:
                notes[0] += f"; it is a directory: say {pattern + '/*'!r}"
        return Reply(Sequence(items, found.shape), notes=tuple(notes))

    async def _matching(self, pattern: str, held: dict[str, Version]) -> Found:
        """The paths that match a clean pattern, with the labels of their names; what the run wrote
        is found by the same rules as what lies in the roots."""
        listed = await asyncio.to_thread(self._roots.matching, pattern)
        labels = {path: name_label(path) for path, _ in listed.found}
        shape = [_shape(pattern)]
        glob = Glob.of(pattern)
        for path, version in held.items():
            if not glob.matches(path):
                continue
            shape.append(version.label)  # that it is there, or gone, may depend on what was read
            if version.removed:
                labels.pop(path, None)
            else:
                labels[path] = version.label
        return Found(labels, combine(shape), tuple(listed.notes()))

    async def named(self, patterns: list[str]) -> Found:
        """What a process declares to read: paths, patterns, and directories with all below."""
        labels: dict[str, Label] = {}
        shape: list[Label] = []
        notes: list[str] = []
        held = await self._held.versions()
        for pattern in map(clean, patterns):
            if await self._exists(pattern, held):  # also a name with brackets, no pattern then
                labels[pattern] = held[pattern].label if pattern in held else name_label(pattern)
                continue
            found = await self._matching(pattern, held)
            if not found.labels and not is_glob(pattern):
                found = await self._matching(f"{pattern}/**", held)
            labels |= found.labels
            shape.append(found.shape)
            notes += found.notes
            if not found.labels:
                notes.append(f"no file matches {pattern!r}")
        return Found(labels, combine(shape), tuple(notes))

    async def behind(self, patterns: tuple[str, ...]) -> Label:
        """Who may have decided what a step found there, and that it found nothing: whoever wrote a
        file or removed it, or else decides which files there are."""
        held = await self._held.versions() if patterns else {}
        labels: list[Label] = []
        for pattern in patterns:
            made = [held[pattern]] if pattern in held else []
            if not made:
                made = [version for path, version in held.items() if overlap(pattern, path)]
                labels += [file_label(pattern), _shape(pattern)]
            labels += [version.label for version in made]
        return combine(labels)

    async def inside(self, patterns: tuple[str, ...]) -> Label:
        """Who is in what lies at these paths beside whoever may have written an input file: in what
        this run has written there, or an earlier one has put there."""
        held = await self._held.versions() if patterns else {}
        labels = [
            one.label for path, one in held.items() if any(overlap(p, path) for p in patterns)
        ]
        labels += [await self._held.origin(path, "") for path in patterns if path not in held]
        return combine(labels)

    async def written(self, path: str) -> bool:
        """Has this run written or removed it?"""
        return path in await self._held.versions()

    async def is_there(self, path: str) -> bool:
        """Is there such a file, the run's own or an input?"""
        return await self._exists(path, await self._held.versions())

    async def _exists(self, path: str, held: dict[str, Version]) -> bool:
        if path in held:
            return not held[path].removed
        return await asyncio.to_thread(self._roots.exists, path)

    async def _stat(self, path: str) -> Reply:
        held = await self._held.latest(path)
        size, modified = 0, None
        if held is not None:
            size, label = len(held.content), held.label.cap(64)
        else:
            await self._refuse_deleted(path)
            found = await asyncio.to_thread(self._roots.stat, path)
            size, modified = found.size, _date(found.modified)
            label = (await self.label_of(path)).cap(64)
        fields: dict[str, Value] = {
            "path": Scalar(path, label),
            "size": Scalar(size, label),
            "modified": Scalar(modified, label),
        }
        return Reply(Instance("FileStat", fields, label))

    async def _copy(self, call: Call, *, move: bool) -> Reply:
        source, target = clean(call.text("source")), writable(call.text("target"))
        if move:
            source = writable(source)
        if target != source and await self._held.maker(target) not in ("", call.slot):
            raise DeviceError(
                "target_taken",
                f"this run has already made a file {target!r}",
                "Nothing would be left of its content.",
                "Give each its own name, such as one with a number; files.write replaces a file.",
            )
        found = await self.fetch(source)
        made = [NewFile(target, found.content, found.label)]
        if move and source != target:
            made.append(NewFile(source, None, found.label))
        done = PROGRAM.steer(found.label).steer(_shape(target))  # that it could be
        return Reply(Scalar(target, done), tuple(made))


def _shape(pattern: str) -> Label:
    root = posixpath.dirname(pattern) or "."
    return Label.of([f"shape:{root}"], readers=["user"], bits=UNBOUNDED)


def clean(path: str) -> str:
    """A normalised relative path.

    Raises:
        DeviceError: absolute, upward, empty, not UTF-8 or with control characters.
    """
    hidden = any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in path)
    is_text = not any(0xD800 <= ord(char) < 0xE000 for char in path)
    if path.startswith("/") or ".." in path.split("/") or hidden or not is_text:
        raise _illegal(path)
    found = posixpath.normpath(path)
    if found in (".", ""):
        raise _illegal(path)
    if len(found.encode()) > 1024 or any(len(part.encode()) > 255 for part in found.split("/")):
        raise DeviceError(
            "path_illegal",
            f"{path[:60]!r}… is too long for a path",
            "A path has at most 1024 bytes, each name in it at most 255.",
            "Use a shorter one.",
        )
    return found


def writable(path: str) -> str:
    """A path that a run may write: not inside what edvac and git keep for themselves."""
    found = clean(path)
    own = [part for part in found.split("/") if part.lower() in RESERVED]
    if own:
        raise DeviceError(
            "path_reserved",
            f"{path!r} may not be written",
            f"What lies below {own[0]!r} decides what other programs do.",
            "Write somewhere else.",
        )
    return found


def _illegal(path: str) -> DeviceError:
    return DeviceError(
        "path_illegal",
        f"{path!r} is not a path of a run",
        "A path is relative, never goes up (..) and has no control characters.",
        "Use a path like reports/totals.csv.",
    )


def _date(seconds: float) -> dt.date | None:
    """A file may claim to come from a year that no calendar has."""
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).date()
    except (ValueError, OverflowError, OSError):
        return None


def _encoded(path: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as problem:
        raise DeviceError(
            "text_not_unicode",
            f"the text for {path!r} cannot be written as UTF-8",
            f"Character {problem.start} is half of a surrogate pair.",
            "Look at the step that made the text.",
        ) from problem


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
