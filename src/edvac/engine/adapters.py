"""LoRA adapters: what a file adds to a model's products, for the rows that want it.

An adapter gives some products W two narrow matrices, and a row x of one of its requests becomes
W x + scale B (A x) (Hu et al., LoRA, 2021, §4.1). The base product is computed once for all rows
of a step, whichever adapters they want; each adapter's rows then get what it adds. Files are
llama.cpp's (GGUF with ``lora_a`` and ``lora_b``) or PEFT's (safetensors with adapter_config.json);
both are hostile input. It knows rows and products, neither requests nor memory for keys.
"""

from __future__ import annotations

import json
import math
import re
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import safetensors
import torch

from edvac.core.errors import ConfigError, ModelFileError
from edvac.engine.config import ModelConfig
from edvac.engine.digest import adapter_digest, adapter_files
from edvac.engine.gguf import GGUFFile, open_gguf
from edvac.engine.linear import Rows, tiled
from edvac.engine.quants import dequantise
from edvac.engine.weights import HF_PRODUCTS, check_safetensors, unpermute

HEAD: Final = "head"
_MAX_CONFIG: Final = 1 << 20
_SAME_AS_LLAMA: Final = ("mistral", "smollm2")  # what GGUF calls llama
_PEFT: Final = re.compile(
    r"base_model\.model\.(?:model\.layers\.(\d{1,4})\.)?([a-z_.]+)\.lora_([AB])\.weight"
)
_GGUF: Final = re.compile(r"(?:blk\.(\d{1,4})\.)?([a-z_]+)\.weight\.lora_([ab])")
# Settings of PEFT under which an adapter is more than two narrow matrices a product.
_PLAIN: Final = {
    "use_dora": (False,),
    "fan_in_fan_out": (False,),
    "lora_bias": (False,),
    "bias": ("none",),
    "alpha_pattern": ({},),
    "modules_to_save": ([],),
    "layer_replication": ([],),
    "trainable_token_indices": ([], {}),
    "target_parameters": ([],),
}


class Place(NamedTuple):
    """Where a matrix of a layer stands among the products: outputs from `start` on."""

    part: str
    start: int
    outputs: int
    width: int


class Delta(NamedTuple):
    """What is added to the outputs of a product from `start` on: `up` (outputs, rank), scaled,
    times `down` (rank, width)."""

    start: int
    down: torch.Tensor
    up: torch.Tensor


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Adapter:
    """One file's deltas, by layer and part; `digest` names its content."""

    digest: str
    deltas: dict[tuple[int, str], list[Delta]]

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return sum(
            tensor.nbytes for found in self.deltas.values() for _, *both in found for tensor in both
        )


class Adapted(NamedTuple):
    """The rows of a step that want an adapter: their numbers, also as a tensor on the device."""

    adapter: Adapter
    rows: list[int]
    where: torch.Tensor

    @classmethod
    def on(cls, device: torch.device | str, adapter: Adapter, rows: list[int]) -> Adapted:
        return cls(adapter, rows, torch.tensor(rows, dtype=torch.long, device=device))

    def among(self, picked: list[int]) -> Adapted:
        """The same where only these rows are left."""
        wanted = set(self.rows)
        left = [place for place, row in enumerate(picked) if row in wanted]
        return Adapted.on(self.where.device, self.adapter, left)


def adapt(
    found: torch.Tensor, adapted: Sequence[Adapted], layer: int, part: str, rows: Rows
) -> torch.Tensor:
    """A product's outputs, to which each adapter has added what it gives for its rows.

    That is computed in tiles of one height, as the reference is: what a row gets depends neither
    on the other rows nor on their number.
    """
    for adapter, numbers, where in adapted:
        deltas = adapter.deltas.get((layer, part))
        if deltas and numbers:
            values = rows.some(where)
            for start, down, up in deltas:
                more = tiled(tiled(values, down), up)
                found[:, start : start + more.shape[1]].index_add_(0, where, more)
    return found


def places(config: ModelConfig) -> dict[str, Place]:
    """Every matrix that an adapter may change, by its name in GGUF."""
    hidden, feed = config.hidden, config.feed_forward
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "attn_q": Place("qkv", 0, queries, hidden),
        "attn_k": Place("qkv", queries, keys, hidden),
        "attn_v": Place("qkv", queries + keys, keys, hidden),
        "attn_output": Place("out", 0, hidden, queries),
        "ffn_gate": Place("gate_up", 0, feed, hidden),
        "ffn_up": Place("gate_up", feed, feed, hidden),
        "ffn_down": Place("down", 0, hidden, feed),
        "output": Place(HEAD, 0, config.vocabulary, hidden),
    }


class _Half(NamedTuple):
    """One of the two matrices of a delta, as a file names it."""

    layer: int | None
    member: str
    side: str
    tensor: torch.Tensor


