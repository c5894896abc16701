"""Documents to text: pure functions from bytes, run in a process of their own because documents are
hostile input.

Also the program of that process: ``python -m edvac.device.parse`` reads framed requests from
standard input and forks for each, so that one document can neither crash nor change the reading of
another. Imports nothing of edvac.
"""

from __future__ import annotations

import codecs
import csv
import email
import email.errors
import email.policy
import json
import os
import re
import resource
import signal
import struct
import sys
from email.message import EmailMessage
from typing import Any, NoReturn

MAX_TEXT = 8 * 1024 * 1024  # characters of one document
MAX_DATA = 64 * 1024 * 1024  # bytes of one document, attachments included
MAX_SECONDS = 20  # of computing, for one document

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_ENCODINGS = [
    "cp1252",
    "latin_1",
    "cp1250",
    "cp1251",
    "shift_jis",
    "big5",
    "gb18030",
    "euc_kr",
    "mac_roman",
    "cp437",
]
_NOT_TEXTS = {"unicode-escape", "raw-unicode-escape", "punycode", "idna", "undefined", "utf-7"}
_BINARY = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a ZIP or Office file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x1f\x8b": "gzip data",
    b"\x7fELF": "a program",
}


class Unreadable(Exception):
    """The document has no text that could be had; the message says why."""


def to_text(name: str, data: bytes) -> tuple[str, list[str]]:
    """Text of a document and notes on how it was read.

    Raises:
        Unreadable: empty, binary or malformed.
    """
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    if len(data) > MAX_DATA:
        raise Unreadable(f"it has {len(data):,} bytes, the limit is {MAX_DATA:,}")
    if not data.strip():
        raise Unreadable("the file is empty")
    if suffix in ("eml", "msg") or _looks_like_mail(data):
        text, notes = _mail(data)
    elif suffix in ("html", "htm", "xhtml"):
        raw, notes = _decode(data, _declared(data))
        text = _html(raw)
    elif suffix in ("csv", "tsv"):
        raw, notes = _decode(data)
        text = raw
        notes += _dialect(raw)
    else:
        raw, notes = _decode(data, _declared(data) if b"<html" in data[:1024].lower() else "")
        is_page = raw.lstrip()[:200].lower().startswith(("<!doctype html", "<html"))
        text = _html(raw) if is_page else raw
    if not text.strip():
        raise Unreadable("it holds no text")
    if len(text) > MAX_TEXT:
        raise Unreadable(f"its text has {len(text):,} characters, the limit is {MAX_TEXT:,}")
    return text.replace("\r\n", "\n").replace("\r", "\n"), notes


def _declared(data: bytes) -> str:
    """The encoding that a page says it has, if it is true."""
    found = re.search(rb"""(?i)charset=["']?([\w.:-]{2,30})""", data[:2048])
    name = found.group(1).decode() if found else ""
    return name if name and _known(name) and _fits(data, name) else ""


