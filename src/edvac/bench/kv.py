"""What storing keys and values in fewer bits costs: divergence, agreement and perplexity on text.

Every arm reads the same windows of text with the same weights; only what attention sees of keys
and values differs. Arms of the compiled kernels run as an engine runs them, the others attend in
float32 over what came back from the codec. Logits of a window lie in memory once for the
reference and once for an arm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F

import edvac
from edvac.engine._native import kernels
from edvac.engine.attention import (
    CPU,
    Attending,
    KernelPlan,
    Norms,
    Rotation,
    Span,
    rotate,
)
from edvac.engine.config import ModelConfig
from edvac.engine.digest import file_digest
from edvac.engine.kv.codecs import (
    BlockFloat,
    Cast,
    Codec,
    KVType,
    Sorted,
    Uniform,
    full_order,
    key_order,
    kv_type_named,
)
from edvac.engine.kv.pages import BLOCK, PagedArena
from edvac.engine.loader import LoadOptions, load
from edvac.engine.model import Decoder
from edvac.engine.weights import WeightSource

TOP = 32  # most likely tokens that stand alone in the truncated divergence; the rest is one
_CHUNK = 256  # rows of a step of the kernels, as engines take them
_ROWS = 64  # of logits that are compared at a time
_SOURCES = ("engine/scheduler.py", "core/errors.py", "engine/sampler.py", "engine/attention.py")


@dataclass(frozen=True, slots=True)
class Text:
    """Windows of tokens, each read from nothing."""

    name: str
    windows: list[list[int]]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to store keys and values.

    Attributes:
        keys: of a layer.
        split: the bias of keys is not stored.
        kernels: the engine's own, which this arm runs through.
    """

    name: str
    keys: Callable[[int], Codec]
    values: Codec
    split: bool = False
    kernels: KVType | None = None

    def token_bytes(self, config: ModelConfig) -> int:
        row = self.keys(0).row_bytes(config.head_dim) + self.values.row_bytes(config.head_dim)
        return config.layers * config.kv_heads * row


@dataclass(slots=True)
class Score:
    """How an arm's predictions differ from the reference's, token by token.

    Attributes:
        divergence: KL(reference || arm), in nats.
        truncated: the same over the reference's `TOP` most likely tokens and the rest as one.
        agreed: the most likely token is the same.
        surprise: -log of the probability of the token that follows.
    """

    divergence: list[float] = field(default_factory=list)
    truncated: list[float] = field(default_factory=list)
    agreed: list[bool] = field(default_factory=list)
    surprise: list[float] = field(default_factory=list)

    @property
    def perplexity(self) -> float:
        return math.exp(min(sum(self.surprise) / len(self.surprise), 700.0))

    @property
    def mean(self) -> float | None:
        """None where only the truncated one can be known."""
        return sum(self.divergence) / len(self.divergence) if self.divergence else None

    @property
    def mean_truncated(self) -> float:
        return sum(self.truncated) / len(self.truncated)

    @property
    def agreement(self) -> float:
        return sum(self.agreed) / len(self.agreed)


class Emulated:
    """Attention of one window over keys and values as an arm gives them back."""

    answering = 0
    device = CPU

    def __init__(self, decoder: Decoder, arm: Arm, count: int) -> None:
        self.positions = torch.arange(count)
        self._config, self._decoder, self._arm = decoder.config, decoder, arm

    def mix(self, layer: int, qkv: torch.Tensor, turns: Rotation, norms: Norms) -> torch.Tensor:
        config, arm = self._config, self._arm
        parts = qkv.view(len(qkv), -1, config.head_dim)
        query, key, value = parts.split([config.heads, config.kv_heads, config.kv_heads], dim=1)
        if norms is not None:
            query, key = norms[0](query), norms[1](key)
        bias = self._decoder.layers[layer].key_bias
        added = None if bias is None else bias.view(1, config.kv_heads, -1)
        if added is not None and not arm.split:
            key = key + added
        codec = arm.keys(layer)
        key = codec.decode(codec.encode(rotate(key, turns)))
        if added is not None and arm.split:
            key = key + rotate(added.expand(len(qkv), -1, -1), turns)
        value = arm.values.decode(arm.values.encode(value.contiguous()))
        mixed = F.scaled_dot_product_attention(
            rotate(query, turns).transpose(0, 1)[None],
            key.transpose(0, 1)[None],
            value.transpose(0, 1)[None],
            is_causal=True,
            enable_gqa=True,
        )
        return mixed[0].transpose(0, 1).reshape(len(qkv), -1)


