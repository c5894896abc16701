"""The protection unit: decides whether a step may happen, from labels and effects alone.

Knows nothing of how devices do their work, nor of models: a decision is a pure function of the
call, the labels of its operands and of its branch.
"""

from edvac.guard.policy import Allow, Ask, Deny, Policy, Verdict, decide

__all__ = ["Allow", "Ask", "Deny", "Policy", "Verdict", "decide"]
