"""Completions of raw prompts: OpenAI's form, llama.cpp's, and how both are read."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from edvac.processor import Request, Sampling
from edvac.serve.text import prompts_of

from .served import Pieces, post, talk

TEXT = "/v1/completions"
NATIVE = "/completion"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("a", [("a",)]),
        ([1, 2], [((1, 2),)]),
        (["a", "b"], [("a",), ("b",)]),
        ([[1, 2], [3]], [((1, 2),), ((3,),)]),
        ([1, 2, "a", 3], [((1, 2), "a", (3,))]),
        ([[1, "a"], "b", {"prompt_string": "c"}], [((1,), "a"), ("b",), ("c",)]),
        ({"prompt_string": "a"}, [("a",)]),
    ],
)
def test_what_a_prompt_means(given: Any, meant: Any) -> None:
    assert prompts_of(given) == meant


@pytest.mark.parametrize(
    "given",
    [None, 5, "", [], [[]], {}, [None], [True], [-1], [1.5], [1 << 40], ["a"] * 65, [{"a": 1}]],
)
@pytest.mark.parametrize("path", [TEXT, NATIVE])
def test_what_is_no_prompt_is_refused(path: str, given: Any) -> None:
    processor = Pieces(lambda _: "x")
    status, body = post(processor, path, {"prompt": given})
    assert (status, body["error"]["code"]) == (400, "request_malformed")
    assert processor.asked == []


def test_a_completion_comes_in_openais_form() -> None:
    processor = Pieces(lambda request: f"after {request.prompt[0]}")
    asked = {"model": "m", "prompt": ["a", "b"], "n": 2, "seed": 7, "max_tokens": 9, "stop": "END"}
    status, body = post(processor, TEXT, asked | {"temperature": 0.5, "top_p": 0.9})
    assert status == 200 and body["object"] == "text_completion"
    assert [(one["index"], one["text"]) for one in body["choices"]] == [
        (0, "after a"),
        (1, "after a"),
        (2, "after b"),
        (3, "after b"),
    ]
    assert all(one["logprobs"] is None for one in body["choices"])
    # A prompt counts once, however many answers it has.
    assert body["usage"]["prompt_tokens"] == 14 and body["usage"]["completion_tokens"] == 8
    first = processor.asked[0]
    assert (first.temperature, first.max_tokens, first.stop, first.fit) == (0.5, 9, ("END",), True)
    assert first.sampling == Sampling(top_p=0.9)
    assert [one.seed for one in processor.asked] == [7, 8, 7, 8]


def test_what_is_not_said_is_as_each_interface_has_it() -> None:
    processor = Pieces(lambda _: "x")
    post(processor, TEXT, {"prompt": "a"})
    post(processor, NATIVE, {"prompt": "a"})
    text, native = processor.asked
    assert (text.max_tokens, text.temperature, text.sampling) == (16, 1.0, Sampling())
    llama = Sampling(top_p=0.95, top_k=40, min_p=0.05)
    assert (native.max_tokens, native.temperature, native.sampling) == (1_000_000, 0.8, llama)


def test_openais_old_logprobs() -> None:
    _, body = post(Pieces(lambda _: "one two"), TEXT, {"prompt": "a", "logprobs": 1})
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["one ", "two "],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"one ": -0.5}, {"two ": -0.5}],
        "text_offset": [0, 4],
    }


def events(path: str, asked: dict[str, Any], processor: Any = None) -> list[str]:
    async def work(url: str, http: httpx2.AsyncClient) -> list[str]:
        async with http.stream("POST", url + path, json=asked | {"stream": True}) as reply:
            assert reply.status_code == 200
            return [line[6:] async for line in reply.aiter_lines() if line]

    found: list[str] = talk(processor or Pieces(lambda _: "one two three"), work)
    return found


def test_a_completion_is_streamed() -> None:
    lines = events(TEXT, {"prompt": "a", "stream_options": {"include_usage": True}})
    assert lines[-1] == "[DONE]"
    found = [json.loads(line) for line in lines[:-1]]
    assert "".join(one["choices"][0]["text"] for one in found[:-1]) == "one two three "
    assert [one["choices"][0]["finish_reason"] for one in found[-3:-1]] == [None, "stop"]
    assert found[-1]["usage"]["completion_tokens"] == 3 and found[-1]["choices"] == []


def test_a_completion_comes_in_llamas_form() -> None:
    processor = Pieces(lambda _: "one\ntwo")
    asked = {
        "prompt": [5, "a"],
        "n_predict": 12,
        "seed": 3,
        "top_k": 7,
        "min_p": 0.2,
        "repeat_penalty": 1.2,
        "logit_bias": [[4, -1.5], [9, False]],
        "ignore_eos": True,
        "json_schema": {"type": "object"},
        "return_tokens": True,
        "n_probs": 2,
        "cache_prompt": False,
    }
    _, body = post(processor, NATIVE, asked)
    assert body["content"] == "one\ntwo" and body["stop"] is True and body["stop_type"] == "eos"
    assert body["has_new_line"] is True and body["truncated"] is False
    assert body["tokens"] == [0] and len(body["completion_probabilities"]) == 1
    chance = body["completion_probabilities"][0]
    assert (chance["id"], chance["logprob"]) == (0, -0.5)
    assert chance["top_logprobs"][0]["id"] == 0
    settings = body["generation_settings"]
    assert settings["n_predict"] == 12 and settings["seed"] == 3 and settings["top_k"] == 7
    assert settings["logit_bias"] == [
        {"token": 4, "bias": -1.5},
        {"token": 9, "bias": None},
        {"token": 5, "bias": None},  # what ends an answer
    ]
    request: Request = processor.asked[0]
    assert request.prompt == ((5,), "a") and request.schema == {"type": "object"}
    assert request.sampling.repetition_penalty == 1.2
    assert request.reader_class != "user", "what is not to be cached shares nothing"


def test_llamas_form_of_many_of_some_fields_and_streamed() -> None:
    _, body = post(Pieces(lambda _: "x"), NATIVE, {"prompt": ["a", "b"], "n_cmpl": 2})
    assert [one["index"] for one in body] == [0, 1, 2, 3]
    only = ["content", "generation_settings/n_predict", "nothing/there"]
    many = {"prompt": ["a"] * 5, "n_cmpl": 13}
    assert post(Pieces(lambda _: "x"), NATIVE, many)[0] == 400
    asked = {"prompt": "a", "n_predict": 5, "response_fields": only}
    _, body = post(Pieces(lambda _: "x"), NATIVE, asked)
    assert body == {"content": "x", "generation_settings/n_predict": 5}
    found = [json.loads(line) for line in events(NATIVE, {"prompt": "a"})]
    assert "".join(one["content"] for one in found) == "one two three "
    assert [token for one in found for token in one["tokens"]] == [0, 1, 2]
    assert [one["stop"] for one in found[-2:]] == [False, True]
    assert found[-1]["timings"]["predicted_n"] == 3


@pytest.mark.parametrize(
    "asked",
    [
        {"echo": True},
        {"suffix": "end"},
        {"best_of": 3},
        {"presence_penalty": 0.5},
        {"mirostat": 2},
        {"dry_multiplier": 0.8},
        {"typical_p": 0.5},
        {"samplers": ["top_k"]},
        {"prompt": {"prompt_string": "a", "multimodal_data": ["x"]}},
    ],
)
@pytest.mark.parametrize("path", [TEXT, NATIVE])
def test_what_is_not_done_is_said(path: str, asked: dict[str, Any]) -> None:
    status, body = post(Pieces(lambda _: "x"), path, {"prompt": "a"} | asked)
    assert (status, body["error"]["code"]) == (400, "request_unserved")
    neutral = {"echo": False, "presence_penalty": 0.0, "mirostat": 0, "best_of": 1, "user": "u"}
    assert post(Pieces(lambda _: "x"), path, {"prompt": "a"} | neutral)[0] == 200


def test_tokens_and_texts() -> None:
    processor = Pieces(lambda _: "x")
    assert post(processor, "/tokenize", {"content": "hé", "add_special": True})[1] == {
        "tokens": [256, 104, 195, 169]
    }
    found = post(processor, "/tokenize", {"content": "hé", "with_pieces": True})[1]["tokens"]
    assert found == [
        {"id": 104, "piece": "h"},
        {"id": 195, "piece": [195]},
        {"id": 169, "piece": [169]},
    ]
    assert post(processor, "/detokenize", {"tokens": [104, 195, 169]})[1] == {"content": "hé"}
    assert post(processor, "/detokenize", {"tokens": [-1]})[0] == 400
    assert post(processor, "/tokenize", {})[0] == 400


def test_counters_slots_and_properties() -> None:
    async def work(url: str, http: httpx2.AsyncClient) -> tuple[str, Any, Any]:
        await http.post(url + TEXT, json={"prompt": "a"})
        await http.post(url + TEXT, json={})
        metrics = (await http.get(f"{url}/metrics")).text
        return metrics, (await http.get(f"{url}/slots")).json(), (await http.get(f"{url}/props"))

    metrics, slots, props = talk(Pieces(lambda _: "one two"), work)
    rows = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line[0] != "#")
    assert rows["llamacpp:prompt_tokens_total"] == "4"
    assert rows["llamacpp:prompt_tokens_cached_total"] == "3"
    assert rows["llamacpp:tokens_predicted_total"] == "2"
    assert rows["llamacpp:requests_deferred"] == "2"
    assert rows["edvac_engine_resident_bytes"] == "123456789", "a number is whole"
    assert rows['edvac_http_responses_total{status="400"}'] == "1"
    for name in rows:
        bare = name.partition("{")[0]
        assert f"# HELP {bare} " in metrics and f"# TYPE {bare} " in metrics
    assert [one["is_processing"] for one in slots] == [True, False, False]
    about = props.json()
    assert about["total_slots"] == 3 and about["model_path"] == "m.gguf"
    assert about["default_generation_settings"] == {"n_ctx": 1000}
