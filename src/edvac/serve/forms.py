"""What the answers of all three interfaces have in common: counts, times, tokens, endings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edvac.processor import Answer, Request, Timings, Token


class Form(Protocol):
    """How answers are written down. An instance serves one HTTP request.

    Attributes:
        last: what a stream ends with.
    """

    last: bytes

    def whole(self, answers: Sequence[Answer]) -> Any: ...

    def begun(self) -> Iterator[Any]:
        """Events before the first piece of any answer."""

    def piece(self, index: int, text: str, tokens: tuple[Token, ...]) -> Iterator[Any]: ...

    def ended(self, index: int, answer: Answer) -> Iterator[Any]: ...

    def over(self, answers: Sequence[Answer]) -> Iterator[Any]:
        """Events after all answers have ended."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One HTTP request: the calls that it makes, and the form of what is answered.

    Attributes:
        client: in whose turn the calls are made.
    """

    requests: tuple[Request, ...]
    form: Form
    stream: bool
    client: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What stands around every answer to one request.

    Attributes:
        created: seconds since 1970.
        fingerprint: of the model and the setting that it is computed in.
    """

    id: str
    model: str
    created: int
    fingerprint: str

    def around(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        about = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return about | {"system_fingerprint": self.fingerprint, "choices": choices}


def finish_of(answer: Answer) -> str:
    return "length" if answer.finish == "length" else "stop"


def usage_of(answers: Sequence[Answer], each: int) -> dict[str, Any]:
    """Tokens of answers, `each` of them to one prompt, which counts once."""
    prompts = answers[::each]
    prompt = sum(one.prompt_tokens for one in prompts)
    completion = sum(one.completion_tokens for one in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in prompts)},
    }


def timings_of(answer: Answer) -> dict[str, Any]:
    """Times by llama-server's names, in milliseconds; a rate is 0 where nothing was timed.

    The first token is chosen from the logits of the prompt, so it takes no step of its own.
    """
    spent = answer.timings or Timings()
    prompt = answer.prompt_tokens - answer.cached_tokens
    steps = max(0, answer.completion_tokens - 1)
    return {
        "prompt_n": prompt,
        "cache_n": answer.cached_tokens,
        "prompt_ms": spent.prompt_ms,
        "prompt_per_token_ms": _ratio(spent.prompt_ms, prompt),
        "prompt_per_second": _ratio(1000 * prompt, spent.prompt_ms),
        "predicted_n": answer.completion_tokens,
        "predicted_ms": spent.answer_ms,
        "predicted_per_token_ms": _ratio(spent.answer_ms, steps),
        "predicted_per_second": _ratio(1000 * steps, spent.answer_ms),
        "queue_ms": spent.queue_ms,
        "draft_n": spent.drafted,
        "draft_n_accepted": spent.accepted,
    }


def _ratio(one: float, other: float) -> float:
    return one / other if other > 0 else 0.0


def token_text(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


def logprobs_of(tokens: Iterable[Token]) -> list[dict[str, Any]]:
    """Tokens with their log-probabilities, as a chat's ``logprobs.content`` has them."""
    return [
        _chance(one.piece, one.logprob)
        | {"top_logprobs": [_chance(piece, chance) for _, piece, chance in one.top]}
        for one in tokens
    ]


def _chance(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": token_text(piece), "logprob": logprob, "bytes": list(piece)}
