"""Word documents to text: headers, body with tables, footers, notes and comments.

Walks the XML as it streams by. A document type declaration, without which there are no entities
to multiply, is refused: Office never writes one. What was deleted under tracked changes is left
out and counted; automatic numbers of lists are not in the file.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from edvac.device.reading.marks import MAX_TEXT, Reading, Section
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import Source

MAX_DEPTH = 256  # elements inside each other
_BLOCK = 1 << 18
_PARTS = (
    ("", re.compile(r"word/header\d*\.xml")),
    ("", re.compile(r"word/document\.xml")),
    ("", re.compile(r"word/footer\d*\.xml")),
    ("Footnote: ", re.compile(r"word/footnotes\.xml")),
    ("Endnote: ", re.compile(r"word/endnotes\.xml")),
    ("Comment: ", re.compile(r"word/comments\.xml")),
)
_SKIPPED = frozenset({"Fallback", "moveFrom", "del", "instrText", "delText", "rPr", "pPr"})
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "softHyphen": ""}


def read_word(source: Source) -> Reading:
    """The text of the document.

    Raises:
        Unreadable: broken, nested too deep, or too much text.
    """
    texts: list[str] = []
    deleted = 0
    try:
        with zipfile.ZipFile(source.file()) as archive:
            names = sorted(archive.namelist(), key=lambda name: (len(name), name))
            for prefix, pattern in _PARTS:
                for name in filter(pattern.fullmatch, names):
                    walk = _Walk()
                    with archive.open(name) as file:
                        walk.feed(iter(lambda: file.read(_BLOCK), b""), name)
                    deleted += walk.deleted
                    lines = "\n".join(walk.lines).strip("\n")
                    if lines.strip() and not (prefix == "" and lines in texts):
                        texts.append(_prefixed(lines, prefix))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as problem:
        raise Unreadable(f"it is a broken Word document ({problem})") from problem
    except Exception as problem:  # zlib.error is no subclass of anything but Exception
        if type(problem).__name__ != "error":
            raise
        raise Unreadable(f"it is a broken Word document ({problem})") from problem
    notes = [f"{deleted} deletions under tracked changes left out"] if deleted else []
    return Reading([Section("\n\n".join(texts))], notes)


def _prefixed(lines: str, prefix: str) -> str:
    return "\n".join(prefix + line for line in lines.split("\n") if line.strip() or not prefix)


@dataclass(slots=True)
class _Row:
    cells: list[str] = field(default_factory=list)
    cell: list[str] = field(default_factory=list)  # paragraphs of the open cell


@dataclass(slots=True)
class _Walk:
    """One part of the file, as its elements open and close."""

    lines: list[str] = field(default_factory=list)
    deleted: int = 0
    _rows: list[_Row] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _boxes: list[list[str]] = field(default_factory=list)  # paragraphs around a text box
    _depth: int = 0
    _skip: int = 0  # depth of the element whose inside is skipped
    _in_text: bool = False
    _size: int = 0

    def feed(self, blocks: Iterator[bytes], name: str) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = _refuse
        parser.buffer_text = True
        try:
            for block in blocks:
                parser.Parse(block, False)
            parser.Parse(b"", True)
        except expat.ExpatError as problem:
            raise Unreadable(f"it is a broken Word document ({name}: {problem})") from problem

    def _start(self, tag: str, _: object) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable(f"its elements lie more than {MAX_DEPTH} deep", "too_large")
        name = tag.rpartition(" ")[2]
        if self._skip:
            return
        if name in _SKIPPED:
            self._skip = self._depth
            self.deleted += name == "del"
        elif name == "p":
            self._boxes.append(self._text)
            self._text = []
        elif name == "tr":
            self._rows.append(_Row())
        elif name == "t":
            self._in_text = True
        elif name in _SIGNS:
            self._text.append(_SIGNS[name])

    def _end(self, tag: str) -> None:
        name = tag.rpartition(" ")[2]
        if self._skip:
            if self._depth == self._skip:
                self._skip = 0
        elif name == "t":
            self._in_text = False
        elif name == "p":
            paragraph = "".join(self._text)
            self._text = self._boxes.pop() if self._boxes else []
            self._add(paragraph)
        elif name == "tc" and self._rows:
            row = self._rows[-1]
            row.cells.append(" ".join(" ".join(row.cell).split()))
            row.cell = []
        elif name == "tr" and self._rows:
            self._add(" | ".join(self._rows.pop().cells).strip(" |"))
        elif name == "tbl":
            self._add("")
        self._depth -= 1

    def _characters(self, text: str) -> None:
        if self._in_text and not self._skip:
            self._text.append(text)
            self._size += len(text)
            if self._size > MAX_TEXT:
                raise Unreadable(f"its text has more than {MAX_TEXT:,} characters", "too_large")

    def _add(self, paragraph: str) -> None:
        """To the cell around it, or to the text."""
        (self._rows[-1].cell if self._rows else self.lines).append(paragraph)


def _refuse(*_: object) -> None:
    raise Unreadable("it has a document type declaration, which no Office program writes")
