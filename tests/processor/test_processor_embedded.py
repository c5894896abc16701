"""The client side of the embedded engine: which file it accepts as a model of the catalogue."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edvac.core.errors import ModelFileError, ProcessorError
from edvac.engine.client import EngineSpec
from edvac.engine.protocol import Done
from edvac.processor import Message, Request, Segment, embedded
from edvac.processor.port import Tools


class Engine:
    ready = SimpleNamespace(sha256="ab" * 32, model="m", setting="fast")
    closed = 0
    gone = False

    async def close(self) -> None:
        Engine.closed += 1

    async def release(self) -> None:
        Engine.closed += 1


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(spec: EngineSpec, progress: Any) -> Engine:
        return Engine()

    monkeypatch.setattr(embedded, "connect_or_start", connect)
    monkeypatch.setattr(Engine, "closed", 0)


def test_a_file_that_was_changed_is_not_the_model_of_its_name() -> None:
    changed = embedded.EmbeddedProcessor(EngineSpec(Path("m.gguf")), sha256="cd" * 32)
    with pytest.raises(ModelFileError, match="begins abababababab and should begin cdcdcdcdcdcd"):
        asyncio.run(changed.open())
    assert Engine.closed == 1


@pytest.mark.parametrize("sha256", ["ab" * 32, None])
def test_the_right_file_and_one_named_by_its_path(sha256: str | None) -> None:
    processor = embedded.EmbeddedProcessor(EngineSpec(Path("m.gguf")), sha256=sha256)
    asyncio.run(processor.open())
    assert processor.identity == f"m@{'ab' * 8}/fast"
    asyncio.run(processor.close())
    assert Engine.closed == 1


def test_answers_of_fewer_bits_are_not_those_of_float16() -> None:
    processor = embedded.EmbeddedProcessor(EngineSpec(Path("m.gguf"), kv_type="int4"))
    asyncio.run(processor.open())
    assert processor.identity == f"m@{'ab' * 8}/fast/int4"
    processor = embedded.EmbeddedProcessor(EngineSpec(Path("m.gguf"), kv_disk_type="int8"))
    asyncio.run(processor.open())
    assert processor.identity == f"m@{'ab' * 8}/fast/disk-int8"


def test_the_model_has_its_name_while_the_engine_is_replaced_and_when_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name is part of a step's key, before anything is asked of the engine."""
    processor = embedded.EmbeddedProcessor(EngineSpec(Path("m.gguf")))
    name = f"m@{'ab' * 8}/fast"

    async def broken(spec: EngineSpec, progress: Any) -> Engine:
        await asyncio.sleep(0.01)
        raise ProcessorError("engine_died", "no memory is left")

    async def live() -> None:
        await processor.open()
        assert processor._client is not None
        processor._client.gone = True  # type: ignore[misc]
        monkeypatch.setattr(embedded, "connect_or_start", broken)
        opening = asyncio.ensure_future(processor.open())
        await asyncio.sleep(0)
        assert processor.identity == name
        with pytest.raises(ProcessorError):
            await opening
        assert processor.identity == name

    asyncio.run(live())


def test_an_engine_that_has_ended_is_replaced_once() -> None:
    processor = embedded.EmbeddedProcessor(EngineSpec(Path("m.gguf")))
    opened: list[Any] = []

    async def meet() -> None:
        await processor.open()
        opened.append(processor._client)

    async def live() -> None:
        await meet()
        await meet()
        opened[0].gone = True
        await asyncio.gather(*(meet() for _ in range(8)))

    asyncio.run(live())
    first, second, *others = opened
    assert first is second and first is not others[0]
    assert all(other is others[0] for other in others) and Engine.closed == 1


def test_an_adapter_is_loaded_by_its_content_and_is_part_of_the_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was answered under one adapter is never reused for another."""
    loaded: list[tuple[str, Path]] = []

    async def load(self: Engine, name: str, path: Path) -> str:
        if path.stem == "empty":
            raise ModelFileError("adapter_malformed", "the adapter cannot be used")
        loaded.append((name, path))
        return name

    monkeypatch.setattr(Engine, "load_adapter", load, raising=False)
    names = set()
    for content in (b"one", b"two"):
        file = tmp_path / f"{content.decode()}.gguf"
        file.write_bytes(content)
        processor = embedded.EmbeddedProcessor(EngineSpec(Path("m.gguf")), adapter=file)
        asyncio.run(processor.open())
        names.add(processor.identity)
        assert processor.identity == f"m@{'ab' * 8}/fast+{loaded[-1][0][:16]}"
    assert len(names) == 2
    (tmp_path / "empty.gguf").touch()
    broken = embedded.EmbeddedProcessor(EngineSpec(Path("m.gguf")), adapter=tmp_path / "empty.gguf")
    with pytest.raises(ModelFileError):
        asyncio.run(broken.open())
    assert Engine.closed == 1


CALL = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "goes_on", "wanted"),
    [(CALL, True, [("tool_started", "talk 7", "look")]), ("Hello.", True, []), (CALL, False, [])],
)
def test_a_talk_that_calls_a_tool_is_told_to_wait_for_it(
    monkeypatch: pytest.MonkeyPatch, text: str, goes_on: bool, wanted: list[tuple[str, str, str]]
) -> None:
    """By the name that the engine knows it by: its client gave none."""
    hints: list[Any] = []

    async def generate(self: Engine, request: Any, *_: Any, **__: Any) -> Done:
        return Done(
            id=request.id, text=text, finish_reason="stop", prompt_tokens=1, cached_tokens=0,
            completion_tokens=1, program="talk 7",
        )  # fmt: skip

    monkeypatch.setattr(Engine, "generate", generate, raising=False)
    monkeypatch.setattr(Engine, "hint", lambda self, hint: hints.append(hint), raising=False)
    monkeypatch.setattr(Engine.ready, "control_tokens", [], raising=False)
    monkeypatch.setattr(Engine.ready, "chat_template", None, raising=False)
    monkeypatch.setattr(Engine.ready, "special_tokens", {}, raising=False)
    processor = embedded.EmbeddedProcessor(EngineSpec(Path("m.gguf")))
    request = Request(
        "serve-1", "", (Message("user", (Segment("Look."),)),), goes_on=goes_on,
        tools=Tools(({"name": "look", "parameters": {"type": "object"}},)),
    )  # fmt: skip
    asyncio.run(processor.complete(request))
    assert [(one.kind, one.program, one.detail) for one in hints if one.kind != "open"] == wanted
