"""A type's schema, its decoder, its check and its capacity agree, and refuse what does not fit."""

from __future__ import annotations

import datetime as dt
import itertools
import re
from decimal import Decimal
from typing import Any

import pytest
from core_kit import SOURCE, answered, labels, types
from hypothesis import given
from hypothesis import strategies as st

from edvac.core.errors import ModelOutputError
from edvac.core.label import PUBLIC, UNBOUNDED, USER, Label
from edvac.core.schema import (
    ANY,
    BOOL,
    DATE,
    DECIMAL,
    FLOAT,
    INT,
    LIST_CAP,
    NONE,
    NUMBER_DIGITS,
    STR,
    TEXT_CAP,
    Choice,
    DictOf,
    Field,
    ListOf,
    Maybe,
    Plain,
    Quoted,
    Record,
    TupleOf,
    Type,
    capacity,
    decode,
    fits,
    json_schema,
    show,
)
from edvac.core.value import (
    Cell,
    Failed,
    Instance,
    Mapping,
    Scalar,
    Sequence,
    Value,
    children,
    lift,
    plain,
)

BAD = Label.of(["model:m"], bits=UNBOUNDED)
ROW = Record("Row", (Field("name", STR, "who it is"), Field("n", INT)))


def admits(schema: dict[str, Any], data: Any) -> bool:
    """JSON Schema's own rules, for the keywords that schemas of types use."""
    known = {"type", "enum", "pattern", "format", "maxLength", "items", "maxItems", "prefixItems"}
    known |= {"minItems", "additionalProperties", "anyOf", "properties", "required", "description"}
    assert set(schema) <= known
    if "anyOf" in schema:
        return any(admits(one, data) for one in schema["anyOf"])
    if "enum" in schema:
        return any(type(data) is type(one) and data == one for one in schema["enum"])
    match schema.get("type"):
        case "null":
            return data is None
        case "boolean":
            return isinstance(data, bool)
        case "integer":
            return isinstance(data, int) and not isinstance(data, bool)
        case "string":
            return isinstance(data, str) and _admits_text(schema, data)
        case "array":
            return isinstance(data, list) and _admits_items(schema, data)
        case "object":
            return isinstance(data, dict) and _admits_fields(schema, data)
    return True


def _admits_text(schema: dict[str, Any], data: str) -> bool:
    if schema.get("format") == "date":
        return re.fullmatch(r"\d{4}-\d{2}-\d{2}", data) is not None
    fit = re.search(schema.get("pattern", ""), data) is not None
    return fit and len(data) <= schema.get("maxLength", len(data))


def _admits_items(schema: dict[str, Any], data: list[Any]) -> bool:
    if not schema.get("minItems", 0) <= len(data) <= schema.get("maxItems", len(data)):
        return False
    first = schema.get("prefixItems", [])
    if schema["items"] is False:
        rest = len(data) <= len(first)
    else:
        rest = all(admits(schema["items"], one) for one in data[len(first) :])
    return rest and all(itertools.starmap(admits, zip(first, data, strict=False)))


def _admits_fields(schema: dict[str, Any], data: dict[str, Any]) -> bool:
    properties = schema.get("properties", {})
    if not set(schema.get("required", ())) <= set(data):
        return False
    others = schema["additionalProperties"]
    return all(
        admits(properties[key], one)
        if key in properties
        else others is not False and admits(others, one)
        for key, one in data.items()
    )


def parts(value: Value) -> list[Value]:
    return [value, *(part for child in children(value) for part in parts(child))]  # type: ignore


def meant(kind: Type, data: Any) -> Any:
    """The Python data that an answer stands for."""
    match kind:
        case Plain("Decimal"):
            return Decimal(str(data))
        case Plain("float"):
            return float(data)
        case Plain("date"):
            return dt.date.fromisoformat(data)
        case Maybe():
            return None if data is None else meant(kind.item, data)
        case ListOf():
            return [meant(kind.item, one) for one in data]
        case TupleOf():
            return tuple(map(meant, kind.items, data))
        case DictOf():
            return {key: meant(kind.item, one) for key, one in data.items()}
        case Quoted():
            return {"value": meant(kind.item, data["value"]), "quote": data["quote"]}
        case Record():
            return {part.name: meant(part.type, data[part.name]) for part in kind.fields}
    return data


