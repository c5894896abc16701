"""Types of the language, and what follows from one: its text, its JSON schema, a check, its
capacity in bits.

The same type is used by the verifier (what fits where), by `llm.*` (the grammar that a model
decodes under) and by the guard (how many bits an outsider can put into a value of it). Knows
nothing of grammars' formats or of models.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn, TypeAlias

from edvac.core.errors import ModelOutputError
from edvac.core.label import UNBOUNDED, Label
from edvac.core.value import (
    Cell,
    Failed,
    Instance,
    Mapping,
    Operand,
    Scalar,
    Sequence,
    Value,
    settle,
)

TEXT_CAP = 20_000  # characters in one string that a model may return
LIST_CAP = 500  # items in one list that a model may return
NUMBER_DIGITS = 1_000  # of a whole number; 1e999999999 is a short text and a number without end
_ABSENT = frozenset({"", "null", "none", "not stated"})  # what models write for `T | None`


@dataclass(frozen=True, slots=True)
class Plain:
    """An atomic type: any, none, bool, int, float, Decimal, str or date."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """``Literal[...]``: one of a fixed set of strings, numbers or booleans."""

    options: tuple[str | int | bool, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Type


@dataclass(frozen=True, slots=True)
class DictOf:
    """``dict[str, T]``; `key` is wider for dicts that a program builds itself."""

    item: Type
    key: Type = field(default_factory=lambda: Plain("str"))


@dataclass(frozen=True, slots=True)
class TupleOf:
    items: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Maybe:
    """``T | None``."""

    item: Type


@dataclass(frozen=True, slots=True)
class Quoted:
    """``Quoted[T]``: a value with the span of the source that states it; fields ``value`` and
    ``quote``."""

    item: Type


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    type: Type
    description: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A class body with annotations only."""

    name: str
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field | None:
        return next((found for found in self.fields if found.name == name), None)


Type: TypeAlias = Plain | Choice | ListOf | DictOf | TupleOf | Maybe | Quoted | Record

ANY, NONE, BOOL, INT = Plain("any"), Plain("None"), Plain("bool"), Plain("int")
FLOAT, DECIMAL, STR, DATE = Plain("float"), Plain("Decimal"), Plain("str"), Plain("date")

# A number with a point, or as it stands in a document: with thousands apart, or a decimal comma
# with at most two digits behind it. A model that could not write the comma of a 1.161,60 which it
# copies would write 1.16160.
_WRITTEN = (
    r"[0-9]{1,15}(\.[0-9]{1,6})?",
    r"[0-9]{1,3}(,[0-9]{3}){1,4}(\.[0-9]{1,6})?",
    r"[0-9]{1,3}(['’][0-9]{3}){1,4}(\.[0-9]{1,6})?",
    r"[0-9]{1,3}(\.[0-9]{3}){1,4},[0-9]{1,2}",
    r"[0-9]{1,3}( [0-9]{3}){1,4}(,[0-9]{1,2})?",
    r"[0-9]{1,12},[0-9]{1,2}",
)
_NUMBER_PATTERN = f"^-?({'|'.join(_WRITTEN)})$"
_DECIMAL_COMMA = re.compile(f"-?({'|'.join(_WRITTEN[3:])})")
_WITH_THOUSANDS = re.compile(f"-?({'|'.join(_WRITTEN[1:3])})")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_SAME_SIGNS = ("'‘’‚`´", '"“”„«»', "-‐‑‒–—")  # as classes of a regular expression


def show(kind: Type, *, fields: bool = False) -> str:
    """The type as it is written in a program; with `fields` records say what they hold."""

    def inner(part: Type) -> str:
        return show(part, fields=fields)

    match kind:
        case Plain():
            return kind.name
        case Choice():
            return f"Literal[{', '.join(map(repr, kind.options))}]"
        case ListOf():
            return f"list[{inner(kind.item)}]"
        case DictOf():
            return f"dict[{inner(kind.key)}, {inner(kind.item)}]"
        case TupleOf():
            return f"tuple[{', '.join(map(inner, kind.items))}]"
        case Maybe():
            return f"{inner(kind.item)} | None"
        case Quoted():
            return f"Quoted[{inner(kind.item)}]"
        case Record():
            held = ", ".join(f"{part.name}: {inner(part.type)}" for part in kind.fields)
            return f"{kind.name}({held})" if fields else kind.name


