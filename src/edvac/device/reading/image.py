"""Pictures of text: PNG, JPEG, TIFF of one or many pages, and what else Pillow reads safely."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edvac.device.reading import ocr
from edvac.device.reading.marks import NO_TEXT, Reading, Section
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import Source

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP")
MAX_PIXELS = 120_000_000  # of one picture, unpacked
MAX_FRAMES = 1_000


def frames(source: Source) -> int:
    """How many pages it has."""
    with _opened(source) as picture:
        return _count(picture)


def read_image(source: Source, only: int | None = None) -> Reading:
    """The text of all pages, or of one (from 1)."""
    with _opened(source) as picture:
        count = _count(picture)
        if only is not None and not 1 <= only <= count:
            raise Unreadable(f"it has no page {only}", "part_unknown")
        pages = range(1, count + 1) if only is None else [only]
        sections = [_page(picture, page, marked=count > 1) for page in pages]
    return Reading(sections, [f"read by OCR (tesseract, {ocr.languages()})"])


def _page(picture: ImageFile, page: int, *, marked: bool) -> Section:
    from PIL import ImageOps

    mark = f"page {page}" if marked else ""
    with _typed():
        picture.seek(page - 1)
        _bounded(picture)
        text = ocr.read(ImageOps.exif_transpose(picture), _dpi(picture))
    return Section(text, mark, "" if text else NO_TEXT)


def _dpi(picture: ImageFile) -> int:
    """What it says, if that is likely; else the usual one of scans."""
    given = picture.info.get("dpi", (0, 0))
    try:
        found = int(given[0])
    except (TypeError, ValueError, IndexError, OverflowError, ZeroDivisionError):
        return 300
    return found if 70 <= found <= 1200 else 300


def _count(picture: ImageFile) -> int:
    with _typed():
        count = int(getattr(picture, "n_frames", 1))
    if count > MAX_FRAMES:
        raise Unreadable(f"it has {count:,} pages, the limit is {MAX_FRAMES:,}", "too_large")
    # Of a film the first picture: its others are the same page moving.
    return count if picture.format == "TIFF" else 1


def _bounded(picture: ImageFile) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        why = f"it has {width:,} x {height:,} pixels, the limit is {MAX_PIXELS:,} in all"
        raise Unreadable(why, "too_large")


def _opened(source: Source) -> ImageFile:
    try:
        from PIL import Image
    except ImportError as problem:
        raise Unreadable("reading pictures needs Pillow", "library_missing") from problem
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with _typed():
        picture = Image.open(source.file(), formats=FORMATS)
        _bounded(picture)
    return picture


@contextlib.contextmanager
def _typed() -> Iterator[None]:
    """What Pillow says of a bad picture, as a reason."""
    from PIL import Image

    warnings.simplefilter("ignore")
    try:
        yield
    except Image.DecompressionBombError as problem:
        raise Unreadable("it unpacks to more pixels than allowed", "too_large") from problem
    except (OSError, SyntaxError, ValueError, EOFError, TypeError) as problem:
        raise Unreadable(f"it is a broken picture ({str(problem)[:200]})") from problem
