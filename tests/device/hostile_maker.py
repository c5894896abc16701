"""Documents made to hurt: bombs, forgeries, what is not what it says."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import openpyxl
from doc_maker import archive, book, mail, word
from reportlab.pdfgen.canvas import Canvas

LAUGHS = (
    '<?xml version="1.0"{}?><!DOCTYPE l [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(9))
    + "]><w:document xmlns:w='http://schemas.openxmlformats.org/wordprocessingml/2006/main'>"
    "<w:body><w:p><w:r><w:t>&j;</w:t></w:r></w:p></w:body></w:document>"
)
BODY = "<w:document xmlns:w='http://schemas.openxmlformats.org/wordprocessingml/2006/main'><w:body>"


def changed(data: bytes, name: str, content: bytes) -> bytes:
    """An archive with one file replaced."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        files = {one: old.read(one) for one in old.namelist()}
    return archive(files | {name: content})


def laughing(encoding: str) -> bytes:
    said = "" if encoding == "utf-8" else f' encoding="{encoding}"'
    return changed(word(["x"]), "word/document.xml", LAUGHS.format(said).encode(encoding))


def laughing_book() -> bytes:
    text = LAUGHS.format("").replace("w:document", "sst").replace("w:t>", "t>")
    return changed(book({"S": [["x"]]}), "xl/sharedStrings.xml", text.encode())


def deep_word(depth: int) -> bytes:
    inner = "<w:sdt>" * depth + "</w:sdt>" * depth
    return changed(word(["x"]), "word/document.xml", (BODY + inner).encode())


def bomb(data: bytes, name: str, head: str, unit: str, megabytes: int) -> bytes:
    """An archive in which one file unpacks to very much."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made,
    ):
        for one in old.namelist():
            if one != name:
                made.writestr(one, old.read(one))
        with made.open(name, "w", force_zip64=True) as file:
            file.write(head.encode())
            block = (unit * (1_000_000 // len(unit) + 1)).encode()[:1_000_000]
            for _ in range(megabytes):
                file.write(block)
    return out.getvalue()


def lying_size(data: bytes, name: str, size: int) -> bytes:
    """An archive whose directory says another unpacked size for one file."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        at = old.getinfo(name).header_offset
    made = bytearray(data)
    made[at + 22 : at + 26] = struct.pack("<I", size)
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    made[entry + 24 : entry + 28] = struct.pack("<I", size)
    return bytes(made)


def png(width: int, height: int) -> bytes:
    """A small file that says it is a large picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def far_cell() -> bytes:
    """Two cells, and the whole of a sheet between them."""
    made = openpyxl.Workbook()
    made.active["A1"] = "near"  # type: ignore[index]
    made.active["XFD1048576"] = "far"  # type: ignore[index]
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def nested_parts(depth: int) -> bytes:
    lines = [b"From: a@b.c", b"Subject: deep"]
    for n in range(depth):
        lines += [b'Content-Type: multipart/mixed; boundary="b%d"' % n, b"", b"--b%d" % n]
    return b"\r\n".join([*lines, b"Content-Type: text/plain", b"", b"bottom", b""])


def nested_mails(depth: int) -> bytes:
    made = b"From: a@b.c\r\nSubject: bottom\r\n\r\nthe bottom\r\n"
    for n in range(depth):
        head = b"From: a@b.c\r\nSubject: level\r\nContent-Type: message/rfc822\r\n\r\n"
        made = head.replace(b"level", b"level %d" % n) + made
    return made


def many_headers(count: int) -> bytes:
    return b"From: a@b.c\r\n" + b"X-Header: y\r\n" * count + b"\r\nbody\r\n"


def many_attachments(count: int) -> bytes:
    made = mail("body")
    for n in range(count):
        made.add_attachment(f"text {n}", filename=f"{n}.txt")
    return bytes(made)


def many_pages(count: int, text: str = "") -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out)
    for number in range(1, count + 1):
        if text:
            canvas.drawString(60, 700, text.format(number))
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def huge_page(side: float) -> bytes:
    """A page of absurd size with a line drawn over it, so that it is rendered."""
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=(side, side))
    canvas.line(0, 0, side, side)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


def pages_in_a_circle(count: int) -> bytes:
    """A page tree that contains itself."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Count %d >>" % count,
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] >>",
    ]
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, one in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    start = len(out)
    out += b"xref\n0 4\n0000000000 65535 f \n"
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size 4 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % start
    return bytes(out)
