"""How keys and values are stored: codecs, what each declares of itself, and the plain version of
each.

A codec maps a head of one token (a row of `width` numbers) to bytes and back. It sees that row
alone, so what is stored for a token does not depend on how the work is cut, on its neighbours, or
on where it lies. Keys come rotated by their positions. The compiled kernels hold `KV_TYPES`, and
are tested against the versions here; the other codecs are arms of `edvac bench kv`, which says why
they have no kernel (docs/benchmarks/kv.md). It knows no pages and no models.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final, Protocol

import torch

from edvac.core.errors import ConfigError

_LARGEST: Final = 65504.0  # of float16
PARAMETERS: Final = 4  # bytes behind the codes of a row: step and least value, float16


@dataclass(frozen=True, slots=True)
class Traits:
    """What a codec says of itself.

    Attributes:
        drops: what is not kept of a number.
        exact: answers are those of float16, bit for bit.
        page_compatible: a token's bytes have one size and one place, so pages can hold them.
        prefix_shareable: they do not depend on the query, or on what follows.
        needs_calibration: it has to see text before it can be used.
    """

    drops: str
    exact: bool = False
    page_compatible: bool = True
    prefix_shareable: bool = True
    needs_calibration: bool = False


class Codec(Protocol):
    """Rows to bytes and back. Codes are uint8, (..., row_bytes(width)); rows float32,
    (..., width)."""

    @property
    def traits(self) -> Traits: ...
    def row_bytes(self, width: int) -> int: ...
    def encode(self, rows: torch.Tensor) -> torch.Tensor: ...
    def decode(self, coded: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class Cast:
    """A shorter floating-point type."""

    dtype: torch.dtype

    @property
    def traits(self) -> Traits:
        half = self.dtype == torch.float16
        kept = "11 bits of mantissa, 5 of exponent" if half else "8 bits of mantissa"
        return Traits(f"all but {kept}", exact=half)

    def row_bytes(self, width: int) -> int:
        return width * int(self.dtype.itemsize)

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.to(self.dtype).contiguous().view(torch.uint8)

    def decode(self, coded: torch.Tensor) -> torch.Tensor:
        return coded.view(self.dtype).float()


@dataclass(frozen=True, slots=True)
class Uniform:
    """Codes in equal steps between a row's least and largest number (SAW-INT4, arXiv 2604.19157,
    has them for 4 bits), behind a block-diagonal Hadamard matrix of `order` where that is not 1.

    The step and the least number lie behind the codes as float16, and codes are chosen for these
    rounded ones. Of two codes of 4 bits the first lies in the low half of a byte.

    Attributes:
        bits: 4 or 8.
        order: a power of two that divides the width.
    """

    bits: int
    order: int = 1

    @property
    def traits(self) -> Traits:
        return Traits(f"all but {1 << self.bits} steps between a row's extremes")

    def row_bytes(self, width: int) -> int:
        return width * self.bits // 8 + PARAMETERS

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        rows = hadamard(rows, self.order)
        least, most = rows.amin(dim=-1, keepdim=True), rows.amax(dim=-1, keepdim=True)
        top = float((1 << self.bits) - 1)
        # Zero is added because it has two signs: equal numbers, but not equal bytes.
        step = ((most - least) * (1.0 / top) + 0.0).clamp_max(_LARGEST).half()
        least = (least + 0.0).clamp(-_LARGEST, _LARGEST).half()
        inverse = torch.where(step > 0, 1.0 / step.float(), 0.0)
        codes = ((rows - least.float()) * inverse).round().clamp(0.0, top).to(torch.uint8)
        if self.bits == 4:
            codes = codes[..., 0::2] | codes[..., 1::2] << 4
        return torch.cat([codes, step.view(torch.uint8), least.view(torch.uint8)], dim=-1)

    def decode(self, coded: torch.Tensor) -> torch.Tensor:
        codes, parameters = coded[..., :-PARAMETERS], coded[..., -PARAMETERS:].contiguous()
        if self.bits == 4:
            codes = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(-2)
        step, least = parameters.view(torch.float16).float().split(1, dim=-1)
        return hadamard(codes * step + least, self.order)


@dataclass(frozen=True, slots=True)
class BlockFloat:
    """Signed mantissas with one exponent for each block of a row (block floating point, arXiv
    2403.20137: 4-bit mantissas are its BFP12, 8-bit ones its BFP16).

    Attributes:
        bits: of a mantissa with its sign, 4 or 8.
        block: numbers that share an exponent; it divides the width.
    """

    bits: int
    block: int = 32

    @property
    def traits(self) -> Traits:
        return Traits(f"all but {self.bits} bits below the largest of {self.block} numbers")

    def row_bytes(self, width: int) -> int:
        return width * self.bits // 8 + width // self.block

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        blocks = rows.unflatten(-1, (-1, self.block))
        most = (1 << (self.bits - 1)) - 1
        _, exponents = torch.frexp(blocks.abs().amax(dim=-1, keepdim=True))
        exponents = exponents.clamp(-100, 127)
        step = _power_of_two(exponents - self.bits + 1)
        codes = (blocks / step).round().clamp(-most, most).to(torch.int8).flatten(-2)
        found = codes.view(torch.uint8)
        if self.bits == 4:
            found = found[..., 0::2] & 15 | found[..., 1::2] << 4
        shared = (exponents + 128).to(torch.uint8).flatten(-2)
        return torch.cat([found, shared], dim=-1)

    def decode(self, coded: torch.Tensor) -> torch.Tensor:
        count = coded.shape[-1] * 8 // (self.block * self.bits + 8)  # blocks
        codes, shared = coded.split([coded.shape[-1] - count, count], dim=-1)
        if self.bits == 4:
            codes = torch.stack([codes << 4, codes & 0xF0], dim=-1).flatten(-2)
        numbers = codes.contiguous().view(torch.int8).float() / (16 if self.bits == 4 else 1)
        step = _power_of_two(shared.int() - 128 - self.bits + 1)
        return (numbers.unflatten(-1, (-1, self.block)) * step[..., None]).flatten(-2)


def _power_of_two(exponents: torch.Tensor) -> torch.Tensor:
    return torch.ldexp(torch.ones(exponents.shape), exponents)


@dataclass(frozen=True, slots=True)
class Sorted:
    """Another codec behind a fixed order of a head's numbers: K-sort (arXiv 2403.20137, section 4).

    Queries in the same order would give the same scores; here rows come back in their own.

    Attributes:
        order: (heads, width), as `key_order` gives it; rows are (..., heads, width).
    """

    codec: Codec
    order: torch.Tensor

    @property
    def traits(self) -> Traits:
        return self.codec.traits

    def row_bytes(self, width: int) -> int:
        return self.codec.row_bytes(width)

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        return self.codec.encode(rows.gather(-1, self.order.expand(rows.shape)))

    def decode(self, coded: torch.Tensor) -> torch.Tensor:
        rows = self.codec.decode(coded)
        return torch.empty_like(rows).scatter_(-1, self.order.expand(rows.shape), rows)


def key_order(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Numbers of each head by the size of their weights, (heads, width); the two numbers that
    rotation mixes stay neighbours, so that they share an exponent.

    Args:
        weight: of the keys, (heads x width, hidden).
    """
    norms = weight.norm(dim=1).view(heads, -1)
    half = norms.shape[1] // 2
    pairs = norms[:, :half].hypot(norms[:, half:]).argsort(dim=1, descending=True)
    return torch.stack([pairs, pairs + half], dim=-1).flatten(1)


