"""Adapters by name and by number over HTTP, with a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edvac.serve.models import Models
from edvac.serve.offered import Offered

from .engines import end_all, engines_at, with_adapters, write_models
from .served import Pieces, post, served

pytestmark = pytest.mark.xdist_group("service")
CHAT = "/v1/chat/completions"
NAMES = ("x", "y", "twin", "broken")
Work = Callable[[str, httpx2.AsyncClient, Models[Offered]], Awaitable[None]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, two adapters that differ, one more name for the first, and one that is damaged."""
    from engine.lora import matrices, write_gguf, write_peft

    folder = tmp_path_factory.mktemp("lora")
    (model,) = write_models(folder, 1)
    x = write_gguf(folder / "x.gguf", matrices(1), "qwen2")
    (folder / "broken.gguf").write_bytes(b"nothing")
    found = {"": model, "x": x, "y": write_peft(folder / "y", matrices(2)), "twin": x}
    return found | {"broken": folder / "broken.gguf"}


def play(files: dict[str, Path], home: Path, work: Work) -> None:
    async def scene() -> None:
        models = with_adapters(files[""], home, {name: files[name] for name in NAMES})
        try:
            async with served(models) as (url, http):
                await asyncio.wait_for(work(url, http, models), 60)
        finally:
            await end_all(models)
        assert engines_at(home / "run") == 0

    asyncio.run(scene())


def asked(model: str, text: str = "tell me", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    base = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 16}
    return base | more


async def text_of(http: httpx2.AsyncClient, url: str, document: dict[str, Any]) -> str:
    reply = await http.post(url + CHAT, json=document)
    assert reply.status_code == 200, reply.text
    assert reply.json()["model"] == document["model"]
    return str(reply.json()["choices"][0]["message"]["content"])


async def code_of(http: httpx2.AsyncClient, url: str, path: str, document: Any) -> tuple[int, str]:
    reply = await http.post(url + path, json=document)
    return reply.status_code, reply.json()["error"]["code"]


async def memory(models: Models[Offered]) -> tuple[int, int]:
    """Adapters and their bytes in the engine."""
    stats = await models.places[0].model.processor.stats()
    return stats.adapters, stats.adapter_bytes


def test_adapters_of_one_batch_answer_as_each_does_alone(
    files: dict[str, Path], tmp_path: Path
) -> None:
    async def work(url: str, http: httpx2.AsyncClient, models: Models[Offered]) -> None:
        texts = ["tell me", "the hell", "hello you"]
        wanted = [(name, text) for name in ("m0", "x", "y") for text in texts]
        alone = {pair: await text_of(http, url, asked(*pair)) for pair in wanted}
        assert len({alone[name, "tell me"] for name in ("m0", "x", "y")}) == 3
        before = await models.places[0].model.processor.stats()
        together = await asyncio.gather(*(text_of(http, url, asked(*pair)) for pair in wanted))
        assert dict(zip(wanted, together, strict=True)) == alone
        after = await models.places[0].model.processor.stats()
        tokens = after.decode_tokens - before.decode_tokens
        assert after.steps - before.steps < tokens / 2, "they shared steps"
        numbered = [
            text_of(http, url, asked("m0", lora=[{"id": at}, {"id": 1 - at, "scale": 0}]))
            for at in (0, 1)
        ]
        assert await asyncio.gather(*numbered) == [alone["x", "tell me"], alone["y", "tell me"]]
        native = {"prompt": "a", "n_predict": 8, "temperature": 0}
        bodies = [
            (await http.post(f"{url}/completion", json=native | more)).json()
            for more in ({"lora": [{"id": 1}]}, {"model": "y"}, {})
        ]
        one, same, other = (body["content"] for body in bodies)
        assert one == same != other

    play(files, tmp_path, work)


def test_what_is_unloaded_gives_its_memory_back_and_comes_again(
    files: dict[str, Path], tmp_path: Path
) -> None:
    async def work(url: str, http: httpx2.AsyncClient, models: Models[Offered]) -> None:
        def order(what: str, name: str) -> Awaitable[httpx2.Response]:
            return http.post(f"{url}/v1/{what}_lora_adapter", json={"lora_name": name})

        base = await text_of(http, url, asked("m0"))
        assert await memory(models) == (0, 0), "none is read before it is asked for"
        first = await text_of(http, url, asked("x"))
        _, one = await memory(models)
        assert await text_of(http, url, asked("twin")) == first
        assert await memory(models) == (1, one), "one content is held once"
        assert (await order("unload", "x")).status_code == 200
        assert await memory(models) == (1, one) and await text_of(http, url, asked("twin"))
        running = asyncio.ensure_future(text_of(http, url, asked("twin", max_tokens=400)))
        while not (await models.places[0].model.processor.stats()).running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await order("unload", "twin")).status_code == 200
        assert await code_of(http, url, CHAT, asked("twin")) == (404, "model_not_found")
        assert not running.done() and (await memory(models))[1] == one, "it is in use"
        assert len(await running) > 0
        assert await memory(models) == (0, 0)
        assert (await order("unload", "twin")).status_code == 404
        assert (await order("load", "x")).status_code == 200
        assert await memory(models) == (1, one)
        assert await text_of(http, url, asked("x")) == first != base
        listed = (await http.get(f"{url}/v1/models")).json()["data"]
        about = {one["id"]: (one.get("parent"), one["status"]["value"]) for one in listed}
        assert about == {
            "m0": (None, "loaded"), "x": ("m0", "loaded"), "y": ("m0", "unloaded"),
            "broken": ("m0", "unloaded"),
        }  # fmt: skip
        assert str(tmp_path) not in (await http.get(f"{url}/v1/models")).text

    play(files, tmp_path, work)


