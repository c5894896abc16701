"""How much prompts coincide, against comparing each with all before it."""

from __future__ import annotations

import os.path

from hypothesis import given
from hypothesis import strategies as st

from edvac.bench.context import shared


@given(st.lists(st.text(alphabet="ab", max_size=8), max_size=30))
def test_neighbours_in_order_share_most(prompts: list[str]) -> None:
    total = common = 0
    for at, prompt in enumerate(prompts):
        before = (os.path.commonprefix([prompt, one]) for one in prompts[:at])
        common += max(map(len, before), default=0)
        total += len(prompt)
    assert shared(prompts) == (common / total if total else 0.0)
