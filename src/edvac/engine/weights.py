"""One view of a model's weights, whatever file they come from.

A `WeightSource` answers with float32 tensors under GGUF's names (``blk.0.attn_q.weight``), rotary
halves laid out one after the other, and with single embedding rows. It knows the two containers
(GGUF, safetensors) and the names of their tensors; it does not know how the numbers are
used.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import safetensors
import torch

from edvac.engine.config import ModelConfig, from_document, from_metadata
from edvac.engine.gguf import GGUFFile, bad, open_gguf
from edvac.engine.quants import dequantise, rows
from edvac.engine.tokenizer import TextCodec, from_gguf, from_json

_T = TypeVar("_T")
HF_PRODUCTS: Final = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HF_NAMES: Final = HF_PRODUCTS | {
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_FOUR_NORMS: Final = ("gemma2", "gemma3")  # that normalise what a block adds, too
_HF_GEMMA_NORMS: Final = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_HF_TOP: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_FLOATS: Final = ("F64", "F32", "F16", "BF16")
_ROPE: Final = "rope_freqs.weight"
_MAX_HEADER: Final = 32 << 20
_MAX_CONFIG: Final = 1 << 20
_MAX_TEMPLATE: Final = 1 << 20  # characters
_MAX_NAME: Final = 256


class Blocks(NamedTuple):
    """A matrix as its file holds it: quantised blocks of `kind`, and which of its rows is which
    (none: as they stand)."""

    kind: str
    raw: memoryview
    shape: tuple[int, int]
    order: list[int]


class WeightSource(Protocol):
    """Where weights come from."""

    config: ModelConfig
    template: str | None
    name: str

    @property
    def codec(self) -> TextCodec: ...
    def has(self, name: str) -> bool: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def tensor(self, name: str) -> torch.Tensor: ...
    def blocks(self, name: str) -> Blocks | None: ...
    def embedding(self, which: list[int]) -> torch.Tensor: ...
    def let_go(self) -> None: ...


def in_background(work: Callable[[], _T]) -> Future[_T]:
    """The result of something that another thread does meanwhile."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="load")
    try:
        return pool.submit(work)
    finally:
        pool.shutdown(wait=False)


def open_weights(path: Path) -> WeightSource:
    """Open a ``.gguf`` file, or a ``.safetensors`` file with its configuration beside it."""
    if path.suffix == ".safetensors":
        return SafetensorsSource(path)
    return GGUFSource(path)


def rates(base: float, head_dim: int) -> torch.Tensor:
    """Rotary frequencies, (head_dim / 2), float64 (Su et al., RoFormer, 2021, §3.2)."""
    steps = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    return 1.0 / base**steps


class GGUFSource:
    """Weights in a GGUF file."""

    def __init__(self, path: Path) -> None:
        self._file: GGUFFile = open_gguf(path)
        meta = self._file.metadata
        self.config = from_metadata(self._file)
        self._codec = in_background(lambda: self._read_codec(path))
        template = meta.get("tokenizer.chat_template")
        self.template = _bounded(template, path)
        self.name = str(meta.get("general.name", path.stem))[:_MAX_NAME]

    @property
    def codec(self) -> TextCodec:
        """The vocabulary; it is read while weights are, for it takes as long."""
        return self._codec.result()

    def _read_codec(self, path: Path) -> TextCodec:
        found = from_gguf(self._file.metadata, path)
        if found.size != self.config.vocabulary:
            raise bad("malformed", path, "it has not as many embeddings as tokens")
        return found

    def has(self, name: str) -> bool:
        return name in self._file.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self._file.tensors[name].shape

    def tensor(self, name: str) -> torch.Tensor:
        raw = self._file.raw(name)
        info = self._file.tensors[name]
        found = torch.from_numpy(dequantise(raw, info.kind, info.shape))
        return unpermute(found, self.config.head_dim) if self._permuted(name) else found

    def _permuted(self, name: str) -> bool:
        return self.config.architecture == "llama" and (".attn_q." in name or ".attn_k." in name)

    def blocks(self, name: str) -> Blocks | None:
        info = self._file.tensors[name]
        if len(info.shape) != 2:
            return None
        outputs, width = info.shape
        order: list[int] = []
        if self._permuted(name):
            order = unpermute(torch.arange(outputs), self.config.head_dim).tolist()
        return Blocks(info.kind.name, self._file.raw(name), (outputs, width), order)

    def let_go(self) -> None:
        """What was read of the file need not stay in memory."""
        self._file.let_go()

    def embedding(self, which: list[int]) -> torch.Tensor:
        info = self._file.tensors["token_embd.weight"]
        raw = self._file.raw("token_embd.weight")
        return torch.from_numpy(rows(raw, info.kind, info.shape[1], which))


