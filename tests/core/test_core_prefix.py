"""A prefix is the tuple of its entries, and no version changes when another one grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvac.core.label import PROGRAM
from edvac.core.prefix import Prefix, grown, replaced, to_copy
from edvac.core.value import Scalar, Sequence, digest, lift

ENTRIES = st.lists(st.integers(), max_size=4)


CHANGES = st.tuples(st.integers(0, 20), ENTRIES, st.none() | st.integers(0, 20))


@given(ENTRIES, st.lists(CHANGES, max_size=12))
def test_versions_equal_tuples_whichever_of_them_changes(
    first: list[int], changes: list[tuple[int, list[int], int | None]]
) -> None:
    versions = [Prefix([*first, "hidden"], len(first))]
    models = [tuple(first)]
    for at, more, place in changes:
        at %= len(versions)
        old = models[at]
        if place is None or not old:
            versions.append(grown(versions[at], more))
            models.append((*old, *more))
        else:
            place %= len(old)
            versions.append(replaced(versions[at], place, 77))
            models.append((*old[:place], 77, *old[place + 1 :]))
            assert to_copy(versions[-1]) == 0
    for version, model in zip(versions, models, strict=True):
        assert version == model and tuple(version) == model and len(version) == len(model)
        assert hash(version) == hash(model) and repr(version) == repr(model)
        assert tuple(reversed(version)) == model[::-1]


@given(ENTRIES, ENTRIES, st.slices(12))
def test_parts_are_those_of_the_tuple(first: list[int], more: list[int], cut: slice) -> None:
    whole = grown(first, more)
    grown(whole, [99])
    model = (*first, *more)
    assert whole[cut] == model[cut]
    for at in range(-12, 12):
        if -len(model) <= at < len(model):
            assert whole[at] == model[at]
        else:
            with pytest.raises(IndexError):
                whole[at]
    assert 99 not in whole or 99 in model


@given(ENTRIES, ENTRIES)
def test_prefixes_are_equal_exactly_where_their_entries_are(
    left: list[int], right: list[int]
) -> None:
    a, b = grown(left, [0]), grown(right, [0])
    assert (a == b) is (left == right)
    assert (a == (*right, 0)) is (left == right) and a != [*left, 0]


def test_only_growth_behind_the_newest_version_shares_the_buffer() -> None:
    start = grown((1, 2), (3,))
    assert to_copy((1, 2)) == 2 and to_copy(start) == 0
    longer = grown(start, (4,))
    assert to_copy(longer) == 0 and to_copy(start) == 3
    other = grown(start, (5,))
    assert (*longer,) == (1, 2, 3, 4) and (*other,) == (1, 2, 3, 5) and to_copy(other) == 0


def test_a_list_that_grew_is_the_same_value_as_one_that_did_not() -> None:
    items = (Scalar(1, PROGRAM), Scalar("a", PROGRAM))
    made = Sequence(grown(items[:1], items[1:]), PROGRAM)
    assert made == lift([1, "a"], PROGRAM) and lift([1, "a"], PROGRAM) == made
    assert digest(made) == digest(lift([1, "a"], PROGRAM)) and hash(made.items) == hash(items)
