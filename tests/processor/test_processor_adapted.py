"""Adapters by names of one's own: when they are read, and when they are let go of."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edvac.core.errors import ConfigError, ModelFileError, ProcessorError
from edvac.processor.adapted import NamedAdapters


class Engine:
    """Holds names; a load ends when `ready` is set."""

    def __init__(self) -> None:
        self.gone = False
        self.held: set[str] = set()
        self.loads = 0
        self.error: Exception | None = None
        self.ready = asyncio.Event()
        self.ready.set()

    async def load_adapter(self, name: str, path: Path) -> str:
        self.loads += 1
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        self.held.add(name)
        return name

    async def unload_adapter(self, name: str) -> None:
        if self.gone:
            raise ProcessorError("engine_died", "it is gone")
        self.held.remove(name)


@pytest.fixture
def named(tmp_path: Path) -> NamedAdapters:
    for name in "xy":
        (tmp_path / f"{name}.gguf").write_bytes(name.encode())
    files = {"x": "x.gguf", "y": "y.gguf", "twin": "x.gguf"}
    return NamedAdapters({name: tmp_path / file for name, file in files.items()})


def test_it_is_let_go_of_when_its_last_user_has_left(named: NamedAdapters) -> None:
    async def scene() -> None:
        engine = Engine()
        async with named.using("x", engine) as one:
            async with named.using("x", engine) as other:
                assert one == other and engine.loads == 1 and named.is_loaded("x")
                await named.unload("x")
                assert engine.held == {one} and not named.is_loaded("x")
            assert engine.held == {one}, "one still uses it"
        assert not engine.held
        await named.load("x", engine)
        await named.load("twin", engine)
        await named.unload("x")
        assert engine.held == {one}, "the other name holds it"
        await named.unload("twin")
        await named.unload("twin")
        assert not engine.held

    asyncio.run(scene())


def test_a_name_that_comes_back_while_the_old_hold_ends_stays(named: NamedAdapters) -> None:
    async def scene() -> None:
        engine = Engine()
        async with named.using("x", engine):
            await named.unload("x")
            await named.load("x", engine)
        assert engine.held and named.is_loaded("x")

    asyncio.run(scene())


def test_what_fails_is_tried_again_and_who_gives_up_takes_it_from_nobody(
    named: NamedAdapters,
) -> None:
    async def scene() -> None:
        engine = Engine()
        engine.error = ModelFileError("adapter_malformed", "it is damaged")
        for _ in range(2):
            with pytest.raises(ModelFileError):
                await named.load("x", engine)
        engine.error = None
        engine.ready.clear()
        calls = [asyncio.ensure_future(named.load("x", engine)) for _ in range(2)]
        while engine.loads < 3:  # noqa: ASYNC110 - the hash is taken in a thread
            await asyncio.sleep(0.001)
        calls[0].cancel()
        leaving = asyncio.ensure_future(named.unload("y"))
        await leaving
        engine.ready.set()
        await calls[1]
        assert engine.held and engine.loads == 3
        with pytest.raises(ConfigError, match="no adapter 'z'"):
            await named.load("z", engine)

    asyncio.run(scene())


def test_one_that_is_unloaded_while_it_is_read_is_not_kept(named: NamedAdapters) -> None:
    async def scene() -> None:
        engine = Engine()
        engine.ready.clear()
        call = asyncio.ensure_future(named.load("x", engine))
        while not engine.loads:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        leaving = asyncio.ensure_future(named.unload("x"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.sleep(0)
        engine.ready.set()
        await leaving
        assert not engine.held

    asyncio.run(scene())


def test_another_engine_holds_nothing_yet_and_one_that_died_fails_nobody(
    named: NamedAdapters,
) -> None:
    async def scene() -> None:
        first, second = Engine(), Engine()
        async with named.using("x", first):
            await named.unload("x")
            first.gone = True
        await named.load("x", first)
        assert not named.is_loaded("x")
        await named.load("x", second)
        assert second.held and named.is_loaded("x")
        await named.unload("x")
        assert not second.held

    asyncio.run(scene())