def capacity(kind: Type) -> float:
    """Upper bound, in bits, of the choice that a value of this type can carry (isolation notes 1.3,
    K)."""
    match kind:
        case Plain("None"):
            return 0
        case Plain("bool"):
            return 1
        case Plain("date"):
            return 20
        case Choice():
            return math.log2(len(kind.options)) if kind.options else 0
        case Maybe():
            return capacity(kind.item) + 1
        case TupleOf():
            return sum(map(capacity, kind.items))
        case Record():
            return sum(capacity(part.type) for part in kind.fields)
    return UNBOUNDED


def json_schema(kind: Type) -> dict[str, Any]:
    """JSON Schema (2020-12) that a model's answer must fit: declared order, all fields required, no
    others."""
    match kind:
        case Plain("any"):
            return {}
        case Plain("None"):
            return {"type": "null"}
        case Plain("bool"):
            return {"type": "boolean"}
        case Plain("int"):
            return {"type": "integer"}
        case Plain("float" | "Decimal"):
            # As text of bounded length: in a free number a small model writes digits for ever.
            return {"type": "string", "pattern": _NUMBER_PATTERN}
        case Plain("date"):
            return {"type": "string", "format": "date"}
        case Plain():
            return {"type": "string", "maxLength": TEXT_CAP}
        case Choice():
            return {"enum": list(kind.options)}
        case ListOf():
            return {"type": "array", "items": json_schema(kind.item), "maxItems": LIST_CAP}
        case TupleOf():
            parts = [json_schema(item) for item in kind.items]
            return {"type": "array", "prefixItems": parts, "minItems": len(parts), "items": False}
        case DictOf():
            return {"type": "object", "additionalProperties": json_schema(kind.item)}
        case Maybe():
            return {"anyOf": [json_schema(kind.item), {"type": "null"}]}
        case Quoted():
            return object_schema({"quote": {"type": "string"}, "value": json_schema(kind.item)})
        case Record():
            return object_schema({part.name: _described(part) for part in kind.fields})


def _described(part: Field) -> dict[str, Any]:
    made = json_schema(part.type)
    return {**made, "description": part.description} if part.description else made


def object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with exactly these properties, all required, in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def decode(data: Any, kind: Type, label: Label, source: str | None = None, at: str = "") -> Value:
    """A model's or device's JSON data as a value of `kind`, labelled in every part, each capped by
    its own type.

    Args:
        data: parsed JSON; numbers for Decimal should have been parsed as Decimal, not as float.
        source: the text that every `Quoted` span must occur in; it is returned as it stands there.
        at: path of the part, for messages.

    Raises:
        ModelOutputError: `at` does not fit; the message is fit to be shown to the model for a
        repair.
    """
    capped = label.cap(capacity(kind))
    match kind:
        case Plain() | Choice():
            return Scalar(_atom(data, kind, at), capped)
        case Maybe():
            if data is None or _is_absent(data, kind.item):
                return Scalar(None, capped)
            # That there is a value at all was chosen too: one bit more than the inner type has.
            return replace(decode(data, kind.item, label, source, at), label=capped)
        case ListOf():
            items = _expect(data, list, at, "a list")
            if len(items) > LIST_CAP:
                raise _misfit(at, f"a list has {len(items)} items, the cap is {LIST_CAP}")
            parts = (decode(v, kind.item, label, source, f"{at}[{i}]") for i, v in enumerate(items))
            return Sequence(tuple(parts), capped)
        case TupleOf():
            items = _expect(data, list, at, "a list")
            if len(items) != len(kind.items):
                raise _misfit(at, f"{len(kind.items)} items were expected, got {len(items)}")
            pairs = enumerate(zip(items, kind.items, strict=True))
            made = tuple(decode(v, t, label, source, f"{at}[{i}]") for i, (v, t) in pairs)
            return Sequence(made, capped, fixed=True)
        case DictOf():
            entries = _expect(data, dict, at, "an object")
            return Mapping(
                {k: decode(v, kind.item, label, source, _at(at, k)) for k, v in entries.items()},
                capped,
            )
        case Quoted():
            return _decode_quoted(data, kind, label, source, at)
        case Record():
            return _decode_record(data, kind, label, source, at)


