"""Texts that are nearly the same, found without comparing each with each.

Two texts are as alike as the share of their runs of three words that both have (Jaccard 1901). A
pair that shares enough of them shares at least one of the rarer ones, so only those are looked up
(the prefix filter of Chaudhuri, Ganti and Kaushik 2006); the result is exact.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from edvac.core.errors import OperandError
from edvac.core.schema import FLOAT, INT, ListOf, TupleOf
from edvac.program.native import Registry, Work

ALIKE = Registry()
RUN = 3  # words
LEAST = 0.1  # below, nearly every pair is one
_WORD = re.compile(r"\w+")


@ALIKE.add(
    "text.alike",
    "Places of each two texts that have at least this share of their runs of three words in "
    "common, with the share.",
    result=ListOf(TupleOf((INT, INT, FLOAT))),
)
def _alike(work: Work, texts: list[str], least: float = 0.8) -> list[tuple[int, int, float]]:
    if not LEAST <= least <= 1:
        raise OperandError(
            "share_unfit", f"a share of {least}", f"A share is from {LEAST} to 1.", "Say 0.8."
        )
    if any(not isinstance(one, str) for one in texts):
        raise OperandError("texts_unfit", "not all of these are texts", "", "Give a list of texts.")
    work.spend(sum(map(len, texts)) // 8)
    runs = [_runs(one) for one in texts]
    common = Counter(run for own in runs for run in own)
    work.make(64 * len(common))
    seen: dict[Any, list[int]] = {}
    found = []
    for place, own in enumerate(runs):
        rare = sorted(own, key=lambda run: (common[run], run))
        rare = rare[: len(own) - math.ceil(least * len(own)) + 1] if own else []
        others = set[int]()
        for run in rare:
            before = seen.setdefault(run, [])
            work.spend(1 + len(before))
            others.update(before)
            before.append(place)
        for other in sorted(others):
            work.spend(1 + min(len(own), len(runs[other])) // 8)
            share = _share(own, runs[other])
            if share >= least:
                found.append((other, place, round(share, 3)))
    return sorted(found)


def _runs(text: str) -> set[tuple[str, ...]]:
    """Every three words in a row; a text of fewer is one run, one without words is like none."""
    words = _WORD.findall(text.casefold())
    if len(words) < RUN:
        return {tuple(words)} if words else set()
    return {tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)}


def _share(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> float:
    both = len(left & right)
    return both / (len(left) + len(right) - both)
