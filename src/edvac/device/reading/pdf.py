"""PDF to text, a page at a time: its text layer, else what OCR sees on the page."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

from edvac.device.reading import ocr
from edvac.device.reading.form import filled
from edvac.device.reading.layer import text_layer
from edvac.device.reading.marks import NO_TEXT, Reading, Section, ranges
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import Source

MAX_PAGES = 20_000
_FEW = 30  # characters of a text layer that does not stand for a page with pictures
_DPI = 300
_MAX_SIDE = 10_000  # pixels
_STRANGE = re.compile(r"[\ufffd\ufffe\uffff\ue000-\uf8ff\x00-\x08\x0e-\x1f]")  # glyphs without text


def pages(source: Source) -> int:
    """How many pages it has."""
    with _opened(source) as document:
        return _count(document)


def read_pdf(source: Source, only: int | None = None) -> Reading:
    """The text of all pages, or of one (from 1), each below its mark."""
    found = Reading()
    by_ocr: list[int] = []
    empty: list[int] = []
    unread: dict[str, list[int]] = {}
    with _opened(source) as document:
        count = _count(document)
        if only is not None and not 1 <= only <= count:
            raise Unreadable(f"it has no page {only}", "part_unknown")
        for number in range(1, count + 1) if only is None else [only]:
            section, seen = _page(document, number)
            found.sections.append(section)
            if seen:
                by_ocr.append(number)
            if section.missing == NO_TEXT:
                empty.append(number)
            elif section.missing:
                unread.setdefault(section.missing, []).append(number)
    if by_ocr:
        said = f"page {ranges(by_ocr)} read by OCR (tesseract, {ocr.languages()})"
        found.notes.append(said)
    if empty:
        found.notes.append(f"no text on page {ranges(empty)}")
    found.notes += [f"page {ranges(those)} {why}" for why, those in unread.items()]
    return found


def _page(document: Any, number: int) -> tuple[Section, bool]:
    """One page, and whether OCR read it."""
    import pypdfium2 as pdfium

    mark, text = f"page {number}", ""
    try:
        page = document[number - 1]
        try:
            text = "\n".join([text_layer(page), *filled(document, page)])
            if not _is_scan(page, text):
                return Section(text, mark, "" if text.strip() else NO_TEXT), False
            seen = _seen(page)
        finally:
            page.close()
    except pdfium.PdfiumError as problem:
        return Section(text, mark, f"not read: it is broken ({problem})"), False
    except Unreadable as problem:
        if problem.kind == "too_large":
            raise
        return Section(text, mark, f"not read: {problem}"), False
    best = seen if len(seen.strip()) >= len(text.strip()) else text
    return Section(best, mark, "" if best.strip() else NO_TEXT), best is seen and bool(seen)


def _is_scan(page: Any, text: str) -> bool:
    """Does the page show more than its text layer says? A scan with a stamped number, or fonts
    whose glyphs have no characters."""
    from pypdfium2 import raw

    shown = "".join(text.split())
    strange = len(_STRANGE.findall(shown))
    if strange > 3 and strange > len(shown) * 0.3:
        return True
    if len(shown) >= _FEW:
        return False
    kinds = [raw.FPDF_PAGEOBJ_IMAGE]
    if not shown:
        kinds += [raw.FPDF_PAGEOBJ_PATH, raw.FPDF_PAGEOBJ_SHADING]  # letters may be drawn
    return next(iter(page.get_objects(filter=kinds, max_depth=4)), None) is not None


def _seen(page: Any) -> str:
    """The page as a picture, read by OCR."""
    width, height = (abs(side) if math.isfinite(side) else 0.0 for side in page.get_size())
    if not width or not height:
        return ""
    scale = min(_DPI / 72, _MAX_SIDE / max(width, height))
    scale = min(scale, math.sqrt(ocr.MAX_PIXELS / (width * height)))
    if width * scale < 1 or height * scale < 1:
        return ""
    bitmap = page.render(scale=scale, grayscale=True)
    try:
        return ocr.read(bitmap.to_pil(), max(70, round(72 * scale)))
    finally:
        bitmap.close()


def _count(document: Any) -> int:
    count = len(document)
    if count < 1:
        raise Unreadable("it is a PDF without pages", "empty")
    if count > MAX_PAGES:
        raise Unreadable(f"it has {count:,} pages, the limit is {MAX_PAGES:,}", "too_large")
    return count


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Any]:
    try:
        import pypdfium2 as pdfium
        from pypdfium2 import raw
    except ImportError as problem:
        raise Unreadable("reading PDF needs pypdfium2", "library_missing") from problem
    try:
        document = pdfium.PdfDocument(source.file(), autoclose=True)
    except pdfium.PdfiumError as problem:
        if getattr(problem, "err_code", None) in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
            raise Unreadable("it is a PDF with a password", "encrypted") from problem
        raise Unreadable(f"it is a broken PDF ({problem})") from problem
    try:
        if document.get_formtype() != raw.FORMTYPE_NONE:
            document.init_forms()
        yield document
    finally:
        document.close()
