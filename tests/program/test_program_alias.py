"""Programs full of shared containers: accepted ones agree with CPython, copies are accepted."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program_kit import CATALOGUE, UNTRUSTED, run
from test_program_oracle import agree

from edvac.core.errors import ProgramError
from edvac.core.value import Sequence, settle
from edvac.program import parse
from edvac.program.data import python

HEAD = """
def same(v):
    return v
def first(v):
    return v[0]
def fresh(v):
    made = []
    made.append(len(v))
    return made
def wrap(v):
    return [v]
a = [[1], [2]]
b = [[3]]
c = []
d = {"k": [1], "m": []}
e = [1, 2]
f = [2]
"""
DEEP, FLAT = "abc", "ef"

SEEDS = int(os.environ.get("EDVAC_SEEDS", "1000"))


def program(chance: random.Random) -> str:
    lines = [HEAD.strip()]
    for number in range(chance.randrange(3, 9)):
        lines.append(line(chance, number))
    return "\n".join(lines) + "\n"


def line(chance: random.Random, number: int) -> str:
    x, y = chance.choice(DEEP), chance.choice(DEEP)
    p, q = chance.choice(FLAT), chance.choice(FLAT)
    lines = bindings(x, y, p, q) + changes(x, y, p, q, number) + blocks(x, y, p, q, number)
    return chance.choice(lines)


def bindings(x: str, y: str, p: str, q: str) -> list[str]:
    """Lines that give a name another container, or the same one."""
    return [
        f"{x} = {y}",
        f"{x} = list({y})",
        f"{x} = {y}[:]",
        f"{x} = {y} + {x}",
        f"{x} = [{p}, {q}]",
        f"{x} = [v for v in {y}]",
        f"{x} = [list(v) for v in {y}]",
        f"{x} = [v + [0] for v in {y}]",
        f"{x} = sorted({y})",
        f"{x} = same({y})",
        f"{x} = wrap({p})",
        f"{x} = list(d.values())",
        f"{x} = {y} if len({p}) > 1 else {x}",
        f"{x} = {y} or {x}",
        f"{x}, {y} = {y}, {x}",
        f"{x} = {y}.copy()",
        f"{p} = {q}",
        f"{p} = list({q})",
        f"{p} = first({x})",
        f"{p} = {x}[0]",
        f"{p} = fresh({x})",
        f"{p} = max({x})",
        f"{p} = d['k']",
        f"{p} = d.get('m', {q})",
        f"{p} = [v for w in {x} for v in w]",
        f"{p} = {x}.pop()",
    ]


def changes(x: str, y: str, p: str, q: str, number: int) -> list[str]:
    """Lines that change a container."""
    return [
        f"{p}.append({number})",
        f"{p} += [{number}]",
        f"{p} += {q}",
        f"{p}[0] = {number}",
        f"{p}.sort()",
        f"{p}.extend({q})",
        f"{x}.append({p})",
        f"{x}.append([{number}])",
        f"{x}.extend({y})",
        f"{x}[0] = {p}",
        f"{x}[0].append({number})",
        f"{x}[0] += [{number}]",
        f"{x}[0][0] = {number}",
        f"{x}.insert(0, {p})",
        f"{x}.reverse()",
        f"d['k'] = {p}",
        f"d['k'].append({number})",
        f"d.setdefault('n', []).append({number})",
        f"d.setdefault('n', {p}).append({number})",
        f"d['n'] = [{number}]",
        f"d.update({{'k': {p}}})",
        "d = dict(d)",
        "d = {k: v for k, v in d.items()}",
    ]


def blocks(x: str, y: str, p: str, q: str, number: int) -> list[str]:
    """Loops and conditions around such lines."""
    return [
        f"for v in {x}:\n    {p} = v",
        f"for v in {x}:\n    {p}.append(len(v))",
        f"for v in {x}:\n    {y}.append(v)",
        f"for v in list({x}):\n    {x}.append(v)",
        f"for v in {x}:\n    v.append({number})",
        f"for v in {p}:\n    {q}.append(v)",
        f"if len({p}) > 1:\n    {p} = {q}\nelse:\n    {p} = [0]",
        f"for k, v in d.items():\n    {p}.extend(v)",
    ]


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_shared_containers(chance: random.Random) -> None:
    agree(program(chance))


@pytest.mark.slow
def test_many_shared_containers() -> None:
    legal = sum(agree(program(random.Random(seed))) for seed in range(SEEDS))
    assert legal > SEEDS // 10


GROWN = [
    "kept = []\nxs = []\nfor i in range(5):\n    kept.append(xs.copy())\n    xs.append(i)\n",
    "xs = [0]\nxs.append(1)\nys = xs.copy()\nys.append(2)\nxs.append(3)\nys.append(4)\n",
    "xs = [0]\nxs.append(1)\nys = list(xs)\nxs.append(2)\nzs = xs[:2]\nxs += [3]\nzs.append(4)\n",
    "xs = []\nxs.append(1)\nys = xs + []\nxs.append(2)\nys.append(3)\nxs.extend(ys)\nys.pop()\n",
    "xs = []\nxs.append(1)\nv = xs.pop()\nxs.append(2)\n"
    "xs.append(v)\nxs.insert(1, 5)\nxs.append(6)\n",
    "xs = []\nns = []\nfor i in range(6):\n"
    "    ns.append([len(xs), sum(xs), xs == ns])\n    xs.append(i)\n",
    "rows = [[], []]\nfor i in range(5):\n    rows[i % 2].append(i)\n"
    "sums = [sum(row) for row in rows]\nrows[0].append(9)\n",
    "def f(n):\n    made = []\n    for i in range(n):\n        made.append(i)\n    return made\n"
    "xs = [f(i) for i in range(4)]\nys = f(2)\nzs = f(2)\nys.append(7)\n",
    "xs = [1]\nxs.append(2)\n"
    "fs = sorted([3, 1, 2], key=lambda v: v if v in xs else -v)\nxs.append(3)\n",
]


@pytest.mark.parametrize("text", GROWN)
def test_a_version_of_a_list_stays_as_it_was_when_the_list_grows(text: str) -> None:
    assert agree(text), "the program was refused"


GROWING_STEPS = """
xs = []
for p in ["a", "b", "c"]:
    n = llm.extract(p, int)
    xs.append(n)
    llm.write("so far", xs)
    if n > 1:
        xs.append(0)