def unpermute(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """GGUF's llama rows alternate the two rotary halves; put the halves one after the other."""
    tail = weight.shape[1:]
    split = weight.reshape(-1, head_dim // 2, 2, *tail)
    return split.transpose(1, 2).reshape(weight.shape).contiguous()


def _bounded(template: object, path: Path) -> str | None:
    """A chat template of a size that a client will render (`edvac.processor.chat`)."""
    if not isinstance(template, str):
        return None
    if len(template) > _MAX_TEMPLATE:
        raise bad("malformed", path, f"its chat template has {len(template)} characters")
    return template


class SafetensorsSource:
    """Weights in a safetensors file, with config.json and tokenizer.json beside it."""

    def __init__(self, path: Path) -> None:
        check_safetensors(path)
        self._path = path
        document = _config_document(path)
        self.config = from_document(document, path)
        begins, ends = (
            _token_ids(document.get(f"{name}_token_id"), self.config.vocabulary)
            for name in ("bos", "eos")
        )
        file, size = _beside(path, "tokenizer.json"), self.config.vocabulary
        self._codec = from_json(file, ends, begins[0] if begins else None, size)
        self.template = _template(path)
        self.name = path.parent.name
        opened: Any = safetensors.safe_open(str(path), framework="pt")
        self._file = opened
        self._names = set(opened.keys())

    @property
    def codec(self) -> TextCodec:
        return self._codec

    def has(self, name: str) -> bool:
        if name == _ROPE:
            return self.config.rope_stretch is not None
        return _hf_name(name, self.config.architecture) in self._names

    def shape(self, name: str) -> tuple[int, ...]:
        if name == _ROPE:
            return (self.config.head_dim // 2,)
        part = self._file.get_slice(_hf_name(name, self.config.architecture))
        if part.get_dtype() not in _FLOATS:
            raise bad("unsupported", self._path, f"{name} holds {part.get_dtype()}, no floats")
        return tuple(part.get_shape())

    def tensor(self, name: str) -> torch.Tensor:
        if name == _ROPE:
            return self._stretch()
        whole = _hf_name(name, self.config.architecture)
        found: torch.Tensor = self._file.get_tensor(whole)
        return found.float() + self.config.norm_offset if "norm" in name else found.float()

    def _stretch(self) -> torch.Tensor:
        """What a GGUF file would hold of a stretched rotation."""
        stretch = self.config.rope_stretch
        assert stretch is not None
        return torch.tensor(
            stretch.divisors(rates(self.config.rope_base, self.config.head_dim).tolist())
        )

    def blocks(self, name: str) -> Blocks | None:
        return None  # it holds floats

    def let_go(self) -> None:
        """The library maps the file as it likes."""

    def embedding(self, which: list[int]) -> torch.Tensor:
        table: torch.Tensor = self._file.get_tensor(_HF_TOP["token_embd.weight"])
        return table[torch.tensor(which)].float()


def check_safetensors(path: Path) -> None:
    """Refuse a header that is larger than sense, before the library reads it."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
        size = path.stat().st_size
    except OSError as error:
        raise bad("unreadable", path, f"the system says {error.strerror or error}") from error
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > size - 8:
        raise bad("truncated", path, "it ends inside its header")
    if length > _MAX_HEADER:
        raise bad("malformed", path, f"its header claims {length} bytes")
    try:
        with safetensors.safe_open(str(path), framework="np"):
            pass
    except safetensors.SafetensorError as error:
        raise bad("malformed", path, f"its header is wrong ({error})") from error


def _token_ids(stated: object, size: int) -> list[int]:
    """One id or several; what is none is left out."""
    several = stated if isinstance(stated, list) else [stated]
    return [one for one in several if type(one) is int and 0 <= one < size]


def _beside(path: Path, name: str) -> Path:
    found = path.parent / name
    if not found.is_file():
        raise bad("incomplete", path, f"{name} does not lie beside it")
    return found


def _config_document(path: Path) -> dict[str, Any]:
    file = _beside(path, "config.json")
    if file.stat().st_size > _MAX_CONFIG:
        raise bad("malformed", path, "its config.json is too large")
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise bad("malformed", path, "its config.json is not JSON") from error
    if not isinstance(found, dict):
        raise bad("malformed", path, "its config.json is not an object")
    return found


def _template(path: Path) -> str | None:
    file = path.parent / "tokenizer_config.json"
    if not file.is_file() or file.stat().st_size > _MAX_HEADER:
        return None
    try:
        found = json.loads(file.read_bytes()).get("chat_template")
    except (ValueError, AttributeError, RecursionError):
        return None
    return _bounded(found, path)


def _hf_name(name: str, architecture: str) -> str:
    """What a tensor of GGUF's name is called there."""
    if name in _HF_TOP:
        return _HF_TOP[name]
    parts = name.split(".")
    known = _HF_NAMES | (_HF_GEMMA_NORMS if architecture in _FOUR_NORMS else {})
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in known:
        return f"model.layers.{parts[1]}.{known[parts[2]]}.{parts[3]}"
    return name
