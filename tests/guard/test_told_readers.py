"""Whoever learns a call's operands by what the function is has to be among their readers."""

from __future__ import annotations

from typing import Any

import pytest

from edvac.core.errors import ConfigError
from edvac.core.label import PROGRAM, PUBLIC, Label
from edvac.core.schema import ANY, STR
from edvac.core.signature import NO_ACCESS, Catalogue, Effect, Param, Signature
from edvac.core.value import Scalar
from edvac.guard import Allow, Ask, Verdict, decide, foreseen
from edvac.guard.lint import lint
from edvac.guard.load import read, shipped
from edvac.program.host import StepCall

FIND = Signature(
    "shop.find", (Param("text", STR),), STR, Effect.READ, "", told=("app:shop",), sources=("x",)
)
BUY = Signature("shop.buy", (Param("text", STR),), STR, Effect.EXTERNAL, "", told=("app:shop",))
LOOK = Signature("web.look", (Param("text", STR),), STR, Effect.READ, "")
CATALOGUE = Catalogue.of([FIND, BUY, LOOK])
MINE = Label.of(["user"], readers=["user"])
SHARED = Label.of(["user"], readers=["user", "app:shop"])
OPEN = {"calls": "shop.*", "needs": {"text": "any"}, "readers": ["@told"], "release": True}


def verdict(
    signature: Signature, label: Label, branch: Label = PROGRAM, rule: Any = None
) -> Verdict:
    rules = read({"rule": {"r": rule}}, CATALOGUE) if rule else shipped()
    call = StepCall("", signature.op, signature, {}, {}, ANY, branch, (), 1, "at", NO_ACCESS)
    return decide(call, {"text": Scalar("x", label)}, rules)


@pytest.mark.parametrize("signature", [FIND, BUY])
def test_what_is_for_others_is_asked_about(signature: Signature) -> None:
    assert isinstance(verdict(signature, PROGRAM), Allow)
    assert isinstance(verdict(signature, SHARED), Allow)
    asked = verdict(signature, MINE)
    assert isinstance(asked, Ask) and "would show app:shop what is not meant for them" in asked.text
    assert ("cannot be undone" in asked.text) is (signature is BUY)
    assert isinstance(verdict(signature, PROGRAM, branch=MINE), Ask), "that it is called tells, too"
    assert isinstance(verdict(LOOK, MINE), Allow)


def test_a_rule_releases_to_who_is_told_only_where_it_says_so() -> None:
    found = verdict(FIND, MINE, rule=OPEN)
    assert isinstance(found, Allow) and found.accepted[0].who == ("app:shop",)
    for part in ({"release": False}, {"readers": ["text"], "needs": {"text": "trusted"}}):
        assert isinstance(verdict(FIND, MINE, rule=OPEN | part), Ask), part
    assert isinstance(verdict(FIND, MINE, branch=Label.of(["file:a"]), rule=OPEN), Ask)


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (OPEN | {"calls": "web.look"}, "policy_param_unknown"),
        (OPEN | {"needs": {"@told": "any"}}, "policy_param_unknown"),
        (OPEN | {"told": True}, "policy_key_unknown"),
        (OPEN | {"readers": []}, "policy_contradicts"),
    ],
)
def test_what_is_no_rule_about_it(rule: Any, code: str) -> None:
    with pytest.raises(ConfigError) as no:
        read({"rule": {"r": rule}}, CATALOGUE)
    assert no.value.code == code


def test_every_rule_is_tried_with_what_is_not_for_the_app() -> None:
    assert lint(shipped(), CATALOGUE) == []
    found = lint(read({"rule": {"r": OPEN}}, CATALOGUE), CATALOGUE)
    assert not any(one.wrong for one in found)


def test_it_is_foreseen() -> None:
    stranger = Label.of(["file:in/*"])
    for label, branch, answer in (
        (PROGRAM, PUBLIC, "allow"), (stranger, PUBLIC, "ask"), (PROGRAM, stranger, "ask"),
    ):  # fmt: skip
        assert foreseen(shipped(), FIND, {"text": label}, branch) == answer
    assert foreseen(read({"rule": {"r": OPEN}}, CATALOGUE), FIND, {"text": stranger}, PUBLIC) == (
        "allow"
    )