"""


@pytest.mark.parametrize("seed", [None, *range(8)])
def test_a_step_reads_the_version_that_it_was_given(seed: int | None) -> None:
    """In whatever order the answers come, and though the operand is read after the list grew."""
    answers = {"a": 1, "b": 2, "c": 3}
    host = run(
        GROWING_STEPS,
        lambda call, args: answers[args["data"]] if call.op == "llm.extract" else "note",
        seed=seed,
    )[1]
    seen = [python(call.args["data"]) for call in host.calls if call.op == "llm.write"]
    assert sorted(seen) == [[[1]], [[1, 2]], [[1, 2, 0, 3]]]


def test_growth_under_an_untrusted_decision_does_not_reach_the_version_before() -> None:
    text = (
        "n = llm.extract('a', int)\nxs = [1]\nxs.append(2)\nold = xs.copy()\n"
        "if n > 0:\n    xs.append(3)\n"
    )
    for answer in (0, 1):
        names = run(text, lambda call, args, one=answer: one)[0].bindings()
        old, new = settle(names["old"]), settle(names["xs"])
        assert isinstance(old, Sequence) and isinstance(new, Sequence)
        assert UNTRUSTED not in old.label.integrity and UNTRUSTED in new.label.steered
        assert python(old) == [1, 2] and python(new) == [1, 2, 3][: 2 + answer]


def test_the_larger_of_a_number_and_what_a_dict_holds_is_no_container() -> None:
    assert agree(
        "d = {}\n"
        "for w in ['a', 'bb', 'a', 'ccc', 'bb']:\n"
        "    d[w] = max(d.get(w, 0), len(w))\n"
        "    d['least'] = min(len(w), d.get('least', 9))\n"
    )
    for text in ("c = max(a, b)\n", "c = max(a, 3, key=len)\n"):
        with pytest.raises(ProgramError, match="may be reached by another name"):
            parse(f"a = [1]\nb = [2]\n{text}c.append(3)\n", CATALOGUE)
