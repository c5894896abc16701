"""Fuel is charged for what is done, and a program that has none left still ends."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from program_kit import NaiveHost, run, shown

from edvac.core.value import Operand, Sequence
from edvac.program import Fuel, StepCall
from edvac.program.lists import CHANGES
from edvac.program.native import Native

PENDING = [
    "a = files.read('a')\nb = a == 'x'\nc = f'{a}!'\nd = a.upper()\n",
    "xs = files.list('a')\nfor i in range(3):\n    xs.append(i)\nn = len(xs)\n",
    "xs = files.list('a')\nd = {'k': 0}\nd[xs[0]] = 1\nd['k'] += len(xs)\nv = xs.pop()\n",
    "xs = files.list('a')\nys = [x for x in xs if x != 'b']\nzs = xs[1:]\na, b = xs\n",
    "xs = files.list('a')\nrs = group([{'a': x} for x in xs], by=['a'], n=count())\n",
    "xs = files.list('a')\nn = 0\nfor x in xs:\n    if x == 'a':\n        n += len(x[:1])\n",
]


def two(call: StepCall, args: dict[str, Any]) -> Any:
    return ["a", "b"] if call.op == "files.list" else "q"


@pytest.mark.parametrize("text", PENDING)
def test_a_program_ends_whatever_fuel_it_has(text: str) -> None:
    """Also where it runs out in an operation that had to wait for a step."""
    whole, _ = run(text, two)
    short = 0
    for steps in range(whole.fuel_used + 1):
        evaluator, _ = run(text, two, fuel=Fuel(steps=steps))
        short += "fuel_exhausted" in str(shown(evaluator))
        assert steps < whole.fuel_used or shown(evaluator) == shown(whole)
    assert short >= whole.fuel_used // 2, "most budgets are too small for a result"


def used(text: str, size: int) -> int:
    return run(text.format(n=size), two, fuel=Fuel(steps=10**9))[0].fuel_used


GROWING = {
    "append": "xs = []\nfor i in range({n}):\n    xs.append(i)\n",
    "extend": "xs = []\nfor i in range({n}):\n    xs.extend([i])\n",
    "augmented": "xs = []\nfor i in range({n}):\n    xs += [i]\n",
    "looked at": "xs = []\nfor i in range({n}):\n    if len(xs) == i:\n        xs.append(i)\n",
    "in a dict": "d = {{'k': []}}\nfor i in range({n}):\n    d['k'].append(i)\n",
}
COPYING = {
    "a copy each": "xs = [0] * {n}\nfor i in range({n}):\n    ys = xs.copy()\n    ys.append(i)\n",
    "a cut each": "xs = [0] * {n}\nfor i in range({n}):\n    ys = xs[1:]\n",
    "a pop each": "xs = [0] * {n}\nfor i in range({n}):\n    xs.pop()\n    xs.append(i)\n",
    "a store each": "xs = [0] * {n}\nfor i in range({n}):\n    xs[i] = i\n",
}


@pytest.mark.parametrize("name", GROWING)
def test_growing_a_list_is_charged_in_proportion(name: str) -> None:
    text = GROWING[name]
    assert used(text, 1600) < 4.1 * used(text, 400)


@pytest.mark.parametrize("name", COPYING)
def test_copying_a_list_is_charged_by_its_size(name: str) -> None:
    text = COPYING[name]
    assert used(text, 1600) > 5 * used(text, 400)


@pytest.mark.parametrize("name", GROWING)
def test_growing_a_list_copies_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every version of the list is kept: were each a copy, they would hold n * n / 2 places."""
    size = 500
    versions: list[Operand] = []

    def kept(native: Native) -> Native:
        def changed(*args: Any, **words: Any) -> Any:
            versions.append(native.run(*args, **words))
            return versions[-1]

        return Native(**{**{k: getattr(native, k) for k in native.__slots__}, "run": changed})

    for method in ("list.append", "list.extend"):
        monkeypatch.setitem(CHANGES, method, kept(CHANGES[method]))
    tracemalloc.start()
    evaluator, _ = run(GROWING[name].format(n=size), two, host=NaiveHost(two))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert evaluator.finished and len(versions) == size
    assert [len(one.items) for one in versions if isinstance(one, Sequence)] == [
        *range(1, size + 1)
    ]
    assert peak < 8 * size * size // 4
