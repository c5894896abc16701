"""What a model file says of its network: sizes, and in what the families differ.

Both containers are read here: GGUF's metadata (the names of llama.cpp) and the config.json beside
safetensors (the names of transformers). A setting that changes what is computed and that the
engine does not know is refused, never ignored. It knows no weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edvac.core.errors import ModelFileError
from edvac.engine.catalogue import ARCHITECTURES
from edvac.engine.gguf import GGUFFile, bad

_GEMMAS: Final = ("gemma", "gemma2", "gemma3")
_HF_KINDS: Final = {"gemma3_text": "gemma3"}
_LOCAL_BASE: Final = 10_000.0  # Gemma 3's, where a file does not say
_GLOBAL_EVERY: Final = {"gemma2": 2, "gemma3": 6}  # each so manieth layer sees everything
# The largest of a family scales scores by hidden / heads, which is not its heads' width. A GGUF
# file does not say so; like llama.cpp, the number of layers is gone by.
_LARGEST: Final = {"gemma2": 46, "gemma3": 62}


@dataclass(frozen=True, slots=True)
class Llama3Rope:
    """Llama 3.1's stretched rotation: slow frequencies are divided by `factor`, fast ones stay."""

    factor: float
    low: float
    high: float
    context: int

    def divisors(self, frequencies: list[float]) -> list[float]:
        """What each frequency is divided by."""
        found = []
        for rate in frequencies:
            turns = self.context * rate / (2 * math.pi)
            share = min(1.0, max(0.0, (turns - self.low) / (self.high - self.low)))
            found.append(1.0 / ((1 - share) / self.factor + share))
        return found


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of one decoder.

    Attributes:
        rope_divisor: of all positions of layers that see everything (linear scaling).
        rope_stretch: Llama 3.1's, where the file holds no divisors of its own.
        window: tokens that a windowed layer sees, the token itself among them; 0: none has one.
        windowed: which layers have a window.
        window_rope_base: of windowed layers; 0 where it is the others'.
        attention_cap, logit_cap: scores s become cap x tanh(s / cap); 0 leaves them.
        query_scale: of scores; 0 stands for 1 / sqrt(head_dim).
        embedding_scale: of embeddings.
        gelu: the gate is tanh-approximated GELU instead of SiLU.
        norm_offset: is added to the weights of norms as safetensors hold them.
    """

    architecture: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    rope_base: float
    norm_epsilon: float
    rope_divisor: float = 1.0
    rope_stretch: Llama3Rope | None = None
    window: int = 0
    windowed: tuple[bool, ...] = ()
    window_rope_base: float = 0.0
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    query_scale: float = 0.0
    embedding_scale: float = 1.0
    gelu: bool = False
    norm_offset: float = 0.0

    def window_of(self, layer: int) -> int:
        """How many tokens a layer sees; 0 for all."""
        return self.window if self.windowed and self.windowed[layer] else 0

    def attends_plainly(self, context: int) -> bool:
        """Is attention what every kernel computes, in sequences up to `context` tokens?"""
        seen = not any(self.windowed) or self.window >= context
        return seen and not self.attention_cap and not self.query_scale


def from_metadata(file: GGUFFile) -> ModelConfig:
    """The shape that a GGUF file states.

    Raises:
        ModelFileError: it states none that makes sense, or one that is not computed here.
    """
    meta, path = file.metadata, file.path
    kind = meta.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise bad("unsupported", path, f"its architecture is {kind!r}")
    arch = str(kind)
    read = _Reader(lambda key: meta.get(f"{arch}.{key}"), path)
    heads, hidden = read.whole("attention.head_count"), read.whole("embedding_length")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2 or embedding.shape[1] != hidden:
        raise bad("malformed", path, "it has no embedding of the width it states")
    layers = read.whole("block_count")
    width = read.whole("attention.key_length", max(1, hidden // heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        read.same(key, width)
    read.same("expert_count", 0)
    window = read.count("attention.sliding_window", 4096 if arch == "gemma2" else 0)
    largest = _LARGEST.get(arch) == layers
    return _checked(
        ModelConfig(
            architecture=arch,
            layers=layers,
            hidden=hidden,
            feed_forward=read.whole("feed_forward_length"),
            heads=heads,
            kv_heads=read.whole("attention.head_count_kv", heads),
            head_dim=width,
            vocabulary=embedding.shape[0],
            context=read.whole("context_length"),
            rope_base=read.real("rope.freq_base", 10_000.0),
            norm_epsilon=read.real("attention.layer_norm_rms_epsilon", 1e-5),
            rope_divisor=_gguf_divisor(read),
            window=window,
            windowed=_gguf_windowed(read, arch, layers) if window else (),
            window_rope_base=read.real("rope.freq_base_swa", _LOCAL_BASE)
            if arch == "gemma3"
            else 0.0,
            attention_cap=read.cap("attn_logit_softcapping", 50.0 if arch == "gemma2" else 0.0),
            logit_cap=read.cap("final_logit_softcapping", 30.0 if arch == "gemma2" else 0.0),
            query_scale=(hidden / heads) ** -0.5 if largest else 0.0,
            embedding_scale=math.sqrt(hidden) if arch in _GEMMAS else 1.0,
            gelu=arch in _GEMMAS,
        ),
        path,
    )


def _gguf_divisor(read: _Reader) -> float:
    kind = read.get("rope.scaling.type")
    if kind in (None, "none"):
        return 1.0
    if kind != "linear":
        raise read.unsupported(f"its rotation is scaled by {kind!r}")
    return read.real("rope.scaling.factor", 1.0)


def _gguf_windowed(read: _Reader, arch: str, layers: int) -> tuple[bool, ...]:
    pattern = read.get("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        if len(pattern) != layers or not all(isinstance(one, bool) for one in pattern):
            raise read.malformed("its pattern of windows is not one for each layer")
        return tuple(bool(one) for one in pattern)
    every = read.whole("attention.sliding_window_pattern", _GLOBAL_EVERY.get(arch, layers + 1))
    return tuple((layer + 1) % every != 0 for layer in range(layers))


def from_document(document: dict[str, Any], path: Path) -> ModelConfig:
    """The shape that a config.json states.

    Raises:
        ModelFileError: it states none that makes sense, or one that is not computed here.
    """
    stated = document.get("model_type")
    arch = _HF_KINDS.get(str(stated), str(stated))
    if arch not in ARCHITECTURES or stated == "gemma3":  # the latter's sees pictures too
        raise bad("unsupported", path, f"its architecture is {stated!r}")
    read = _Reader(document.get, path)
    heads, hidden = read.whole("num_attention_heads"), read.whole("hidden_size")
    layers = read.whole("num_hidden_layers")
    width = read.whole("head_dim", max(1, hidden // heads))
    gemma = arch in _GEMMAS
    activation = read.get("hidden_activation") or read.get("hidden_act") or "silu"
    if activation not in (("gelu", "gelu_pytorch_tanh") if gemma else ("silu",)):
        raise read.unsupported(f"its activation is {activation!r}")
    read.same("partial_rotary_factor", 1.0)
    scalar = read.cap("query_pre_attn_scalar", float(width))
    if scalar == 0:
        raise read.malformed("query_pre_attn_scalar is 0")
    windowed = _hf_windowed(read, arch, layers)
    base, divisor, stretch, window_base = _hf_rope(read, arch)
    return _checked(
        ModelConfig(
            architecture=arch,
            layers=layers,
            hidden=hidden,
            feed_forward=read.whole("intermediate_size"),
            heads=heads,
            kv_heads=read.whole("num_key_value_heads", heads),
            head_dim=width,
            vocabulary=read.whole("vocab_size"),
            context=read.whole("max_position_embeddings"),
            rope_base=base,
            norm_epsilon=read.real("rms_norm_eps", 1e-6 if gemma else 1e-5),
            rope_divisor=divisor,
            rope_stretch=stretch,
            window=read.whole("sliding_window") if any(windowed) else 0,
            windowed=windowed if any(windowed) else (),
            window_rope_base=window_base,
            attention_cap=read.cap("attn_logit_softcapping", 0.0),
            logit_cap=read.cap("final_logit_softcapping", 0.0),
            query_scale=0.0 if scalar == width else scalar**-0.5,
            embedding_scale=math.sqrt(hidden) if gemma else 1.0,
            gelu=gemma,
            norm_offset=1.0 if gemma else 0.0,
        ),
        path,
    )


def _hf_windowed(read: _Reader, arch: str, layers: int) -> tuple[bool, ...]:
    """Which layers have a window, as newer files list and older ones leave to the family."""
    if not read.get("sliding_window"):
        return ()
    if arch.startswith("qwen") and not read.get("use_sliding_window"):
        return ()
    kinds = read.get("layer_types")
    if isinstance(kinds, list):
        if len(kinds) != layers or not set(kinds) <= {"full_attention", "sliding_attention"}:
            raise read.malformed("its layer_types are not one of two for each layer")
        return tuple(kind == "sliding_attention" for kind in kinds)
    if arch.startswith("qwen"):
        raise read.unsupported("it has windows and does not say in which layers")
    if arch in _GLOBAL_EVERY:
        every = read.whole("sliding_window_pattern", _GLOBAL_EVERY[arch])
        return tuple((layer + 1) % every != 0 for layer in range(layers))
    return (arch == "mistral",) * layers


def _hf_rope(read: _Reader, arch: str) -> tuple[float, float, Llama3Rope | None, float]:
    """Base, divisor and stretch of the rotation, and the base of windowed layers.

    Newer files keep all of it in ``rope_parameters``, Gemma 3's one for each kind of layer.
    """
    stated = read.get("rope_parameters") or {}
    if not isinstance(stated, dict):
        raise read.malformed("rope_parameters is no object")
    local = stated.get("sliding_attention")
    inner = stated.get("full_attention", stated)
    if not isinstance(inner, dict) or not isinstance(local, dict | None):
        raise read.malformed("rope_parameters are no objects")
    scaling = read.get("rope_scaling") or inner
    if not isinstance(scaling, dict):
        raise read.malformed("rope_scaling is no object")
    scaled = _Reader(scaling.get, read.path)
    base = _Reader(inner.get, read.path).real("rope_theta", read.real("rope_theta", 10_000.0))
    window_base = 0.0
    if arch == "gemma3":
        fallback = read.real("rope_local_base_freq", _LOCAL_BASE)
        window_base = _Reader((local or {}).get, read.path).real("rope_theta", fallback)
    kind = scaled.get("rope_type") or scaled.get("type") or "default"
    if kind == "default":
        return base, 1.0, None, window_base
    if kind == "linear":
        return base, scaled.real("factor"), None, window_base
    if kind != "llama3":
        raise read.unsupported(f"its rotation is scaled by {kind!r}")
    low, high = scaled.real("low_freq_factor"), scaled.real("high_freq_factor")
    if low >= high:
        raise read.malformed("the bounds of its scaled rotation are in the wrong order")
    context = scaled.whole("original_max_position_embeddings")
    return base, 1.0, Llama3Rope(scaled.real("factor"), low, high, context), window_base


class _Reader:
    """Settings by name, checked as they are read; one that is absent or null has its default."""

    def __init__(self, get: Callable[[str], Any], path: Path) -> None:
        self.get, self.path = get, path

    def whole(self, key: str, default: int | None = None) -> int:
        found = self._found(key, default)
        if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= 1 << 24:
            raise self.malformed(f"{key} is {found!r}")
        return found

    def count(self, key: str, default: int) -> int:
        """The same, where it may be zero."""
        return 0 if self._found(key, default) == 0 else self.whole(key, default)

    def real(self, key: str, default: float | None = None) -> float:
        found = self._found(key, default)
        number = isinstance(found, int | float) and not isinstance(found, bool)
        if not number or not math.isfinite(found) or found <= 0:
            raise self.malformed(f"{key} is {found!r}, not a positive number")
        return float(found)

    def cap(self, key: str, default: float) -> float:
        """The same, where it may be zero."""
        return 0.0 if self._found(key, default) == 0 else self.real(key, default)

    def same(self, key: str, wanted: float) -> None:
        """Refuse what is stated otherwise than it is computed."""
        found = self._found(key, wanted)
        if found != wanted:
            raise self.unsupported(f"{key} is {found!r}, and only {wanted!r} is computed here")

    def _found(self, key: str, default: float | None) -> Any:
        found = self.get(key)
        return default if found is None else found

    def malformed(self, why: str) -> ModelFileError:
        return bad("malformed", self.path, why)

    def unsupported(self, why: str) -> ModelFileError:
        return bad("unsupported", self.path, why)


def _checked(config: ModelConfig, path: Path) -> ModelConfig:
    if config.layers > 512 or config.heads % config.kv_heads or config.head_dim % 2:
        raise bad("malformed", path, "its heads or layers make no sense")
    return config
