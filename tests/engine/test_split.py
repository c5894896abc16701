"""Two engines as one: the same text, whichever read the prompt, and whatever becomes of the one
that reads."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edvac.bench.mixed import link
from edvac.core.errors import ConfigError, OperandError
from edvac.engine import split as module
from edvac.engine.client import EngineSpec, connect_or_start
from edvac.engine.protocol import Segment
from edvac.engine.split import SplitClient, connect_split

from .test_process import ask, gone, spec

__all__ = ["spec"]  # a fixture
LONG = [Segment("tell me about the hell " * 6), Segment("and the end")]


@pytest.fixture(autouse=True)
def handover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_MEMORY", tmp_path)
    monkeypatch.setattr(module, "LONG", 100)
    return tmp_path / f"edvac-handover-{os.getuid()}"


def both(spec: EngineSpec, scene: Callable[[SplitClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        client = await connect_split(spec)
        try:
            await scene(client)
        finally:
            await client.close()
            for one in (client.reads, client.writes):
                await gone(one.ready.pid)

    asyncio.run(whole())


def alone(spec: EngineSpec) -> str:
    async def whole() -> str:
        client = await connect_or_start(spec)
        try:
            return (await client.generate(ask("a", segments=LONG))).text
        finally:
            await client.close()
            await gone(client.ready.pid)

    return asyncio.run(whole())


@pytest.mark.parametrize("setting", ["reference", "fast"])
def test_a_prompt_that_another_engine_read_gives_the_same_text(
    spec: EngineSpec, handover: Path, setting: str
) -> None:
    chosen = replace(spec, setting=setting)  # type: ignore[arg-type]
    wanted = alone(chosen)

    async def scene(client: SplitClient) -> None:
        assert client.reads.ready.pid != client.writes.ready.pid
        done = await client.generate(ask("a", segments=LONG))
        assert done.text == wanted
        assert done.cached_tokens == done.prompt_tokens - 1, "the last one has to be computed"
        assert (await client.reads.stats()).decode_tokens == 0
        short = await client.generate(ask("b"))
        assert short.cached_tokens == 0

    both(chosen, scene)
    assert len(list(handover.iterdir())) == 1


def test_a_talk_that_goes_on_stays_where_it_is(spec: EngineSpec) -> None:
    async def scene(client: SplitClient) -> None:
        await client.generate(ask("a", segments=LONG, program="p"))
        read = (await client.reads.stats()).prefill_tokens
        more = [*LONG, Segment(" and more")]
        done = await client.generate(ask("b", segments=more, program="p"))
        assert (await client.reads.stats()).prefill_tokens == read
        assert done.cached_tokens > 0

    both(spec, scene)


def test_the_end_of_the_reading_engine_costs_time_only(spec: EngineSpec) -> None:
    async def scene(client: SplitClient) -> None:
        wanted = (await client.generate(ask("a", segments=LONG))).text
        os.kill(client.reads.ready.pid, signal.SIGKILL)
        other = [Segment("and " + LONG[0].text), LONG[1]]
        assert (await client.generate(ask("b", segments=other))).completion_tokens > 0
        assert (await client.generate(ask("c", segments=LONG))).text == wanted
        assert client.reads.gone and not client.gone

    both(spec, scene)


def test_what_is_wrong_is_said_by_the_engine_that_answers(spec: EngineSpec) -> None:
    async def scene(client: SplitClient) -> None:
        with pytest.raises(OperandError):
            await client.generate(ask("big", segments=[Segment("x" * 2000)]))
        with pytest.raises(ConfigError):
            await client.generate(ask("bad", segments=LONG, schema='{"type":"nonsense"}'))

    both(spec, scene)


def test_a_directory_that_others_can_read_is_refused(spec: EngineSpec, handover: Path) -> None:
    handover.mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="private"):
        module.handover_of(spec)


def test_the_measurement_of_a_hand_over_hands_over(spec: EngineSpec, handover: Path) -> None:
    async def scene(client: SplitClient) -> None:
        found = await link(client, 60, 7)
        assert found.read > 0
        read, wrote = await client.reads.stats(), await client.writes.stats()
        assert wrote.prefill_tokens <= 2 < read.prefill_tokens, "it took what the other one read"

    both(replace(spec, setting="fast"), scene)
    assert len(list(handover.iterdir())) == 1