def selected(value: Value, kind: Type) -> Value:
    """The value with every part of a `Choice` labelled as chosen, not made, by whoever influenced
    it: its text is the program's own, just as where a branch had picked it."""
    match value, kind:
        case Scalar(), Choice():
            label = value.label
            chosen = Label.of((), label.integrity, label.readers, label.bits)
            return replace(value, label=chosen)
        case _, Maybe():
            return selected(value, kind.item)
        case Sequence(), ListOf():
            return replace(value, items=tuple(_selected(item, kind.item) for item in value.items))
        case Instance(), Record():
            fields = {
                part.name: _selected(value.fields[part.name], part.type) for part in kind.fields
            }
            return replace(value, fields=fields)
    return value


def _selected(operand: Operand, kind: Type) -> Operand:
    here = settle(operand)
    return here if isinstance(here, Cell) else selected(here, kind)


def _decode_record(data: Any, kind: Record, label: Label, source: str | None, at: str) -> Value:
    entries = _expect(data, dict, at, f"an object for {kind.name}")
    missing = [part.name for part in kind.fields if part.name not in entries]
    extra = [name for name in entries if kind.field(name) is None]
    if missing or extra:
        raise _misfit(
            at, f"fields missing: {missing or 'none'}, fields not in {kind.name}: {extra or 'none'}"
        )
    fields = {
        part.name: decode(entries[part.name], part.type, label, source, _at(at, part.name))
        for part in kind.fields
    }
    return Instance(kind.name, fields, label.cap(capacity(kind)))


def _decode_quoted(data: Any, kind: Quoted, label: Label, source: str | None, at: str) -> Value:
    entries = _expect(data, dict, at, "an object with quote and value")
    if set(entries) != {"quote", "value"} or not isinstance(entries["quote"], str):
        raise _misfit(at, "a quoted value has exactly the fields quote and value")
    said = entries["quote"]
    quote = said if source is None else _span(said, source)
    if quote is None:
        raise _misfit(at, f"the quote {said[:80]!r} does not occur in the source")
    fields = {
        "value": decode(entries["value"], kind.item, label, source, _at(at, "value")),
        "quote": Scalar(quote, label),
    }
    return Instance("Quoted", fields, label)


def _span(quote: str, source: str) -> str | None:
    """The words of the source that a quote means. Where a line is broken and how an apostrophe, a
    quotation mark or a dash is printed is not what somebody said, and a model does not copy it."""
    if not quote.strip():
        return None
    if quote in source:
        return quote
    words = ("".join(map(_sign, word)) for word in quote.split())
    found = re.search(r"\s+".join(words), source)
    return found.group() if found else None


def _sign(sign: str) -> str:
    return next((f"[{same}]" for same in _SAME_SIGNS if sign in same), re.escape(sign))


