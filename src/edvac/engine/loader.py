"""From a model file to a ready decoder, by way of a cache of repacked weights.

The first load decodes the file and writes 8-bit weights, fused per layer, beside a note that says
what they were made from; later loads map that file. A cache that is cut short, stale or altered
in its header is rebuilt, never used; where none can be written the weights are used from memory.
It knows layouts and names, not how products are computed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
import numpy as np
import safetensors
import safetensors.torch
import torch

from edvac.engine._native import KINDS, ROW_STEP, kernels
from edvac.engine.adapters import HEAD, places
from edvac.engine.attention import CPU, Norms
from edvac.engine.config import ModelConfig
from edvac.engine.gguf import bad
from edvac.engine.linear import (
    BlockProduct,
    ByRole,
    FloatProduct,
    Int8Product,
    Norm,
    Packed,
    PlainProduct,
    Product,
    Side,
    int8_works,
    plain_type,
    quantise_weight,
)
from edvac.engine.mapped import ALIGNMENT, Mapping
from edvac.engine.model import Decoder, Layer, frequencies, window_frequencies
from edvac.engine.weights import WeightSource, open_weights

_log = logging.getLogger("edvac.engine")
FORMAT: Final = 2  # of the cache; raise it when layout or rounding changes
_HEAD_ROWS: Final = 18_992  # an eighth of Qwen's vocabulary
_PARTS: Final = ("qkv", "out", "gate_up", "down")
_MEMBERS: Final = {
    "qkv": ("attn_q", "attn_k", "attn_v"),
    "out": ("attn_output",),
    "gate_up": ("ffn_gate", "ffn_up"),
    "down": ("ffn_down",),
}
_NORMS: Final = ("attn_norm", "ffn_norm")
_MORE_NORMS: Final = {
    "qwen3": ("attn_q_norm", "attn_k_norm"),
    "gemma2": ("post_attention_norm", "post_ffw_norm"),
    "gemma3": ("post_attention_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm"),
}

Progress = Callable[[int, int], None]


class CacheNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands beside a cache file."""

    format: int
    source: str
    layouts: list[str]
    size: int
    header: str


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load.

    Attributes:
        digest: of the source file's content.
        split_key_bias: layers carry the bias of their keys beside the product that would add it.
        plain: hold weights in this type, instead of whatever is fastest.
    """

    path: Path
    digest: str
    cache: Path
    reference: bool
    on_progress: Progress
    int8: Callable[[], bool] = int8_works
    device: torch.device = CPU
    split_key_bias: bool = False
    plain: torch.dtype | None = None


def load(options: LoadOptions) -> tuple[Decoder, WeightSource]:
    """The decoder and the source it came from (tokeniser, template, name)."""
    source = open_weights(options.path)
    _check_shapes(source, options.path)
    if options.reference:
        products = _float_products(source, options)
    elif options.plain is not None:
        products = _plain_products(source, options, options.plain)
    elif options.device != CPU:
        products = _plain_products(source, options, torch.bfloat16)
    elif options.int8():
        products = _int8_products(source, options)
    else:
        _log.warning("this processor has no 8-bit product; running in %s", plain_type())
        products = _plain_products(source, options, plain_type())
    decoder = _assemble(source, products, options)
    source.let_go()
    return decoder, source


@dataclass(slots=True)
class _Products:
    """Where the assembled layers get their products from."""

    layer: Callable[[int, str], Product]
    head: Callable[[], Product]


def _assemble(source: WeightSource, products: _Products, options: LoadOptions) -> Decoder:
    config, device = source.config, options.device
    layers: list[Layer] = []

    def norm(name: str) -> Norm:
        return Norm(source.tensor(name).to(device), config.norm_epsilon)

    def head_norms(at: str) -> Norms:
        names = (f"{at}.attn_q_norm.weight", f"{at}.attn_k_norm.weight")
        return (norm(names[0]), norm(names[1])) if all(map(source.has, names)) else None

    def maybe(name: str) -> Norm | None:
        return norm(name) if source.has(name) else None

    for number in range(config.layers):
        options.on_progress(number, config.layers + 1)
        layers.append(
            Layer(
                attention_norm=norm(f"blk.{number}.attn_norm.weight"),
                feed_norm=norm(f"blk.{number}.ffn_norm.weight"),
                head_norms=head_norms(f"blk.{number}"),
                key_bias=_split_bias(source, number, options),
                attention_after=maybe(f"blk.{number}.post_attention_norm.weight"),
                feed_after=maybe(f"blk.{number}.post_ffw_norm.weight"),
                **{part: products.layer(number, part) for part in _PARTS},
            )
        )
    options.on_progress(config.layers, config.layers + 1)
    head = products.head()
    options.on_progress(config.layers + 1, config.layers + 1)
    factors = source.tensor("rope_freqs.weight") if source.has("rope_freqs.weight") else None
    windowed = window_frequencies(config)
    return Decoder(
        config=config,
        embedding=source.embedding,
        layers=layers,
        final_norm=norm("output_norm.weight"),
        head=head,
        frequencies=frequencies(config, factors).to(device),
        window_frequencies=None if windowed is None else windowed.to(device),
    )


def _fused(source: WeightSource, number: int, part: str) -> torch.Tensor:
    members = [source.tensor(f"blk.{number}.{name}.weight") for name in _MEMBERS[part]]
    return torch.cat(members) if len(members) > 1 else members[0]


def _fused_bias(
    source: WeightSource, number: int, part: str, options: LoadOptions
) -> torch.Tensor | None:
    names = [f"blk.{number}.{name}.bias" for name in _MEMBERS[part]]
    if not all(source.has(name) for name in names):
        return None
    biases = [source.tensor(name) for name in names]
    if part == "qkv" and _split_bias(source, number, options) is not None:
        biases[1] = torch.zeros_like(biases[1])
    return torch.cat(biases)


def _split_bias(source: WeightSource, number: int, options: LoadOptions) -> torch.Tensor | None:
    """The bias of a layer's keys, if it is wanted apart. Under a norm of the heads it cannot be:
    what the norm does to it depends on the key."""
    name, norm = f"blk.{number}.attn_k.bias", f"blk.{number}.attn_k_norm.weight"
    if not options.split_key_bias or not source.has(name) or source.has(norm):
        return None
    return source.tensor(name)


def key_biases(source: WeightSource) -> list[torch.Tensor | None]:
    """Of each layer the bias of its keys, (kv heads x width), where it stands in them as it is but
    for their rotation."""
    options = LoadOptions(
        *(Path(), "", Path(), False, lambda done, total: None), split_key_bias=True
    )
    return [_split_bias(source, number, options) for number in range(source.config.layers)]


def _head_name(source: WeightSource) -> str:
    return "output.weight" if source.has("output.weight") else "token_embd.weight"  # tied


def _float_products(source: WeightSource, options: LoadOptions) -> _Products:
    return _Products(
        lambda number, part: FloatProduct(
            _fused(source, number, part), _fused_bias(source, number, part, options)
        ),
        lambda: FloatProduct(source.tensor(_head_name(source))),
    )


def _plain_products(source: WeightSource, options: LoadOptions, kind: torch.dtype) -> _Products:
    def layer(number: int, part: str) -> Product:
        bias = _fused_bias(source, number, part, options)
        return PlainProduct(_fused(source, number, part), bias, kind, options.device)

    def head() -> Product:
        return PlainProduct(source.tensor(_head_name(source)), None, kind, options.device)

    return _Products(layer, head)


def _int8_products(source: WeightSource, options: LoadOptions) -> _Products:
    path = cache_path(options)
    templates = {
        shape: Packed(torch.zeros(shape, dtype=torch.int8)) for shape in _shapes(source.config)
    }
    layouts = sorted(template.layout() for template in templates.values())
    matrices: _Matrices | _Unwritten
    if _cache_good(path, options.digest, layouts):
        matrices = _Matrices(path, templates)
    else:
        made = dict(_quantised(source, options))
        written = _write_cache(made, path, options, layouts)
        matrices = _Matrices(path, templates) if written else _Unwritten(made, templates)

    native = kernels()
    if any(width % ROW_STEP for _, width in _shapes(source.config)):
        native = None

    def product(key: str, shape: tuple[int, int], bias: torch.Tensor | None) -> Int8Product:
        return Int8Product(matrices.packed(key, shape), matrices.scales(key), bias, native)

    def layer(number: int, part: str) -> Product:
        shape = _part_shape(source.config, part)
        bias = _fused_bias(source, number, part, options)
        prompts = product(f"{number}.{part}", shape, bias)
        names = [f"blk.{number}.{name}.weight" for name in _MEMBERS[part]]
        answers = _block_product(source, names, bias, native)
        return prompts if answers is None else ByRole(answers, prompts)

    def head() -> Product:
        answers = _block_product(source, [_head_name(source)], None, native)
        if answers is not None:
            return answers
        cuts = _head_cuts(source.config)
        return Side(
            [
                product(f"head{index}", (end - start, source.config.hidden), None)
                for index, (start, end) in enumerate(cuts)
            ]
        )

    return _Products(layer, head)


def _block_product(
    source: WeightSource, names: list[str], bias: torch.Tensor | None, native: ModuleType | None
) -> BlockProduct | None:
    """Products straight from the file's blocks, where it has such and the kernels are there."""
    found = [source.blocks(name) for name in names]
    if native is None or not all(one is not None and one.kind in KINDS for one in found):
        return None
    matrices = [
        native.pack(one.kind, np.frombuffer(one.raw, np.uint8), *one.shape, one.order)
        for one in found
        if one is not None
    ]
    return BlockProduct(native, matrices, bias)


