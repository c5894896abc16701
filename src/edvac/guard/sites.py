"""What pages may decide about acts on pages: the default policy, and what a person has granted.

An act on a page cannot be undone, so the default asks a person where it, or the branch that leads
to it, depends on what a page says. A person may grant two things beforehand. *Sandbox*: every
origin that the run can reach is one where acts change nothing that matters. *Steering*: an answer
that two ways of looking agree on (`browser.sees`) may decide whether an act is done; never which,
or with what. Knows nothing of pages.
"""

from __future__ import annotations

from edvac.core.label import Label
from edvac.core.signature import Effect
from edvac.core.value import Value, total_label
from edvac.guard.policy import ALLOW, TRUSTED, Ask, Policy, Verdict, decide
from edvac.program import StepCall

SEEN = "seen:"  # principals of answers that two ways of looking agree on


def with_sites(device: str, *, sandbox: bool, steering: bool) -> Policy:
    """The default policy with these grants for the acts of one device."""

    def verdict(call: StepCall, operands: dict[str, Value]) -> Verdict:
        found = decide(call, operands)
        signature = call.signature
        acts = signature.device == device and signature.effect is Effect.EXTERNAL
        if not (acts and isinstance(found, Ask)):
            return found
        own = all(total_label(one).integrity <= TRUSTED for one in operands.values())
        return ALLOW if sandbox or (steering and own and _agreed(call.branch)) else found

    return verdict


def _agreed(branch: Label) -> bool:
    return all(one in TRUSTED or one.startswith(SEEN) for one in branch.integrity)
