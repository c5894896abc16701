"""Nearly equal texts: what is found is what comparing each with each finds, in less time."""

from __future__ import annotations

import random
import time
from itertools import combinations
from typing import Any

import pytest
from program_kit import run, shown

from edvac.program import StepCall
from edvac.program.alike import _runs, _share
from edvac.program.fuel import STEPS, Fuel


def alike(texts: list[str], least: float) -> Any:
    def given(call: StepCall, args: dict[str, Any]) -> Any:
        return texts

    evaluator, _ = run(f"xs = text.alike(files.list('*'), {least})\n", given)
    return shown(evaluator)["xs"]


def texts(seed: int, count: int) -> list[str]:
    """Copies with words changed, dropped or added, among texts of their own; some have no words."""
    rng = random.Random(seed)
    words = [f"w{n}" for n in range(60)]
    made = [" ".join(rng.choices(words, k=rng.randrange(0, 40))) for _ in range(count)]
    for _ in range(count):
        parts = rng.choice(made).split()
        for _ in range(rng.randrange(4)):
            parts[rng.randrange(len(parts) + 1) :][:1] = [rng.choice(words)]
            parts.insert(rng.randrange(len(parts) + 1), rng.choice(words).upper())
        made.append(" ".join(parts))
    return [*made, "", "one", "One.", "two words", "..."]


@pytest.mark.parametrize("least", [0.1, 0.3, 0.5, 0.8, 1.0])
def test_it_finds_what_comparing_each_with_each_finds(least: float) -> None:
    for seed in range(8):
        given = texts(seed, 30)
        runs = [_runs(one) for one in given]
        wanted = [
            (i, j, round(_share(runs[i], runs[j]), 3))
            for i, j in combinations(range(len(given)), 2)
            if runs[i] and runs[j] and _share(runs[i], runs[j]) >= least
        ]
        assert alike(given, least) == wanted


def test_many_texts_take_no_pairwise_time() -> None:
    start = time.perf_counter()
    found = alike(texts(1, 2_500), 0.8)
    assert found and time.perf_counter() - start < 20


def test_what_it_cannot_compare_fails() -> None:
    assert alike(["a"], 0.01) == "failed: share_unfit"
    evaluator, _ = run("xs = text.alike([1, 2])\n", lambda call, args: None)
    assert shown(evaluator)["xs"] == "failed: texts_unfit"
    same = "the same text of many words that all have in common " * 20
    few = Fuel(STEPS // 10)
    evaluator, _ = run(f"xs = text.alike(['{same}'] * 1000)\n", lambda call, args: None, fuel=few)
    assert shown(evaluator)["xs"] == "failed: fuel_exhausted"