class _Matrices:
    """The cache's matrices: in place where torch can do that, else copied."""

    def __init__(self, path: Path, templates: dict[tuple[int, int], Packed]) -> None:
        self._templates = templates
        self._file: Any = safetensors.safe_open(str(path), framework="pt")
        self._mapping = Mapping(path)
        self._mapping.populate()
        self._checked: dict[tuple[int, int], bool] = {}

    def packed(self, key: str, shape: tuple[int, int]) -> Packed:
        name, template = f"{key}.packed", self._templates[shape]
        if self._checked.get(shape, True):
            tensor = self._mapping.tensor(name, template.tensor, template.size)
            if tensor is not None:
                found = template.over(tensor, self._mapping)
                # One matrix of each shape is tried, the first that is asked for.
                if shape not in self._checked:
                    self._checked[shape] = found.works()
                if self._checked[shape]:
                    return found
        return template.filled(self._file.get_tensor(name))

    def scales(self, key: str) -> torch.Tensor:
        found: torch.Tensor = self._file.get_tensor(f"{key}.scales")
        return found.clone()


class _Unwritten:
    """The matrices where no cache could be written: each is given out once."""

    def __init__(
        self, made: dict[str, torch.Tensor], templates: dict[tuple[int, int], Packed]
    ) -> None:
        self._made = made
        self._templates = templates

    def packed(self, key: str, shape: tuple[int, int]) -> Packed:
        return self._templates[shape].filled(self._made.pop(f"{key}.packed"))

    def scales(self, key: str) -> torch.Tensor:
        return self._made.pop(f"{key}.scales")


