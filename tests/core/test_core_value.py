"""Values: digests name data, labels go where rules 1 and 3 say, failures and cells stay visible."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from core_kit import data, labels, principals, same, sound_values, values
from hypothesis import given
from hypothesis import strategies as st

from edvac.core.errors import InternalError
from edvac.core.label import PROGRAM, PUBLIC, UNBOUNDED, USER, Label, combine
from edvac.core.result import influenced, result_of
from edvac.core.schema import ANY, BOOL, STR, Choice, Field, ListOf, Maybe, Record, Type
from edvac.core.value import (
    Cell,
    Failed,
    Instance,
    Mapping,
    Operand,
    Scalar,
    Sequence,
    Value,
    children,
    completed,
    digest,
    first_failure,
    lift,
    open_cells,
    plain,
    settle,
    steered,
    total_label,
)


def parts(value: Operand) -> list[Value]:
    here = settle(value)
    assert not isinstance(here, Cell)
    return [here, *(part for child in children(here) for part in parts(child))]


def kinds(value: Value) -> Any:
    """What a digest tells apart, as plain data."""
    match value:
        case Scalar():
            return ("scalar", type(value.data).__name__, value.data)
        case Sequence():
            return ("tuple" if value.fixed else "list", [kinds(item) for item in value.items])
        case Mapping():
            return ("dict", [(kinds(lift(k, USER)), kinds(v)) for k, v in value.entries.items()])
        case Instance():
            return (value.record, [(k, kinds(v)) for k, v in value.fields.items()])
    return ("failed", value.slot, value.code)


@given(values, values)
def test_digests_are_equal_exactly_for_equal_data(left: Value, right: Value) -> None:
    assert (digest(left) == digest(right)) is same(kinds(left), kinds(right))


@given(st.lists(st.sampled_from([[], (), "", "s0:", [""], ["", ""], {}, {"": ""}, [[]], 0, False])))
def test_digests_know_where_a_part_ends(items: list[Any]) -> None:
    made = {digest(lift(one, USER)): one for one in [items, [items], tuple(items), {"": items}]}
    assert len(made) == 4
    assert digest(lift(items, USER)) != digest(lift([*items, ""], USER))


@given(sound_values, labels)
def test_a_digest_ignores_labels_and_origins(value: Value, label: Label) -> None:
    assert digest(influenced(value, ANY, label)) == digest(value) == digest(steered(value, label))
    assert digest(replace(value, origin="step")) == digest(value)


CORNERS: list[Any] = [
    *(None, False, True, 0, 1, -1, 2**64, 0.0, -0.0, 1.0, float("inf"), float("nan")),
    *(Decimal("1"), Decimal("1.0"), Decimal("NaN"), "", "0", "None", "\ud800", "a", ["a"], ("a",)),
    *({"a": None}, {None: "a"}, {1: 2}, {"1": 2}, [1, 2], [[1], 2], [1, [2]], [12]),
]


def test_data_that_looks_alike_has_digests_of_its_own() -> None:
    made = [lift(one, USER) for one in CORNERS]
    made += [Failed("a b", "c", "", USER), Failed("a", "b c", "", USER), lift("a b c", USER)]
    made += [Instance("a", {}, USER), Instance("b", {}, USER), Instance("", {"a": made[0]}, USER)]
    assert len({digest(one) for one in made}) == len(made)


def test_a_digest_is_the_same_in_every_process() -> None:
    """Journals of earlier runs hold digests: these may never change."""
    script = (
        "from decimal import Decimal; from edvac.core.label import USER;"
        "from edvac.core.value import digest, lift;"
        "print(digest(lift([{'a': 1, 'b': (True, None)}, Decimal('1.50'), 0.1, 'é'], USER)))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {"9f59d6e878b87f2b319050ef73ddf8b1f242bc4f"}


@given(data, labels)
def test_data_comes_back_from_a_value_and_every_part_is_labelled(found: Any, label: Label) -> None:
    value = lift(found, label)
    assert same(plain(value), found)
    assert all(part.label is label for part in parts(value))
    assert lift(value, PUBLIC) is value, "a value keeps its own labels"


@pytest.mark.parametrize("found", [{1, 2}, object(), b"a", [b"a"], {"a": {1}}, 1j])
def test_what_is_not_data_of_the_language_is_refused(found: Any) -> None:
    with pytest.raises(InternalError) as caught:
        lift(found, USER)
    assert caught.value.code == "not_a_value"


@given(values, labels)
def test_a_decision_raises_the_shape_alone(value: Value, decider: Label) -> None:
    made = steered(value, decider)
    assert made.label is value.label.steer(decider)
    assert list(children(made)) == list(children(value)) and type(made) is type(value)
    assert steered(value, PUBLIC) is value
    twice, once = steered(steered(value, decider), decider), steered(value, decider)
    assert twice.label.cap(0) is once.label.cap(0), "who decided is a set; only bits add up"


@given(values, labels)
def test_what_a_step_returns_carries_everyone_in_its_operands(value: Value, label: Label) -> None:
    made = influenced(value, ANY, label)
    before, after = parts(value), parts(made)
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert new.label.bits == old.label.bits + label.bits, "choices add up"
        who = old.label.join(Label.of(label.sources, label.steered, label.readers))
        assert new.label.cap(0) is who.cap(0)
        assert new == replace(old, label=new.label) or not isinstance(old, Scalar | Failed)


@pytest.mark.parametrize(
    ("data", "kind", "own", "given", "bits"),
    [
        (True, BOOL, 0, UNBOUNDED, 1),
        (True, BOOL, 1, 5, 1),
        ("a", STR, 0, 2, 2),
        ("a", STR, 1, 2, 3),
        ("a", Choice(("a", "b", "c", "d")), 0, UNBOUNDED, 2),
        ("a", Choice(("a", "b", "c", "d")), 0, 1, 1),
        (None, Maybe(BOOL), 0, UNBOUNDED, 2),
        (7, ANY, 0, 3, 3),
    ],
)
def test_what_chose_the_operands_chose_the_result_as_far_as_its_type_goes(
    data: Any, kind: Type, own: float, given: float, bits: float
) -> None:
    operands = Label.of(["file:x"], bits=given)
    made = result_of(lift(data, Label.of(["shop"], bits=own)), kind, operands, PUBLIC)
    assert made.label.bits == bits and "file:x" in made.label.integrity


def test_each_part_of_a_result_is_capped_by_its_own_type() -> None:
    row = Record("Row", (Field("flag", BOOL), Field("text", STR)))
    value = Instance("Row", {"flag": Scalar(True, USER), "text": Scalar("t", USER)}, USER)
    many = Label.of(["file:x"], bits=UNBOUNDED)
    (made,) = result_of(Sequence((value,), USER), ListOf(row), many, PUBLIC).items
    assert made.fields["flag"].label.bits == 1
    assert made.fields["text"].label.bits == UNBOUNDED


@given(values, values)
def test_the_label_of_everything_is_that_of_all_parts(value: Value, other: Value) -> None:
    made = total_label(value)
    every = [part.label for part in parts(value)]
    assert made.cap(0) is combine(every).cap(0) and made.bits == sum(one.bits for one in every)
    both = total_label(Sequence((value, other), PUBLIC))
    assert made.below(both) and total_label(other).below(both)


@given(values)
def test_the_first_failure_is_found_wherever_it_is(value: Value) -> None:
    failed = [part for part in parts(value) if isinstance(part, Failed)]
    assert first_failure(value) is (failed[0] if failed else None)
    if failed:
        with pytest.raises(InternalError):
            plain(value)


def hidden(value: Value, cells: list[tuple[Cell, Value]]) -> Operand:
    """The same tree with a cell in the place of every part."""

    def hide(part: Operand) -> Operand:
        here = settle(part)
        assert not isinstance(here, Cell)
        return hidden(here, cells)

    cell = Cell()
    match value:
        case Sequence():
            value = replace(value, items=tuple(map(hide, value.items)))
        case Mapping():
            value = replace(value, entries={k: hide(v) for k, v in value.entries.items()})
        case Instance():
            value = replace(value, fields={k: hide(v) for k, v in value.fields.items()})
    cells.append((cell, value))
    return cell


@given(values, st.randoms(use_true_random=False))
def test_a_tree_of_cells_becomes_the_tree_in_whatever_order_they_resolve(
    value: Value, chance: Any
) -> None:
    cells: list[tuple[Cell, Value]] = []
    operand = hidden(value, cells)
    assert open_cells(operand) == [operand] and first_failure(operand) is None
    chance.shuffle(cells)
    for cell, made in cells:
        with pytest.raises(InternalError, match="pending"):
            completed(operand)
        assert open_cells(operand) != []
        cell.resolve(made)
    assert open_cells(operand) == [] and completed(operand) == value
    assert digest(operand) == digest(value)  # type: ignore[arg-type]
    assert first_failure(operand) == first_failure(value)
    assert total_label(completed(operand)) is total_label(value)


@pytest.mark.parametrize("read", [digest, plain, total_label, lambda v: influenced(v, ANY, USER)])
def test_a_pending_value_is_never_read(read: Any) -> None:
    for value in (
        Sequence((Cell(),), USER),
        Mapping({"a": Cell()}, USER),
        Instance("Row", {"a": Cell()}, USER),
    ):
        with pytest.raises(InternalError):
            read(value)


@given(principals)
def test_a_neutral_operand_changes_nothing(who: frozenset[str]) -> None:
    value = lift([1, "a"], PROGRAM)
    assert result_of(value, ANY, PUBLIC, PUBLIC) is value
    assert (result_of(value, ANY, Label.of(who), PUBLIC) is value) is (not who)


def test_waiters_run_once_each_in_the_order_in_which_they_asked() -> None:
    cell, seen = Cell("step"), []
    value = Scalar(1, USER)
    for name in ("a", "b"):
        cell.when_resolved(lambda found, name=name: seen.append((name, found)))

    def late(found: Value) -> None:
        seen.append(("c", found))
        cell.when_resolved(lambda again: seen.append(("d", again)))

    cell.when_resolved(late)
    assert cell.value is None and settle(cell) is cell and seen == []
    cell.resolve(value)
    cell.when_resolved(lambda found: seen.append(("e", found)))
    assert seen == [(name, value) for name in "abcde"]
    assert settle(cell) is value and cell.value is value


def test_a_value_is_computed_once() -> None:
    cell = Cell("the step")
    cell.resolve(Scalar(1, USER))
    with pytest.raises(InternalError, match="the step"):
        cell.resolve(Scalar(1, USER))
