"""Matrix products: int8 rows against int8 weights on the fast setting, float32 tiles on the
reference one.

Measured on the CPUs at hand (docs/benchmarks): oneDNN's 8-bit product beats bfloat16, float32 and
the eager 4-bit product at every number of rows but one, so one weight format serves prefill and
decode. Sums are exact integers, hence a row's result does not depend on the rows that it is
computed with. It knows nothing of layers or caches.
"""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass
from typing import Final, Protocol

import torch
import torch.nn.functional as F

from edvac.core.errors import InternalError

_ZERO_POINT: Final = 128
_TILE: Final = 16  # rows of a reference product; fixed, so that rounding cannot depend on the batch
_EXACT_ROWS: Final = 32  # each number of rows up to here gets its own kernel
_ROW_STEP: Final = 8  # beyond, numbers are rounded up: oneDNN builds a kernel per shape


class Product(Protocol):
    """Something that maps rows of one width to rows of another."""

    def __call__(self, rows: Rows) -> torch.Tensor: ...


@dataclass(slots=True)
class Rows:
    """Activations, quantised once for all the products that read them."""

    values: torch.Tensor
    _codes: torch.Tensor | None = None
    _scales: torch.Tensor | None = None

    def codes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned 8-bit codes around 128 and one scale per row."""
        if self._codes is None or self._scales is None:
            self._codes, self._scales = quantise_rows(self.values)
        return self._codes, self._scales


def quantise_rows(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric 8-bit codes; the scale is the row's largest magnitude over 127."""
    # Two reductions: torch's fused aminmax is seven times slower than both.
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    scales = torch.maximum(high, -low).clamp_min_(1e-12).div_(127.0)
    codes = (values * scales.reciprocal()).add_(_ZERO_POINT + 0.5).to(torch.uint8)
    return codes, scales


def quantise_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed 8-bit codes and one scale per output, chosen from a few by squared error."""
    peak = weight.abs().amax(dim=1, keepdim=True).clamp_min_(1e-12)
    best_codes = torch.empty(weight.shape, dtype=torch.int8)
    best_scale = torch.empty_like(peak)
    best_error = torch.full_like(peak, torch.inf)
    for shrink in (1.0, 0.95, 0.9, 0.85):
        scale = peak * (shrink / 127.0)
        codes = (weight / scale).round_().clamp_(-127, 127)
        error = (codes * scale - weight).square_().sum(dim=1, keepdim=True)
        better = error < best_error
        best_codes = torch.where(better, codes.to(torch.int8), best_codes)
        best_scale = torch.where(better, scale, best_scale)
        best_error = torch.where(better, error, best_error)
    return best_codes, best_scale.reshape(-1).contiguous()


class Packed:
    """An 8-bit weight matrix in oneDNN's own layout.

    Reordering is slow and copying is fast, so the bytes of a packed matrix can be stored and put
    into an equally shaped one later. `layout` names what the bytes mean on this machine;
    elsewhere they are worthless.
    """

    def __init__(self, codes: torch.Tensor) -> None:
        self.tensor: torch.Tensor = torch.ops.onednn.qlinear_prepack(codes, None)
        self.owner: object = None

    @property
    def size(self) -> int:
        return int(torch.ops.mkldnn._nbytes(self.tensor))

    def layout(self) -> str:
        description = torch.ops.mkldnn._get_mkldnn_serialized_md(self.tensor)
        return hashlib.sha256(description.numpy().tobytes()).hexdigest()[:32]

    def bytes(self) -> torch.Tensor:
        found = torch.empty(self.size, dtype=torch.uint8)
        ctypes.memmove(found.data_ptr(), torch.ops.mkldnn.data_ptr(self.tensor), self.size)
        return found

    def filled(self, data: torch.Tensor) -> Packed:
        """A copy of this matrix's layout with other contents."""
        if data.dtype != torch.uint8 or data.numel() != self.size:
            raise InternalError("packed_size", "packed weights do not have their layout's size")
        other = self.over(self.tensor.clone())
        ctypes.memmove(torch.ops.mkldnn.data_ptr(other.tensor), data.data_ptr(), self.size)
        return other

    def over(self, tensor: torch.Tensor, owner: object = None) -> Packed:
        """A matrix of this layout over another tensor; `owner` keeps its memory alive."""
        other = Packed.__new__(Packed)
        other.tensor, other.owner = tensor, owner
        return other

    def works(self) -> bool:
        """Whether products with these bytes are those with a copy of them."""
        outputs, width = self.tensor.shape[1], self.tensor.shape[0]
        codes = (torch.arange(2 * width) % 256).to(torch.uint8).view(2, width)
        scales, zeros = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int32)
        copy = qlinear(codes, self.tensor.clone(), scales, zeros)
        return bool(torch.equal(qlinear(codes, self.tensor, scales, zeros), copy))


