"""What an endpoint can do: told by trying, kept, used, and noticed when the model changes."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import (
    Body,
    Fake,
    Handler,
    hello,
    llamacpp,
    lmstudio,
    obedient,
    ollama,
    only_gbnf,
    running,
    vllm,
)

from edvac.core.errors import ConfigError, OperandError
from edvac.core.seams import ManualClock
from edvac.processor import Answer, Message, Request, Segment
from edvac.processor.abilities import Abilities
from edvac.processor.openai import OpenAIProcessor, Timeouts

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string", "enum": ["x"]}}}
ASK = Request("run", "slot", (Message("user", (Segment("Read this"),)),))
STRICT = Request("run", "slot", ASK.messages, schema=SCHEMA)
LARK = Request("run", "slot", ASK.messages, lark='start: "a"', prefill="begun")


class Rig:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.notes: list[str] = []
        self.clock = ManualClock()

    def processor(self, fake: Fake, model: str = "m", **more: Any) -> OpenAIProcessor:
        return OpenAIProcessor(
            fake.url,
            model,
            records=self.directory,
            on_note=self.notes.append,
            clock=self.clock,
            **more,
        )

    def use(
        self,
        fake: Fake,
        *requests: Request,
        model: str = "m",
        between: Callable[[int], None] = lambda _: None,
    ) -> tuple[OpenAIProcessor, list[Answer]]:
        """Open, ask, close; the processor can still be looked at."""
        processor = self.processor(fake, model)

        async def go() -> list[Answer]:
            try:
                await processor.open()
                answers = []
                for number, request in enumerate(requests):
                    between(number)
                    answers.append(await processor.complete(request))
                return answers
            finally:
                await processor.close()

        return processor, asyncio.run(go())


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "cache")


PRODUCTS: dict[str, tuple[Callable[..., Fake], str, Abilities]] = {
    "ollama": (
        ollama,
        "llama3.2",
        Abilities(product="ollama", schema=True, tools=True, context=4096),
    ),
    "llama.cpp": (
        llamacpp,
        "any",
        Abilities(product="llama.cpp", schema=True, grammar="lark", context=2048, slots=2),
    ),
    "vLLM": (
        vllm,
        "Qwen/Qwen3-8B",
        Abilities(product="vLLM", schema=True, grammar="lark", context=32768),
    ),
    "LM Studio": (
        lmstudio,
        "meta-llama-3.1-8b-instruct",
        Abilities(product="LM Studio", schema=True, tools=True, context=4096),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_each_product_is_told_apart_and_probed_once(name: str, rig: Rig) -> None:
    make, model, wanted = PRODUCTS[name]
    with running(make()) as fake:
        processor, _ = rig.use(fake, STRICT, model=model)
        found = processor.abilities
        assert found is not None
        for part in ("product", "schema", "grammar", "tools", "context", "slots"):
            assert getattr(found, part) == getattr(wanted, part), part
        assert found.mark and found.probed == rig.clock.wall()
        probes = len(fake.bodies) - len(fake.chats)
        assert probes >= 3
        assert processor.identity.startswith(f"127.0.0.1:{fake.port}/{model}@")
        again, _ = rig.use(fake, STRICT, model=model)
        assert again.abilities == found
        assert len(fake.bodies) - len(fake.chats) == probes, "the record is used"
        assert again.identity == processor.identity
    assert processor.concurrency == (2 if name == "llama.cpp" else 8)


def test_a_schema_is_sent_only_where_it_is_obeyed(rig: Rig) -> None:
    for say, sent in ((None, True), (hello, False)):
        with running(llamacpp(**({"say": say} if say else {}))) as fake:
            rig.use(fake, STRICT)
            assert ("response_format" in fake.chats[0]) is sent


def test_a_grammar_is_sent_in_the_products_own_words(rig: Rig) -> None:
    with running(llamacpp()) as fake:
        processor, _ = rig.use(fake, LARK)
        assert processor.has_grammar
        assert fake.chats[0]["grammar"] == '%llguidance {}\nstart: "a"'
        assert fake.chats[0]["messages"][-1] == {"role": "assistant", "content": "begun"}
    with running(vllm()) as fake:
        processor, _ = rig.use(fake, LARK, model="Qwen/Qwen3-8B")
        assert fake.chats[0]["structured_outputs"] == {"grammar": 'start: "a"'}
        assert fake.chats[0]["continue_final_message"] is True
    with running(llamacpp(say=only_gbnf)) as fake:
        processor, _ = rig.use(fake, LARK)
        assert processor.has_grammar
        assert fake.chats[0]["grammar"] == 'root ::= "a"\n'
    with running(ollama()) as fake:
        processor, _ = rig.use(fake, LARK, model="llama3.2")
        assert not processor.has_grammar
        assert "grammar" not in fake.chats[0]


def test_a_model_the_server_does_not_have_is_said_before_anything_is_asked(rig: Rig) -> None:
    with running(ollama()) as fake:
        with pytest.raises(ConfigError) as wrong:
            rig.use(fake, ASK, model="llama3.3")
        assert wrong.value.code == "endpoint_model"
        assert "llama3.2:latest" in wrong.value.why
        assert not fake.bodies


def test_a_model_swapped_between_runs_has_another_identity(rig: Rig) -> None:
    """The name and the answers are the same; only the weights are not."""
    with running(ollama()) as fake:
        before, _ = rig.use(fake, ASK, model="llama3.2")
        probes = len(fake.bodies)
        fake.pages["/api/tags"]["models"][0]["digest"] = "another"
        after, _ = rig.use(fake, ASK, model="llama3.2")
        assert after.identity != before.identity
        assert len(fake.bodies) > probes + 1, "and it is probed anew"


def test_a_model_swapped_during_a_run_is_noticed(rig: Rig) -> None:
    with running(llamacpp()) as fake:

        def swap(number: int) -> None:
            if number == 1:
                fake.pages["/v1/models"]["data"][0]["meta"]["n_params"] = 7
                rig.clock.advance(61)

        processor = rig.processor(fake)

        async def go() -> list[str]:
            await processor.open()
            names = []
            for number in range(3):
                swap(number)
                await processor.complete(ASK)
                names.append(processor.identity)
            await processor.close()
            return names

        names = asyncio.run(go())
    assert names[0] != names[1] == names[2]
    assert any("the model behind this name has changed" in note for note in rig.notes)


def test_an_answer_that_was_under_way_at_a_change_is_the_old_models(rig: Rig) -> None:
    """Its weights were swapped, and that was seen, while it was answering."""
    fake = llamacpp()
    asked = threading.Event()
    seen = threading.Event()

    def waits(handler: Handler, body: Body) -> None:
        asked.set()
        assert seen.wait(10)
        handler.answer(body, "late")

    fake.reply = waits
    with running(fake):
        processor = rig.processor(fake)

        async def go() -> tuple[str, str]:
            await processor.open()
            before = processor.identity
            answering = asyncio.create_task(processor.complete(ASK))
            await asyncio.to_thread(asked.wait, 10)
            fake.pages["/v1/models"]["data"][0]["meta"]["n_params"] = 7
            rig.clock.advance(11)
            await processor.open()
            assert processor.identity != before
            seen.set()
            answer = await answering
            await processor.close()
            return before, answer.model

        before, made_by = asyncio.run(go())
    assert made_by == before


def test_an_answer_by_another_model_carries_that_ones_identity(rig: Rig) -> None:
    with running(Fake()) as fake:
        answers_as = ["gpt-4", "gpt-4", "gpt-4-cheap"]

        def change(number: int) -> None:
            fake.answers_as = answers_as[number]

        fake.answers_as = "gpt-4"
        processor, answers = rig.use(fake, ASK, ASK, ASK, model="best", between=change)
        assert [answer.model for answer in answers[:2]] == ["", ""]
        assert answers[2].model not in ("", processor.identity)
        assert [n for n in rig.notes if "answers as 'gpt-4-cheap'" in n]
        fake.answers_as = "gpt-4-cheap"
        rig.clock.advance(40 * 86400)  # the record is too old by then
        later, _ = rig.use(fake, ASK, model="best")
        assert later.identity == answers[2].model, "the same model has the same identity again"


def test_new_software_behind_it_is_said_once(rig: Rig) -> None:
    with running(Fake(fingerprint="fp_1")) as fake:

        def change(number: int) -> None:
            fake.fingerprint = f"fp_{1 + number // 2}"

        _, answers = rig.use(fake, ASK, ASK, ASK, ASK, between=change)
    assert len([n for n in rig.notes if "software or settings" in n]) == 1
    assert {answer.model for answer in answers} == {""}


def test_an_endpoint_that_is_away_is_known_from_its_record(rig: Rig) -> None:
    with running(llamacpp()) as fake:
        before, _ = rig.use(fake, ASK)
    after, _ = rig.use(fake)
    assert after.abilities == before.abilities
    assert after.identity == before.identity
    stranger, _ = rig.use(fake, model="other")
    assert stranger.abilities is None


DAMAGE = {
    "empty": b"",
    "cut": b"{",
    "another kind": b"[]",
    "newer": b'{"version": 99}',
    "bytes": b"\xff" * 99,
    "large": b"x" * 10**6,
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_costs_a_probe(content: bytes, rig: Rig) -> None:
    with running(llamacpp()) as fake:
        before, _ = rig.use(fake, ASK)
        (record,) = rig.directory.glob("*.json")
        assert record.stat().st_mode & 0o077 == 0
        record.write_bytes(content)
        after, _ = rig.use(fake, ASK)
        assert after.abilities == before.abilities


def test_a_cache_that_cannot_be_written_costs_a_probe_too(rig: Rig) -> None:
    rig.directory.write_text("a file in the way")
    with running(llamacpp()) as fake:
        processor, answers = rig.use(fake, ASK)
    assert processor.abilities is not None and answers


def test_a_model_that_thinks_is_given_room_for_it(rig: Rig) -> None:
    def thinks(handler: Handler, body: Body) -> None:
        handler.answer(body, "So it is.", reasoning_content="hm, hm")

    with running(llamacpp(say=lambda body: "<think>hm</think>Hello!", reply=thinks)) as fake:
        processor, (answer,) = rig.use(fake, ASK)
        assert processor.abilities is not None and processor.abilities.thinks
        assert fake.chats[0]["max_tokens"] > ASK.max_tokens
    assert answer.text == "So it is."
    assert answer.received == "<reasoning_content>\nhm, hm\n</reasoning_content>\nSo it is."


def test_what_cannot_fit_is_not_sent(rig: Rig) -> None:
    long = Request("r", "s", (Message("user", (Segment("word " * 5000),)),))
    with running(llamacpp()) as fake:
        with pytest.raises(OperandError) as wrong:
            rig.use(fake, long)
        assert wrong.value.code == "operand_too_large"
        assert not fake.chats


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_refusal_to_be_probed_is_not_an_ability_that_lacks(status: int, rig: Rig) -> None:
    """Nothing is recorded, the run goes on, and the next one finds out."""

    def busy(body: Body) -> str:
        raise Refuse

    class Refuse(Exception):
        pass

    fake = llamacpp(say=busy)
    fake.refuse = Refuse, status
    fake.reply = lambda handler, body: handler.answer(body, "fine")
    with running(fake):
        processor, (answer, _) = rig.use(fake, STRICT, STRICT)
        assert answer.text == "fine"
        assert processor.abilities is not None and not processor.abilities.probed
        assert not list(rig.directory.glob("*.json"))
        assert len(fake.bodies) - len(fake.chats) == 1, "it is not pestered"
        assert "response_format" in fake.chats[0], "sent on the chance"
        assert [note for note in rig.notes if "did not say what it can do" in note]
        fake.say = obedient
        again, _ = rig.use(fake, ASK)
        assert again.abilities is not None and again.abilities.probed

        fake.say = busy
        fake.pages["/v1/models"]["data"][0]["meta"]["n_params"] = 7
        other, _ = rig.use(fake, ASK)
        assert other.identity.partition("@")[2] != again.identity.partition("@")[2]
        assert other.abilities is not None and other.abilities.mark != again.abilities.mark


def test_a_probe_that_takes_too_long_does_not_hold_up_a_run_twice(rig: Rig) -> None:
    def slow(body: Body) -> str:
        time.sleep(0.6)
        return "late"

    fake = llamacpp(say=slow, reply=lambda handler, body: handler.answer(body, "fine"))
    with running(fake):
        processor = rig.processor(fake, timeouts=Timeouts(probe=0.2))

        async def go() -> list[str]:
            await processor.open()
            said = []
            for _ in range(3):
                rig.clock.advance(61)
                said.append((await processor.complete(ASK)).text)
            await processor.close()
            return said

        assert asyncio.run(go()) == ["fine"] * 3
    assert len(fake.bodies) - len(fake.chats) == 1
    assert not list(rig.directory.glob("*.json"))


HOSTILE_PAGES: dict[str, Any] = {
    "nothing": {},
    "a list": {"/v1/models": [1, 2]},
    "strings": {"/v1/models": {"data": ["a", "b"]}},
    "numbers": {"/v1/models": {"data": [{"id": 5, "owned_by": 7}]}},
    "no names": {"/v1/models": {"data": [{}]}},
    "deep": {"/v1/models": b"[" * 100_000},
    "large": {"/v1/models": b"[" + b"1," * 5_000_000 + b"1]"},
    "no JSON": {"/v1/models": b"<html>"},
    "props of another kind": {
        "/v1/models": {"data": [{"id": "m", "owned_by": "llamacpp", "meta": 5}]},
        "/props": {"total_slots": -1, "default_generation_settings": []},
    },
    "absurd numbers": {
        "/v1/models": {"data": [{"id": "m", "owned_by": "llamacpp", "meta": {}}]},
        "/props": {"total_slots": 10**30, "default_generation_settings": {"n_ctx": -5}},
    },
}


@pytest.mark.parametrize("what", HOSTILE_PAGES)
def test_listings_that_are_none_are_passed_over(what: str, rig: Rig) -> None:
    with running(Fake(HOSTILE_PAGES[what])) as fake:
        processor, (answer,) = rig.use(fake, ASK)
    assert answer.text == "Hello there!"
    assert processor.concurrency == 8


@pytest.mark.parametrize("say", [lambda b: "", lambda b: "{" * 9999, lambda b: json.dumps([1])])
def test_answers_to_probes_that_are_none_are_no_abilities(
    say: Callable[[Body], str], rig: Rig
) -> None:
    with running(Fake(say=say)) as fake:
        processor, _ = rig.use(fake)
    found = processor.abilities
    assert found is not None and not (found.schema or found.grammar or found.tools)
