"""What has been read, in sections, and the marks that stand before them in the text.

A mark is a line of its own: ``[page 3]``, ``[sheet Costs]``, ``[message 12]``,
``[attachment invoice.pdf]``; after a colon it says why nothing follows: ``[page 4: no text]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from edvac.device.reading.refusal import NO_OCR, Unreadable

MAX_TEXT = 8 * 1024 * 1024  # characters of one text
MAX_NAME = 120  # characters of a name in a mark
NO_TEXT = "no text"

_MARK = re.compile(r"^(?=\[(?:page|sheet|message|attachment) [^\]\n]*\][ \t]*$)", re.M)
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(slots=True)
class Section:
    """A stretch of text below its mark; the first of a document may have none."""

    text: str
    mark: str = ""  # without brackets
    missing: str = ""  # why there is no text
    numbered: bool = False  # its lines are counted as editors do, to whom a lone \r ends none


@dataclass(slots=True)
class Reading:
    """A document or a part of one, as it was read."""

    sections: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The whole text. In a text with marks, a line of the document that looks like one is
        moved by a space, so that no document can set marks of its own.

        Raises:
            Unreadable: no text at all, or more than fits into one value.
        """
        if not any(section.text.strip() for section in self.sections):
            raise self._empty()
        marked = any(section.mark for section in self.sections)
        parts = [_shown(section, marked) for section in self.sections]
        size = sum(map(len, parts))
        if size > MAX_TEXT:
            why = f"its text has {size:,} characters, the limit is {MAX_TEXT:,}"
            raise Unreadable(why, "too_large")
        return "\n\n".join(parts) if marked else parts[0]

    def _empty(self) -> Unreadable:
        reasons = unique(section.missing for section in self.sections if section.missing)
        known = [reason for reason in reasons if reason != NO_TEXT]
        without_ocr = any(reason.endswith(NO_OCR) for reason in known)
        why = "it holds no text" + (f": {known[0]}" if known else "")
        return Unreadable(why, "ocr_missing" if without_ocr else "empty")


def _shown(section: Section, marked: bool) -> str:
    text = section.text.replace("\r\n", "\n")
    if not (section.numbered and "\n" in text):
        text = text.replace("\r", "\n")
    if not marked:
        return text
    text = _MARK.sub(" ", text).strip("\n")
    if not section.mark:
        return text
    mark = f"[{section.mark}: {section.missing}]" if section.missing else f"[{section.mark}]"
    return f"{mark}\n{text}" if text else mark


def label(name: object) -> str:
    """A name from a document, fit to stand in a mark or a note."""
    text = " ".join(_UNFIT.sub(" ", str(name)).split())
    text = text.replace("[", "(").replace("]", ")").replace(": ", " - ")
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"


def unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def ranges(numbers: Iterable[int]) -> str:
    """``1-3, 7`` for 1, 2, 3 and 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:20]]
    return ", ".join(shown) + (", …" if len(runs) > 20 else "")
