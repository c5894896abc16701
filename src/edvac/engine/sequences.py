"""What sequences of tokens have in common."""

from __future__ import annotations

from typing import TypeAlias

Prefix: TypeAlias = "tuple[str, list[int]]"  # reader class and tokens


def common_prefix(one: list[int], other: list[int]) -> int:
    """Length of the longest common prefix."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:  # one[:low] is equal, one[:high] is not
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
