"""The text layer of a page of a PDF, in the order in which it was drawn.

PDFium tells the characters and where they stand; where a line ends is decided here by that place
alone. Its own guess joins single characters below each other (a column of quantities 1 and 3
would read 13) and breaks the rows of tables.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

_SPACE = 32
_BREAKS = frozenset({10, 13})
_HYPHENS = frozenset({0x2, 0xAD, 0xFFFE})  # what PDFium makes of a hyphen at the end of a line
_EAST_ASIAN = ((0x2E80, 0xD7FF), (0xF900, 0xFAFF), (0xFE30, 0xFE4F), (0xFF00, 0xFFEF))


def text_layer(page: Any) -> str:
    """All text of the page, a line for each line on it."""
    layer = page.get_textpage()
    try:
        return _Walk(layer).text()
    finally:
        layer.close()


class _Walk:
    """Goes from character to character and looks where each stands."""

    def __init__(self, layer: Any) -> None:
        from pypdfium2 import raw

        self._raw = raw
        self._layer = layer.raw
        self._count = layer.count_chars()
        self._x, self._y = ctypes.c_double(), ctypes.c_double()

    def text(self) -> str:
        raw, layer = self._raw, self._layer
        out: list[str] = []
        before: _Sign | None = None  # the last that is drawn
        gap = broken = False  # what PDFium thinks stands since then
        for at in range(self._count):
            code = raw.FPDFText_GetUnicode(layer, at)
            if code in _BREAKS:
                broken = True
            elif code == _SPACE and raw.FPDFText_IsGenerated(layer, at) == 1:
                gap = True
            elif code:
                raw.FPDFText_GetCharOrigin(layer, at, self._x, self._y)
                here = _Sign(at, code, self._x.value, self._y.value)
                if before is not None and self._new_line(before, here, broken=broken):
                    out.append("\n")
                elif (gap or broken) and out and code != _SPACE:
                    out.append(" ")
                out.append(here.text)
                before, gap, broken = here, False, False
        return "".join(out)

    def _new_line(self, before: _Sign, here: _Sign, *, broken: bool) -> bool:
        """Does it stand on another line than the one before it?"""
        right, up = here.x - before.x, here.y - before.y
        if not broken and abs(up) < 0.01:
            return False
        fonts = (self._raw.FPDFText_GetFontSize(self._layer, one.at) for one in (before, here))
        size = max(map(abs, fonts)) or 1.0  # a raised 2 stands on the line of the larger letter
        angle = max(0.0, self._raw.FPDFText_GetCharAngle(self._layer, here.at))  # -1: not known
        # The way to it, along the line and across it.
        along = right * math.cos(angle) + up * math.sin(angle)
        across = up * math.cos(angle) - right * math.sin(angle)
        downwards = before.east_asian and here.east_asian and abs(along) < size * 0.2
        if downwards and not broken:
            return False
        return abs(across) > size * 0.5 or (broken and along < -size)


class _Sign(NamedTuple):
    """A character, and where it is drawn."""

    at: int
    code: int
    x: float
    y: float

    @property
    def text(self) -> str:
        if self.code in _HYPHENS:
            return "-"
        half = 0xD800 <= self.code <= 0xDFFF or self.code > 0x10FFFF
        return "\ufffd" if half else chr(self.code)

    @property
    def east_asian(self) -> bool:
        return any(first <= self.code <= last for first, last in _EAST_ASIAN)
