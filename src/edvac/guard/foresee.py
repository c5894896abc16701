"""What the policy may answer to a call of which only the text is known: before anything has run.

Errs towards the stricter answer, but for what only values decide: bits within a rule's bound, a
name within a directory that the program spells, readers, how often a rule was used.
"""

from __future__ import annotations

from collections.abc import Mapping

from edvac.core.label import Label
from edvac.core.signature import Signature
from edvac.guard.policy import strictest
from edvac.guard.rules import TOLD, TRUSTED, Answer, Need, Rules


def foreseen(
    rules: Rules, signature: Signature, params: Mapping[str, Label], branch: Label
) -> Answer:
    """The strictest answer that influence like this may meet.

    Args:
        params: by parameter, who could influence what is given.
        branch: who could decide whether the call is made.
    """
    answers: list[Answer] = ["allow"]
    for rule in (rules.floor, rules.of(signature)):
        if rule is None:
            continue
        answers.append(rule.answer)
        for param in signature.params:
            need = rule.need(param, signature)
            label = params.get(param.name)
            if label is not None and _strange(rules, label, need):
                answers.append(need.otherwise or rule.otherwise)
        if rules.strange(branch.integrity, rule.branch):
            answers.append(rule.otherwise)
        if (
            rule is not rules.floor
            and TOLD not in rule.readers
            and _told(signature, params, branch)
        ):
            answers.append(rule.otherwise)
    return strictest(answers)


def _told(signature: Signature, params: Mapping[str, Label], branch: Label) -> bool:
    """Could somebody learn what is not meant for them? What only you and the program have made is
    for everybody; of the rest it is not known yet for whom it is."""
    given = [label for name, label in params.items() if signature.param(name) is not None]
    who = frozenset().union(*(label.integrity for label in (*given, branch)))
    return bool(signature.told) and not who <= TRUSTED


def _strange(rules: Rules, label: Label, need: Need) -> frozenset[str]:
    if need.in_directory or need.bits is not None:
        return frozenset()
    return rules.strange(label.sources if need.made_of else label.integrity, need.by)
