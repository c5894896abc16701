"""Bytes to text: encodings, found and stated, and the dialect of a table in text."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterable

from edvac.device.reading.refusal import Unreadable

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_ENCODINGS = [
    *("cp1252", "latin_1", "cp1250", "iso8859_2", "cp1251", "koi8_r", "iso8859_5"),
    *("cp1253", "iso8859_7", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("shift_jis", "big5", "gb18030", "euc_kr", "euc_jp", "mac_roman", "cp437"),
]
DAMAGED = "utf-8-damaged"  # UTF-8 but for some bytes, as in a log whose lines were cut
_NOT_TEXTS = {"unicode-escape", "raw-unicode-escape", "punycode", "idna", "undefined", "utf-7"}
_BINARY = {
    b"PK\x03\x04": "a ZIP archive",
    b"PK\x05\x06": "an empty ZIP archive",
    b"\xd0\xcf\x11\xe0": "an old Office file",
    b"\x1f\x8b": "gzip data",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x7fELF": "a program",
    b"MZ\x90\x00": "a program",
    b"SQLite format 3": "a database",
}
MANY_WHOLE = 4  # whole characters beyond ASCII for each broken one
_SAMPLE = 65_536  # bytes that decide an encoding or a dialect
_DELIMITERS = ",;\t|"
_BETWEEN = re.compile(r"(?<=[A-Za-z])[^\x00-\x7f](?=[a-z])")
_COMMA_NUMBER = re.compile(r"-?\d{1,3}(?:\.?\d{3})*,\d{1,2}")
_POINT_NUMBER = re.compile(r"-?\d{1,3}(?:,?\d{3})*\.\d{1,2}")


def decode(data: bytes, declared: str = "") -> tuple[str, list[str]]:
    """Text of bytes: by its byte order mark, UTF-8, what is declared, else the likeliest encoding.

    Raises:
        Unreadable: binary data, or bytes that are not what their mark says.
    """
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            notes = [] if encoding == "utf-8-sig" else [f"read as {encoding}"]
            return strict(data, encoding), notes
    wide = _unmarked_wide(data)
    if wide:
        return strict(data, wide), [f"no byte order mark; read as {wide}"]
    refuse_binary(data[:8192])
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError as problem:
        at = problem.start
    if declared:
        return data.decode(declared), [f"read as {declared}, as it says"]
    if damaged([data]):
        return strict(data, DAMAGED), [said(DAMAGED)]
    encoding = likeliest(data[max(0, at - _SAMPLE // 2) : at + _SAMPLE // 2])
    if not fits(data, encoding):
        encoding = likeliest(data)
    return strict(data, encoding), [said(encoding)]


def damaged(blocks: Iterable[bytes]) -> bool:
    """Is what is not UTF-8 the exception? In no other encoding do characters beyond ASCII come out
    as whole ones of UTF-8, except by rare accident."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    whole = broken = 0
    for block in blocks:
        text = decoder.decode(block)
        lost = text.count("\ufffd")
        broken += lost
        whole += len(text) - len(text.encode("ascii", "ignore")) - lost
    return whole >= MANY_WHOLE * broken


def said(encoding: str) -> str:
    """What is told of a text in this encoding."""
    if encoding == DAMAGED:
        return "some bytes are not UTF-8 and are shown as \ufffd"
    return f"not UTF-8; read as {encoding}"


def likeliest(data: bytes) -> str:
    """The encoding that makes the most sense of bytes that are not UTF-8."""
    from charset_normalizer import from_bytes

    best = from_bytes(data, cp_isolation=_ENCODINGS).best()
    if best is None:
        raise Unreadable("its encoding cannot be told")
    if fits(data, "cp1252") and _odd(data.decode("cp1252")) < _odd(str(best)):
        return "cp1252"  # a statement with two umlauts looks like many encodings
    same = [best.encoding, *best.could_be_from_charset]
    for usual in ("cp1252", "cp1250", "cp1251"):  # a superset of what is often told in its stead
        if usual in same:
            return usual
    return "cp1252" if best.encoding == "latin_1" and fits(data, "cp1252") else best.encoding


