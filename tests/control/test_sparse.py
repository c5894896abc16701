"""Sparse models against a plain gradient method, and against rules that are known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvac.control.sparse import Column, _Descent, fit


def columns_of(rows: list[list[int]]) -> list[Column]:
    return [
        Column(
            sum(1 << at for at, row in enumerate(rows) if row[feature]),
            sum(1 << at for at, row in enumerate(rows) if row[feature] > 0),
        )
        for feature in range(len(rows[0]))
    ]


def bits(outcomes: list[bool]) -> int:
    return sum(1 << at for at, outcome in enumerate(outcomes) if outcome)


def objective(
    rows: list[list[int]], outcomes: list[bool], penalty: float, bias: float, weights: list[float]
) -> float:
    """(1/2n) |y - b - Xw|^2 + penalty |w|_1, written down as it stands."""
    loss = 0.0
    for row, outcome in zip(rows, outcomes, strict=True):
        made = bias + sum(w * x for w, x in zip(weights, row, strict=True))
        loss += ((1 if outcome else -1) - made) ** 2
    return loss / (2 * len(rows)) + penalty * sum(map(abs, weights))


ROW = st.lists(st.sampled_from([-1, 0, 1]), min_size=4, max_size=4)


@given(
    st.lists(st.tuples(ROW, st.booleans()), min_size=4, max_size=40),
    st.floats(0.02, 0.5),
)
def test_no_step_from_the_model_makes_it_better(
    samples: list[tuple[list[int], bool]], penalty: float
) -> None:
    """The problem is convex: a point that no small move of one coordinate betters is its least."""
    rows, outcomes = [row for row, _ in samples], [outcome for _, outcome in samples]
    descent = _Descent(columns_of(rows), bits(outcomes), len(rows))
    descent._penalty = penalty
    descent._descend(range(4))
    weights = [descent._weights.get(at, 0.0) for at in range(4)]
    here = objective(rows, outcomes, penalty, descent._bias, weights)
    for at in range(5):
        for move in (-0.02, 0.02):
            moved = [w + move * (n == at) for n, w in enumerate(weights)]
            bias = descent._bias + move * (at == 4)
            assert objective(rows, outcomes, penalty, bias, moved) > here - 1e-5


def planted(chance: random.Random, features: int, deciding: list[int], noise: float) -> tuple:
    """Outcomes that go with the majority of few features, and sometimes not."""
    rows = [[chance.choice([-1, 1]) for _ in range(features)] for _ in range(600)]
    outcomes = [
        (sum(row[at] for at in deciding) > 0) is not (chance.random() < noise) for row in rows
    ]
    return rows, outcomes


@pytest.mark.parametrize("deciding", [[17], [3, 40, 200], [1, 2, 100, 250, 300]])
def test_few_features_out_of_many_are_found(deciding: list[int]) -> None:
    rows, outcomes = planted(random.Random(len(deciding)), 320, deciding, 0.05)
    model = fit(columns_of(rows), bits(outcomes), len(rows))
    assert set(deciding) <= set(model.weights)
    assert len(model.weights) <= 8
    assert model.hits / model.held > 0.85


def test_nothing_is_found_in_noise() -> None:
    """Where history says nothing, a model may not claim that it does."""
    chance = random.Random(5)
    claimed = []
    for _ in range(20):
        rows = [[chance.choice([-1, 1]) for _ in range(60)] for _ in range(300)]
        outcomes = [chance.random() < 0.5 for _ in rows]
        model = fit(columns_of(rows), bits(outcomes), len(rows))
        fresh = [[chance.choice([-1, 1]) for _ in range(60)] for _ in range(300)]
        right = sum((model.score(row) >= 0) is (chance.random() < 0.5) for row in fresh)
        claimed.append(abs(right / 300 - 0.5))
    assert sum(claimed) / len(claimed) < 0.05


def test_exclusive_or_is_out_of_reach() -> None:
    """The limit that the docs state."""
    chance = random.Random(6)
    rows = [[chance.choice([-1, 1]) for _ in range(20)] for _ in range(600)]
    outcomes = [row[3] * row[7] > 0 for row in rows]
    model = fit(columns_of(rows), bits(outcomes), len(rows))
    assert model.hits / model.held < 0.65


def test_outcomes_that_never_change_need_no_feature() -> None:
    rows = [[1, -1], [-1, 1]] * 10
    model = fit(columns_of(rows), bits([True] * 20), 20)
    assert not model.weights and model.score([1, 1]) > 0 and model.hits == model.held == 8


def test_no_sample_at_all() -> None:
    model = fit([], 0, 0)
    assert (model.hits, model.held, model.weights) == (0, 0, {})
