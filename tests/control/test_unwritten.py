"""Whoever decided that something is not written is in what a later step reads there."""

from __future__ import annotations

from edvac.control.unwritten import MANY, OTHERS, Unwritten
from edvac.core.label import PROGRAM, PUBLIC, Label
from edvac.core.signature import Access


def one(number: int) -> Label:
    return Label.of([f"file:{number}"], bits=1)


def test_only_who_decided_before_counts_and_all_of_them() -> None:
    met = Unwritten()
    for number in (3, 1, 2):  # they become known in any order
        met.passed((number,), Access(writes=("out/*",)), one(number))
    for at in range(5):
        found = met._behind((at,), ["out/a.txt"])
        assert found.steered == {f"file:{number}" for number in range(1, min(at, 4))}
        assert found.bits == len(found.steered)
    assert met._behind((9,), ["in/a.txt"]) is PUBLIC


def test_what_the_program_alone_decides_leaves_nothing() -> None:
    met = Unwritten()
    met.passed((1,), Access(writes=("out/a.txt",)), PROGRAM)
    assert met._behind((2,), ["out/a.txt"]) is PUBLIC


def test_very_many_are_called_by_one_name_that_nobody_trusts() -> None:
    met = Unwritten()
    for number in range(MANY + 10):
        met.passed((number,), Access(writes=("out/a.txt",)), one(number))
    found = met._behind((10**6,), ["out/a.txt"])
    assert OTHERS in found.steered and len(found.steered) <= MANY
    assert met._behind((5,), ["out/a.txt"]).steered == {f"file:{n}" for n in range(5)}
