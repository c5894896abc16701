"""What a run may spend, and what it has spent: tokens, money and time.

A spent budget fails nothing: steps are held back, and the run waits until somebody gives it more.
Knows nothing of models; what a call costs comes with its usage.
"""

from __future__ import annotations

from edvac.control.step import Limits, Usage


def used_tokens(usage: Usage) -> int:
    """Tokens that had to be computed: the prompt without its cached part, and the answer."""
    return usage.prompt - usage.cached + usage.completion


def over(limits: Limits, usage: Usage, seconds: float, *, model: bool) -> str:
    """Which budget holds back a step, as a clause; empty where none does. Tokens and money hold
    back model steps (`model`), time every step."""
    if 0 < limits.seconds <= seconds:
        return f"its {limits.seconds:g} s of time are spent"
    if model and 0 < limits.tokens <= used_tokens(usage):
        return f"its {limits.tokens:,} tokens are spent ({used_tokens(usage):,} were used)"
    if model and limits.money is not None and limits.money <= usage.cost:
        return f"its money is spent ({usage.cost:f} of {limits.money:f})"
    return ""
