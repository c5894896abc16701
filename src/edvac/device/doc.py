"""Documents: their text, as a whole or part by part.

Reading happens in `edvac.device.parser`'s isolated process. Where the system has no isolation the
process still runs, with limits and a clean environment, and a note says so. Knows nothing of
formats.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from edvac.core.errors import DeviceError
from edvac.core.label import Label, combine
from edvac.core.schema import INT, STR, ListOf, Maybe
from edvac.core.seams import Clock, SystemClock
from edvac.core.signature import Effect, Param, Signature, address_param
from edvac.core.value import Scalar, Sequence, Value
from edvac.device.content import Content
from edvac.device.files import Files, clean
from edvac.device.mails import MAIL, mail_of
from edvac.device.parser import NO_SANDBOX, WORKERS, Parsed, Parsers, ocr_version, unread
from edvac.device.parts import PART, place_of, stretches, value_of
from edvac.device.port import Call, Reply
from edvac.device.reading.place import Place
from edvac.sandbox import bubblewrap

PART_SIZE = 200_000  # bytes of a part of a text or table
MIN_PART, MAX_PART = 1_000, 4_000_000
_SETTLED_S = 2.0  # a file that changed just now may change again within a tick of its clock

_KINDS = "PDF, DOCX, XLSX, HTML, e-mail, mbox, CSV, text or picture"

SIGNATURES = (
    Signature(
        "doc.text",
        (
            address_param(doc=f"a document: {_KINDS}"),
            Param("part", Maybe(PART), default=None, doc="one of doc.parts of the same file"),
        ),
        STR,
        Effect.READ,
        "The text of a document, or of one part of it, with marks such as [page 3], [sheet Costs], "
        "[message 12] and [attachment invoice.pdf] on lines of their own.",
        reads=("path",),
        limit=WORKERS,
        timeout_s=600.0,
    ),
    Signature(
        "doc.parts",
        (
            address_param(doc=f"a document: {_KINDS}"),
            Param("size", INT, default=PART_SIZE, doc="bytes of a part of a text or table"),
        ),
        ListOf(PART),
        Effect.READ,
        "The parts of a document, however large: pages, sheets, messages, or stretches of lines or "
        "rows; read each with doc.text(path, part).",
        reads=("path",),
        limit=WORKERS,
        timeout_s=600.0,
    ),
    Signature(
        "doc.mails",
        (address_param(doc="a mailbox (mbox) or one e-mail"),),
        ListOf(MAIL),
        Effect.READ,
        "The mails of a mailbox as their headers describe them, in order; read one with "
        "doc.text(path, mail.part).",
        reads=("path",),
        limit=WORKERS,
        timeout_s=600.0,
        planned=False,
    ),
)


class Documents:
    """The `doc` device."""

    signatures = SIGNATURES

    def __init__(self, files: Files, clock: Clock | None = None) -> None:
        self._files = files
        self._clock = clock or SystemClock()
        self._parsers = Parsers()
        self._known: dict[tuple[int, ...], str] = {}  # fingerprints of files that lie still

    @property
    def version(self) -> str:
        return _version()

    async def call(self, call: Call) -> Reply:
        path = clean(call.text("path"))
        function, place = call.signature.function, None
        request: dict[str, Any] = {"op": function, "name": Path(path).name}
        if function == "parts":
            request["size"] = _size(call.data("size"))
        elif function == "text":
            place = _place(path, call)
            request["part"] = place and msgspec.to_builtins(place)
        async with self._opened(path) as content:
            stretch = place is not None and bool(stretches(place))
            answer = await self._parsers.ask(request, content, stretch=stretch)
            label = combine([content.label])
        if answer.error:
            raise _refused(path, answer, function)
        notes = list(answer.notes)
        if not bubblewrap.probe().available:
            notes.append(NO_SANDBOX)
        return Reply(_value(function, answer, label), notes=tuple(notes))

    async def read_version(self, call: Call) -> str | None:
        path = clean(call.text("path"))
        place = _place(path, call) if call.signature.function == "text" else None
        async with self._opened(path) as content:
            if place is not None and stretches(place):
                return await asyncio.to_thread(content.fingerprint, *stretches(place))
            found = await self._fingerprint(content)
            if content.descriptor >= 0:  # an input, and nothing that the run made
                self._files.note_read(path, found)
            return found

    async def close(self) -> None:
        await self._parsers.close()

    @asynccontextmanager
    async def _opened(self, path: str) -> AsyncIterator[Content]:
        content = await self._files.open(path)
        try:
            yield content
        except OSError as problem:
            raise unread(path, problem.strerror or str(problem)) from problem
        finally:
            content.close()

    async def _fingerprint(self, content: Content) -> str:
        """Of the whole content; a page of a large file must not cost reading all of it again."""
        known = self._known.get(content.identity)
        if known is not None:
            return known
        begun = self._clock.wall()
        found = await asyncio.to_thread(content.fingerprint)
        if content.identity and content.unchanged():
            changed = max(content.identity[-2:]) / 1e9
            if begun - changed > _SETTLED_S:
                self._known[content.identity] = found
        return found


def _value(function: str, answer: Parsed, label: Label) -> Value:
    match function:
        case "parts":
            return Sequence(tuple(value_of(one, label) for one in answer.parts), label)
        case "mails":
            return Sequence(tuple(mail_of(one, label) for one in answer.mails), label)
    return Scalar(answer.text, label)


def _size(size: int) -> int:
    if MIN_PART <= size <= MAX_PART:
        return size
    raise DeviceError(
        "part_size",
        f"parts cannot have {size} bytes",
        f"They have {MIN_PART:,} to {MAX_PART:,}.",
        "Choose a size that fits what is done with a part.",
    )


def _place(path: str, call: Call) -> Place | None:
    data = call.data("part")
    if data is None:
        return None
    found = place_of(data)
    if found is None:
        raise _no_part(path, "It was not made by doc.parts.")
    return found


def _no_part(path: str, why: str) -> DeviceError:
    return DeviceError(
        "part_unknown",
        f"{path!r} has no such part",
        why,
        "Take the part from doc.parts of the same file in the same run.",
    )


def _refused(path: str, answer: Parsed, function: str) -> DeviceError:
    why = f"{answer.error[0].upper()}{answer.error[1:]}."
    match answer.kind:
        case "part_unknown":
            return _no_part(path, why)
        case "empty":
            fix = "Remove the file, or let the program go on with attempt(doc.text(path), '')."
            return DeviceError("document_empty", f"{path!r} has no text", why, fix)
        case "encrypted":
            fix = "Save a copy without the password, then run `edvac resume --retry`."
            return DeviceError("document_encrypted", f"{path!r} is encrypted", why, fix)
        case "too_large":
            fix = "Read it part by part: doc.text(path, part) for each of doc.parts(path)."
            if function == "parts":
                fix = "Split the file, or ask for larger parts with doc.parts(path, size=...)."
            elif function == "mails":
                fix = "Split the mailbox."
            return DeviceError("document_too_large", f"{path!r} is too large", why, fix)
        case "ocr_missing":
            fix = (
                "Install tesseract (Debian, Ubuntu: apt install tesseract-ocr), then run "
                "`edvac resume --retry`."
            )
            return DeviceError("ocr_missing", f"{path!r} can only be read by OCR", why, fix)
        case "library_missing":
            fix = "Run `pip install 'edvac[documents]'`, then `edvac resume --retry`."
            what = f"{path!r} needs a package that is not installed"
            return DeviceError("documents_missing", what, why, fix)
    return unread(path, answer.error)


@functools.cache
def _version() -> str:
    """What decides a text beside the document: the libraries, and tesseract with its languages."""
    parts = ["6"]
    for name in ("charset-normalizer", "pillow", "pypdfium2", "python-calamine", "selectolax"):
        try:
            parts.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return "/".join([*parts, *filter(None, [ocr_version()])])
