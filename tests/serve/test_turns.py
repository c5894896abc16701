"""Turns: how many run, who is next, and what becomes of those who do not wait to the end."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.core.errors import ProcessorError
from edvac.serve.turns import Room, Turns


def test_clients_are_served_in_rotation_and_each_in_its_own_order() -> None:
    order: list[str] = []

    async def call(turns: Turns, client: str, name: str) -> None:
        async with turns.turn(client):
            order.append(name)
            await asyncio.sleep(0)

    async def scene() -> None:
        turns = Turns(1, Room(100))
        calls = [call(turns, "many", f"m{n}") for n in range(5)]
        calls += [call(turns, "one", "o0"), call(turns, "two", "t0"), call(turns, "two", "t1")]
        await asyncio.gather(*calls)
        assert (turns.running, turns.waiting) == (0, 0)

    asyncio.run(scene())
    assert order == ["m0", "m1", "o0", "t0", "m2", "t1", "m3", "m4"]


def test_too_many_are_refused_at_once() -> None:
    async def scene() -> None:
        turns = Turns(1, Room(2))
        async with turns.turn("a"):
            waiting = [asyncio.ensure_future(turns._enter("a")) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(ProcessorError, match="too many") as refused:
                async with turns.turn("b"):
                    pass
            assert refused.value.code == "service_busy" and refused.value.retryable
        await waiting[0]
        turns._leave()
        await waiting[1]
        turns._leave()
        assert (turns.running, turns.waiting) == (0, 0)

    asyncio.run(scene())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(0, 2**32))
def test_no_turn_is_lost_whoever_gives_up_when(most: int, seed: int) -> None:
    rng = random.Random(seed)
    running = highest = 0

    async def call(turns: Turns, client: str) -> None:
        nonlocal running, highest
        async with turns.turn(client):
            running += 1
            highest = max(highest, running)
            try:
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
            finally:
                running -= 1

    async def scene() -> None:
        turns = Turns(most, Room(1000))
        calls = []
        for _ in range(40):
            calls.append(asyncio.ensure_future(call(turns, rng.choice("abc"))))
            if rng.random() < 0.5:
                rng.choice(calls).cancel()
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await asyncio.gather(*calls, return_exceptions=True)
        assert (turns.running, turns.waiting) == (0, 0) and not turns._queues
        assert highest <= most

    asyncio.run(scene())


def test_who_is_refused_and_leaves_at_the_same_time_gives_no_turn_back() -> None:
    async def scene() -> None:
        turns = Turns(1, Room(9))
        async with turns.turn("a"):
            waiting = asyncio.ensure_future(turns._enter("b"))
            await asyncio.sleep(0)
            turns.refuse(ProcessorError("engine_died", "it cannot be loaded"))
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert (turns.running, turns.waiting, turns.room.waiting) == (1, 0, 0)

    asyncio.run(scene())