def _decode(data: bytes, declared: str = "") -> tuple[str, list[str]]:
    """Text of bytes: UTF-8 and UTF-16 by mark, what is declared, else the likeliest encoding,
    stated."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            notes = [] if encoding == "utf-8-sig" else [f"read as {encoding}"]
            return _strict(data, encoding), notes
    _refuse_binary(data)
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError:
        pass
    if declared:
        return data.decode(declared), [f"read as {declared}, as it says"]
    from charset_normalizer import from_bytes

    best = from_bytes(data, cp_isolation=_ENCODINGS).best()
    if best is None:
        raise Unreadable("its encoding cannot be told")
    latin = best.encoding in ("latin_1", "cp1250") and _fits(data, "cp1252")
    encoding = "cp1252" if latin else best.encoding
    return _strict(data, encoding), [f"not UTF-8; read as {encoding}"]


def _fits(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as problem:
        raise Unreadable(f"it says {encoding} but byte {problem.start} does not fit") from problem


def _refuse_binary(data: bytes) -> None:
    head = data[:8192]
    for mark, kind in _BINARY.items():
        if head.startswith(mark):
            raise Unreadable(f"it is {kind}, which doc.text does not read")
    control = sum(byte < 9 or 13 < byte < 32 for byte in head)
    if b"\x00" in head or control > len(head) // 20:
        raise Unreadable("it is binary data, not text")


def _looks_like_mail(data: bytes) -> bool:
    head = data[:2000]
    return bool(
        re.match(
            rb"(?i)(return-path|received|from|date|subject|message-id|mime-version|to): ", head
        )
        and re.search(rb"(?im)^from: ", head)
        and re.search(rb"(?im)^(subject|date): ", head)
    )


def _mail(data: bytes) -> tuple[str, list[str]]:
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    shown = [name for name in ("From", "To", "Date", "Subject") if message[name]]
    lines = [f"{name}: {_header(message[name])}" for name in shown]
    if not lines:
        raise Unreadable("it is no e-mail: it has no headers")
    body = message.get_body(preferencelist=("plain", "html"))
    notes: list[str] = []
    text = ""
    if body is not None:
        payload = body.get_payload(decode=True)
        raw = payload if isinstance(payload, bytes) else b""
        charset = body.get_content_charset()
        if charset and _known(charset) and _fits(raw, charset):
            text = raw.decode(charset)
        elif raw.strip():
            text, notes = _decode(raw)
        if body.get_content_type() == "text/html":
            text = _html(text)
    attached = [p.get_filename() or p.get_content_type() for p in message.iter_attachments()]
    if attached:
        notes.append("attachments not read: " + ", ".join(attached))
    if not text.strip():
        raise Unreadable("the e-mail has no body that could be read")
    return "\n".join(lines) + "\n\n" + text, notes


def _header(value: Any) -> str:
    return " ".join(str(value).split()).encode(errors="replace").decode()


def _known(charset: str) -> bool:
    """Is it an encoding of texts, and not one of Python's own transformations?"""
    try:
        return codecs.lookup(charset).name not in _NOT_TEXTS and "".encode(charset) is not None
    except LookupError:
        return False


def _html(raw: str) -> str:
    """Visible text, a line for each block, cells of a row kept on one line."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(raw)
    for node in tree.css("script, style, noscript, template, head"):
        node.decompose()
    for node in tree.css("td, th"):
        node.insert_after(" | ")
    for node in tree.css("p, div, tr, li, h1, h2, h3, h4, h5, h6, br, table, section, blockquote"):
        node.insert_after("\n")
    body = tree.body or tree.root
    text = body.text() if body is not None else ""
    lines = (re.sub(r"[ \t\xa0]+", " ", line).strip(" |") for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _dialect(raw: str) -> list[str]:
    try:
        found = csv.Sniffer().sniff(raw[:16_384], delimiters=",;\t|")
    except csv.Error:
        return []
    return [] if found.delimiter == "," else [f"columns are separated by {found.delimiter!r}"]


# What the libraries raise on documents that are not what they say.
_MALFORMED = (
    ValueError,
    LookupError,
    AssertionError,
    AttributeError,
    TypeError,
    RecursionError,
    MemoryError,
    email.errors.MessageError,
)


# -- the process -------------------------------------------------------------------------------


def _answer(name: str, data: bytes) -> dict[str, Any]:
    try:
        text, notes = to_text(name, data)
        text.encode()  # some declared encodings give halves of surrogate pairs
    except Unreadable as problem:
        return {"error": str(problem)}
    except _MALFORMED as problem:
        return {"error": f"it is malformed ({type(problem).__name__}: {str(problem)[:200]})"}
    return {"text": text, "notes": notes}


def _serve() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _warm()
    while header := source.read(8):
        name_size, size = struct.unpack(">II", header)
        name = source.read(name_size).decode()
        data = source.read(size)
        reply = _in_child(name, data)
        del data
        sink.write(struct.pack(">I", len(reply)) + reply)
        sink.flush()


def _warm() -> None:
    """Import once, before the forks."""
    import charset_normalizer
    import selectolax.lexbor

    assert charset_normalizer and selectolax.lexbor


def _in_child(name: str, data: bytes) -> bytes:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(name, data, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        reply = pipe.read()
    _, status = os.waitpid(child, 0)
    if status == 0 and reply:
        return reply
    ended = os.waitstatus_to_exitcode(status)
    why = f"its parser died (status {ended})"
    if ended == -signal.SIGXCPU:
        why = f"it took more than {MAX_SECONDS} s of computing"
    return json.dumps({"error": why}).encode()


def _child(name: str, data: bytes, writing: int) -> NoReturn:
    """Read one document, with nothing at hand but the pipe for the answer."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS + 1))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    code = 1
    try:
        reply = json.dumps(_answer(name, data)).encode()
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(reply)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
