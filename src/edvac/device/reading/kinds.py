"""What a document is: by its content, and only where that says nothing by its name."""

from __future__ import annotations

import re
import zipfile
from typing import Literal, TypeAlias

from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import Source

Kind: TypeAlias = Literal["pdf", "image", "word", "sheets", "mbox", "mail", "page", "table", "text"]

_IMAGES = (
    *(b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"),
    *(b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
)
_HEADER = rb"(?:[!-9;-~]{1,70}:[ \t])"
_MBOX = re.compile(rb"From [^\r\n]{1,500}\r?\n(?:>?" + _HEADER + rb")", re.S)
_HEADERS = re.compile(
    rb"(?i)(return-path|received|from|date|subject|message-id|mime-version|to|delivered-to): "
)
_SUFFIXES: dict[str, Kind] = {
    "eml": "mail",
    "html": "page",
    "htm": "page",
    "xhtml": "page",
    "csv": "table",
    "tsv": "table",
}
_NAMES: dict[str, tuple[Kind, ...]] = {  # what a suffix promises
    "pdf": ("pdf",),
    "docx": ("word",),
    "xlsx": ("sheets",),
    "png": ("image",),
    "jpg": ("image",),
    "jpeg": ("image",),
    "tif": ("image",),
    "tiff": ("image",),
    "mbox": ("mbox", "mail"),
}
_WORDS: dict[Kind, str] = {
    "pdf": "a PDF",
    "image": "an image",
    "word": "a Word document",
    "sheets": "a spreadsheet",
    "mbox": "a mailbox",
    "mail": "an e-mail",
    "page": "a web page",
    "table": "a table in text",
    "text": "plain text",
}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_MAX_ENTRIES = 10_000
_MAX_UNPACKED = 512 * 1024 * 1024


def kind_of(name: str, source: Source) -> Kind:
    """What it is.

    Raises:
        Unreadable: an archive of something else, encrypted, or a bomb.
    """
    head = source.head
    suffix = suffix_of(name)
    start = head.lstrip(b"\xef\xbb\xbf\x00\t\r\n\f ")[:8]
    if start.startswith(b"%PDF-") or (suffix == "pdf" and b"%PDF-" in head[:1024]):
        return "pdf"
    if head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "image"
    if head[:2] == b"BM" and suffix == "bmp":
        return "image"
    if head.startswith(b"PK\x03\x04"):
        return _archive(source)
    if head.startswith(_OLE):
        return _compound(source, suffix)
    if _MBOX.match(head):
        return "mbox"
    if suffix == "eml" or _is_mail(head):
        return "mail"
    if suffix in ("html", "htm", "xhtml") or _is_page(head):
        return "page"
    return _SUFFIXES.get(suffix, "text")


def misnamed(name: str, kind: Kind) -> list[str]:
    """A note where the name promises something else."""
    promised = _NAMES.get(suffix_of(name))
    if promised is None or kind in promised:
        return []
    return [f"called .{suffix_of(name)}, but it is {_WORDS[kind]}"]


def suffix_of(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _is_mail(head: bytes) -> bool:
    start = head[:4000]
    return bool(
        _HEADERS.match(start)
        and re.search(rb"(?im)^from: ", start)
        and re.search(rb"(?im)^(subject|date): ", start)
    )


def _is_page(head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf\t\r\n\f ")[:200].lower()
    return start.startswith((b"<!doctype html", b"<html"))


def _archive(source: Source) -> Kind:
    """An Office file is a ZIP archive with certain names in it."""
    try:
        with zipfile.ZipFile(source.file()) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as problem:
        raise Unreadable(f"it is a broken ZIP or Office file ({problem})") from problem
    if len(entries) > _MAX_ENTRIES:
        raise Unreadable(f"it is an archive of {len(entries):,} files", "too_large")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > _MAX_UNPACKED:
        why = f"it unpacks to {unpacked:,} bytes, the limit is {_MAX_UNPACKED:,}"
        raise Unreadable(why, "too_large")
    names = {entry.filename for entry in entries}
    if "word/document.xml" in names:
        return "word"
    if names & {"xl/workbook.xml", "xl/workbook.bin"} or _is_ods(names, source):
        return "sheets"
    raise Unreadable("it is a ZIP archive, which doc.text does not read")


def _is_ods(names: set[str], source: Source) -> bool:
    return "content.xml" in names and b"opendocument.spreadsheet" in source.head[:200]


def _compound(source: Source, suffix: str) -> Kind:
    """The container of old Office files, and of encrypted new ones."""
    if _ENCRYPTED in source.whole():
        raise Unreadable("it is an Office file with a password", "encrypted")
    if suffix == "xls" or "Workbook".encode("utf-16-le") in source.whole():
        return "sheets"
    raise Unreadable("it is an old Office file, which doc.text does not read")
