"""The algebra of labels: a lattice under `join`, whose bits add up where outsiders choose twice."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
from core_kit import bits, labels, principals
from hypothesis import given
from hypothesis import strategies as st

from edvac.core.errors import DamageError, InternalError
from edvac.core.label import PUBLIC, UNBOUNDED, Label, combine


@given(labels, labels, labels)
def test_join_is_the_least_upper_bound(a: Label, b: Label, c: Label) -> None:
    joined = a.join(b)
    assert joined is b.join(a)
    assert a.join(b.join(c)) is joined.join(c)
    assert a.join(a) is a
    assert a.below(joined) and b.below(joined)
    if a.below(c) and b.below(c):
        assert joined.below(c)
    assert a.join(PUBLIC) is a and PUBLIC.below(a)


@given(labels, labels)
def test_the_order_is_that_of_the_parts(a: Label, b: Label) -> None:
    seen = b.readers is None or a.readers is None or a.readers >= b.readers
    narrower = a.readers is None or (b.readers is not None and seen)
    parts = a.sources <= b.sources and a.steered <= b.steered and a.bits <= b.bits
    assert a.below(b) is (parts and narrower)
    if a.below(b) and b.below(a):
        assert a is b


@given(labels, labels)
def test_only_those_who_may_see_everything_see_what_is_made_of_it(a: Label, b: Label) -> None:
    def sees(label: Label, reader: str) -> bool:
        return label.readers is None or reader in label.readers

    for made in (a.join(b), a.steer(b), combine([a, b])):
        for reader in ("user", "program", "file:a", "model:m", "nobody"):
            assert sees(made, reader) is (sees(a, reader) and sees(b, reader))


@given(principals, principals, st.none() | principals, bits)
def test_equal_labels_are_one_object(a: frozenset[str], b: frozenset[str], r: object, k: float):
    made = Label.of(sorted(a), list(b), r if r is None else set(r), k)  # type: ignore[call-overload]
    assert made is Label.of(a, b, r, k)  # type: ignore[arg-type]
    assert (made.sources, made.steered, made.readers, made.bits) == (a, b, r, k)


@given(labels, labels)
def test_distinct_labels_are_distinct_objects(a: Label, b: Label) -> None:
    assert (a is b) is (a.stored() == b.stored())


def test_a_label_that_nobody_holds_is_forgotten() -> None:
    from edvac.core import label

    before = len(label._known)
    made = [Label.of([f"file:nobody holds {n}"]) for n in range(100)]
    assert len(label._known) == before + 100
    del made
    gc.collect()
    assert len(label._known) <= before


def test_labels_are_made_in_one_place() -> None:
    with pytest.raises(InternalError, match=r"Label\.of"):
        Label()


@given(labels, labels, labels)
def test_a_decision_goes_into_who_steered_and_not_into_what_is_in_the_value(
    value: Label, decider: Label, other: Label
) -> None:
    made = value.steer(decider)
    assert made.sources is value.sources or made.sources == value.sources
    assert made.steered == value.steered | decider.integrity
    assert made.bits == value.bits + decider.bits
    assert made.integrity == value.integrity | decider.integrity
    assert value.below(made)
    assert value.steer(decider).steer(other) is value.steer(other).steer(decider)
    assert (made is value) or decider is not PUBLIC


@given(labels, labels, labels)
def test_steering_and_joining_are_monotone(low: Label, step: Label, other: Label) -> None:
    high = low.join(step)
    assert low.steer(other).below(high.steer(other))
    assert other.steer(low).below(other.steer(high))
    assert low.join(other).below(high.join(other))
    assert combine([low, other]).below(combine([high, other]))


@given(st.lists(labels, max_size=5), st.randoms(use_true_random=False), bits)
def test_a_result_has_every_influence_and_at_most_the_bits_of_its_type(
    parts: list[Label], chance: object, cap: float
) -> None:
    made = combine(parts, cap)
    assert made.sources == frozenset().union(*(part.sources for part in parts))
    assert made.steered == frozenset().union(*(part.steered for part in parts))
    assert made.bits == min(sum(part.bits for part in parts), cap)
    mixed = list(parts)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert combine(mixed, cap) is made and combine(iter(parts), cap) is made
    for part in parts:
        assert part.cap(cap).below(made)


@given(labels, st.integers(2, 4))
def test_choice_adds_up_though_the_operands_are_labelled_alike(one: Label, count: int) -> None:
    assert combine([one] * count).bits == one.bits * count


@given(labels, bits, bits)
def test_capping_only_lowers_the_bits(label: Label, cap: float, other: float) -> None:
    made = label.cap(cap)
    assert made.bits == min(label.bits, cap) and made.below(label)
    assert (made.sources, made.steered, made.readers) == (
        label.sources,
        label.steered,
        label.readers,
    )
    assert made.cap(other) is label.cap(min(cap, other))
    assert label.cap(UNBOUNDED) is label


@given(labels)
def test_the_stored_form_gives_the_same_label_back(label: Label) -> None:
    assert Label.restore(label.stored()) is label
    assert pickle.loads(pickle.dumps(label)) is label
    assert copy.deepcopy(label) is label


@pytest.mark.parametrize(
    "form",
    [
        None,
        {},
        "user",
        [],
        [[], [], None],
        [[], [], None, 0, 0],
        [None, [], None, 0],
        ["user", [], None, 0],
        [[1], [], None, 0],
        [[["user"]], [], None, 0],
        [[], [None], None, 0],
        [[], [], "user", 0],
        [[], [], [1], 0],
        [[], [], None, "1"],
        [[], [], None, True],
        [[], [], None, -1],
        [[], [], None, float("nan")],
    ],
)
def test_what_is_no_label_is_never_read_as_one(form: object) -> None:
    with pytest.raises(DamageError) as caught:
        Label.restore(form)
    assert caught.value.code == "unlabelled_value"
