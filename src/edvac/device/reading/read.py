"""Which reader reads which document, and one part of it."""

from __future__ import annotations

import zlib

from edvac.device.reading import image, kinds, mbox, pdf, plain, sheets, word
from edvac.device.reading.html import visible
from edvac.device.reading.mail import Nested, read_mail
from edvac.device.reading.marks import NO_TEXT, Reading, Section, label
from edvac.device.reading.place import Place
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import Source, fingerprint

MAX_NESTED = 4  # documents inside documents, mails in mails counted by themselves


def read(name: str, source: Source, part: Place | None = None) -> Reading:
    """A document, or a part of it.

    Raises:
        Unreadable: it has no text that could be had.
    """
    if source.size == 0 or (source.size < 65_536 and not source.head.strip()):
        raise Unreadable("the file is empty", "empty")
    if part is not None:
        return _reported(_part(name, source, part), part)
    kind = kinds.kind_of(name, source)
    found = _whole(name, kind, source, 0)
    found.notes += kinds.misnamed(name, kind)
    return found


def _nested(depth: int) -> Nested:
    """How what is attached is read."""

    def one(name: str, data: bytes) -> Reading:
        if depth >= MAX_NESTED:
            raise Unreadable("documents lie too deep in each other", "too_large")
        if not data.strip():
            raise Unreadable("it is empty", "empty")
        source = Source.of(data)
        return _whole(name, kinds.kind_of(name, source), source, depth + 1)

    return one


def _whole(name: str, kind: kinds.Kind, source: Source, depth: int) -> Reading:
    match kind:
        case "pdf":
            return pdf.read_pdf(source)
        case "image":
            return image.read_image(source)
        case "word":
            return word.read_word(source)
        case "sheets":
            return sheets.read_sheets(source)
        case "mail":
            return read_mail(source.whole(), _nested(depth))
        case "mbox":
            return _mailbox(source, depth)
    data = source.whole()
    if kind == "page":
        raw, notes = plain.decode(data, plain.declared(data))
        return Reading([Section(visible(raw))], notes)
    text, notes = plain.decode(data)
    if kind == "table":
        notes += plain.dialect(text)
    return Reading([Section(text)], notes)


def _mailbox(source: Source, depth: int) -> Reading:
    source.whole()  # refuses what can only be read in parts
    found = Reading()
    for number, (start, end) in enumerate(mbox.messages(source), 1):
        try:
            one = read_mail(mbox.body(source.at(start, end)), _nested(depth))
        except Unreadable as problem:
            found.sections.append(Section("", f"message {number}", f"not read: {problem}"))
            found.notes.append(f"message {number} not read: {problem}")
            continue
        one.sections[0].mark = f"message {number}"
        found.sections += one.sections
        found.notes += [note for note in one.notes if note not in found.notes]
    return found


def _part(name: str, source: Source, part: Place) -> Reading:
    match part.kind:
        case "page":
            kind = kinds.kind_of(name, source)
            if kind == "pdf":
                return _bare(pdf.read_pdf(source, part.number))
            if kind == "image":
                return _bare(image.read_image(source, part.number))
        case "sheet" if kinds.kind_of(name, source) == "sheets":
            return _bare(sheets.read_sheets(source, part.name.partition(" ")[2]))
        case "message" | "lines" | "rows":
            return _stretch(source, part)
        case "section":
            text = read(name, source).text()
            return Reading([Section(text[part.start : part.end])])
    raise Unreadable("it has no such part", "part_unknown")


def _reported(found: Reading, part: Place) -> Reading:
    """A part without text is its mark, for the parts around it may have some."""
    if any(
        section.text.strip() or section.missing not in ("", NO_TEXT) for section in found.sections
    ):
        return found
    notes = found.notes or [f"no text in {label(part.name)}"]
    return Reading([Section(f"[{label(part.name)}: {NO_TEXT}]")], notes)


def _bare(found: Reading) -> Reading:
    """Without the mark of the part itself, which its name says; so a page that moves to another
    number has the same text as before, and what was made of it is used again."""
    section = found.sections[0]
    if not section.missing:
        section.mark = ""
    return found


def _stretch(source: Source, part: Place) -> Reading:
    if not 0 <= part.head <= part.start < part.end <= source.size:
        raise Unreadable("the file is shorter than it was", "part_unknown")
    head, data = source.at(0, part.head), source.at(part.start, part.end)
    if fingerprint(head + data) != part.digest:
        raise Unreadable("the file has changed there since its parts were listed", "part_unknown")
    if part.kind == "message":
        return read_mail(mbox.body(data), _nested(0))
    if part.encoding != plain.DAMAGED and not plain.known(part.encoding):
        raise Unreadable(f"{part.encoding!r} is no encoding", "part_unknown")
    text = plain.strict(head + data, part.encoding)
    notes = [] if part.encoding in ("utf-8", "utf-8-sig") else [f"read as {part.encoding}"]
    return Reading([Section(text.removeprefix("\ufeff"), numbered=part.kind == "lines")], notes)


MALFORMED = (
    ValueError,
    LookupError,
    AssertionError,
    AttributeError,
    TypeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    NotImplementedError,
    OSError,
    SyntaxError,
    zlib.error,
)  # what the libraries raise on documents that are not what they say