def hadamard(rows: torch.Tensor, order: int) -> torch.Tensor:
    """Each `order` neighbours times the orthonormal Hadamard matrix of that order (Sylvester's,
    its own inverse), by the fast Walsh-Hadamard transform."""
    if order == 1:
        return rows
    shape, step = rows.shape, 1
    while step < order:
        pairs = rows.reshape(-1, order // (2 * step), 2, step)
        first, second = pairs.unbind(dim=2)
        rows = torch.stack([first + second, first - second], dim=2)
        step *= 2
    return rows.reshape(shape) * order**-0.5


@dataclass(frozen=True, slots=True)
class KVType:
    """What an engine stores.

    One that is not exact stores keys without the model's bias, which is added where they are read:
    its size would take all the codes (docs/explanation/kv-codecs.md).
    """

    name: str
    keys: Cast | Uniform
    values: Cast | Uniform

    @property
    def exact(self) -> bool:
        return self.keys.traits.exact and self.values.traits.exact

    @property
    def stored(self) -> tuple[int, int, int, int]:
        """Bits of keys and of values, and the orders of their Hadamard matrices."""
        return _bits(self.keys), _bits(self.values), _order(self.keys), _order(self.values)

    @property
    def dtype(self) -> torch.dtype:
        """Of the memory."""
        return torch.float16 if self.exact else torch.uint8

    def row_items(self, width: int) -> int:
        """Items of memory that keys and values of a head of one token take."""
        size = self.keys.row_bytes(width) + self.values.row_bytes(width)
        return size // int(self.dtype.itemsize)


def _bits(codec: Cast | Uniform) -> int:
    return codec.bits if isinstance(codec, Uniform) else 16


def _order(codec: Cast | Uniform) -> int:
    return codec.order if isinstance(codec, Uniform) else 1


F16: Final = KVType("f16", Cast(torch.float16), Cast(torch.float16))
KV_TYPES: Final = ("f16", "int8", "k8v4", "int4")


def kv_type_named(name: str, head_dim: int, *, biased: bool = False) -> KVType:
    """The type of this name for heads of this width, of a model that adds a bias to its keys or
    does not.

    Raises:
        ConfigError: there is none.
    """
    if name == "f16":
        return F16
    if name == "int8":
        return KVType(name, Uniform(8), Uniform(8))
    if name == "k8v4":
        return KVType(name, Uniform(8), Uniform(4, full_order(head_dim)))
    if name == "int4":
        # Under a bias the kernels take keys out of the matrix again, in registers: 16 numbers.
        # Larger matrices gain little there (docs/benchmarks/kv.md).
        order = full_order(head_dim)
        return KVType(name, Uniform(4, min(order, 16) if biased else order), Uniform(4, order))
    raise ConfigError("kv_type_unknown", f"keys and values cannot be stored as {name!r}",
                      *choices(name, KV_TYPES, "kv_type"))  # fmt: skip


def choices(name: str, known: tuple[str, ...], setting: str) -> tuple[str, str]:
    """Why a name is none of those that are known, and what to do about it."""
    near = difflib.get_close_matches(name, known, 1)
    fix = f"Did you mean {near[0]}?" if near else f"Choose one of these as {setting}."
    return f"There are {', '.join(known)}.", fix


def full_order(head_dim: int) -> int:
    """The largest Hadamard matrix that fits a head."""
    return head_dim & -head_dim


CODECS: Final[dict[str, Codec]] = {
    "f16": Cast(torch.float16),
    "bf16": Cast(torch.bfloat16),
    "int8": Uniform(8),
    "int4": Uniform(4),
    "bfp8": BlockFloat(8),
    "bfp4": BlockFloat(4),
}
