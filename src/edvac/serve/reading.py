"""Bodies of requests: bounded, decoded, and refused where they ask for what is not served.

What a client asks for and does not get is an error, never passed over. Fields that only tune what
is not there (``user``, ``metadata``) are ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from edvac.core.errors import UsageError
from edvac.processor import Sampling

LONGEST_BODY: Final = 8 << 20  # bytes
DEEPEST: Final = 64  # levels of a schema
MOST_STOPS, LONGEST_STOP = 16, 1000  # strings, characters
MOST_ANSWERS: Final = 16  # to one prompt
MOST_CALLS: Final = 64  # of one request: prompts times answers
MOST_LOGPROBS: Final = 20  # alternatives of one token
LONGEST_GBNF: Final = 1 << 16  # characters
LARK: Final = "%llguidance {}\n"  # how llama.cpp's server tells a Lark grammar from its own
ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}
# What is not served, with the values that ask for nothing.
_UNSERVED: Final[dict[str, tuple[Any, ...]]] = {
    "audio": (),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "web_search_options": (),
    "suffix": ("",),
    "echo": (False,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "mirostat": (0,),
    "dry_multiplier": (0,),
    "xtc_probability": (0,),
    "typical_p": (1,),
    "dynatemp_range": (0,),
    "top_n_sigma": (-1, 0),
    "n_indent": (0,),
    "t_max_predict_ms": (-1, 0),
    "image_data": ([],),
    "samplers": ([],),
    "post_sampling_probs": (False,),
    "return_progress": (False,),
}

_UNREADABLE: Final = (msgspec.DecodeError, msgspec.ValidationError, RecursionError, ValueError)

T = TypeVar("T")


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Scale(msgspec.Struct):
    """How much of an adapter, by its number, is added to the model."""

    id: int
    scale: float = 1.0


class Common(msgspec.Struct, kw_only=True):
    """Fields that all requests for answers share. None stands for what was not said."""

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | list[tuple[int, float | bool]] | None = None
    ignore_eos: bool | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    cache_prompt: bool | None = None
    user: str | None = None
    lora: list[Scale] | None = None


class _Address(msgspec.Struct):
    model: str | None = None


_addresses: Final = msgspec.json.Decoder(_Address)


@dataclass(frozen=True, slots=True)
class Model:
    """What is served.

    Attributes:
        names: that clients may ask for it by; the first is the one that it has in answers.
        context: tokens that it has room for.
        ends: tokens that end an answer.
        adapter: what the request is answered under where it says nothing of adapters itself.
        adapters: all that the model has, by their numbers; an empty name is not served now.
    """

    names: tuple[str, ...]
    context: int
    ends: tuple[int, ...] = ()
    adapter: str = ""
    adapters: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.names[0]


def decode(data: bytes, kind: type[T]) -> T:
    """
    Raises:
        UsageError: it is no such request, or asks for what is not served.
    """
    try:
        raw = msgspec.json.decode(data)
        body = msgspec.convert(raw, kind)
    except _UNREADABLE as problem:
        raise malformed("it cannot be read", str(problem)) from problem
    for name, neutral in _UNSERVED.items():
        value = raw.get(name)
        if value is not None and value not in neutral:
            raise unserved(name)
    return body


def addressed(data: bytes) -> str | None:
    """The model that a request names, whatever else it asks.

    Raises:
        UsageError: it is no request.
    """
    try:
        return _addresses.decode(data).model
    except _UNREADABLE as problem:
        raise malformed("it cannot be read", str(problem)) from problem


def unserved(name: str) -> UsageError:
    return UsageError("request_unserved", f"{name} is not served", "", f"Leave {name} out.")


def malformed(what: str, why: str = "") -> UsageError:
    return UsageError("request_malformed", f"the request is malformed: {what}", why)


def check_model(asked: str | None, model: Model) -> None:
    """
    Raises:
        UsageError: it is another one.
    """
    if asked is not None and asked not in model.names:
        fix = f"Name {model.name}; /v1/models lists it."
        raise UsageError("model_not_found", f"{asked!r} is not served here", "", fix)


def adapter_of(body: Common, model: Model) -> str:
    """The adapter that a request wants; empty for none.

    Raises:
        UsageError: there is no such one, or it is wanted in a way that is not served.
    """
    if body.lora is None:
        return model.adapter
    return adapter_at(body.lora, model.adapters)


def adapter_at(scales: list[Scale], adapters: tuple[str, ...]) -> str:
    """The adapter that is scaled with 1, as llama.cpp's clients say it; empty for none.

    Raises:
        UsageError: there is no such one, or it is wanted in a way that is not served.
    """
    wanted = {}
    for one in scales:
        if not 0 <= one.id < len(adapters) or not adapters[one.id]:
            what = f"there is no adapter {one.id}"
            raise UsageError("adapter_id_unknown", what, "", "/lora-adapters lists them.")
        if one.scale not in (0, 1):
            what = "an adapter is scaled with 0 or 1 and nothing between"
            raise UsageError("adapter_scale", what, "", "Say 1 for it, or 0 for the model alone.")
        wanted[one.id] = one.scale
    found = [at for at, scale in wanted.items() if scale]
    if len(found) > 1:
        raise UsageError("adapter_several", "an answer is under one adapter at most")
    return adapters[found[0]] if found else ""


def check_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """
    Raises:
        UsageError: it is too deep for what reads it.
    """
    layer: list[Any] = [schema]
    for _ in range(DEEPEST):
        layer = [one for value in layer for one in _parts(value)]
        if not layer:
            return schema
    raise malformed(f"a schema has more than {DEEPEST} levels")


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def lark_of(grammar: str) -> str:
    """A grammar in Lark's notation, from that or llama.cpp's own.

    Raises:
        UsageError: it is in neither.
    """
    if grammar.startswith(LARK):
        return grammar.removeprefix(LARK)
    from llguidance.gbnf_to_lark import any_to_lark

    if len(grammar) > LONGEST_GBNF:
        raise malformed(f"a grammar in GBNF has at most {LONGEST_GBNF} characters")
    try:
        found: str = any_to_lark(grammar)
    except Exception as problem:  # the library raises that very class for what it cannot read
        fix = f"In Lark's notation, begin it with {LARK.strip()!r} and a new line."
        why = str(problem).strip().split("\n")[0][:200]
        raise UsageError("gbnf_invalid", "the grammar is not in GBNF", why, fix) from problem
    return found.removeprefix(LARK)


def in_range(name: str, value: float | None, low: float, high: float, default: float) -> float:
    """
    Raises:
        UsageError: it is outside, or no number.
    """
    if value is None:
        return default
    if not low <= value <= high:
        raise malformed(f"{name} goes from {low:g} to {high:g}")
    return value


def whole(name: str, value: int | None, low: int, high: float, default: int) -> int:
    return int(in_range(name, value, low, high, default))


def stops_of(body: Common) -> tuple[str, ...]:
    """
    Raises:
        UsageError: they are too many or too long.
    """
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    stops = tuple(stop for stop in stops if stop)
    if len(stops) > MOST_STOPS or any(len(stop) > LONGEST_STOP for stop in stops):
        raise malformed(f"stop has at most {MOST_STOPS} strings of {LONGEST_STOP} characters")
    return stops


def answers_of(body: Common) -> int:
    """How many answers there are to be to one prompt.

    Raises:
        UsageError: too many, or the best of more.
    """
    found = whole("n", body.n, 1, MOST_ANSWERS, 1)
    if body.best_of not in (None, found):
        raise unserved("best_of other than n")
    return found


def reader_of(body: Common, number: int) -> str:
    """Whose keys and values a call may use; its own alone, where it wants nothing cached."""
    return f"user/{number}" if body.cache_prompt is False else "user"


def usage_wanted(body: Common) -> bool:
    """Is the cost to come behind a stream?"""
    return body.stream_options is not None and body.stream_options.include_usage


def sampling_of(body: Common, model: Model, default: Sampling) -> Sampling:
    """
    Raises:
        UsageError: something is out of range.
    """
    penalty = body.repeat_penalty if body.repeat_penalty is not None else body.repetition_penalty
    return Sampling(
        top_p=in_range("top_p", body.top_p, 1e-6, 1, default.top_p),
        # Below 1 it is off, however a client says so.
        top_k=max(0, whole("top_k", body.top_k, -1, 1 << 20, default.top_k)),
        min_p=in_range("min_p", body.min_p, 0, 1, default.min_p),
        repetition_penalty=in_range("repeat_penalty", penalty, 0.1, 10, 1.0),
        bias=_bias_of(body, model),
    )


def _bias_of(body: Common, model: Model) -> tuple[tuple[int, float], ...]:
    pairs = body.logit_bias.items() if isinstance(body.logit_bias, dict) else body.logit_bias or ()
    found: dict[int, float] = {}
    for token, bias in pairs:
        try:
            # `false` is llama.cpp's word for never.
            found[int(token)] = -math.inf if bias is False else float(bias)
        except ValueError as problem:
            raise malformed("logit_bias names tokens by their numbers") from problem
    if body.ignore_eos:
        found |= dict.fromkeys(model.ends, -math.inf)
    return tuple(found.items())