@given(answered())
def test_every_answer_of_a_type_is_admitted_decodes_and_fits(pair: tuple[Type, Any]) -> None:
    kind, data = pair
    assert admits(json_schema(kind), data)
    value = decode(data, kind, BAD, SOURCE)
    assert fits(value, kind) and plain(value) == meant(kind, data)
    assert fits(decode(data, Maybe(kind), BAD, SOURCE), Maybe(kind))


@given(answered(), types)
def test_what_decodes_as_another_type_fits_that(pair: tuple[Type, Any], kind: Type) -> None:
    _, data = pair
    try:
        value = decode(data, kind, BAD, SOURCE)
    except ModelOutputError as error:
        assert error.code == "answer_misfit" and error.what
        return
    assert fits(value, kind)


@given(answered(), labels)
def test_every_part_is_labelled_and_capped_by_its_own_type(
    pair: tuple[Type, Any], label: Label
) -> None:
    kind, data = pair
    value = decode(data, kind, label, SOURCE)
    assert value.label is label.cap(capacity(kind))
    for part in parts(value):
        assert part.label.cap(0) is label.cap(0) and part.label.bits <= label.bits


def test_a_part_has_the_bits_of_its_own_type_and_not_of_the_whole() -> None:
    kind = Record("R", (Field("sure", BOOL), Field("when", Maybe(DATE)), Field("why", STR)))
    made = decode({"sure": True, "when": "2026-01-01", "why": "a"}, kind, BAD)
    assert isinstance(made, Instance)
    assert [part.label.bits for part in made.fields.values()] == [1, 21, UNBOUNDED]


def test_whether_there_is_a_value_is_a_choice_too() -> None:
    only = Maybe(Choice(("yes",)))
    assert decode("yes", only, BAD).label.bits == decode(None, only, BAD).label.bits == 1


@given(st.integers(1, 200), st.integers(1, 5))
def test_capacity_is_the_number_of_possible_values_in_bits(options: int, size: int) -> None:
    choice = Choice(tuple(range(options)))
    assert 2 ** capacity(choice) == pytest.approx(options)
    assert 2 ** capacity(Maybe(choice)) >= options + 1
    row = Record("R", tuple(Field(f"f{n}", choice) for n in range(size)))
    assert 2 ** capacity(row) == pytest.approx(options**size)
    assert capacity(TupleOf((choice,) * size)) == pytest.approx(capacity(row))
    assert capacity(BOOL) == 1 and capacity(NONE) == 0
    assert 2 ** capacity(DATE) >= dt.date.max.toordinal() / 4, "every date of 2,500 years"


@given(types)
def test_what_has_no_bound_has_no_finite_capacity(kind: Type) -> None:
    def free(one: Type) -> bool:
        match one:
            case Plain():
                return one in (ANY, INT, FLOAT, DECIMAL, STR)
            case Choice():
                return False
            case Maybe():
                return free(one.item)
            case TupleOf():
                return any(map(free, one.items))
            case Record():
                return any(free(part.type) for part in one.fields)
        return True

    assert (capacity(kind) == UNBOUNDED) is free(kind)


@given(types)
def test_schemas_leave_nothing_open(kind: Type) -> None:
    """All fields required in declared order, no others; lists, texts and numbers are bounded."""

    def check(one: dict[str, Any]) -> None:
        if one.get("type") == "object" and "properties" in one:
            assert one["required"] == list(one["properties"])
            assert one["additionalProperties"] is False
        if one.get("type") == "array":
            assert "maxItems" in one or one["items"] is False
        for inner in (*one.get("properties", {}).values(), *one.get("anyOf", ())):
            check(inner)

    check(json_schema(kind))
    if isinstance(kind, Record):
        assert list(json_schema(kind)["properties"]) == [part.name for part in kind.fields]


def test_a_comment_is_the_description_of_its_field() -> None:
    made = json_schema(ROW)["properties"]
    assert made["name"]["description"] == "who it is" and "description" not in made["n"]


