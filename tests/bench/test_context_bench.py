"""How much prompts coincide, against comparing each with all before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edvac.bench.context import shared


@given(st.lists(st.text(alphabet="ab", max_size=8), max_size=30))
def test_neighbours_in_order_share_most(prompts: list[str]) -> None:
    total = common = 0
    for at, prompt in enumerate(prompts):
        lengths = range(len(prompt) + 1)
        common += max(
            n
            for n in lengths
            if not n or any(one[:n] == prompt[:n] and len(one) >= n for one in prompts[:at])
        )
        total += len(prompt)
    assert shared(prompts) == (common / total if total else 0.0)
