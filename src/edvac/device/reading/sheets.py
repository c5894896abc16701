"""Spreadsheets to text: a sheet as CSV, dates in ISO form, numbers as decimals, formulas by their
stored results."""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
import zipfile
from decimal import Decimal
from typing import Any

from edvac.device.reading.marks import MAX_TEXT, NO_TEXT, Reading, Section, label
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import Source

_NO_RESULT = re.compile(rb"(?:</f>|<f[^>]{0,200}/>)(?:<v\s*/>|<v></v>)?</c>")
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")


def names(source: Source) -> list[str]:
    """The names of the sheets, in order."""
    return [str(name) for name in _opened(source).sheet_names]


def read_sheets(source: Source, only: str | None = None) -> Reading:
    """All sheets, each below its mark, or one by its name."""
    book = _opened(source)
    found = Reading()
    hidden = _hidden(book)
    every = [str(name) for name in book.sheet_names]
    if only is not None and only not in every:
        raise Unreadable(f"it has no sheet {only!r}", "part_unknown")
    for name in every if only is None else [only]:
        text = _table(book, name, found.notes)
        found.sections.append(
            Section(text, f"sheet {label(name)}", "" if text.strip() else NO_TEXT)
        )
        if not text.strip():
            found.notes.append(f"no text on sheet {label(name)}")
        if name in hidden:
            found.notes.append(f"sheet {label(name)} is hidden in the file")
    missing = _unsaved(source)
    if missing:
        found.notes.append(
            f"{missing} formulas have no stored result and are empty: open and save the file in a "
            "spreadsheet program"
        )
    return found


def _table(book: Any, name: str, notes: list[str]) -> str:
    sheet = _typed(book.get_sheet_by_name, name)
    rows = _typed(sheet.to_python, skip_empty_area=False)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        cells = [_cell(value) for value in row]
        if any(cells):
            writer.writerow(cells)
        if out.tell() > MAX_TEXT:
            raise Unreadable(f"sheet {label(name)} alone has more than {MAX_TEXT:,} characters",
                             "too_large")  # fmt: skip
    merged = getattr(sheet, "merged_cell_ranges", None) or []
    if merged:
        said = "merged cells, whose value stands in the first"
        notes.append(f"sheet {label(name)}: {len(merged)} {said}")
    return out.getvalue()


def _cell(value: Any) -> str:
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return str(value)
        case float():
            return _number(value)
        case dt.datetime():
            midnight = value.time() == dt.time()
            return value.date().isoformat() if midnight else value.isoformat(sep=" ")
        case dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            seconds = round(value.total_seconds())
            return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        case None:
            return ""
    return str(value).strip()


def _number(value: float) -> str:
    """As a spreadsheet shows it: to 15 digits, without an exponent where that stays short."""
    text = f"{value:.15g}"
    if "e" in text and 1e-9 < abs(value) < 1e21:
        text = format(Decimal(text), "f")
    return text


def _hidden(book: Any) -> set[str]:
    found = set()
    for sheet in getattr(book, "sheets_metadata", []):
        if "Visible" not in str(getattr(sheet, "visible", "Visible")).rpartition(".")[2]:
            found.add(str(sheet.name))
    return found


def _unsaved(source: Source) -> int:
    """Formulas that nobody has computed: their cells would only look empty."""
    if not source.head.startswith(b"PK"):
        return 0
    count = 0
    with zipfile.ZipFile(source.file()) as archive:
        for name in filter(_SHEET.fullmatch, archive.namelist()):
            tail = b""
            with archive.open(name) as file:
                while block := file.read(1 << 20):
                    count += len(_NO_RESULT.findall(tail + block))
                    tail = block[-40:]
                    count -= len(_NO_RESULT.findall(tail))  # counted again with the next block
                count += len(_NO_RESULT.findall(tail))
    return count


def _opened(source: Source) -> Any:
    try:
        from python_calamine import CalamineWorkbook
    except ImportError as problem:
        raise Unreadable("spreadsheets need python-calamine", "library_missing") from problem
    return _typed(CalamineWorkbook.from_filelike, io.BytesIO(source.whole()))


def _typed(function: Any, *given: Any, **more: Any) -> Any:
    from python_calamine import CalamineError, PasswordError

    try:
        return function(*given, **more)
    except PasswordError as problem:
        raise Unreadable("it is a spreadsheet with a password", "encrypted") from problem
    except CalamineError as problem:
        raise Unreadable(f"it is a broken spreadsheet ({str(problem)[:200]})") from problem
