"""What the policy may answer is known from the text of a call."""

from __future__ import annotations

import pytest

from edvac.core.label import PROGRAM, PUBLIC, Label
from edvac.core.schema import STR
from edvac.core.signature import Effect, Param, Role, Signature
from edvac.guard import Rule, Rules, foreseen
from edvac.guard.load import shipped
from edvac.guard.rules import Need

SEND = Signature("mail.send", (Param("to", STR), Param("text", STR)), STR, Effect.EXTERNAL, "")
WRITE = Signature("files.write", (Param("path", STR), Param("text", STR)), STR, Effect.WRITE, "")
TELL = Signature("llm.tell", (Param("goal", STR, role=Role.INSTRUCTION),), STR, Effect.PURE, "")
STRANGER = Label.of(["file:in/*"])
OWN = {"to": PROGRAM, "text": PROGRAM}


@pytest.mark.parametrize(
    ("signature", "params", "branch", "answer"),
    [
        (SEND, OWN, PUBLIC, "allow"),
        (SEND, OWN | {"text": STRANGER}, PUBLIC, "ask"),
        (SEND, OWN | {"text": PROGRAM.steer(STRANGER)}, PUBLIC, "ask"),
        (SEND, OWN, STRANGER, "ask"),
        (WRITE, OWN | {"text": STRANGER}, STRANGER, "allow"),
        (TELL, {"goal": STRANGER}, PUBLIC, "deny"),
        (TELL, {"goal": PROGRAM}, STRANGER, "allow"),
    ],
)
def test_the_shipped_policy(
    signature: Signature, params: dict[str, Label], branch: Label, answer: str
) -> None:
    assert foreseen(shipped(), signature, params, branch) == answer


def test_a_rule_of_the_workspace_counts_and_bits_are_left_to_the_run() -> None:
    floor = shipped().floor
    needs = {"to": Need(("trusted",), bits=4), "text": Need((), otherwise="dry_run")}
    rules = Rules(floor, (Rule("mine", ("mail.*",), needs=needs, otherwise="deny"),))
    assert foreseen(rules, SEND, OWN | {"to": STRANGER}, PUBLIC) == "allow"
    assert foreseen(rules, SEND, OWN | {"text": STRANGER}, PUBLIC) == "dry_run"
    denied = Rules(floor, (Rule("mine", ("mail.*",), answer="deny"),))
    assert foreseen(denied, SEND, OWN, PUBLIC) == "deny"
