"""Documents of known content, made by other libraries than those that read them."""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from decimal import Decimal
from email.message import EmailMessage
from typing import Any

import docx
import openpyxl
import pypdf
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

FONT = "/usr/share/fonts"


def picture(text: str, size: tuple[int, int] = (1240, 400)) -> Image.Image:
    """Black letters on white, large enough to be read by OCR."""
    made = Image.new("L", size, 255)
    font = ImageFont.load_default(48)
    ImageDraw.Draw(made).multiline_text((60, 60), text, fill=0, font=font, spacing=24)
    return made


def image(text: str | list[str], kind: str = "PNG", **more: Any) -> bytes:
    """A picture file; a TIFF of several pages from several texts."""
    pages = [picture(one) for one in ([text] if isinstance(text, str) else text)]
    out = io.BytesIO()
    if len(pages) > 1:
        more |= {"save_all": True, "append_images": pages[1:]}
    pages[0].save(out, kind, **more)
    return out.getvalue()


def pdf(pages: list[str | Image.Image], *, password: str = "") -> bytes:
    """A page for each text, or for each picture of one; an empty text makes an empty page."""
    out = io.BytesIO()
    canvas = Canvas(out)
    for page in pages:
        if isinstance(page, Image.Image):
            canvas.drawImage(ImageReader(page), 30, 500, 530, 530 * page.height / page.width)
        else:
            for number, line in enumerate(page.split("\n")):
                canvas.drawString(60, 780 - 16 * number, line)
        canvas.showPage()
    canvas.save()
    return encrypted(out.getvalue(), password) if password else out.getvalue()


def encrypted(data: bytes, password: str) -> bytes:
    writer = pypdf.PdfWriter(io.BytesIO(data))
    writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def word(paragraphs: list[str], table: list[list[str]] | None = None, header: str = "") -> bytes:
    made = docx.Document()
    if header:
        made.sections[0].header.paragraphs[0].text = header
    for paragraph in paragraphs:
        made.add_paragraph(paragraph)
    if table:
        grid = made.add_table(len(table), len(table[0]))
        for row, cells in zip(grid.rows, table, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


Cell = str | int | float | Decimal | bool | dt.date | dt.datetime | None


def book(sheets: dict[str, list[list[Cell]]], merged: dict[str, str] | None = None) -> bytes:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
        if merged and name in merged:
            sheet.merge_cells(merged[name])
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def mail(body: str, attachments: dict[str, bytes] | None = None, **headers: str) -> EmailMessage:
    made = EmailMessage()
    given = {"From": "ann@example.org", "To": "bob@example.org", "Subject": "hello"} | headers
    for name, value in given.items():
        made[name] = value
    made.set_content(body)
    for name, data in (attachments or {}).items():
        made.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    return made


def mbox(messages: list[bytes]) -> bytes:
    """As a careful writer of the format does it: ``From`` lines of bodies are quoted."""
    out = io.BytesIO()
    for number, message in enumerate(messages):
        out.write(b"From ann@example.org Mon Jan  5 09:%02d:%02d 2026\n"
                  % (number // 60 % 60, number % 60))  # fmt: skip
        for line in message.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n"):
            quoted = line.lstrip(b">").startswith(b"From ")
            out.write((b">" if quoted else b"") + line + b"\n")
        out.write(b"\n")
    return out.getvalue()


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return out.getvalue()
