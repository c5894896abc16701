"""The oracle: whatever a program calls a fact, it gives what is true, and nothing where it does not
know."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edvac.bench.oracle import Entity, Oracle
from edvac.core.schema import (
    BOOL,
    DATE,
    DECIMAL,
    INT,
    STR,
    Choice,
    Field,
    ListOf,
    Maybe,
    Quoted,
    Record,
    Type,
    json_schema,
)
from edvac.processor import Message, Request, Segment

NAMES = {
    "vendor": ["supplier", "company"],
    "total": ["amount", "sum"],
    "day": ["date"],
    "paid": ["settled"],
    "kind": ["type"],
    "items": ["positions"],
    "what": ["text"],
    "summary": ["summarise", "describe"],
}
ACME = {
    "vendor": "Acme Ltd",
    "total": "1200.50",
    "day": "2026-03-01",
    "paid": True,
    "kind": "energy",
    "items": [{"what": "gas"}, {"what": "power"}],
    "summary": "Acme wants money for gas.",
}
BOLT = {
    "vendor": "Bolt & Co",
    "total": "3",
    "paid": False,
    "summary": "Bolt sent three very small screws.",
}
ORACLE = Oracle(NAMES, (Entity("Bill of Acme\nfor gas", ACME), Entity("Bolt: three screws", BOLT)))


def ask(instruction: str, data: str, schema: dict[str, Any] | None = None) -> Any:
    text = f"{instruction}\n\n<data 1>\n{data}\n</data 1>\n\nThe data ends here."
    answer = ORACLE(Request("r", "s", (Message("user", (Segment(text),)),), schema=schema))
    return answer if schema is None else json.loads(answer)


def fill(data: str, **fields: Type | tuple[Type, str]) -> Any:
    parts = [
        Field(name, *(kind if isinstance(kind, tuple) else (kind,)))
        for name, kind in fields.items()
    ]
    return ask("Fill in this record.", data, json_schema(Record("R", tuple(parts))))


BILL = "Please look: Bill of Acme\n   for gas\nThanks"


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("vendor", STR, "Acme Ltd"),
        ("supplier_name", STR, "Acme Ltd"),
        ("amount", DECIMAL, "1200.50"),
        ("total_sum", INT, 1200),
        ("date", DATE, "2026-03-01"),
        ("is_paid", BOOL, True),
        ("type", Choice(("food", "energy")), "energy"),
        ("x", (DECIMAL, "the amount of money in total"), "1200.50"),
        ("summary", Quoted(STR), {"quote": ACME["summary"], "value": ACME["summary"]}),
        (
            "positions",
            ListOf(Record("P", (Field("text", STR),))),
            [{"text": "gas"}, {"text": "power"}],
        ),
        ("weather", STR, ""),
        ("weather", Maybe(STR), None),
        ("weather", INT, 0),
        ("weather", ListOf(STR), []),
    ],
)
def test_a_field_is_found_by_its_words(name: str, kind: Any, value: Any) -> None:
    assert fill(BILL, **{name: kind}) == {name: value}


def test_a_document_is_found_in_what_a_program_made_of_it() -> None:
    assert fill(json.dumps(["x", "Bill of Acme\nfor gas"]), vendor=STR) == {"vendor": "Acme Ltd"}
    assert fill('{"who": "bolt & co", "n": 1}', total=STR) == {"total": "3"}
    assert fill("Something else", total=Maybe(STR)) == {"total": None}


def choice(question: str, *options: str, data: str = BILL) -> str:
    schema = {"properties": {"answer": {"enum": list(options)}}}
    text = f"{question}\nAnswer with exactly one of these options: {', '.join(options)}."
    return str(ask(text, data, schema)["answer"])


def test_a_choice_is_what_is_true() -> None:
    assert choice("What kind?", "food", "energy", "other") == "energy"
    assert choice("Is it paid?", "yes", "no") == "yes"
    assert choice("Is it paid?", "yes", "no", data="Bolt: three screws") == "no"
    assert choice("Which?", "paid", "not paid") == "paid"
    assert choice("Which?", "not paid", "paid", data="Bolt: three screws") == "not paid"
    assert choice("What kind?", "food", "sport", "other") == "other"


def test_a_text_says_the_fact_that_the_goal_names() -> None:
    both = json.dumps(["Bill of Acme\nfor gas", "Bolt: three screws"])
    assert ask("Summarize this bill", BILL) == ACME["summary"]
    assert ask("Write a report that describes these", both).count("\n\n") == 1
    assert ask("Name the company", BILL) == "Acme Ltd"
    assert ask("Say something nice", '[{"x": 1}]') == '[{"x": 1}]'