MISFITS: list[tuple[Type, Any, str]] = [
    (INT, "1", ""),
    (INT, True, ""),
    (INT, 1.5, ""),
    (INT, Decimal("1.5"), ""),
    (INT, float("inf"), ""),
    (INT, float("nan"), ""),
    (INT, Decimal("sNaN"), ""),
    (INT, Decimal("1e999999999"), ""),
    (INT, Decimal(f"1e{NUMBER_DIGITS}"), ""),
    (INT, 10**NUMBER_DIGITS, ""),
    (INT, None, ""),
    (FLOAT, "x", ""),
    (FLOAT, "nan", ""),
    (FLOAT, "1e400", ""),
    (FLOAT, Decimal("1e999999"), ""),
    (FLOAT, True, ""),
    (DECIMAL, "1,5000", ""),
    (DECIMAL, "1,5,5", ""),
    (DECIMAL, "1.161.60", ""),
    (DECIMAL, "12.34,5", ""),
    (DECIMAL, "Infinity", ""),
    (DECIMAL, "", ""),
    (DECIMAL, [], ""),
    (STR, 5, ""),
    (STR, None, ""),
    (STR, "a" * (TEXT_CAP + 1), ""),
    (BOOL, 1, ""),
    (BOOL, "true", ""),
    (NONE, False, ""),
    (DATE, "2026-02-30", ""),
    (DATE, "2026-2-3", ""),
    (DATE, "20260203", ""),
    (DATE, 2026, ""),
    (ANY, float("nan"), ""),
    (ANY, Decimal("Infinity"), ""),
    (ANY, [], ""),
    (Choice(("a", "b")), "c", ""),
    (Choice((1, 2)), True, ""),
    (Choice((True,)), 1, ""),
    (Choice((1, 2)), Decimal("sNaN"), ""),
    (ListOf(INT), {}, ""),
    (ListOf(INT), "12", ""),
    (ListOf(INT), [1, "2"], "[1]: "),
    (ListOf(INT), [0] * (LIST_CAP + 1), ""),
    (ListOf(ListOf(INT)), [[], [1, None]], "[1][1]: "),
    (TupleOf((INT, STR)), [1], ""),
    (TupleOf((INT, STR)), [1, "a", "b"], ""),
    (TupleOf((INT, STR)), [1, 2], "[1]: "),
    (TupleOf((INT, STR)), {"a": 1}, ""),
    (DictOf(INT), [], ""),
    (DictOf(INT), {"a": 1, "b": "2"}, "b: "),
    (ROW, [], ""),
    (ROW, {"name": "a"}, ""),
    (ROW, {"name": "a", "n": 1, "x": 2}, ""),
    (ROW, {"name": "a", "n": "1"}, "n: "),
    (ListOf(ROW), [{"name": "a", "n": 1}, {"name": 5, "n": 1}], "[1].name: "),
    (Record("T", (Field("rows", ListOf(ROW)),)), {"rows": [{"name": "a", "n": []}]}, "rows[0].n: "),
    (Record("T", (Field("by", DictOf(ROW)),)), {"by": {"k": {"name": 1, "n": 1}}}, "by.k.name: "),
    (Maybe(INT), "x", ""),
    (Maybe(ROW), {"name": None, "n": 1}, "name: "),
    (Quoted(INT), 5, ""),
    (Quoted(INT), {"value": 1}, ""),
    (Quoted(INT), {"value": 1, "quote": 5}, ""),
    (Quoted(INT), {"value": 1, "quote": "price", "x": 1}, ""),
    (Quoted(INT), {"value": 1, "quote": "not in the source"}, ""),
    (Quoted(INT), {"value": 1, "quote": ""}, ""),
    (Quoted(INT), {"value": 1, "quote": " "}, ""),
    (Quoted(INT), {"value": "x", "quote": "price"}, "value: "),
    (ListOf(Quoted(INT)), [{"value": 1, "quote": "elsewhere"}], "[0]: "),
]