def _part_shape(config: ModelConfig, part: str) -> tuple[int, int]:
    fused = [place for place in places(config).values() if place.part == part]
    return sum(place.outputs for place in fused), fused[0].width


def _head_cuts(config: ModelConfig) -> list[tuple[int, int]]:
    """The head in pieces of a size that is quick to lay out."""
    starts = range(0, config.vocabulary, _HEAD_ROWS)
    return [(start, min(start + _HEAD_ROWS, config.vocabulary)) for start in starts]


def _shapes(config: ModelConfig) -> set[tuple[int, int]]:
    head = {(end - start, config.hidden) for start, end in _head_cuts(config)}
    return head | {_part_shape(config, part) for part in _PARTS}


def cache_path(options: LoadOptions) -> Path:
    return options.cache / f"{options.digest[:24]}.v{FORMAT}.int8.safetensors"


def _note_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _header_digest(path: Path) -> str:
    """Hash of the safetensors header: the table of names, types and offsets."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return hashlib.sha256(file.read(min(length, 32 << 20))).hexdigest()


def _cache_good(path: Path, digest: str, layouts: list[str]) -> bool:
    try:
        note = msgspec.json.decode(_note_path(path).read_bytes(), type=CacheNote)
        return (
            note.format == FORMAT
            and note.source == digest
            and note.layouts == layouts
            and note.size == path.stat().st_size
            and note.header == _header_digest(path)
        )
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return False


def _quantised(source: WeightSource, options: LoadOptions) -> Iterator[tuple[str, torch.Tensor]]:
    total = source.config.layers + 1
    for number in range(source.config.layers):
        options.on_progress(number, total)
        for part in _PARTS:
            codes, scales = _eight_bits(_fused(source, number, part), options.path)
            yield f"{number}.{part}.packed", Packed(codes).bytes()
            yield f"{number}.{part}.scales", scales
    options.on_progress(source.config.layers, total)
    weight = source.tensor(_head_name(source))
    for index, (start, end) in enumerate(_head_cuts(source.config)):
        codes, scales = _eight_bits(weight[start:end], options.path)
        yield f"head{index}.packed", Packed(codes).bytes()
        yield f"head{index}.scales", scales


def _eight_bits(weight: torch.Tensor, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    if not bool(torch.isfinite(weight.abs().amax())):
        raise bad("malformed", path, "a weight is infinite or no number")
    return quantise_weight(weight)


def _write_cache(
    made: dict[str, torch.Tensor], path: Path, options: LoadOptions, layouts: list[str]
) -> bool:
    """Keep repacked weights for the next start; where that is impossible, it costs time then."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _note_path(path).unlink(missing_ok=True)
        _save_aligned(made, temporary)
        temporary.replace(path)
        note = CacheNote(FORMAT, options.digest, layouts, path.stat().st_size, _header_digest(path))
        write_synced(_note_path(path), msgspec.json.encode(note))
    except OSError as error:
        why = error.strerror or error
        _log.warning("repacked weights cannot be kept in %s (%s)", path.parent, why)
        for left in (temporary, path):  # without its note the file is of no use
            with contextlib.suppress(OSError):
                left.unlink()
        return False
    with contextlib.suppress(OSError):
        _remove_outdated(path, options)
    return True


