"""Rows: grouping, sums, joins and order over lists of dicts or records.

Sums of decimals stay decimals. A field that a row lacks is an error, never a blank.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import Any

from edvac.core.errors import OperandError
from edvac.core.schema import ANY, INT, DictOf, ListOf, Type
from edvac.core.value import Operand, Sequence, Value
from edvac.program.basics import MISSING, item_type, ordered, same_items
from edvac.program.containers import elements
from edvac.program.data import RecordView, key_refused, python, shown, value
from edvac.program.native import Mode, Registry, Work
from edvac.program.operate import binary

TABLES = Registry()
_put = TABLES.add
AGGREGATE = "Aggregate"  # how sum_of("total") travels: a record that no program can declare
ROWS = ListOf(DictOf(ANY))


def field_of(row: Any, name: str) -> Any:
    """A field of a dict or record.

    Raises:
        OperandError: the row has no such field, or is no row.
    """
    fields = row.fields if isinstance(row, RecordView) else row
    if not isinstance(fields, dict):
        raise OperandError("row_unfit", f"a row is {shown(row)}", "Rows are records or dicts.")
    if name not in fields:
        known = ", ".join(map(str, fields)) or "none"
        code = "record_lacks" if isinstance(row, RecordView) else "field_missing"
        raise OperandError(code, f"a row has no field {name!r}", f"It has: {known}.")
    return fields[name]


def _aggregate(kind: str) -> Callable[..., Any]:
    def run(work: Work, field: str, /) -> RecordView:
        return RecordView(AGGREGATE, {"kind": kind, "field": field})

    return run


for _kind, _doc in {
    "sum_of": "In group(): the sum of a field; None and empty cells count as nothing.",
    "min_of": "In group(): the smallest value of a field.",
    "max_of": "In group(): the largest value of a field.",
    "mean_of": "In group(): the mean of a field.",
    "list_of": "In group(): the list of a field's values.",
    "first_of": "In group(): the first value of a field.",
}.items():
    _put(_kind, _doc)(_aggregate(_kind))


@_put("count", "In group(): the number of rows.")
def _count(work: Work) -> RecordView:
    return RecordView(AGGREGATE, {"kind": "count", "field": ""})


def total_of(work: Work, values: Iterable[Any]) -> Any:
    """The sum, 0 for nothing; text is refused, it is joined and not summed."""
    total: Any = 0
    for one in values:
        if isinstance(one, str | bool) or one is None:
            raise OperandError(
                "sum_unfit",
                f"{shown(one)} cannot be summed",
                "Only numbers can.",
                "Convert the field first, for example with Decimal(...).",
            )
        total = binary(ast.Add, total, one, work.fuel, work.line)
    return total


def _computed(work: Work, found: RecordView, rows: list[Any]) -> Any:
    kind, name = found.fields["kind"], found.fields["field"]
    if kind == "count":
        return len(rows)
    values = [field_of(row, name) for row in rows]
    if kind in ("sum_of", "min_of", "max_of", "mean_of"):
        # As SQL does: what is missing is no number, be it None or an empty cell of a table.
        values = [one for one in values if one is not None and one != ""]
        if not values:
            return None
    match kind:
        case "sum_of":
            return total_of(work, values)
        case "min_of":
            return min(values)
        case "max_of":
            return max(values)
        case "mean_of":
            return binary(ast.Div, total_of(work, values), len(values), work.fuel, work.line)
        case "first_of":
            return values[0]
    return values


@_put(
    "group",
    "One row for each distinct value of the fields `by`, with an aggregate for each keyword.",
    result=ROWS,
    consumes=True,
)
def _group(work: Work, rows: list[Any], /, by: Any, **aggregates: Any) -> list[dict[str, Any]]:
    names = [by] if isinstance(by, str) else list(by)
    for name, found in aggregates.items():
        if not isinstance(found, RecordView) or found.name != AGGREGATE:
            raise OperandError(
                "aggregate_unfit",
                f"{name} is not an aggregate",
                "",
                'Write for example total=sum_of("total") or n=count().',
            )
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        key = tuple(_atom(field_of(row, name)) for name in names)
        groups.setdefault(key, []).append(row)
    made = []
    for key, members in groups.items():
        work.make(32 * (len(names) + len(aggregates)) + 16 * len(members) * len(aggregates))
        results = {name: _computed(work, found, members) for name, found in aggregates.items()}
        made.append({**dict(zip(names, key, strict=True)), **results})
    return made


def _atom(data: Any) -> Any:
    if isinstance(data, list | dict | RecordView):
        raise key_refused(data)
    return data


@_put("row_of", "A dict of the given fields and then those of a record.", result=DictOf(ANY))
def _row_of(work: Work, record: Any, /, **more: Any) -> dict[str, Any]:
    fields = record.fields if isinstance(record, RecordView) else record
    if not isinstance(fields, dict):
        raise OperandError("row_unfit", f"a row is {shown(record)}", "Rows are records or dicts.")
    return {**more, **{name: part for name, part in fields.items() if name not in more}}


@_put("total", "Sum of the elements, or of a field of the rows.", consumes=True)
def _total(work: Work, rows: list[Any], field: str | None = None, /) -> Any:
    return total_of(work, rows if field is None else [field_of(row, field) for row in rows])


@_put(
    "sort_by",
    "The rows in order of a field, of a list of fields, or of a function.",
    mode=Mode.VALUE,
    result=same_items,
    calls=("key",),
    consumes=True,
)
def _sort_by(work: Work, rows: Value, key: Any, reverse: Any = MISSING) -> Value:
    ranked = _key_of(work, key)
    return Sequence(tuple(ordered(work, elements(rows), ranked, reverse)), work.label)


def _key_of(work: Work, key: Any) -> Callable[[Operand], Operand]:
    """A function that gives what is compared: of a function, a field's name, or several names;
    without any, the element itself."""
    if callable(key):
        return key  # type: ignore[no-any-return]
    fields = None if key is None else python(key)
    if fields is None:
        return lambda row: row
    names = [fields] if isinstance(fields, str) else fields

    def told(row: Operand) -> Value:
        data = python(row)
        return value(tuple(field_of(data, name) for name in names), work.label)

    return told


@_put(
    "unique",
    "The elements without those that came before, in order; `key` is a field, a list of fields or "
    "a function, of which the values are compared.",
    mode=Mode.VALUE,
    result=same_items,
    calls=("key",),
    consumes=True,
)
def _unique(work: Work, values: Value, key: Any = None) -> Value:
    seen: set[Any] = set()
    kept = []
    told = _key_of(work, key)
    for one in elements(values):
        mark = _frozen(python(told(one)))
        if mark not in seen:
            seen.add(mark)
            kept.append(one)
    return Sequence(tuple(kept), work.label)


def _frozen(data: Any) -> Any:
    """Something hashable that is equal exactly where the data is."""
    match data:
        case list() | tuple():
            return (type(data).__name__, *map(_frozen, data))
        case dict():
            return ("dict", frozenset((key, _frozen(one)) for key, one in data.items()))
        case RecordView():
            return (data.name, *((key, _frozen(one)) for key, one in data.fields.items()))
    return data


@_put(
    "join",
    "Rows of two tables with equal values in the fields `on`, put together; "
    'how="left" keeps rows without a partner.',
    result=ROWS,
)
def _join(
    work: Work, left: list[Any], right: list[Any], /, on: Any, how: str = "inner"
) -> list[dict[str, Any]]:
    if how not in ("inner", "left"):
        raise OperandError("join_unfit", f"how={how!r}", 'how is "inner" or "left".')
    names = [on] if isinstance(on, str) else list(on)
    partners: dict[Any, list[dict[str, Any]]] = {}
    columns: dict[str, None] = {}
    for row in right:
        key = tuple(_atom(field_of(row, name)) for name in names)
        fields = _fields(row)
        partners.setdefault(key, []).append(fields)
        columns.update(dict.fromkeys(fields))
    made: list[dict[str, Any]] = []
    blank = dict.fromkeys(columns)
    for row in left:
        key = tuple(_atom(field_of(row, name)) for name in names)
        found = partners.get(key) or ([blank] if how == "left" else [])
        work.make(32 * len(found) * max(len(columns), 1))
        fields = _fields(row)
        made.extend({**one, **fields} for one in found)
    return made


def _fields(row: Any) -> dict[str, Any]:
    return dict(row.fields) if isinstance(row, RecordView) else dict(row)


def _nested(args: Any) -> Type:
    return ListOf(ListOf(item_type(args[0]) if args else ANY))


@_put("chunk", "Lists of at most `size` elements, in order.", mode=Mode.SHAPE, result=_nested)
def _chunk(work: Work, values: Value, size: Value, /) -> Value:
    step = python(size)
    if not isinstance(step, int) or step < 1:
        raise ValueError("a chunk has at least one element")
    items = elements(values)
    work.make(16 * len(items))
    parts = (tuple(items[at : at + step]) for at in range(0, len(items), step))
    return Sequence(tuple(Sequence(part, work.label) for part in parts), work.label)


@_put(
    "flatten",
    "The elements of the lists, in one list.",
    mode=Mode.VALUE,
    result=lambda args: ListOf(item_type(item_type(args[0])) if args else ANY),
    consumes=True,
)
def _flatten(work: Work, lists: Value, /) -> Value:
    items = [one for part in elements(lists) for one in elements(part)]  # type: ignore[arg-type]
    work.make(16 * len(items))
    return Sequence(tuple(items), work.label)


@_put(
    "tally",
    "How often each element occurs, most frequent first.",
    result=DictOf(INT, ANY),
    consumes=True,
)
def _tally(work: Work, values: list[Any], /) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for one in values:
        found[_atom(one)] = found.get(one, 0) + 1
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