@pytest.mark.parametrize(("kind", "data", "place"), MISFITS, ids=lambda one: repr(one)[:40])
def test_misfits_are_refused_and_the_place_is_named(kind: Type, data: Any, place: str) -> None:
    with pytest.raises(ModelOutputError) as caught:
        decode(data, kind, BAD, SOURCE)
    assert caught.value.code == "answer_misfit"
    assert caught.value.what.startswith(place) and not caught.value.what.startswith(".")
    inner, _, said = caught.value.what.rpartition(": ")
    assert place or not re.match(r"^[\w.\[\]]+$", inner), f"{inner} is named, {said}"


def test_missing_and_foreign_fields_are_named() -> None:
    with pytest.raises(ModelOutputError, match=r"missing: \['n'\].*not in Row: \['x', 'y'\]"):
        decode({"name": "a", "x": 1, "y": 2}, ROW, BAD)


@pytest.mark.parametrize(
    ("said", "stands"),
    [
        ("paid by 3 May", "paid by\n3 May"),
        ('she said "don\'t"', "she said “don’t”"),
        ("3-4 days", "3–4 days"),
        ("(net) 30+ days.", "(net)  30+ days."),
    ],
)
def test_a_quote_is_the_words_as_they_stand_in_the_source(said: str, stands: str) -> None:
    source = f"It is {stands} and ends."
    value = decode([{"quote": said, "value": 1}], ListOf(Quoted(INT)), BAD, source)
    assert plain(value) == [{"value": 1, "quote": stands}]
    for other in (said.replace("d", "t"), f"{said} net", said.replace(" ", "", 1)):
        with pytest.raises(ModelOutputError, match="does not occur"):
            decode([{"quote": other, "value": 1}], ListOf(Quoted(INT)), BAD, source)


@pytest.mark.parametrize(
    ("kind", "data", "wanted"),
    [
        (INT, 3.0, 3),
        (INT, Decimal("4.00"), 4),
        (INT, Decimal(f"1e{NUMBER_DIGITS - 1}"), 10 ** (NUMBER_DIGITS - 1)),
        (INT, 10 ** (NUMBER_DIGITS - 1), 10 ** (NUMBER_DIGITS - 1)),
        (FLOAT, Decimal("0.1"), 0.1),
        (FLOAT, 1, 1.0),
        (DECIMAL, 0.1, Decimal("0.1")),
        (DECIMAL, 3, Decimal(3)),
        (DATE, dt.date(2026, 1, 2), dt.date(2026, 1, 2)),
        (STR, "a" * TEXT_CAP, "a" * TEXT_CAP),
        (Choice((1, "a")), Decimal(1), 1),
        (Maybe(INT), "not stated", None),
        (Maybe(Quoted(STR)), {"quote": "not there", "value": "null"}, None),
        (Maybe(Quoted(INT)), {"quote": "", "value": None}, None),
        (Maybe(STR), " None ", None),
        (Maybe(STR), "", None),
        (Maybe(STR), "none at all", "none at all"),
        (Maybe(Choice(("none", "some"))), "none", "none"),
        (Maybe(Choice(("some",))), "none", None),
        (ListOf(INT), [0] * LIST_CAP, [0] * LIST_CAP),
    ],
    ids=lambda one: repr(one)[:40],
)
def test_what_models_write_is_read_as_it_is_meant(kind: Type, data: Any, wanted: Any) -> None:
    found = plain(decode(data, kind, BAD))
    assert found == wanted and type(found) is type(wanted)


def test_the_quoted_span_and_what_it_states_both_come_back() -> None:
    made = decode({"quote": "12.50", "value": "12.50"}, Quoted(DECIMAL), BAD, SOURCE)
    assert isinstance(made, Instance) and made.record == "Quoted"
    assert plain(made) == {"value": Decimal("12.50"), "quote": "12.50"}
    assert made.fields["quote"].label is BAD, "a span is free text"
    free = decode({"quote": "not there", "value": "1"}, Quoted(DECIMAL), BAD, source=None)
    assert plain(free)["quote"] == "not there"