def read_adapter(path: Path, config: ModelConfig, device: torch.device | str = "cpu") -> Adapter:
    """The adapter of a GGUF file, or of PEFT's directory or safetensors file.

    Raises:
        ModelFileError: it is damaged, changes more than products, or belongs to another model.
    """
    path = adapter_files(path)[0]
    scale, halves = _peft(path) if path.suffix == ".safetensors" else _gguf(path, config)
    pairs: dict[tuple[int, str], dict[str, torch.Tensor]] = {}
    for layer, member, side, tensor in halves:
        place = places(config).get(member)
        if place is None or (layer is None) != (place.part == HEAD):
            raise _unsupported(path, f"it changes {member!r}, which no adapter can here")
        number = config.layers if layer is None else layer
        if number > config.layers or (number == config.layers) != (place.part == HEAD):
            raise _mismatch(path, f"the model has no layer {number}")
        pairs.setdefault((number, member), {})[side] = tensor
    if not pairs:
        raise _malformed(path, "it holds no matrices")
    deltas: dict[tuple[int, str], list[Delta]] = {}
    for (number, member), both in sorted(pairs.items()):
        place = places(config)[member]
        start, down, up = _delta(path, f"{member} of layer {number}", both, place, scale)
        delta = Delta(start, down.to(device), up.to(device))
        deltas.setdefault((number, place.part), []).append(delta)
    return Adapter(adapter_digest(path), deltas)


def _delta(
    path: Path, name: str, both: dict[str, torch.Tensor], place: Place, scale: _Scale
) -> Delta:
    if both.keys() != {"a", "b"}:
        raise _malformed(path, f"of the two matrices for {name} one is missing")
    if not all(tensor.is_floating_point() for tensor in both.values()):
        raise _malformed(path, f"the matrices for {name} hold no floats")
    down, up = both["a"].float(), both["b"].float()
    if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1]:
        raise _malformed(path, f"the two matrices for {name} do not fit each other")
    if down.shape[1] != place.width or len(up) != place.outputs:
        sizes = f"{place.outputs} x {place.width}, not {len(up)} x {down.shape[1]}"
        raise _mismatch(path, f"the model's {name} is {sizes}")
    up = up * scale.of(len(down))
    if not bool(torch.isfinite(up).all() and torch.isfinite(down).all()):
        raise _malformed(path, f"{name} holds what is no number")
    return Delta(place.start, down.contiguous(), up.contiguous())


class _Scale(NamedTuple):
    """What a delta is multiplied with: alpha over its rank, or over the rank's root (Kalajdzievski,
    rsLoRA, 2023, §3); alpha None leaves it."""

    alpha: float | None
    root: bool = False

    def of(self, rank: int) -> float:
        if self.alpha is None:
            return 1.0
        return self.alpha / (math.sqrt(rank) if self.root else rank)


def _gguf(path: Path, config: ModelConfig) -> tuple[_Scale, Iterator[_Half]]:
    file = open_gguf(path)
    meta = file.metadata
    for key, wanted in (("general.type", "adapter"), ("adapter.type", "lora")):
        if meta.get(key) != wanted:
            raise _malformed(path, f"its {key} is {meta.get(key)!r}, not {wanted!r}")
    base = "llama" if config.architecture in _SAME_AS_LLAMA else config.architecture
    if meta.get("general.architecture") != base:
        made_for = meta.get("general.architecture")
        raise _mismatch(path, f"it was made for {made_for!r}, and the model is {base!r}")
    if meta.get("adapter.alora.invocation_tokens"):
        raise _unsupported(path, "it is switched on by words in the prompt (aLoRA)")
    alpha = meta.get("adapter.lora.alpha", 0.0)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise _malformed(path, f"its alpha is {alpha!r}")
    return _Scale(float(alpha) or None), _gguf_halves(file, base, config.head_dim)


def _gguf_halves(file: GGUFFile, architecture: str, head_dim: int) -> Iterator[_Half]:
    for name, info in file.tensors.items():
        found = _GGUF.fullmatch(name)
        if found is None:
            raise _unsupported(file.path, f"it changes {name!r}")
        tensor = torch.from_numpy(dequantise(file.raw(name), info.kind, info.shape))
        layer, member, side = found.groups()
        turned = architecture == "llama" and side == "b" and member in ("attn_q", "attn_k")
        if turned and tensor.shape[0] % head_dim == 0:
            tensor = unpermute(tensor, head_dim)
        yield _Half(None if layer is None else int(layer), member, side, tensor)