def test_a_call_that_waited_while_its_adapter_was_unloaded_is_answered_and_leaves_nothing(
    files: dict[str, Path], tmp_path: Path
) -> None:
    async def work(url: str, http: httpx2.AsyncClient, models: Models[Offered]) -> None:
        right = await text_of(http, url, asked("x"))
        turns = models.places[0].turns
        most, turns.most = turns.most, 0
        waiting = asyncio.ensure_future(text_of(http, url, asked("x")))
        while not turns.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        reply = await http.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": "x"})
        assert reply.status_code == 200
        turns.most = most
        turns.open()
        assert await waiting == right and await memory(models) == (0, 0)

    play(files, tmp_path, work)


def test_scales_of_all_requests_are_set_as_llamas_clients_do(
    files: dict[str, Path], tmp_path: Path
) -> None:
    async def work(url: str, http: httpx2.AsyncClient, models: Models[Offered]) -> None:
        async def scales() -> dict[str, float]:
            reply = await http.get(f"{url}/lora-adapters")
            assert str(files["x"].parent) not in reply.text
            return {one["name"]: one["scale"] for one in reply.json()}

        base, under = [await text_of(http, url, asked(name)) for name in ("m0", "y")]
        assert await scales() == {"x": 0.0, "y": 0.0, "twin": 0.0, "broken": 0.0}
        reply = await http.post(f"{url}/lora-adapters", json=[{"id": 1, "scale": 1.0}])
        assert reply.json() == {"success": True} and (await scales())["y"] == 1.0
        assert await text_of(http, url, asked("m0")) == under
        assert await text_of(http, url, asked("m0", lora=[])) == base, "it says so itself"
        assert await text_of(http, url, asked("m0", lora=[{"id": 1, "scale": 0}])) == base
        for bad, code in (
            ([{"id": 9, "scale": 1}], "adapter_id_unknown"),
            ([{"id": 0, "scale": 0.5}], "adapter_scale"),
            ([{"id": 0}, {"id": 1}], "adapter_several"),
            ({"id": 0}, "request_malformed"),
        ):
            assert await code_of(http, url, "/lora-adapters", bad) == (400, code)
            assert await code_of(http, url, CHAT, asked("m0", lora=bad)) == (400, code)
        await http.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": "y"})
        assert await text_of(http, url, asked("m0")) == base
        assert await scales() == {"x": 0.0, "twin": 0.0, "broken": 0.0}
        bad = asked("m0", lora=[{"id": 1}])
        assert await code_of(http, url, CHAT, bad) == (400, "adapter_id_unknown")

    play(files, tmp_path, work)


def test_files_that_clients_name_are_not_read_and_damaged_ones_are_told(
    files: dict[str, Path], tmp_path: Path
) -> None:
    async def work(url: str, http: httpx2.AsyncClient, models: Models[Offered]) -> None:
        place = "/v1/load_lora_adapter"
        named = {"lora_name": "x", "lora_path": str(files["x"])}
        assert await code_of(http, url, place, named) == (403, "adapter_path")
        found = await code_of(http, url, place, {"lora_name": "z"})
        assert found == (404, "model_not_found")
        for document in (asked("broken"), asked("broken", stream=True)):
            assert await code_of(http, url, CHAT, document) == (500, "model_malformed")
        status, _ = await code_of(http, url, place, {"lora_name": "broken"})
        assert status == 500
        assert await text_of(http, url, asked("x")) and await memory(models) != (0, 0)

    play(files, tmp_path, work)


def test_a_model_without_adapters_says_so() -> None:
    status, body = post(Pieces(lambda _: "x"), CHAT, asked("m", lora=[{"id": 0, "scale": 1}]))
    assert (status, body["error"]["code"]) == (400, "adapter_id_unknown")
    assert post(Pieces(lambda _: "x"), CHAT, asked("m", lora=[]))[0] == 200
