"""The protection unit: decides whether a step may happen, from labels and effects alone.

Knows nothing of how devices do their work, nor of models: a decision is a pure function of the
rules, the call, the labels of its operands and of its branch.
"""

from edvac.guard.foresee import foreseen
from edvac.guard.policy import Accepted, Allow, Ask, Deny, Policy, Verdict, decide, logged
from edvac.guard.rules import Rule, Rules, Workers

__all__ = [
    "Accepted",
    "Allow",
    "Ask",
    "Deny",
    "Policy",
    "Rule",
    "Rules",
    "Verdict",
    "Workers",
    "decide",
    "foreseen",
    "logged",
]
