"""The official client against a service with a real engine, over loopback."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from .conftest import CONTEXT, Running, start

pytestmark = pytest.mark.xdist_group("service")
USER: Any = [{"role": "user", "content": "tell me about the hell " * 3}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"enum": ["C", "F"]}, "days": {"type": "integer"}},
            "required": ["unit"],
        },
    },
}


@pytest.fixture(scope="module")
def client(service: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=service.url, api_key=service.key, max_retries=0, timeout=60) as found:
        yield found


def test_models(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "tiny" and client.models.retrieve("other").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_a_chat(client: OpenAI) -> None:
    found = client.chat.completions.create(
        model="tiny", messages=USER, max_completion_tokens=12, seed=5
    )
    (choice,) = found.choices
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason == "length" and found.usage is not None
    assert found.usage.completion_tokens == 12
    assert found.usage.total_tokens == 12 + found.usage.prompt_tokens
    again = client.chat.completions.create(
        model="other", messages=USER, max_completion_tokens=12, seed=5
    )
    assert again.choices[0].message.content == choice.message.content
    assert again.usage is not None and again.usage.prompt_tokens_details is not None
    assert (again.usage.prompt_tokens_details.cached_tokens or 0) > 0


def test_a_chat_without_a_length_ends_where_the_context_does(client: OpenAI) -> None:
    """The model is noise and never ends by itself."""
    found = client.chat.completions.create(
        model="tiny", messages=USER, temperature=0, extra_body={"ignore_eos": True}
    )
    assert found.choices[0].finish_reason == "length" and found.usage is not None
    assert found.usage.total_tokens == CONTEXT


def test_a_streamed_chat_says_the_same_as_a_whole_one(client: OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": USER, "max_tokens": 20, "seed": 9}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details}
    )
    assert [c.choices[0].finish_reason for c in chunks[-2:-1]] == ["length"]


def test_several_answers_of_one_prompt(client: OpenAI) -> None:
    found = client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=8, n=3, seed=1, temperature=1.5
    )
    texts = [choice.message.content for choice in found.choices]
    assert [choice.index for choice in found.choices] == [0, 1, 2] and len(set(texts)) == 3
    assert found.usage is not None and found.usage.completion_tokens == 24
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=8, n=3, seed=1, temperature=1.5, stream=True
    ):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_logprobs(client: OpenAI) -> None:
    found = client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=6, logprobs=True, top_logprobs=4, temperature=0
    )
    chances = found.choices[0].logprobs
    assert chances is not None and chances.content is not None and len(chances.content) == 6
    told = b"".join(bytes(one.bytes or []) for one in chances.content)
    assert told.decode("utf-8", "replace") == found.choices[0].message.content
    assert all(len(one.top_logprobs) == 4 for one in chances.content)
    assert all(one.logprob == one.top_logprobs[0].logprob <= 0 for one in chances.content)


def test_completions(client: OpenAI) -> None:
    found = client.completions.create(
        model="tiny", prompt=["hello", "the hell"], max_tokens=5, n=2, seed=3, logprobs=2
    )
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    first = found.choices[0]
    assert first.logprobs is not None and first.logprobs.text_offset is not None
    assert len(first.logprobs.tokens or []) == len(first.logprobs.text_offset) == 5
    assert found.usage is not None and found.usage.completion_tokens == 20
    chunks = client.completions.create(
        model="tiny", prompt="hello", max_tokens=5, seed=3, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == first.text


class Person(BaseModel):
    grown_up: bool
    colour: str | None


def test_structured_answers_are_parsed(client: OpenAI) -> None:
    for seed in range(3):
        found = client.chat.completions.parse(
            model="tiny",
            messages=USER,
            response_format=Person,
            seed=seed,
            max_tokens=300,
            logit_bias={"34": 8},  # the quotation mark, so that noise ends its strings
        )
        if found.choices[0].finish_reason == "stop":
            assert isinstance(found.choices[0].message.parsed, Person)
            return
    pytest.fail("no answer ended")


def test_tools_that_must_be_called(client: OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": USER, "tools": [WEATHER], "seed": 4}
    asked |= {"tool_choice": "required", "parallel_tool_calls": False}
    asked["logit_bias"] = {"125": 20}  # the closing brace, so that noise ends its numbers
    found = client.chat.completions.create(**asked)
    (choice,) = found.choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls or []
    assert call.function.name == "get_weather"  # type: ignore[union-attr]
    arguments = json.loads(call.function.arguments)  # type: ignore[union-attr]
    assert arguments["unit"] in ("C", "F") and set(arguments) <= {"unit", "days"}
    streamed = ""
    for chunk in client.chat.completions.create(**asked, stream=True):
        for one in chunk.choices[0].delta.tool_calls or []:
            streamed += (one.function and one.function.arguments) or ""
    assert streamed == call.function.arguments  # type: ignore[union-attr]
    talk = [
        *USER,
        choice.message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "20"},
    ]
    after = client.chat.completions.create(
        model="tiny", messages=talk, tools=[WEATHER], max_tokens=5, tool_choice="none"
    )
    assert after.choices[0].message.tool_calls is None


def test_errors_are_the_clients_own(client: OpenAI, service: Running) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as found:
        create(model="gpt-4o", messages=USER)
    assert found.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        create(model="tiny", messages=[{"role": "user", "content": "x" * 2000}])
    assert wrong.value.code == "context_length_exceeded"
    assert "Send less" in wrong.value.message and "text.chunks" not in wrong.value.message
    with pytest.raises(openai.BadRequestError, match="presence_penalty"):
        create(model="tiny", messages=USER, presence_penalty=1)
    with pytest.raises(openai.BadRequestError, match="schema or grammar"):
        schema = {"name": "x", "schema": {"type": "hiccup"}}
        create(
            model="tiny",
            messages=USER,
            response_format={"type": "json_schema", "json_schema": schema},  # type: ignore[misc]
        )
    with pytest.raises(openai.APIStatusError) as large:
        create(model="tiny", messages=[{"role": "user", "content": "x" * (9 << 20)}])
    assert large.value.status_code == 413
    with (
        OpenAI(base_url=service.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()
    with (
        OpenAI(
            base_url=service.url,
            api_key=service.key,
            max_retries=0,
            default_headers={"Host": "evil.example"},
        ) as misled,
        pytest.raises(openai.PermissionDeniedError),
    ):
        misled.models.list()


def test_many_calls_of_an_asynchronous_client_and_some_that_are_given_up(
    service: Running,
) -> None:
    async def scene() -> None:
        async with AsyncOpenAI(
            base_url=service.url, api_key=service.key, max_retries=0, timeout=60
        ) as many:

            async def ask(seed: int, tokens: int) -> Any:
                return await many.chat.completions.create(
                    model="tiny", messages=USER, seed=seed, max_tokens=tokens
                )

            given_up = [asyncio.create_task(ask(seed, 400)) for seed in range(4)]
            answers = asyncio.gather(*(ask(seed, 10) for seed in range(12)))
            await asyncio.sleep(0.3)
            for task in given_up:
                task.cancel()
            found = await answers
            assert all(one.usage.completion_tokens == 10 for one in found)
            stream = await many.chat.completions.create(
                model="tiny", messages=USER, max_tokens=400, stream=True
            )
            async for _ in stream:
                break
            await stream.close()
            await nothing_runs(many)

    asyncio.run(scene())


async def nothing_runs(client: AsyncOpenAI) -> None:
    for _ in range(200):
        slots = (await client.get("../slots", cast_to=object)) or []
        if not any(one["is_processing"] for one in slots):  # type: ignore[attr-defined]
            return
        await asyncio.sleep(0.05)
    raise AssertionError("a call that was given up goes on")


SMALL = Path(
    os.environ.get("EDVAC_MODELS", Path.home() / ".local/share/edvac/models")
) / "SmolLM2-135M-Instruct.Q4_1.gguf"  # fmt: skip


@pytest.mark.model
@pytest.mark.slow
def test_a_small_model_answers_and_calls(tmp_path: Path) -> None:
    if not SMALL.is_file():
        pytest.skip(f"{SMALL} is absent: edvac model pull smollm2:135m")
    running = start(SMALL, tmp_path)
    try:
        with OpenAI(base_url=running.url, api_key=running.key, max_retries=0) as client:
            talk: Any = [{"role": "user", "content": "What is the capital of France?"}]
            found = client.chat.completions.create(
                model=running.model, messages=talk, temperature=0, max_tokens=20
            )
            assert "Paris" in (found.choices[0].message.content or "")
            called = client.chat.completions.create(
                model=running.model,
                messages=talk,
                tools=[WEATHER],
                tool_choice="required",
                parallel_tool_calls=False,
                temperature=0,
                max_tokens=60,
            )
            (call,) = called.choices[0].message.tool_calls or []
            arguments = json.loads(call.function.arguments)  # type: ignore[union-attr]
            assert arguments["unit"] in ("C", "F")
    finally:
        assert running.stop() == 0