class Reader:
    """A model that reads windows, through any arm."""

    def __init__(
        self,
        path: Path,
        cache: Path,
        *,
        plain: torch.dtype | None = None,
        split_key_bias: bool = True,
    ) -> None:
        options = LoadOptions(
            *(path, file_digest(path), cache, False, lambda done, total: None),
            split_key_bias=split_key_bias,
            plain=plain,
        )
        self.decoder, self.source = load(options)
        self.native: ModuleType | None = kernels()

    def logits(self, arm: Arm, window: list[int]) -> torch.Tensor:
        """(tokens, vocabulary): what follows each token of the window."""
        if arm.kernels is not None:
            return self._by_kernels(arm.kernels, window)
        plan = Emulated(self.decoder, arm, len(window))
        return self.decoder.forward(window, plan, list(range(len(window))))

    def _by_kernels(self, kv: KVType, window: list[int]) -> torch.Tensor:
        assert self.native is not None
        config = self.decoder.config
        arena = PagedArena(config, 1, len(window), -(-len(window) // BLOCK), kv)
        arena.touch(0, len(window))
        bias = self.decoder.key_bias(len(window))
        attending = Attending(self.native, arena, config.heads, bias)
        found = []
        for start in range(0, len(window), _CHUNK):
            part = window[start : start + _CHUNK]
            plan = KernelPlan(attending, [Span(0, start, len(part))], 0)
            found.append(self.decoder.forward(part, plan, list(range(len(part)))))
        return torch.cat(found)


def arms(source: WeightSource, native: bool) -> list[Arm]:
    """Every way that is compared; the first is the reference."""
    config = source.config
    biased = source.has("blk.0.attn_k.bias")
    found = [
        plain("f16", Cast(torch.float16)),
        plain("float32", Cast(torch.float32)),
        plain("bf16", Cast(torch.bfloat16)),
        plain("int8", Uniform(8)),
        plain("int4", Uniform(4)),
        *(plain(f"int4, Hadamard {n}", Uniform(4, n), Uniform(4)) for n in orders(config)),
    ]
    if biased:
        found += [
            split("bf16", Cast(torch.bfloat16)),
            split("int8", Uniform(8)),
            split("int4", Uniform(4)),
            *(split(f"int4, Hadamard {n}", Uniform(4, n), Uniform(4)) for n in orders(config)),
        ]
    make = split if biased else plain
    full = full_order(config.head_dim)
    sorts = [
        key_order(source.tensor(f"blk.{n}.attn_k.weight"), config.kv_heads)
        for n in range(config.layers)
    ]
    found += [
        make("k8v4", Uniform(8), Uniform(4)),
        make("int4 values alone", Cast(torch.float16), Uniform(4)),
        make(f"int4, Hadamard {full} on keys and values", Uniform(4, full), Uniform(4, full)),
        make("bfp8", BlockFloat(8, min(full, 32))),
        make("bfp4 in 32", BlockFloat(4, min(full, 32))),
        make("bfp4 in 16", BlockFloat(4, 16)),
        Arm(
            "bfp4 in 16, K-sort" + ", bias apart" * biased,
            lambda layer: Sorted(BlockFloat(4, 16), sorts[layer]),
            BlockFloat(4, 16),
            biased,
        ),
    ]
    if native:
        for name in ("int8", "k8v4", "int4"):
            kv = kv_type_named(name, config.head_dim, biased=biased)
            found.append(Arm(f"{name} as engines run it", _all(kv.keys), kv.values, biased, kv))
    return found


def plain(name: str, keys: Codec, values: Codec | None = None) -> Arm:
    return Arm(name, _all(keys), values or keys)


def split(name: str, keys: Codec, values: Codec | None = None) -> Arm:
    return Arm(f"{name}, bias apart", _all(keys), values or keys, split=True)


def _all(codec: Codec) -> Callable[[int], Codec]:
    return lambda layer: codec


def orders(config: ModelConfig) -> list[int]:
    """Of the Hadamard matrices that are tried."""
    return [order for order in (16, 32, 64, 128) if config.head_dim % order == 0]


def texts(source: WeightSource, data: Path, window: int, count: int) -> Iterator[Text]:
    """Prose where there is some, and edvac's own source."""
    home = Path(edvac.__file__).parent
    code = "\n\n".join((home / name).read_text(encoding="utf-8") for name in _SOURCES)
    yield _cut("code", code, source, window, count)
    file = data / "wikitext-2" / "test.txt"
    if file.exists():
        yield _cut("wikitext-2", file.read_text(encoding="utf-8"), source, window, count)


def _cut(name: str, text: str, source: WeightSource, window: int, count: int) -> Text:
    codec = source.codec
    tokens = codec.encode(text[: 8 * window * count], False)
    start = [codec.specials.bos] if codec.specials.add_bos and codec.specials.bos else []
    body = window - len(start)
    cut = [start + tokens[at * body : (at + 1) * body] for at in range(count)]
    return Text(name, [one for one in cut if len(one) == window])


def compare(reference: torch.Tensor, logits: torch.Tensor, window: list[int], into: Score) -> None:
    """Add a window's tokens to a score; what follows the last one is not known."""
    following = torch.tensor(window[1:])
    for at in range(0, len(window), _ROWS):
        true = torch.log_softmax(reference[at : at + _ROWS], dim=-1)
        other = torch.log_softmax(logits[at : at + _ROWS], dim=-1)
        chance = true.exp()
        into.divergence += (chance * (true - other)).sum(dim=-1).clamp_min(0).tolist()
        into.agreed += (true.argmax(dim=-1) == other.argmax(dim=-1)).tolist()
        known = following[at : at + _ROWS]
        into.surprise += (-other[: len(known)].gather(1, known[:, None])).flatten().tolist()
        top = true.topk(TOP, dim=-1)
        into.truncated += truncated(top.values, other.gather(1, top.indices)).tolist()


def truncated(true: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL of distributions over some tokens and all others as one: log-probabilities of these
    tokens, (rows, tokens), to (rows,)."""

    def with_rest(known: torch.Tensor) -> torch.Tensor:
        rest = (1 - known.double().exp().sum(dim=-1, keepdim=True)).clamp_min(1e-12)
        return torch.cat([known.double(), rest.log()], dim=-1)

    first, second = with_rest(true), with_rest(other)
    return (first.exp() * (first - second)).sum(dim=-1).clamp_min(0)


def score(
    reader: Reader, tried: list[Arm], text: Text, say: Callable[[str], None]
) -> dict[str, Score]:
    """Every arm's score on a text; the first arm is the reference."""
    found = {arm.name: Score() for arm in tried}
    for number, window in enumerate(text.windows, 1):
        with torch.inference_mode():
            reference = reader.logits(tried[0], window)
            for arm in tried:
                logits = reference if arm is tried[0] else reader.logits(arm, window)
                compare(reference, logits, window, found[arm.name])
        say(f"{text.name}: window {number} of {len(text.windows)}")
    return found