def _odd(text: str) -> int:
    """How many signs stand between letters that no word has there: ``Empf‰nger``."""
    return sum(not sign.islower() for sign in _BETWEEN.findall(text))


def wide(head: bytes) -> bool:
    """Are its characters more than a byte each, also those of ASCII?"""
    found = next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), "")
    return found in ("utf-16", "utf-32") or bool(_unmarked_wide(head))


def _unmarked_wide(data: bytes) -> str:
    """UTF-16 without a mark: in text of European languages every second byte is zero."""
    sample = data[:4096]
    if len(sample) < 8 or b"\x00" not in sample:
        return ""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd > half * 0.6 and even < half * 0.05:
        return "utf-16-le"
    return "utf-16-be" if even > half * 0.6 and odd < half * 0.05 else ""


def declared(data: bytes) -> str:
    """The encoding that a page says it has, if it is true."""
    found = re.search(rb"""(?i)charset=["']?([\w.:-]{2,30})""", data[:2048])
    name = found.group(1).decode() if found else ""
    return name if name and known(name) and fits(data, name) else ""


def known(charset: str) -> bool:
    """Is it an encoding of texts, and not one of Python's own transformations?"""
    try:
        return codecs.lookup(charset).name not in _NOT_TEXTS and "".encode(charset) is not None
    except LookupError:
        return False


def fits(data: bytes, encoding: str) -> bool:
    if encoding == DAMAGED:
        return True
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def strict(data: bytes, encoding: str) -> str:
    if encoding == DAMAGED:
        return data.decode("utf-8", "replace")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as problem:
        why = f"it says {encoding} but byte {problem.start} does not fit"
        raise Unreadable(why) from problem


def refuse_binary(head: bytes) -> None:
    """Raise unless the beginning of a document is that of a text."""
    for mark, kind in _BINARY.items():
        if head.startswith(mark):
            raise Unreadable(f"it is {kind}, which doc.text does not read")
    control = sum(byte < 9 or 13 < byte < 32 for byte in head)
    if b"\x00" in head or control > len(head) // 20:
        raise Unreadable("it is binary data, not text")


def delimiter(sample: str) -> str:
    """What separates the columns of a table: the sign that gives the most lines equally many."""
    best, score = ",", 0.0
    lines = _first_lines(sample)
    for strict_ in (True, False):
        for sign in _DELIMITERS:
            widths = Counter(map(len, _rows(lines, sign, strict=strict_)))
            width, times = max(widths.items(), key=lambda one: (one[1], one[0]), default=(1, 0))
            fit = times / max(1, widths.total()) + min(width, 50) / 1000
            if width > 1 and fit > score:
                best, score = sign, fit
        if score:
            break
    return best


def _first_lines(sample: str) -> list[str]:
    """Some lines, without one that the sample cuts."""
    lines = sample[:_SAMPLE].splitlines()[:200]
    return lines[:-1] if len(lines) > 1 and len(sample) > _SAMPLE else lines


def _rows(lines: list[str], sign: str, *, strict: bool) -> list[list[str]]:
    """The rows that this sign makes; none where a quote then stands in the middle of a field."""
    try:
        return [row for row in csv.reader(lines, delimiter=sign, strict=strict) if row]
    except csv.Error:
        return [] if strict else [line.split(sign) for line in lines if line]


def dialect(raw: str) -> list[str]:
    """What is unusual in how a table is written."""
    sign = delimiter(raw)
    notes = [] if sign == "," else [f"columns are separated by {sign!r}"]
    rows = _rows(_first_lines(raw), sign, strict=False)
    cells = [cell.strip() for row in rows for cell in row]
    commas = sum(bool(_COMMA_NUMBER.fullmatch(cell)) for cell in cells)
    points = sum(bool(_POINT_NUMBER.fullmatch(cell)) for cell in cells)
    if commas > points:
        notes.append("numbers have a decimal comma")
    return notes
