"""Several models behind one address, with real engines: who answers, and what is in memory."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from edvac.engine.client import connect_or_start
from edvac.serve.models import State

from .engines import end_all, engines_at, models_at, spec_of, write_models
from .served import KEY, served

pytestmark = pytest.mark.xdist_group("service")
CHAT = "/v1/chat/completions"
ROUNDS = 2 if "EDVAC_SOAK" in os.environ else 1  # of five calls of a client; `make soak` has more


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_models(tmp_path_factory.mktemp("models"), 3)


def asked(model: str, text: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    base = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 12}
    return base | more


async def text_of(http: httpx2.AsyncClient, url: str, document: dict[str, Any]) -> str:
    """The answer, whole or from its pieces; its model is checked."""
    if not document.get("stream"):
        reply = await http.post(url + CHAT, json=document)
        assert reply.status_code == 200, reply.text
        body = reply.json()
        assert body["model"] == document["model"]
        return str(body["choices"][0]["message"]["content"])
    found = ""
    async with http.stream("POST", url + CHAT, json=document) as reply:
        assert reply.status_code == 200
        lines = [line[6:] async for line in reply.aiter_lines() if line]
    assert lines[-1] == "[DONE]"
    for line in lines[:-1]:
        event = json.loads(line)
        assert event["model"] == document["model"]
        found += event["choices"][0]["delta"].get("content") or ""
    return found


QUESTIONS = ["tell me", "the hell", "hello you", "what is it"]


async def client(number: int, url: str, right: dict[str, dict[str, str]]) -> tuple[int, int]:
    rng, answered, left = random.Random(number), 0, 0
    head = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(headers=head, timeout=90, trust_env=False) as http:
        for at in range(5 * ROUNDS):
            model, text = rng.choice(list(right)), rng.choice(QUESTIONS)
            document = asked(model, text, stream=rng.random() < 0.5, user=str(number))
            call = asyncio.ensure_future(text_of(http, url, document))
            if at % 5 == 4:
                await asyncio.wait({call}, timeout=rng.choice([0.0, 0.02, 0.5]))
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                left += 1
                continue
            assert await call == right[model][text], (model, text)
            answered += 1
    return answered, left


@pytest.mark.slow
def test_a_swap_under_traffic_loses_nothing_and_mixes_nothing(
    paths: list[Path], tmp_path: Path
) -> None:
    """Six clients call three models of which one is in memory; every fifth call is given up."""

    async def alone(path: Path) -> dict[str, str]:
        models = models_at([path], tmp_path / "alone")
        try:
            async with served(models) as (url, http):
                return {
                    text: await text_of(http, url, asked(path.stem, text)) for text in QUESTIONS
                }
        finally:
            await end_all(models)

    async def scene() -> None:
        right = {path.stem: await alone(path) for path in paths}
        assert len({tuple(found.values()) for found in right.values()}) == 3
        models = models_at(paths, tmp_path)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, engines_at(tmp_path / "run"))
                await asyncio.sleep(0.02)

        watching = asyncio.ensure_future(watch())
        try:
            async with served(models) as (url, http):
                found = await asyncio.gather(*(client(at, url, right) for at in range(6)))
                assert [sum(part) for part in zip(*found, strict=True)] == [24 * ROUNDS, 6 * ROUNDS]
                for _ in range(200):  # those who left may just have been waited for
                    if all(place.idle and place.state in (State.AWAY, State.HERE)
                           for place in models.places):  # fmt: skip
                        break
                    await asyncio.sleep(0.05)
                assert models.room.waiting == 0
                here = [place for place in models.places if place.state is State.HERE]
                # None, where the last one to wait has left while its place was made.
                assert engines_at(tmp_path / "run") == len(here) <= 1
                rows = (await http.get(f"{url}/metrics")).text.splitlines()
                assert f"edvac_models_loaded {len(here)}" in rows
                assert "llamacpp:requests_processing 0" in rows
        finally:
            watching.cancel()
            await end_all(models)
        assert most == 1, "never two in memory"
        assert engines_at(tmp_path / "run") == 0 == engines_at(tmp_path / "alone" / "run")

    asyncio.run(asyncio.wait_for(scene(), 110))


def test_the_official_client_chooses_and_sees_what_is_loaded(
    paths: list[Path], tmp_path: Path
) -> None:
    async def scene() -> None:
        models = models_at(paths[:2], tmp_path)
        try:
            async with served(models) as (url, http):
                client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
                listed = (await client.models.list()).data
                assert [one.id for one in listed] == ["m0", "m1"]
                assert [one.status["value"] for one in listed] == ["unloaded"] * 2  # type: ignore[attr-defined]
                assert (await http.get(f"{url}/slots?model=m1")).json() == []
                assert (await http.get(f"{url}/props")).json()["is_sleeping"] is True
                assert (await http.get(f"{url}/metrics")).status_code == 200
                assert engines_at(tmp_path / "run") == 0, "who looks loads nothing"
                found = await client.chat.completions.create(**asked("m1", "tell me"))
                assert found.model == "m1" and found.choices[0].message.content
                one = await client.models.retrieve("m1")
                assert one.status["value"] == "loaded" and one.max_model_len == 1024  # type: ignore[attr-defined]
                with pytest.raises(openai.NotFoundError):
                    await client.chat.completions.create(**asked("m2", "tell me"))
                props = (await http.get(f"{url}/props?model=m1")).json()
                assert props["total_slots"] == 32 and props["is_sleeping"] is False
                first = (await http.post(f"{url}/tokenize", json={"content": "x"})).json()
                assert first["tokens"] and models.places[0].state is State.HERE
                assert models.places[1].state is State.AWAY and engines_at(tmp_path / "run") == 1
                await client.close()
        finally:
            await end_all(models)

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_an_engine_that_a_run_uses_is_left_to_it(paths: list[Path], tmp_path: Path) -> None:
    async def scene() -> None:
        models = models_at(paths[:2], tmp_path)
        run = await connect_or_start(spec_of(paths[0], tmp_path))
        try:
            async with served(models) as (url, http):
                assert await text_of(http, url, asked("m0", "tell me"))
                assert await text_of(http, url, asked("m1", "tell me"))
                assert not run.gone and (await run.stats()).running == 0
                assert engines_at(tmp_path / "run") == 2, "one is the run's"
        finally:
            await end_all(models)
            await run.release()
        assert engines_at(tmp_path / "run") == 0

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_a_load_that_fails_and_an_engine_that_dies_are_told_and_made_good(
    paths: list[Path], tmp_path: Path
) -> None:
    async def scene() -> None:
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(b"GGUF nothing")
        models = models_at([paths[0], broken], tmp_path)
        try:
            async with served(models) as (url, http):
                text = await text_of(http, url, asked("m0", "tell me"))
                bad = [http.post(url + CHAT, json=asked("broken", "a", stream=at)) for at in (0, 1)]
                for reply in await asyncio.gather(*bad):
                    assert reply.status_code == 500
                    assert reply.json()["error"]["code"] == "model_malformed", reply.text
                broken.write_bytes(paths[1].read_bytes())  # the next one tries again
                assert await text_of(http, url, asked("broken", "tell me"))
                async with http.stream(
                    "POST", url + CHAT, json=asked("broken", "a", stream=True, max_tokens=900)
                ) as reply:
                    lines = reply.aiter_lines()
                    for _ in range(6):
                        await anext(lines)
                    os.kill(models.places[1].model.processor.card.pid, signal.SIGKILL)
                    rest = [line async for line in lines if line]
                assert json.loads(rest[-2][6:])["error"]["code"] == "engine_died"
                assert await text_of(http, url, asked("broken", "tell me"))
                assert await text_of(http, url, asked("m0", "tell me")) == text
                assert engines_at(tmp_path / "run") == 1
        finally:
            await end_all(models)

    asyncio.run(asyncio.wait_for(scene(), 90))