def _at(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _is_absent(data: Any, kind: Type) -> bool:
    """Did a model write in words that there is nothing? Not where a choice has that very word. Of a
    value with its quote the value counts: of nothing there is nothing to quote."""
    if isinstance(kind, Quoted) and isinstance(data, dict) and data.keys() == {"quote", "value"}:
        return data["value"] is None or _is_absent(data["value"], kind.item)
    if not isinstance(data, str) or (isinstance(kind, Choice) and data in kind.options):
        return False
    return data.strip().lower() in _ABSENT


def _atom(data: Any, kind: Plain | Choice, at: str) -> Any:
    if isinstance(data, float | Decimal):
        _decimal(data, at)  # refuses NaN, which cannot even be compared, and infinity
    if isinstance(kind, Choice):
        for option in kind.options:
            if data == option and isinstance(data, bool) == isinstance(option, bool):
                return option
        raise _misfit(at, f"{data!r} is none of {', '.join(map(repr, kind.options))}")
    number = isinstance(data, int | float | Decimal) and not isinstance(data, bool)
    match kind.name:
        case "any" if data is None or isinstance(data, str | bool) or number:
            return data
        case "None" if data is None:
            return None
        case "bool" if isinstance(data, bool):
            return data
        case "int" if number:
            return _whole(data, at)
        case "float" if number or isinstance(data, str):
            made = float(_decimal(data, at))
            return made if math.isfinite(made) else _refuse_size(at)
        case "Decimal" if number or isinstance(data, str):
            return _decimal(data, at)
        case "date":
            return _date(data, at)
        case "str" if isinstance(data, str):
            if len(data) > TEXT_CAP:
                raise _misfit(at, f"a text has {len(data)} characters, the cap is {TEXT_CAP}")
            return data
    raise _misfit(at, f"{str(data)[:80]!r} is not {kind.name}")


def _whole(data: int | float | Decimal, at: str) -> int:
    made = _decimal(data, at)
    if made.adjusted() >= NUMBER_DIGITS:
        _refuse_size(at)
    if made != made.to_integral_value():
        raise _misfit(at, f"{str(data)[:80]!r} is not a whole number")
    return int(made)


def _refuse_size(at: str) -> NoReturn:
    raise _misfit(at, "the number is too large")


def _decimal(data: Any, at: str) -> Decimal:
    try:
        made = Decimal(data) if isinstance(data, int) else Decimal(_with_point(str(data)))
    except InvalidOperation:
        raise _misfit(at, f"{str(data)[:80]!r} is not a decimal number") from None
    if not made.is_finite():
        raise _misfit(at, "a number must be finite")
    return made


def _with_point(number: str) -> str:
    """A number as it may stand in a document, spelt as Python does."""
    if _WITH_THOUSANDS.fullmatch(number):
        return re.sub("[,'’]", "", number)
    if _DECIMAL_COMMA.fullmatch(number):
        return number.replace(".", "").replace(" ", "").replace(",", ".")
    return number


def _date(data: Any, at: str) -> dt.date:
    if isinstance(data, dt.date):
        return data
    if isinstance(data, str) and _DATE.fullmatch(data):
        try:
            return dt.date.fromisoformat(data)
        except ValueError:
            pass
    raise _misfit(at, f"{str(data)[:80]!r} is not a date (YYYY-MM-DD)")


def _expect(data: Any, kind: type, at: str, noun: str) -> Any:
    if not isinstance(data, kind):
        raise _misfit(at, f"{noun} was expected, got {type(data).__name__}")
    return data


def _misfit(at: str, why: str) -> ModelOutputError:
    place = f"{at}: " if at else ""
    return ModelOutputError(
        "answer_misfit", f"{place}{why}", "The answer does not fit the schema.", "Answer again."
    )


def fits(value: Value, kind: Type) -> bool:
    """Is this value one of `kind`? Used where inference left a type open until the operands were
    known."""
    if isinstance(value, Failed):
        return True
    match kind:
        case Plain("any"):
            return True
        case Plain() | Choice():
            return isinstance(value, Scalar) and _fits_atom(value.data, kind)
        case Maybe():
            return (isinstance(value, Scalar) and value.data is None) or fits(value, kind.item)
        case ListOf():
            return isinstance(value, Sequence) and all(_part(v, kind.item) for v in value.items)
        case TupleOf():
            return (
                isinstance(value, Sequence)
                and len(value.items) == len(kind.items)
                and all(_part(v, t) for v, t in zip(value.items, kind.items, strict=True))
            )
        case DictOf():
            return isinstance(value, Mapping) and all(
                fits(Scalar(k, value.label), kind.key) and _part(v, kind.item)
                for k, v in value.entries.items()
            )
        case Quoted():
            return (
                isinstance(value, Instance)
                and value.record == "Quoted"
                and _part(value.fields["value"], kind.item)
            )
        case Record():
            return (
                isinstance(value, Instance)
                and value.record == kind.name
                and all(
                    part.name in value.fields and _part(value.fields[part.name], part.type)
                    for part in kind.fields
                )
            )


def _part(operand: Any, kind: Type) -> bool:
    here = settle(operand)
    return not isinstance(here, Scalar | Sequence | Mapping | Instance) or fits(here, kind)


def _fits_atom(data: Any, kind: Plain | Choice) -> bool:
    if isinstance(kind, Choice):
        return any(data == o and type(data) is type(o) for o in kind.options)
    match kind.name:
        case "None":
            return data is None
        case "int" | "bool":
            return type(data).__name__ == kind.name
        case "float":
            return isinstance(data, float | int) and not isinstance(data, bool)
        case "Decimal":
            return isinstance(data, Decimal | int) and not isinstance(data, bool)
        case "str":
            return isinstance(data, str)
    return isinstance(data, dt.date)
