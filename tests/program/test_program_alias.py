"""Programs full of shared containers: accepted ones agree with CPython, copies are accepted."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_program_oracle import agree

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


def program(chance: random.Random) -> str:
    lines = [HEAD.strip()]
    for number in range(chance.randrange(3, 9)):
        lines.append(line(chance, number))
    return "\n".join(lines) + "\n"


def line(chance: random.Random, number: int) -> str:
    x, y = chance.choice(DEEP), chance.choice(DEEP)
    p, q = chance.choice(FLAT), chance.choice(FLAT)
    return chance.choice(
        [
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
            f"{x} = {x if x != y else y} = {y}" if False else f"{x} = {y}.copy()",
            f"{p} = {q}",
            f"{p} = list({q})",
            f"{p} = first({x})",
            f"{p} = {x}[0]",
            f"{p} = fresh({x})",
            f"{p} = max({x})",
            f"{p} = d['k']",
            f"{p} = d.get('m', {q})",
            f"{p} = [v for w in {x} for v in w]",
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
            f"{p} = {x}.pop()",
            f"{x}.reverse()",
            f"d['k'] = {p}",
            f"d['k'].append({number})",
            f"d.setdefault('n', []).append({number})",
            f"d.setdefault('n', {p}).append({number})",
            f"d['n'] = [{number}]",
            f"d.update({{'k': {p}}})",
            "d = dict(d)",
            "d = {k: v for k, v in d.items()}",
            f"for v in {x}:\n    {p} = v",
            f"for v in {x}:\n    {p}.append(len(v))",
            f"for v in {x}:\n    {y}.append(v)",
            f"for v in list({x}):\n    {x}.append(v)",
            f"for v in {x}:\n    v.append({number})",
            f"for v in {p}:\n    {q}.append(v)",
            f"if len({p}) > 1:\n    {p} = {q}\nelse:\n    {p} = [0]",
            f"for k, v in d.items():\n    {p}.extend(v)",
        ]
    )


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_shared_containers(chance: random.Random) -> None:
    agree(program(chance))


@pytest.mark.slow
def test_many_shared_containers() -> None:
    legal = sum(agree(program(random.Random(seed))) for seed in range(3000))
    assert legal > 300
