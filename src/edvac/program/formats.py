"""CSV and JSON: texts to rows and back.

``csv.dump`` writes fields as they are: a text that a spreadsheet would take for a formula is not
changed.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
from decimal import Decimal
from typing import Any

from edvac.core.errors import OperandError
from edvac.core.schema import ANY, STR, DictOf, ListOf
from edvac.program.data import RecordView, shown
from edvac.program.native import Registry, Work

FORMATS = Registry()
_put = FORMATS.add
DEPTH = 60  # of JSON; the parser recurses


@_put(
    "csv.load",
    "Rows of a CSV text with a header, each a dict of texts.",
    result=ListOf(DictOf(STR)),
)
def _csv_load(work: Work, text: str, delimiter: str = ",") -> list[dict[str, str]]:
    work.make(len(text) * 4)
    rows = _rows(text, delimiter)
    head: list[str] = next(rows, [])
    if len(set(head)) < len(head):
        raise ValueError(f"the header names a column twice: {', '.join(head)[:80]}")
    made = []
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) != len(head):
            raise ValueError(f"row {number} has {len(row)} fields, the header {len(head)}")
        made.append(dict(zip(head, row, strict=True)))
    return made


@_put(
    "csv.table",
    "The same rows, but with Decimal in the columns in which every cell is a number or empty; empty"
    " cells stay empty texts.",
    result=ListOf(DictOf(ANY)),
)
def _csv_table(work: Work, text: str, delimiter: str = ",") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _csv_load(work, text, delimiter)
    for name in rows[0] if rows else ():
        cells = [row[name] for row in rows if row[name]]
        if cells and all(_NUMBER.fullmatch(cell) for cell in cells):
            for row in rows:
                row[name] = Decimal(row[name]) if row[name] else ""
    return rows


# As a number is written to be reckoned with: 007 and a phone number are names.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,9})?")


def _rows(text: str, delimiter: str) -> Any:
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    except csv.Error as problem:
        raise ValueError(f"this is not CSV: {problem}") from None


@_put(
    "csv.DictReader",
    "The rows of lines of CSV; csv.load(text) does the same in one step.",
    result=ListOf(DictOf(STR)),
)
def _dict_reader(work: Work, lines: list[str], /) -> list[dict[str, str]]:
    made: list[dict[str, str]] = _csv_load(work, "\n".join(one.rstrip("\r\n") for one in lines))
    return made


@_put(
    "csv.rows",
    "Rows of a CSV text without a header, each a list of texts.",
    result=ListOf(ListOf(STR)),
)
def _csv_rows(work: Work, text: str, delimiter: str = ",") -> list[list[str]]:
    work.make(len(text) * 4)
    return [row for row in _rows(text, delimiter) if row]


@_put(
    "csv.dump",
    "CSV text of rows: dicts, records or lists; `columns` chooses and orders.",
    result=STR,
    consumes=True,
)
def _csv_dump(work: Work, rows: list[Any], columns: list[str] | None = None) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    tables = [row.fields if isinstance(row, RecordView) else row for row in rows]
    if all(isinstance(row, dict) for row in tables):
        known = dict.fromkeys(key for row in tables for key in row)
        unknown = [name for name in columns or () if name not in known]
        if unknown and tables:  # an empty column would hide a name that is spelt wrongly
            what = f"no row has the column {unknown[0]!r}; there are {', '.join(known)}"
            if all(isinstance(row, RecordView) for row in rows):
                raise OperandError("record_lacks", what)
            raise KeyError(what)
        head = columns or list(known)
        if head:
            writer.writerow(head)
        for row in tables:
            writer.writerow([_cell(row.get(name)) for name in head])
    else:
        if columns:
            writer.writerow(columns)
        for row in tables:
            if not isinstance(row, list | tuple):
                raise TypeError(f"a row of a CSV file is {shown(row)}")
            writer.writerow([_cell(one) for one in row])
    return out.getvalue()


def _cell(data: Any) -> Any:
    if isinstance(data, list | dict | RecordView):
        return json.dumps(data, default=_jsonable, ensure_ascii=False)
    if isinstance(data, Decimal):
        return format(data, "f") if abs(data.adjusted()) < 100 else str(data)
    return data


def _json_load(work: Work, text: str, /) -> Any:
    """Data of a JSON text; numbers with a point become floats as in Python."""
    depth = 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
        if depth > DEPTH:
            raise ValueError(f"this JSON is more than {DEPTH} levels deep")
    work.make(len(text) * 4)
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _json_dump(work: Work, data: Any, /, indent: int | None = None) -> str:
    """JSON text; decimals become numbers, dates texts, records objects."""
    if indent is not None and not 0 <= indent <= 8:
        raise ValueError("indent is 0 to 8")
    return json.dumps(data, default=_jsonable, ensure_ascii=False, indent=indent, allow_nan=False)


def _jsonable(data: Any) -> Any:
    match data:
        case RecordView():
            return data.fields
        case Decimal():
            return (
                int(data)
                if data == data.to_integral_value() and abs(data) < 10**15
                else float(data)
            )
        case dt.date():
            return data.isoformat()
    raise TypeError(f"{shown(data)} has no JSON form")


for _name in ("json.load", "json.loads"):
    _put(_name, "Data of a JSON text.", result=ANY)(_json_load)
for _name in ("json.dump", "json.dumps"):
    _put(_name, "JSON text of data.", result=STR)(_json_dump)
