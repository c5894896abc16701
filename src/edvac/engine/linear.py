"""Matrix products: int8 rows against int8 weights on the fast setting, float32 tiles on the
reference one.

Measured on the CPUs at hand (docs/benchmarks): oneDNN's 8-bit product beats bfloat16, float32 and
the eager 4-bit product at every number of rows but one, so one weight format serves prefill and
decode. Sums are exact integers, hence a row's result does not depend on the rows that it is
computed with. It knows nothing of layers or caches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import torch
import torch.nn.functional as F

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
    low, high = torch.aminmax(values, dim=1, keepdim=True)
    scales = torch.maximum(high, -low).clamp_min_(1e-12).div_(127.0)
    codes = (values / scales).add_(_ZERO_POINT + 0.5).to(torch.uint8)
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


class Int8Product:
    """y = x W^T + b with 8-bit weights packed for oneDNN."""

    def __init__(
        self, codes: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None = None
    ) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(codes, None)
        self._scales = scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int32)
        self._bias = bias

    def __call__(self, rows: Rows) -> torch.Tensor:
        codes, scales = rows.codes()
        count = len(codes)
        padded = count if count <= _EXACT_ROWS else -(-count // _ROW_STEP) * _ROW_STEP
        if padded != count:
            codes = F.pad(codes, (0, 0, 0, padded - count))
        found: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            codes,
            1.0,
            _ZERO_POINT,
            self._packed,
            self._scales,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        found = found[:count].mul_(scales)
        return found if self._bias is None else found.add_(self._bias)


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
