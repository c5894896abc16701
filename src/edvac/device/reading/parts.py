"""The parts of a document: pages, sheets, messages, stretches of lines or rows.

A part says where it is, so that reading it touches nothing else; only a document that must be
read as a whole to be read at all is cut in its text. The file is passed over once, in blocks.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edvac.device.reading import image, kinds, mbox, pdf, plain, sheets
from edvac.device.reading.read import read
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import Source, fingerprint

MAX_PARTS = 200_000
MAX_ROW = 1 << 20  # bytes of one row of a table


@dataclass(frozen=True, slots=True)
class Found:
    """A part: see `edvac.device.parts` for what its fields mean."""

    name: str
    kind: str
    number: int
    first: int
    last: int
    start: int = 0
    end: int = 0
    head: int = 0
    encoding: str = ""
    digest: str = ""


def parts(name: str, source: Source, size: int) -> tuple[list[dict[str, Any]], list[str]]:
    """All parts, in order, and notes.

    Raises:
        Unreadable: it has none that could be told.
    """
    if source.size == 0:
        raise Unreadable("the file is empty", "empty")
    notes: list[str] = []
    kind = kinds.kind_of(name, source)
    match kind:
        case "pdf":
            found = _numbered("page", pdf.pages(source))
        case "image":
            found = _numbered("page", image.frames(source))
        case "sheets":
            found = [
                Found(f"sheet {sheet}", "sheet", number, number, number)
                for number, sheet in enumerate(sheets.names(source), 1)
            ]
        case "mbox":
            found = _messages(source)
        case "text" | "table" if not plain.wide(source.head):
            found = _stretches(source, size, notes, table=kind == "table")
        case _:
            found = _sections(name, source, size, notes)
    if len(found) > MAX_PARTS:
        raise Unreadable(f"it has {len(found):,} parts: ask for larger ones", "too_large")
    return [asdict(one) for one in found], [*notes, *kinds.misnamed(name, kind)]


def _numbered(kind: str, count: int) -> list[Found]:
    return [Found(f"{kind} {n}", kind, n, n, n) for n in range(1, count + 1)]


def _messages(source: Source) -> list[Found]:
    found = []
    for number, (start, end) in enumerate(mbox.messages(source), 1):
        digest = fingerprint(source.at(start, end))
        name = f"message {number}"
        found.append(Found(name, "message", number, number, number, start, end, 0, "", digest))
    return found


def _sections(name: str, source: Source, size: int, notes: list[str]) -> list[Found]:
    """Stretches of the text of a document that has no parts of its own."""
    reading = read(name, source)
    text = reading.text()
    notes += reading.notes
    found: list[Found] = []
    start = 0
    while start < len(text):
        end = _line_end(text, start, min(start + size, len(text)))
        first = text.count("\n", 0, start) + 1
        last = first + text.count("\n", start, max(start, end - 1))
        number = len(found) + 1
        found.append(Found(f"part {number}", "section", number, first, last, start, end))
        start = end
    return found


def _line_end(text: str, start: int, end: int) -> int:
    """Behind the last paragraph or line that ends in this stretch, if one does."""
    if end == len(text):
        return end
    for mark in ("\n\n", "\n"):
        found = text.rfind(mark, start + (end - start) // 2, end)
        if found > start:
            return found + len(mark)
    return end


def _stretches(source: Source, size: int, notes: list[str], *, table: bool) -> list[Found]:
    encoding = _encoding(source)
    if encoding not in ("utf-8", "utf-8-sig"):
        notes.append(plain.said(encoding))
    if table:
        notes += plain.dialect(plain.strict(_whole_lines(source.head), encoding))
        return _rows(source, size, encoding)
    return _lines(source, size, encoding)


def _whole_lines(head: bytes) -> bytes:
    """The head without the line that may be cut in the middle of a character."""
    return head[: head.rfind(b"\n") + 1] or head[: len(head) // 2]


def _encoding(source: Source) -> str:
    """One for the whole file: UTF-8, even if some bytes are not, or what fits where that does
    not."""
    plain.refuse_binary(source.head[:8192])
    if source.head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    at = _misfit(source, "utf-8")
    if at is None:
        return "utf-8"
    if plain.damaged(source.blocks()):
        return plain.DAMAGED
    encoding = plain.likeliest(source.at(max(0, at - 32_768), at + 32_768))
    problem = _misfit(source, encoding)
    if problem is not None:
        raise Unreadable(f"most of it looks like {encoding}, but byte {problem} does not fit")
    return encoding


def _misfit(source: Source, encoding: str) -> int | None:
    decoder = codecs.getincrementaldecoder(encoding)()
    passed = 0
    try:
        for block in source.blocks():
            decoder.decode(block)
            passed += len(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as problem:
        return max(0, passed + problem.start)
    return None


def _lines(source: Source, size: int, encoding: str) -> list[Found]:
    found: list[Found] = []
    start, line = 0, 1
    while start < source.size:
        data = source.at(start, start + size)
        if start + len(data) < source.size:
            cut = data.rfind(b"\n") + 1
            data = data[: cut or _character_end(data, encoding)]
        breaks = data.count(b"\n")
        last = line + breaks - (1 if data.endswith(b"\n") else 0)
        number, name = len(found) + 1, f"lines {line}-{last}"
        end = start + len(data)
        digest = fingerprint(data)
        found.append(Found(name, "lines", number, line, last, start, end, 0, encoding, digest))
        start, line = end, line + breaks
    return found


def _character_end(data: bytes, encoding: str) -> int:
    """Of a line longer than a part: as much as ends with a character."""
    encoding = "utf-8" if encoding == plain.DAMAGED else encoding
    for end in range(len(data), max(0, len(data) - 8), -1):
        if plain.fits(data[:end], encoding):
            return end
    return len(data)


def _rows(source: Source, size: int, encoding: str) -> list[Found]:
    """Stretches of rows, each to be read below the header."""
    found: list[Found] = []
    head = start = 0
    row = first = 0  # the header is row 0
    for begin, end in _records(source):
        if row == 0:
            head = start = end
        elif end - start > size and begin > start:
            found.append(_stretch(source, (start, begin), (first, row - 1), head, encoding))
            start, first = begin, row
        first = first or row
        row += 1
    if source.size > start:
        found.append(_stretch(source, (start, source.size), (first, row - 1), head, encoding))
    if head > size:
        why = f"its header has {head:,} bytes, more than a part of {size:,}"
        raise Unreadable(why, "too_large")
    if not found:
        raise Unreadable("it has a header and no rows", "empty")
    # Numbers count parts, so that a table that grows keeps the parts that it had.
    return [_renumbered(one, number) for number, one in enumerate(found, 1)]


def _stretch(
    source: Source, place: tuple[int, int], rows: tuple[int, int], head: int, encoding: str
) -> Found:
    digest = fingerprint(source.at(0, head) + source.at(*place))
    name = f"rows {rows[0]}-{rows[1]}"
    return Found(name, "rows", 0, *rows, *place, head, encoding, digest)


def _renumbered(one: Found, number: int) -> Found:
    return Found(**{**asdict(one), "number": number})


def _records(source: Source) -> Iterator[tuple[int, int]]:
    """Where each row begins and ends; a line break between quotes ends none."""
    begun = at = quotes = 0
    for line in source.file():
        at += len(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            yield begun, at
            begun, quotes = at, 0
        elif at - begun > MAX_ROW:
            why = f"the row at byte {begun:,} does not end: a quote is not closed"
            raise Unreadable(why)
    if at > begun:
        yield begun, at
