"""Trying again outside of a run: after what passes, not after what does not, never twice heard."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edvac.core.errors import ConfigError, EdvacError, ProcessorError
from edvac.processor import Message, Request, Segment, patient
from edvac.processor.scripted import ScriptedProcessor

ASK = Request("run", "slot", (Message("user", (Segment("x"),)),))


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(patient.asyncio, "sleep", sleep)
    return found


def failing(times: int, error: EdvacError) -> ScriptedProcessor:
    left = [times]

    def script(request: Any) -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return "done"

    return ScriptedProcessor(script)


def busy(wait_s: float) -> ProcessorError:
    error = ProcessorError("endpoint_busy", "it is busy")
    error.wait_s = wait_s
    return error


def test_it_waits_as_long_as_it_was_asked_to(slept: list[float]) -> None:
    said: list[str] = []
    made = patient.Patient(failing(3, busy(1.5)), said.append)
    assert asyncio.run(made.complete(ASK)).text == "done"
    assert slept == [1.5, 1.5, 2.0]
    assert said[0] == "it is busy; again in 1.5 s"


def test_it_gives_up_in_the_end_and_at_once_where_waiting_does_not_help(
    slept: list[float],
) -> None:
    with pytest.raises(ProcessorError):
        asyncio.run(patient.Patient(failing(99, busy(0))).complete(ASK))
    assert len(slept) == patient.ATTEMPTS - 1
    slept.clear()
    with pytest.raises(ConfigError):
        asyncio.run(patient.Patient(failing(1, ConfigError("x", "y"))).complete(ASK))
    assert not slept


def test_what_was_heard_cannot_be_taken_back(slept: list[float]) -> None:
    class Breaks(ScriptedProcessor):
        async def complete(self, request: Any, on_text: Any = None) -> Any:
            if on_text is not None:
                on_text("half", 1)
            raise busy(0)

    heard: list[str] = []
    with pytest.raises(ProcessorError):
        made = patient.Patient(Breaks(str))
        asyncio.run(made.complete(ASK, lambda text, n: heard.append(text)))
    assert heard == ["half"] and not slept


def test_everything_else_is_passed_on() -> None:
    inner = ScriptedProcessor(str, name="inner")
    made = patient.Patient(inner)
    for name in ("identity", "concurrency", "context_tokens", "has_grammar", "endpoint", "price"):
        assert getattr(made, name) == getattr(inner, name)