class Int8Product:
    """y = x W^T + b with packed 8-bit weights."""

    def __init__(
        self, packed: Packed, scales: torch.Tensor, bias: torch.Tensor | None = None
    ) -> None:
        self._packed = packed
        self._scales = scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int32)
        self._bias = bias

    def __call__(self, rows: Rows) -> torch.Tensor:
        codes, scales = rows.codes()
        count = len(codes)
        padded = count if count <= _EXACT_ROWS else -(-count // _ROW_STEP) * _ROW_STEP
        if padded != count:
            codes = F.pad(codes, (0, 0, 0, padded - count))
        found = qlinear(codes, self._packed.tensor, self._scales, self._zeros)[:count].mul_(scales)
        return found if self._bias is None else found.add_(self._bias)


def qlinear(
    codes: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor
) -> torch.Tensor:
    """oneDNN's product, with the zero point taken out and the weights' scales applied."""
    plain: tuple[object, ...] = (None, 1.0, 0, torch.float32, "none", [], "")
    found: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        codes, 1.0, _ZERO_POINT, packed, scales, zeros, *plain
    )
    return found


def int8_works() -> bool:
    """Whether this processor and this torch have the 8-bit product, and it is exact."""
    codes = (torch.arange(4 * 64) % 255).to(torch.uint8).view(4, 64)
    weight = (torch.arange(32 * 64) % 251 - 125).to(torch.int8).view(32, 64)
    try:
        packed = Packed(weight).tensor
        found = qlinear(codes, packed, torch.ones(32), torch.zeros(32, dtype=torch.int32))
    except (RuntimeError, AttributeError):  # torch's ways to say that an operator is not there
        return False
    return bool(torch.equal(found, (codes.float() - _ZERO_POINT) @ weight.float().T))


def plain_type() -> torch.dtype:
    """What weights are held in where there is no 8-bit product."""
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


class PlainProduct:
    """y = x W^T + b in one floating type, for processors without the 8-bit product."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        kind: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self._weight = weight.to(kind).to(device)
        self._bias = bias if bias is None else bias.to(device)

    def __call__(self, rows: Rows) -> torch.Tensor:
        found = F.linear(rows.values.to(self._weight.dtype), self._weight).float()
        return found if self._bias is None else found.add_(self._bias)


class Side:
    """Several products over the same rows, side by side: a matrix too large to pack at once."""

    def __init__(self, parts: list[Product]) -> None:
        self._parts = parts

    def __call__(self, rows: Rows) -> torch.Tensor:
        return torch.cat([part(rows) for part in self._parts], dim=1)


class FloatProduct:
    """The same in float32, always in tiles of one fixed height."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, rows: Rows) -> torch.Tensor:
        values = rows.values
        count = len(values)
        short = -count % _TILE
        if short:
            values = F.pad(values, (0, 0, 0, short))
        parts = [F.linear(tile, self._weight, self._bias) for tile in values.split(_TILE)]
        return torch.cat(parts)[:count]
