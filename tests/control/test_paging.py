"""Data that does not fit a context: what a step becomes, what is seen, what is said of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvac.control.paging import MERGED, _cuts, _pieces, ranked
from edvac.core.label import Label
from edvac.core.value import Scalar, Sequence, lift, plain, total_label

BAD = Label.of(sources=["file:x"], bits=float("inf"))
GOOD = Label.of(sources=["user"])


@given(st.text(alphabet="ab \n", max_size=400), st.integers(3, 50))
def test_cutting_a_text_loses_nothing_and_keeps_to_the_size(text: str, size: int) -> None:
    parts = list(_cuts(text, size))
    assert "".join(parts) == text
    assert all(0 < len(part) <= size for part in parts)


def test_a_text_is_cut_where_it_pauses() -> None:
    text = "one two three.\n\nfour five six seven.\nEight nine"
    assert list(_cuts(text, 21)) == ["one two three.\n\n", "four five six seven.\n", "Eight nine"]


@given(st.lists(st.text(alphabet="xy", max_size=30), max_size=20), st.integers(10, 60))
def test_a_list_is_cut_between_its_elements(items: list[str], size: int) -> None:
    whole = lift(items, BAD)
    parts = [plain(one) for one in _pieces(whole, size)]
    flat = [item for part in parts for item in (part if isinstance(part, list) else [part])]
    assert "".join(flat) == "".join(items)
    for part in parts:
        if isinstance(part, list):
            assert sum(len(item) + 1 for item in part) <= size
        else:
            assert len(part) <= size, "an element larger than a piece is cut itself"


def test_pieces_keep_who_may_have_made_them() -> None:
    mixed = Sequence((Scalar("a" * 8, BAD), Scalar("b" * 8, GOOD)), GOOD)
    first, second = _pieces(mixed, 10)
    assert total_label(first).sources == {"file:x", "user"}
    assert total_label(second).sources == {"user"}


def test_ranking_finds_the_passage_that_shares_rare_words() -> None:
    chance = random.Random(1)
    words = ["the", "of", "ledger", "page", "and", "total"]
    texts = [" ".join(chance.choices(words, k=40)) for _ in range(50)]
    texts[31] += " the deposit of the tenant"
    assert ranked(texts, "How large is the deposit?")[0] == 31
    assert ranked(["b", "a"], "nothing of it") == [0, 1], "equal ones as they stand"


def test_the_tree_of_merges_reaches_one_text() -> None:
    assert MERGED**4 >= 4_096


@pytest.mark.parametrize("size", [1, 7])
def test_pieces_of_no_size_still_end(size: int) -> None:
    assert len(list(_cuts("x" * 70, size))) == 70 // size