UNFIT: list[tuple[Type, Value]] = [
    (INT, lift(True, USER)),
    (INT, lift(1.0, USER)),
    (INT, lift([1], USER)),
    (BOOL, lift(1, USER)),
    (NONE, lift(0, USER)),
    (FLOAT, lift(True, USER)),
    (FLOAT, lift(Decimal(1), USER)),
    (DECIMAL, lift(1.0, USER)),
    (DECIMAL, lift(True, USER)),
    (STR, lift(None, USER)),
    (DATE, lift("2026-01-01", USER)),
    (Choice(("a", 1)), lift("b", USER)),
    (Choice(("a", 1)), lift(True, USER)),
    (Choice(("a", 1)), lift(["a"], USER)),
    (Maybe(INT), lift("", USER)),
    (ListOf(INT), lift([1, "a"], USER)),
    (ListOf(INT), lift({}, USER)),
    (TupleOf((INT, STR)), lift((1,), USER)),
    (TupleOf((INT, STR)), lift((1, 2), USER)),
    (DictOf(INT), lift({"a": "b"}, USER)),
    (DictOf(INT), lift({1: 1}, USER)),
    (DictOf(INT, INT), lift({"a": 1}, USER)),
    (DictOf(INT), lift([], USER)),
    (ROW, Instance("Row", {"name": Scalar("a", USER), "n": Scalar("1", USER)}, USER)),
    (ROW, Instance("Row", {"name": Scalar("a", USER)}, USER)),
    (ROW, Instance("Other", {"name": Scalar("a", USER), "n": Scalar(1, USER)}, USER)),
    (ROW, lift({"name": "a", "n": 1}, USER)),
    (Quoted(INT), Instance("Row", {"value": Scalar(1, USER), "quote": Scalar("", USER)}, USER)),
    (Quoted(INT), Instance("Quoted", {"value": Scalar("1", USER)}, USER)),
    (Quoted(INT), lift(1, USER)),
]


@pytest.mark.parametrize(("kind", "value"), UNFIT, ids=lambda one: repr(one)[:40])
def test_values_of_another_type_do_not_fit(kind: Type, value: Value) -> None:
    assert not fits(value, kind)
    assert not fits(Sequence((value,), USER), ListOf(kind)) and fits(value, ANY)
    assert fits(value, Maybe(kind)) is (plain(value) is None)


@given(types)
def test_what_failed_or_is_pending_inside_is_judged_later(kind: Type) -> None:
    failed = Failed("slot", "code", "what", USER)
    assert fits(failed, kind)
    assert fits(Sequence((Cell(), failed), USER), ListOf(kind))
    assert fits(Mapping({"a": Cell()}, USER), DictOf(kind))
    settled = Cell()
    settled.resolve(Instance("Nothing", {}, USER))
    assert not fits(Sequence((settled,), USER), ListOf(INT))


@given(answered())
def test_a_wider_number_admits_a_whole_one(pair: tuple[Type, Any]) -> None:
    value = Scalar(3, PUBLIC)
    assert fits(value, FLOAT) and fits(value, DECIMAL) and fits(value, INT)
    assert fits(decode(pair[1], pair[0], BAD, SOURCE), ANY)


@given(types, types)
def test_types_are_written_apart(left: Type, right: Type) -> None:
    """Records go by their names, everything else by its text."""

    def bare(kind: Type) -> Any:
        match kind:
            case Record():
                return kind.name
            case ListOf() | Maybe() | Quoted():
                return (type(kind).__name__, bare(kind.item))
            case DictOf():
                return ("dict", bare(kind.key), bare(kind.item))
            case TupleOf():
                return ("tuple", *map(bare, kind.items))
            case Choice():
                return ("choice", *map(repr, kind.options))
        return kind.name

    assert (show(left) == show(right)) is (bare(left) == bare(right))


@pytest.mark.parametrize("thousands, point", [(",", "."), ("'", "."), (".", ","), (" ", ",")])
@given(number=st.decimals(-(10**9), 10**9, places=2))
def test_a_number_is_read_as_documents_spell_it(
    number: Decimal, thousands: str, point: str
) -> None:
    signs = str.maketrans({",": thousands, ".": point})
    spelt = f"{number:,.2f}".translate(signs)
    assert re.search(json_schema(DECIMAL)["pattern"], spelt)
    assert decode(spelt, DECIMAL, BAD).data == number
    apart = f"{int(number):,}".translate(signs)
    assert thousands == "." or decode(apart, DECIMAL, BAD).data == int(number)
