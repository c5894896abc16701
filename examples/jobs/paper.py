"""Pages of paper: laid out once, then drawn as a PDF or as a scan of the printed page."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pypdf
import reportlab
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

WIDTH, HEIGHT = 210, 297  # of A4, in millimetres
_GRAIN = 128  # pixels
_FONTS = Path(reportlab.__file__).parent / "fonts"


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of text; `x` is its right end where `right` says so."""

    x: float
    y: float
    text: str
    size: float
    bold: bool
    right: bool


@dataclass(slots=True)
class Page:
    """Texts and rules, in millimetres from the top left; `height` is that of the paper."""

    height: float = HEIGHT
    marks: list[Mark] = field(default_factory=list)
    rules: list[float] = field(default_factory=list)

    def put(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 10,
        *,
        bold: bool = False,
        right: bool = False,
    ) -> None:
        self.marks.append(Mark(x, y, text, size, bold, right))

    def lines(self, x: float, y: float, lines: Sequence[str], size: float = 10) -> float:
        """Lines below each other; where the next one would be."""
        for line in lines:
            self.put(x, y, line, size)
            y += size * 0.5
        return y

    def rule(self, y: float) -> None:
        self.rules.append(y)


def to_pdf(pages: Sequence[Page | Image.Image], *, password: str = "") -> bytes:
    """A PDF with a text layer; a picture makes a page without one."""
    out = io.BytesIO()
    canvas = Canvas(out, invariant=1)
    for page in pages:
        if isinstance(page, Image.Image):
            canvas.setPageSize((WIDTH * mm, WIDTH * page.height / page.width * mm))
            size = WIDTH * page.height / page.width
            canvas.drawImage(ImageReader(page), 0, 0, WIDTH * mm, size * mm)
        else:
            _draw(canvas, page)
        canvas.showPage()
    canvas.save()
    return _locked(out.getvalue(), password) if password else out.getvalue()


def _draw(canvas: Canvas, page: Page) -> None:
    canvas.setPageSize((WIDTH * mm, page.height * mm))
    for mark in page.marks:
        canvas.setFont("Helvetica-Bold" if mark.bold else "Helvetica", mark.size)
        put = canvas.drawRightString if mark.right else canvas.drawString
        put(mark.x * mm, (page.height - mark.y) * mm, mark.text)
    for y in page.rules:
        canvas.line(20 * mm, (page.height - y) * mm, 190 * mm, (page.height - y) * mm)


def _locked(data: bytes, password: str) -> bytes:
    writer = pypdf.PdfWriter(io.BytesIO(data))
    writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def to_picture(page: Page, rng: random.Random, *, dpi: int = 150, worn: float = 1.0) -> Image.Image:
    """The printed page on the glass of a scanner: a little askew, grey and grainy.

    Args:
        worn: 0 is a clean picture, 1 an office's scanner.
    """
    dot = dpi / 25.4
    size = (round(WIDTH * dot), round(page.height * dot))
    picture = Image.new("L", size, 250)
    draw = ImageDraw.Draw(picture)
    for mark in page.marks:
        name = "VeraBd.ttf" if mark.bold else "Vera.ttf"
        font = ImageFont.truetype(str(_FONTS / name), round(mark.size * dpi / 72 * 0.93))
        place = (mark.x * dot, mark.y * dot)
        draw.text(place, mark.text, fill=25, font=font, anchor="rs" if mark.right else "ls")
    for y in page.rules:
        draw.line((20 * dot, y * dot, 190 * dot, y * dot), fill=90, width=max(1, round(dot / 4)))
    if not worn:
        return picture
    askew = rng.uniform(-0.6, 0.6) * worn
    picture = picture.rotate(askew, Image.Resampling.BICUBIC, fillcolor=245)
    strip = Image.frombytes("L", (_GRAIN, size[1]), rng.randbytes(_GRAIN * size[1]))
    grain = Image.new("L", size)
    for x in range(0, size[0], _GRAIN):  # repeated, so that files stay small
        grain.paste(strip, (x, 0))
    return Image.blend(picture, grain, 0.07 * worn)


def to_file(
    pictures: Sequence[Image.Image], kind: str, *, dpi: int = 150, turned: bool = False
) -> bytes:
    """A picture file, or a TIFF or PDF of several.

    Args:
        kind: PNG, JPEG, TIFF or PDF.
        turned: it lies on its side, and says so, as the picture of a telephone does.
    """
    if kind == "PDF":
        return to_pdf(pictures)
    more: dict[str, object] = {"dpi": (dpi, dpi)}
    first = pictures[0]
    if kind == "JPEG":
        more["quality"] = 80
    if turned:
        exif = Image.Exif()
        exif[0x0112] = 6  # the top is on the right
        more["exif"] = exif
        first = first.rotate(90, expand=True)
    if kind == "TIFF":
        more |= {"compression": "tiff_lzw", "save_all": True, "append_images": pictures[1:]}
    out = io.BytesIO()
    first.save(out, kind, **more)
    return out.getvalue()
