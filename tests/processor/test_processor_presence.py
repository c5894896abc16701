"""Is it the processor that does not answer, or only this request?"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edvac.core.errors import (
    ConfigError,
    EdvacError,
    ModelFileError,
    ModelOutputError,
    ProcessorError,
)
from edvac.processor.presence import Presence
from edvac.processor.scripted import ScriptedProcessor


def asked(script: Any, delay_s: float = 0.0) -> bool:
    processor = ScriptedProcessor(script, delay_s=delay_s)
    return asyncio.run(Presence(processor, patience_s=0.2).away())


@pytest.mark.parametrize("kind", [ProcessorError, ConfigError, ModelFileError])
def test_who_answers_nobody_is_away(kind: type[EdvacError]) -> None:
    def script(_: Any) -> str:
        raise kind("some_code", "nobody is there")

    assert asked(script)


def test_who_takes_too_long_for_a_word_is_away() -> None:
    assert asked(lambda _: "yes", delay_s=5.0)


def test_any_answer_will_do() -> None:
    def script(_: Any) -> str:
        raise ModelOutputError("answer_empty", "it said nothing")

    assert not asked(lambda _: "no idea") and not asked(script)


def test_who_asks_at_the_same_time_shares_the_question() -> None:
    processor = ScriptedProcessor(lambda _: "yes", delay_s=0.02)
    presence = Presence(processor)

    async def all_at_once() -> list[bool]:
        return list(await asyncio.gather(*(presence.away() for _ in range(40))))

    assert asyncio.run(all_at_once()) == [False] * 40
    assert processor.calls <= 2
    asyncio.run(presence.away())
    assert processor.calls <= 3, "a later one is a new question"