def _peft(path: Path) -> tuple[_Scale, Iterator[_Half]]:
    check_safetensors(path)
    stated = _peft_config(path)
    kind = stated.get("peft_type")
    if kind != "LORA":
        raise _unsupported(path, f"its peft_type is {kind!r}")
    for key, plain in _PLAIN.items():
        if stated.get(key) not in (None, *plain):
            raise _unsupported(path, f"its {key} is {stated[key]!r}")
    alpha = stated.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise _malformed(path, f"its lora_alpha is {alpha!r}")
    return _Scale(float(alpha), stated.get("use_rslora") is True), _peft_halves(path)


def _peft_config(path: Path) -> dict[str, Any]:
    file = adapter_files(path)[1]
    try:
        if file.stat().st_size > _MAX_CONFIG:
            raise _malformed(path, f"its {file.name} is too large")
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise _malformed(path, f"{file.name} does not lie beside it") from error
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"its {file.name} is not JSON") from error
    if not isinstance(found, dict):
        raise _malformed(path, f"its {file.name} is no object")
    return found


def _peft_halves(path: Path) -> Iterator[_Half]:
    members = {peft: own for own, peft in HF_PRODUCTS.items()} | {"lm_head": "output"}
    opened: Any = safetensors.safe_open(str(path), framework="pt")
    with opened as file:
        for name in file.keys():  # noqa: SIM118 (it is no dictionary)
            found = _PEFT.fullmatch(name)
            if found is None:
                raise _unsupported(path, f"it changes {name!r}")
            layer, module, side = found.groups()
            tensor = file.get_tensor(name)
            yield _Half(
                None if layer is None else int(layer),
                members.get(module, module),
                side.lower(),
                tensor,
            )


_OTHER: Final = "Choose a LoRA adapter that was trained on this very model."


def _malformed(path: Path, why: str) -> ModelFileError:
    what = f"the adapter {path.name} is damaged"
    return ModelFileError("adapter_malformed", what, f"Reading it showed that {why}.", _OTHER)


def _unsupported(path: Path, why: str) -> ModelFileError:
    what = f"the adapter {path.name} is more than LoRA on products"
    fix = "Merge it into its model and use that, or choose another."
    return ModelFileError("adapter_unsupported", what, f"Reading it showed that {why}.", fix)


def _mismatch(path: Path, why: str) -> ModelFileError:
    what = f"the adapter {path.name} belongs to another model"
    return ModelFileError("adapter_mismatch", what, f"Reading it showed that {why}.", _OTHER)


@dataclass(slots=True)
class _Held:
    adapter: Adapter
    holders: set[int]


@dataclass(slots=True)
class Adapters:
    """Those that requests may name.

    Who loads a name holds it. Once nobody does, no new request can name it; memory is given back
    when the last request that runs with it has ended.
    """

    config: ModelConfig
    device: torch.device | str = "cpu"
    _named: dict[str, _Held] = field(default_factory=dict)
    _alive: weakref.WeakSet[Adapter] = field(default_factory=weakref.WeakSet)

    @property
    def size(self) -> int:
        """Bytes of all that are loaded or still in use."""
        return sum(adapter.size for adapter in self._alive)

    def __len__(self) -> int:
        return len(self._named)

    def find(self, name: str) -> Adapter | None:
        """The adapter of a name; none for the empty one.

        Raises:
            ConfigError: nobody has loaded it.
        """
        if not name:
            return None
        held = self._named.get(name)
        if held is None:
            raise _unknown(name, self._named)
        return held.adapter

    def load(self, name: str, path: Path, holder: int = 0) -> Adapter:
        """Read an adapter, or take one more hold of it.

        Raises:
            ModelFileError: it cannot be used with this model.
            ConfigError: the name is empty, or holds another file's content.
        """
        if not name:
            raise ConfigError("adapter_name", "an adapter needs a name")
        held = self._named.get(name)
        if held is None:
            held = _Held(read_adapter(path, self.config, self.device), set())
            self._named[name] = held
            self._alive.add(held.adapter)
        elif held.adapter.digest != adapter_digest(adapter_files(path)[0]):
            raise ConfigError(
                "adapter_taken",
                f"another adapter is loaded as {name!r}",
                "",
                "Choose another name, or unload that one first.",
            )
        held.holders.add(holder)
        return held.adapter

    def unload(self, name: str, holder: int = 0) -> None:
        """Let go of a name.

        Raises:
            ConfigError: it is not held.
        """
        held = self._named.get(name)
        if held is None or holder not in held.holders:
            raise _unknown(name, self._named)
        held.holders.remove(holder)
        if not held.holders:
            del self._named[name]

    def leave(self, holder: int) -> None:
        """Let go of everything that this one holds."""
        for name in [name for name, held in self._named.items() if holder in held.holders]:
            self.unload(name, holder)


def _unknown(name: str, known: dict[str, _Held]) -> ConfigError:
    return ConfigError(
        "adapter_unknown",
        f"there is no adapter {name!r}",
        f"Loaded are: {', '.join(sorted(known)) or 'none'}.",
        "Load it first, or leave `adapter` out.",
    )
