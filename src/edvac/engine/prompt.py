"""A prompt's segments as tokens, and bounds on what a client may put into them."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from edvac.core.errors import ConfigError, OperandError
from edvac.engine.protocol import Generate, Segment, Tokenize, Tokens
from edvac.engine.sampler import MOST_ALTERNATIVES
from edvac.engine.tokenizer import TextCodec

_MAX_STOPS: Final = 16
_BIAS: Final = "a bias is a number, or minus infinity"


def encode(codec: TextCodec, segments: list[Segment], *, bos: bool) -> tuple[list[int], list[int]]:
    """A prompt's tokens, and how many of them there are at the end of each segment.

    Args:
        bos: begin with the token that the model's prompts begin with, unless the prompt does so
            itself, as many templates do.
    """
    first = codec.specials.bos if bos and codec.specials.add_bos else None
    tokens: list[int] = []
    ends: list[int] = []
    for segment in segments:
        after = tokens[-1] if tokens else first
        new = segment.tokens or codec.encode(segment.text, segment.control, after)
        if new and not tokens and first not in (None, new[0]):
            tokens.append(first)
        tokens += new
        ends.append(len(tokens))
    return tokens, ends


def check_tokens(codec: TextCodec, tokens: Iterable[int]) -> None:
    """
    Raises:
        ConfigError: there is no such token.
    """
    if any(not 0 <= token < codec.size for token in tokens):
        raise ConfigError("token_unknown", "the request names a token that the model does not have")


def check_prompt(codec: TextCodec, segments: list[Segment], context: int) -> None:
    """Bounds that hold before anything is cut into tokens, which takes a second a megabyte.

    Raises:
        ConfigError: there is no such token.
        OperandError: the text cannot fit, however few tokens it makes.
    """
    for segment in segments:
        check_tokens(codec, segment.tokens)
    size = sum(len(segment.text) for segment in segments)
    if size > context * codec.longest:
        raise OperandError(
            "operand_too_large",
            f"the prompt ({size} characters) does not fit the model's context",
            f"{context} tokens are there.",
            "Give the step less data, such as one of text.chunks(text, size).",
        )


def tokenize(codec: TextCodec, request: Tokenize) -> Tokens:
    """The tokens of a prompt; nothing is computed for them.

    Raises:
        ConfigError: there is no such token.
    """
    for segment in request.segments:
        check_tokens(codec, segment.tokens)
    tokens, _ = encode(codec, request.segments, bos=request.bos)
    return Tokens(request.id, tokens, [codec.spelled(token) for token in tokens])


def check_request(request: Generate) -> None:
    """Bounds on what a client may ask.

    Raises:
        ConfigError: it asks for more.
    """
    rules = (
        (request.max_tokens >= 0, "max_tokens must not be negative"),
        (0.0 <= request.temperature <= 100.0, "temperature must lie in 0..100"),
        (0.0 < request.top_p <= 1.0, "top_p must lie in (0, 1]"),
        (0.0 <= request.min_p <= 1.0, "min_p must lie in 0..1"),
        (request.top_k >= 0, "top_k must not be negative"),
        (0.1 <= request.repetition_penalty <= 10.0, "repetition_penalty must lie in 0.1..10"),
        (len(request.stop) <= _MAX_STOPS and all(request.stop), "at most 16 stops, none empty"),
        (request.schema is None or request.lark is None, "give a schema or a grammar, not both"),
        ("\0" not in request.reader_class, "reader_class must hold no NUL"),
        (any(one.text or one.tokens for one in request.segments), "the prompt must not be empty"),
        (request.logprobs <= MOST_ALTERNATIVES, f"logprobs goes to {MOST_ALTERNATIVES}"),
        (all(-1e9 < one < 1e9 or one == -inf for one in request.bias.values()), _BIAS),
    )
    for good, why in rules:
        if not good:
            raise ConfigError("request_invalid", "the request cannot be run", f"{why}.")
