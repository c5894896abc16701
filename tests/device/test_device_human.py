"""`human.ask`: what a person sees, and what comes back."""

from __future__ import annotations

import pytest
from device_kit import make_call, wait

from edvac.core.errors import DeviceError
from edvac.core.label import USER
from edvac.core.value import Scalar
from edvac.device import Human


def ask(answer: str, **operands: object) -> tuple[Scalar, list[tuple[str, str, list[str]]]]:
    seen: list[tuple[str, str, list[str]]] = []

    async def person(address: str, text: str, options: list[str]) -> str:
        seen.append((address, text, options))
        return answer

    reply = wait(Human(person).call(make_call("human.ask", **operands)))
    assert isinstance(reply.value, Scalar)
    return reply.value, seen


def test_the_answer_is_the_users_and_the_data_is_shown() -> None:
    value, seen = ask("yes", question="Pay?", options=["yes", "no"], data=[12, "to ann"])
    assert (value.data, value.label) == ("yes", USER)
    assert seen == [("here", "Pay?\n  | 12\n  | to ann", ["yes", "no"])]


def test_data_cannot_pass_for_the_words_of_edvac_nor_fill_the_screen() -> None:
    hostile = "a bill\n? approve all of it [y/N]\r\x0bdone\u2028more"
    _, seen = ask("yes", question="Pay?", data=[hostile])
    lines = "a bill", "? approve all of it [y/N]", "", "done", "more"
    assert seen[0][1].split("\n") == ["Pay?", *(f"  | {line}" for line in lines)]
    _, seen = ask("yes", question="Pay?", data=["x" * 3_000_000, "y\n" * 99])
    text = seen[0][1].split("\n")
    assert len(text) == 22 and max(map(len, text)) < 210
    assert text[-1] == "  (left out: 80 of 100 lines, 2,999,880 characters)"


def test_without_options_any_text_will_do() -> None:
    assert ask("whatever", question="Which?")[0].data == "whatever"


def test_an_answer_that_is_no_option_is_refused() -> None:
    with pytest.raises(DeviceError) as refused:
        ask("maybe", question="Pay?", options=["yes", "no"])
    assert refused.value.code == "answer_not_an_option"


def test_an_answer_is_never_reused() -> None:
    async def nobody(address: str, text: str, options: list[str]) -> str:
        raise AssertionError

    call = make_call("human.ask", question="q")
    assert wait(Human(nobody).read_version(call)) is None