def _save_aligned(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file whose data begin at a multiple of the alignment.

    The sizes of large matrices are multiples of it too, so each of them is aligned.
    """
    table: dict[str, dict[str, object]] = {}
    at = 0
    for name, tensor in tensors.items():
        kind = "U8" if tensor.dtype == torch.uint8 else "F32"
        end = at + tensor.numel() * tensor.element_size()
        table[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    head = msgspec.json.encode(table)
    head += b" " * (-(8 + len(head)) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for tensor in tensors.values():
            file.write(tensor.contiguous().numpy().data)
        file.flush()
        os.fsync(file.fileno())


def _remove_outdated(path: Path, options: LoadOptions) -> None:
    """Caches of the same file in older formats are of no use to anybody."""
    for old in path.parent.glob(f"{options.digest[:24]}.v*.int8.*"):
        if not old.name.startswith(f"{options.digest[:24]}.v{FORMAT}."):
            old.unlink(missing_ok=True)


def write_synced(path: Path, data: bytes) -> None:
    """Replace a small file so that a crash leaves the old or the new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check_shapes(source: WeightSource, path: Path) -> None:
    """Every tensor that is used has the shape that follows from the configuration: whatever reads
    or multiplies it later need not look."""
    for name, wanted, needed in _wanted(source.config):
        if source.has(name):
            found = source.shape(name)
            if found != wanted:
                raise bad("malformed", path, f"{name!r} is {found}, and should be {wanted}")
        elif needed:
            raise bad("missing_tensor", path, f"it has no tensor named {name!r}")


def _wanted(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Names, shapes, and whether there is no model without."""
    hidden, width = (config.hidden,), (config.head_dim,)
    yield "token_embd.weight", (config.vocabulary, config.hidden), True
    yield "output_norm.weight", hidden, True
    yield "output.weight", (config.vocabulary, config.hidden), False
    yield "rope_freqs.weight", (config.head_dim // 2,), False
    more = _MORE_NORMS.get(config.architecture, ())
    for number in range(config.layers):
        at = f"blk.{number}"
        for member, place in places(config).items():
            if place.part != HEAD:
                yield f"{at}.{member}.weight", (place.outputs, place.width), True
                yield f"{at}.{member}.bias", (place.outputs,), False
        for name in (*_NORMS, "post_attention_norm", "post_ffw_norm"):
            yield f"{at}.{name}.weight", hidden, name in _NORMS or name in more
        for name in ("attn_q_norm", "attn_k_norm"):
            yield f"{at}.{name}.weight", width, name in more
