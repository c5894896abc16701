"""The planner's tests once more, with the scripted model behind an HTTP endpoint: under a grammar
where the endpoint has one, validated and repaired where it has none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import test_planner
from fake_endpoint import Body, Fake, Handler, llamacpp, ollama, running, vllm
from test_planner import GOOD, TASK, by_place, planner

from edvac.compiler import Planner
from edvac.core.errors import ProgramError
from edvac.device import CATALOGUE
from edvac.processor import Message, Request, Segment
from edvac.processor.openai import OpenAIProcessor

Script = Callable[[Request], str]
SUITE = [
    test_planner.test_a_plan_is_written_statement_by_statement,
    test_planner.test_an_early_end_is_refused_while_a_named_file_is_missing,
    test_planner.test_a_statement_is_taken_back_when_nothing_legal_follows,
    test_planner.test_a_record_that_nobody_uses_is_refused,
    test_planner.test_it_gives_up_with_the_last_refusal,
]


class Behind:
    """Makes processors whose scripts answer over HTTP."""

    def __init__(self, make: Callable[..., Fake], model: str, directory: Path) -> None:
        self._make = make
        self._model = model
        self._directory = directory
        self._servers = contextlib.ExitStack()
        self.fakes: list[Fake] = []

    def __call__(self, script: Script) -> OpenAIProcessor:
        def reply(handler: Handler, body: Body) -> None:
            handler.answer(body, script(_request(body)))

        fake = self._servers.enter_context(running(self._make(reply=reply)))
        self.fakes.append(fake)
        return asyncio.run(self._opened(fake))

    async def _opened(self, fake: Fake) -> OpenAIProcessor:
        """One that knows what the endpoint can do, with no connection of this event loop's."""
        first = OpenAIProcessor(fake.url, self._model, records=self._directory)
        await first.open()
        await first.close()
        made = OpenAIProcessor(fake.url, self._model, records=self._directory)
        made._use(first.abilities)
        return made

    def close(self) -> None:
        self._servers.close()


def _request(body: Body) -> Request:
    *messages, last = body["messages"]
    prefill = last["content"] if last["role"] == "assistant" else ""
    messages = messages if prefill else [*messages, last]
    found = tuple(Message(m["role"], (Segment(m["content"]),)) for m in messages)
    return Request("run", "slot", found, prefill=prefill)


@pytest.fixture(params=["llama.cpp", "vLLM"])
def behind(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    """Endpoints that decode under a grammar."""
    if request.param == "vLLM":
        made = Behind(vllm, "Qwen/Qwen3-8B", tmp_path)
    else:
        made = Behind(lambda **more: llamacpp(context=32768, **more), "m", tmp_path)
    monkeypatch.setattr(test_planner, "ScriptedProcessor", made)
    yield made
    made.close()


@pytest.mark.parametrize("test", SUITE, ids=lambda test: test.__name__)
def test_planning_under_a_grammar(test: Callable[[], None], behind: Behind) -> None:
    test()
    (fake,) = behind.fakes
    assert fake.chats
    for body in fake.chats:
        assert "grammar" in body or "structured_outputs" in body
        assert body["messages"][-1]["role"] == "assistant", "what is written so far"


@pytest.mark.parametrize("wrong", ["parts = unknown\n", "parts = [1, 2\n"])
def test_a_refused_statement(wrong: str, behind: Behind) -> None:
    text = asyncio.run(planner(by_place(GOOD, {0: [wrong]})).plan(TASK))
    assert text == "".join(GOOD[:-1])


def test_without_a_grammar_it_is_validated_and_repaired(tmp_path: Path) -> None:
    asked: list[Request] = []

    def script(request: Request) -> str:
        asked.append(request)
        body = "".join(GOOD[:-1]) if len(asked) > 1 else "import os\n"
        return f"<think>So.\n</think>\nHere it is:\n```python\n{body}```\n"

    made = Behind(lambda **more: ollama(context=32768, **more), "llama3.2", tmp_path)
    processor = made(script)
    text = asyncio.run(Planner(processor, CATALOGUE, lambda _: None).plan(TASK))
    made.close()
    assert text == "".join(GOOD[:-1])
    assert "import" in asked[1].messages[-1].text, "the complaint is shown to the model"
    assert not any("grammar" in body for body in made.fakes[0].chats)


def test_what_never_becomes_legal_is_given_up(tmp_path: Path) -> None:
    made = Behind(lambda **more: ollama(context=32768, **more), "llama3.2", tmp_path)
    processor = made(lambda _: "import os\n")
    with pytest.raises(ProgramError) as caught:
        asyncio.run(Planner(processor, CATALOGUE, lambda _: None).plan(TASK))
    made.close()
    assert caught.value.code == "plan_failed"
