"""What pages may decide about acts on pages: the policy, and what a person has granted.

An act on a page cannot be undone, so the shipped policy asks a person where it, or the branch that
leads to it, depends on what a page says. A person may grant two things beforehand. *Sandbox*: every
origin that the run can reach is one where acts change nothing that matters. *Steering*: an answer
that two ways of looking agree on (`browser.sees`) may decide whether an act is done; never which,
or with what. A rule of the workspace about these acts goes before both. Knows nothing of pages.
"""

from __future__ import annotations

from edvac.core.label import Label
from edvac.core.signature import Effect
from edvac.core.value import Value, total_label
from edvac.guard.policy import ALLOW, Ask, Policy, Verdict
from edvac.guard.rules import TRUSTED, Rules
from edvac.program import StepCall

SEEN = "seen:"  # principals of answers that two ways of looking agree on


def with_sites(
    policy: Policy, rules: Rules, device: str, *, sandbox: bool, steering: bool
) -> Policy:
    """The policy of these rules with grants for the acts of one device."""

    def verdict(call: StepCall, operands: dict[str, Value]) -> Verdict:
        found = policy(call, operands)
        signature = call.signature
        acts = signature.device == device and signature.effect is Effect.EXTERNAL
        rule = rules.of(signature)
        own_rule = rule is not None and not rule.shipped
        if own_rule or not (acts and isinstance(found, Ask)):
            return found
        own = all(total_label(one).integrity <= TRUSTED for one in operands.values())
        return ALLOW if sandbox or (steering and own and _agreed(call.branch)) else found

    return verdict


def _agreed(branch: Label) -> bool:
    return all(one in TRUSTED or one.startswith(SEEN) for one in branch.integrity)
