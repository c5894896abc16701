"""Branch traces, the TAGE baseline, and sparse models beside it."""

from __future__ import annotations

import gzip
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvac.bench.branches import compare, quantised
from edvac.bench.tage import LENGTHS, Tage, _Fold
from edvac.bench.trace_reader import Branch, read_trace
from edvac.core.errors import UsageError


def record(address: int, kind: int, *, taken: int = 0, target: int = 0, outs: bytes = b"") -> bytes:
    made = struct.pack("<QB", address, kind)
    if kind == 1:
        made += struct.pack("<QBB", 0x9000, 8, 0)
    if kind == 2:
        made += struct.pack("<QBBB", 0x9000, 8, 0, 1)
    if kind in (3, 4, 5, 9, 10, 11):
        made += bytes([taken]) + (struct.pack("<Q", target) if taken else b"")
    made += bytes([2, 1, 2, len(outs)]) + outs
    return made + b"".join(b"\0" * (16 if 32 <= name < 64 else 8) for name in outs)


def test_a_trace_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.gz"
    body = [
        record(0x100, 0, outs=b"\x03"),
        record(0x104, 1, outs=b"\x21\x40"),
        record(0x108, 2),
        record(0x10C, 3, taken=1, target=0x100),
        record(0x100, 3),
        record(0x104, 11, taken=1, target=0x500),
    ]
    path.write_bytes(gzip.compress(b"".join(body)))
    branches, instructions = read_trace(path)
    assert instructions == 6
    assert branches == [
        Branch(0x10C, True, True, True),
        Branch(0x100, False, True, False),
        Branch(0x104, True, False, False),
    ]


@pytest.mark.parametrize("keep", [1, 9, 20, 40])
def test_a_cut_trace_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "t.gz"
    whole = record(0x100, 0, outs=b"\x03") + record(0x104, 1, outs=b"\x21\x40")
    path.write_bytes(gzip.compress(whole[:keep]))
    with pytest.raises(UsageError) as caught:
        read_trace(path)
    assert caught.value.code == "trace_unreadable"


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 40), st.integers(2, 12))
def test_a_folded_history_is_that_of_the_whole(
    outcomes: list[bool], length: int, width: int
) -> None:
    fold, history = _Fold(length, width), 0
    for taken in outcomes:
        fold.shift(taken, history >> (length - 1) & 1)
        history = history << 1 | taken
    kept = history & ((1 << length) - 1)
    folded = 0
    while kept:
        folded ^= kept & ((1 << width) - 1)
        kept >>= width
    assert fold.value == folded


def wrong(outcomes: list[bool], last: int) -> int:
    """Mispredictions among the last so many."""
    tage, missed = Tage(), 0
    for at, taken in enumerate(outcomes):
        said = tage.predict(0x400)
        tage.update(0x400, taken)
        missed += said is not taken and at >= len(outcomes) - last
    return missed


def test_tage_learns_what_repeats() -> None:
    assert wrong([True, True, False] * 400, 300) == 0
    assert wrong(([True] * 23 + [False]) * 100, 600) == 0  # a loop


def test_tage_learns_nothing_from_chance() -> None:
    chance = random.Random(1)
    assert 250 < wrong([chance.random() < 0.5 for _ in range(3000)], 600) < 350


def test_longer_histories_reach_further() -> None:
    assert list(LENGTHS) == sorted(set(LENGTHS))
    chance = random.Random(2)
    period = [chance.random() < 0.5 for _ in range(90)]
    assert wrong(period * 40, 900) < 30


def far_correlated(count: int, noise: float) -> list[Branch]:
    """One branch goes as another did, with forty random ones between: too many for a table that
    must see each pattern, one weight for a sparse model."""
    chance = random.Random(3)
    made = []
    for _ in range(count):
        first = chance.random() < 0.5
        made.append(Branch(0x1000, first, True, False))
        for at in range(40):
            made.append(Branch(0x2000 + 4 * at, chance.random() < 0.5, True, False))
        made.append(Branch(0x3000, first is not (chance.random() < noise), True, False))
    return made


def test_a_sparse_model_sees_past_noise() -> None:
    branches = far_correlated(600, 0.02)
    counted = compare(branches, len(branches))
    assert counted.entries >= 1
    gained = counted.alone.total() - counted.both.total()
    assert gained > 100  # of 300 executions, half of which are wrong without


def test_a_table_that_learnt_what_no_longer_holds_loses_little() -> None:
    """The correlation turns round in the second half: confidence has to go."""
    learnt = far_correlated(300, 0.02)
    turned = [
        Branch(one.address, not one.taken if one.address == 0x3000 else one.taken, True, False)
        for one in far_correlated(300, 0.02)
    ]
    counted = compare(learnt + turned, len(learnt) * 2)
    assert counted.both.total() - counted.alone.total() < 20


def test_weights_fit_three_bits() -> None:
    entry = quantised(0.3, {3: 0.9, 100: -0.31, 7: 0.01})
    assert entry.weights == ((3, 4), (100, -1))
    assert entry.score(1 << 3) == entry.bias + 4 + 1
