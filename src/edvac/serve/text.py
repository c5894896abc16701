"""Completions of a raw prompt, in OpenAI's form and in that of llama.cpp's server.

The prompt is all that the model sees, so special tokens count in it: it is for who applies the
model's template himself. Foreign text belongs into the messages of a chat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import msgspec

from edvac.processor import Answer, Request, Sampling, Token
from edvac.serve.events import DONE
from edvac.serve.forms import (
    Asked,
    Envelope,
    finish_of,
    logprobs_of,
    timings_of,
    token_text,
    usage_of,
)
from edvac.serve.reading import (
    MOST_CALLS,
    MOST_LOGPROBS,
    Common,
    Model,
    adapter_of,
    answers_of,
    check_model,
    check_schema,
    decode,
    in_range,
    lark_of,
    malformed,
    reader_of,
    sampling_of,
    stops_of,
    unserved,
    usage_wanted,
    whole,
)

Prompt: TypeAlias = tuple[str | tuple[int, ...], ...]

OPENAI_TOKENS: Final = 16  # of an answer whose length is not said; OpenAI's default
# What llama.cpp's server does where nothing is said.
_LLAMA: Final = Sampling(top_p=0.95, top_k=40, min_p=0.05)
_LLAMA_TEMPERATURE: Final = 0.8


class _Body(Common, kw_only=True):
    prompt: Any
    logprobs: int | None = None
    # What only llama.cpp's server has.
    n_predict: int | None = None
    n_cmpl: int | None = None
    n_probs: int | None = None
    return_tokens: bool | None = None
    response_fields: list[str] | None = None


def read_completion(data: bytes, model: Model, number: int, envelope: Envelope) -> Asked:
    """A request to ``/v1/completions``.

    Raises:
        UsageError: it is none, or asks for something that is not served.
    """
    body = decode(data, _Body)
    most = body.max_tokens if body.max_tokens is not None else body.n_predict
    first = _request(body, model, number, Sampling())
    first = replace(
        first,
        max_tokens=_most(most, OPENAI_TOKENS, model),
        temperature=in_range("temperature", body.temperature, 0, 2, 1.0),
        logprobs=-1 if body.logprobs is None else whole("logprobs", body.logprobs, 0, 20, 0),
        report=body.logprobs is not None,
    )
    count = answers_of(body)
    form = TextForm(envelope, count, usage_wanted(body), first.report)
    return Asked(_many(body, first, count), form, bool(body.stream), body.user or "")


def read_native(data: bytes, model: Model, number: int, envelope: Envelope) -> Asked:
    """A request to llama.cpp's ``/completion``.

    Raises:
        UsageError: it is none, or asks for something that is not served.
    """
    body = decode(data, _Body)
    if body.n is None:
        body.n = body.n_cmpl
    most = body.n_predict if body.n_predict is not None else body.max_tokens
    first = _request(body, model, number, _LLAMA)
    probabilities = whole("n_probs", body.n_probs, 0, MOST_LOGPROBS, 0)
    first = replace(
        first,
        max_tokens=_most(most, model.context, model),
        temperature=in_range("temperature", body.temperature, 0, 100, _LLAMA_TEMPERATURE),
        logprobs=probabilities or -1,
        report=bool(body.stream or body.return_tokens or probabilities),
    )
    requests = _many(body, first, answers_of(body))
    told = bool(body.return_tokens or body.stream)
    form = NativeForm(envelope.model, model.context, requests, told, body.response_fields or [])
    return Asked(requests, form, bool(body.stream), body.user or "")


def _request(body: _Body, model: Model, number: int, default: Sampling) -> Request:
    check_model(body.model, model)
    lark = None if body.grammar is None else lark_of(body.grammar)
    if lark is not None and body.json_schema is not None:
        raise malformed("it has a grammar and a schema")
    return Request(
        run=f"serve-{number}",
        goes_on=True,
        slot="",
        messages=(),
        schema=None if body.json_schema is None else check_schema(body.json_schema),
        lark=lark,
        # llama.cpp's clients say -1 for any seed.
        seed=number if body.seed is None or body.seed < 0 else body.seed & 0x7FFFFFFF,
        stop=stops_of(body),
        reader_class=reader_of(body, number),
        sampling=sampling_of(body, model, default),
        fit=True,
        adapter=adapter_of(body, model),
    )


def _most(asked: int | None, default: int, model: Model) -> int:
    if asked is not None and asked in (-1, -2):  # llama.cpp's words for no limit
        return model.context
    return min(whole("max_tokens", asked, 1, math.inf, default), model.context)


def _many(body: _Body, first: Request, count: int) -> tuple[Request, ...]:
    prompts = prompts_of(body.prompt)
    if len(prompts) * count > MOST_CALLS:
        raise malformed(f"one request has at most {MOST_CALLS} answers")
    return tuple(
        replace(first, prompt=prompt, seed=first.seed + at & 0x7FFFFFFF)
        for prompt in prompts
        for at in range(count)
    )


def prompts_of(given: Any) -> list[Prompt]:
    """The prompts that a request means: a text, token ids, both mixed, or a list of such.

    Raises:
        UsageError: it means none.
    """
    if isinstance(given, list) and given and not any(isinstance(one, int) for one in given):
        return [_prompt(one) for one in given]
    return [_prompt(given)]


def _prompt(given: Any) -> Prompt:
    if isinstance(given, dict):
        if given.get("multimodal_data"):
            raise unserved("a prompt with pictures or sound")
        given = given.get("prompt_string")
    if not isinstance(given, list | str):
        raise malformed("a prompt is a text, or token ids, or a list of such")
    parts: list[str | tuple[int, ...]] = []
    for one in [given] if isinstance(given, str) else given:
        if isinstance(one, str):
            parts.append(one)
        elif not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < 1 << 31:
            raise malformed("a prompt is a text, or token ids, or a list of such")
        elif parts and isinstance(parts[-1], tuple):
            parts[-1] += (one,)
        else:
            parts.append((one,))
    if not any(parts):
        raise malformed("a prompt is empty")
    return tuple(parts)


# -- answers in OpenAI's form --------------------------------------------------------------------


@dataclass(slots=True)
class TextForm:
    envelope: Envelope
    count: int  # answers to each prompt
    usage: bool
    report: bool
    last: bytes = DONE

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        choices = [
            self._choice(at, answer.text, finish_of(answer), answer.tokens)
            for at, answer in enumerate(answers)
        ]
        document = self.envelope.around("text_completion", choices)
        return document | {
            "usage": usage_of(answers, self.count),
            "timings": timings_of(answers[0]),
        }

    def begun(self) -> Iterator[dict[str, Any]]:
        return iter(())

    def piece(self, index: int, text: str, tokens: tuple[Token, ...]) -> Iterator[dict[str, Any]]:
        choice = self._choice(index, text, None, tokens)
        yield self.envelope.around("text_completion", [choice])

    def ended(self, index: int, answer: Answer) -> Iterator[dict[str, Any]]:
        choice = self._choice(index, "", finish_of(answer), ())
        yield self.envelope.around("text_completion", [choice])

    def over(self, answers: Sequence[Answer]) -> Iterator[dict[str, Any]]:
        if self.usage:
            document = self.envelope.around("text_completion", [])
            yield document | {
                "usage": usage_of(answers, self.count),
                "timings": timings_of(answers[0]),
            }

    def _choice(
        self, index: int, text: str, finish: str | None, tokens: tuple[Token, ...]
    ) -> dict[str, Any]:
        chances = _legacy_logprobs(tokens) if self.report else None
        return {"index": index, "text": text, "logprobs": chances, "finish_reason": finish}


def _legacy_logprobs(tokens: tuple[Token, ...]) -> dict[str, Any]:
    texts = [token_text(one.piece) for one in tokens]
    lengths = [0, *(len(text) for text in texts)]
    return {
        "tokens": texts,
        "token_logprobs": [one.logprob for one in tokens],
        "top_logprobs": [
            {token_text(piece): chance for _, piece, chance in one.top} for one in tokens
        ],
        "text_offset": [sum(lengths[: at + 1]) for at in range(len(texts))],
    }


# -- answers in llama.cpp's form -----------------------------------------------------------------


@dataclass(slots=True)
class NativeForm:
    """
    Args:
        told: are the ids of the tokens told?
        only: fields that the client wants; empty for all.
    """

    model: str
    context: int
    requests: tuple[Request, ...]
    told: bool
    only: list[str]
    last: bytes = b""

    def whole(self, answers: Sequence[Answer]) -> Any:
        found = [self._document(at, answer) for at, answer in enumerate(answers)]
        return found if len(found) > 1 else found[0]

    def begun(self) -> Iterator[dict[str, Any]]:
        return iter(())

    def piece(self, index: int, text: str, tokens: tuple[Token, ...]) -> Iterator[dict[str, Any]]:
        yield {
            "index": index,
            "content": text,
            "tokens": [one.id for one in tokens],
            "stop": False,
        } | self._probabilities(index, tokens)

    def ended(self, index: int, answer: Answer) -> Iterator[dict[str, Any]]:
        yield self._document(index, replace(answer, text="", tokens=()), answer.text)

    def over(self, answers: Sequence[Answer]) -> Iterator[dict[str, Any]]:
        del answers
        return iter(())

    def _document(self, index: int, answer: Answer, text: str | None = None) -> dict[str, Any]:
        request = self.requests[index]
        used = answer.prompt_tokens + answer.completion_tokens
        full = answer.finish == "length" and used >= self.context
        limit = answer.finish == "length"
        document = {
            "index": index,
            "content": answer.text,
            "tokens": [one.id for one in answer.tokens] if self.told else [],
            "id_slot": -1,
            "stop": True,
            "model": self.model,
            "tokens_predicted": answer.completion_tokens,
            "tokens_evaluated": answer.prompt_tokens,
            "tokens_cached": answer.cached_tokens,
            "generation_settings": _settings(request, self.context),
            "prompt": "".join(answer.sent),
            "has_new_line": "\n" in (answer.text if text is None else text),
            "truncated": full,
            "stop_type": "limit" if limit else "word" if answer.stop else "eos",
            "stopping_word": answer.stop,
            "timings": timings_of(answer),
        } | self._probabilities(index, answer.tokens)
        return _picked(document, self.only) if self.only else document

    def _probabilities(self, index: int, tokens: tuple[Token, ...]) -> dict[str, Any]:
        if self.requests[index].logprobs < 0:
            return {}
        found = logprobs_of(tokens)
        for one, token in zip(found, tokens, strict=True):
            one["id"] = token.id
            for other, (identity, _, _) in zip(one["top_logprobs"], token.top, strict=True):
                other["id"] = identity
        return {"completion_probabilities": found}


def _settings(request: Request, context: int) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "n_predict": request.max_tokens,
        "n_ctx": context,
        "seed": request.seed,
        "temperature": request.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "logit_bias": [
            {"token": token, "bias": None if math.isinf(bias) else bias}
            for token, bias in sampling.bias
        ],
        "stop": list(request.stop),
        "grammar": request.lark or "",
        "json_schema": request.schema,
        "n_probs": max(0, request.logprobs),
    }


def _picked(document: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Fields by their paths, which become their names; one that is not there is left out."""
    found: dict[str, Any] = {}
    for name in names:
        value: Any = document
        for part in name.split("/"):
            value = value.get(part, msgspec.UNSET) if isinstance(value, dict) else msgspec.UNSET
        if value is not msgspec.UNSET:
            found[name] = value
    return found
