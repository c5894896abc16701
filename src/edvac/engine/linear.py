"""Matrix products: on the fast setting two paths, by what a row is for; float32 tiles on the
reference one.

Rows of answers are few in a step, so reading the weights is what costs: they are multiplied
straight with the model file's own blocks (`edvac_native`), at 4 to 7 bits a number and without
requantisation. Rows of prompts are many: oneDNN's 8-bit product is faster there
(docs/benchmarks/linear.md). Either path gives a row the same result whatever rows it is computed
with, and the path goes by the row's role, never by how many there are: what an answer says does
not depend on who else is served. It knows nothing of layers or caches.
"""

from __future__ import annotations

import ctypes
import hashlib
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol

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


class Norm(NamedTuple):
    """Root-mean-square normalisation, as part of what a product reads."""

    weight: torch.Tensor
    epsilon: float

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(values, self.weight.shape, self.weight, self.epsilon)


class Rows:
    """What products read, made ready once for all of them.

    Args:
        source: (rows, width) float32; with `gated` (rows, 2 x width), gate before up.
        answering: so many rows, the first ones, belong to answers; the others to prompts.
        norm: is applied to the source.
        gated: the rows are silu(gate) x up.
        gelu: the gate is tanh-approximated GELU instead (Hendrycks and Gimpel, 2016); the compiled
            kernels know SiLU alone, so it is applied here.
    """

    def __init__(
        self,
        source: torch.Tensor,
        answering: int = 0,
        norm: Norm | None = None,
        gated: bool = False,
        gelu: bool = False,
    ) -> None:
        if gated and gelu:
            gate, up = source.chunk(2, dim=1)
            source, gated = F.gelu(gate, approximate="tanh").mul_(up), False
        self._source, self.answering, self._norm, self._gated = source, answering, norm, gated
        self._codes: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._blocks: Any = None

    def __len__(self) -> int:
        return len(self._source)

    def values(self, start: int = 0) -> torch.Tensor:
        """The rows from `start` on, as floats."""
        return self._ready(self._source[start:])

    def some(self, which: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers, as floats."""
        return self._ready(self._source[which])

    def _ready(self, found: torch.Tensor) -> torch.Tensor:
        if self._gated:
            gate, up = found.chunk(2, dim=1)
            return F.silu(gate).mul_(up)
        return found if self._norm is None else self._norm(found)

    def codes(
        self, start: int = 0, native: ModuleType | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned 8-bit codes around 128 and one scale per row, of the rows from `start` on."""
        if start not in self._codes:
            self._codes[start] = (
                quantise_rows(self.values(start)) if native is None else self._encode(start, native)
            )
        return self._codes[start]

    def _encode(self, start: int, native: ModuleType) -> tuple[torch.Tensor, torch.Tensor]:
        source = self._source[start:]
        count, width = source.shape
        codes = torch.empty(count, width // 2 if self._gated else width, dtype=torch.uint8)
        scales = torch.empty(count, 1)
        native.encode(source, *self._steps(), codes, scales)
        return codes, scales

    def blocks(self, native: ModuleType) -> Any:
        """The rows of answers as the compiled kernels read them: a scale every 256 numbers."""
        if self._blocks is None:
            self._blocks = native.rows(self._source[: self.answering], *self._steps())
        return self._blocks

    def _steps(self) -> tuple[torch.Tensor | None, float, bool]:
        """What the kernels do to the source on their way."""
        norm = self._norm
        return (None, 0.0, self._gated) if norm is None else (norm.weight, norm.epsilon, False)


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
    """y = x W^T + b with packed 8-bit weights; rows are made ready by the kernels, if there are."""

    def __init__(
        self,
        packed: Packed,
        scales: torch.Tensor,
        bias: torch.Tensor | None = None,
        native: ModuleType | None = None,
    ) -> None:
        self._packed, self._native = packed, native
        self._scales = scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int32)
        self._bias = bias

    def __call__(self, rows: Rows) -> torch.Tensor:
        return self.after(rows, 0)

    def after(self, rows: Rows, start: int) -> torch.Tensor:
        """The products of the rows from `start` on."""
        codes, scales = rows.codes(start, self._native)
        count = len(codes)
        padded = count if count <= _EXACT_ROWS else -(-count // _ROW_STEP) * _ROW_STEP
        if padded != count:
            codes = F.pad(codes, (0, 0, 0, padded - count))
        found = qlinear(codes, self._packed.tensor, self._scales, self._zeros)[:count].mul_(scales)
        return found if self._bias is None else found.add_(self._bias)


class BlockProduct:
    """y = x W^T + b of the rows of answers, straight from a model file's quantised blocks.

    Args:
        native: the compiled kernels.
        matrices: one below the other.
    """

    def __init__(
        self, native: ModuleType, matrices: list[Any], bias: torch.Tensor | None = None
    ) -> None:
        self._native, self._matrices = native, matrices
        self._bias = None if bias is None else bias.contiguous()
        self._outputs = sum(matrix.outputs for matrix in matrices)

    def __call__(self, rows: Rows) -> torch.Tensor:
        found = torch.empty(rows.answering, self._outputs)
        self._native.multiply(rows.blocks(self._native), self._matrices, found, self._bias)
        return found


class ByRole:
    """Rows of answers by one path, rows of prompts by the other."""

    def __init__(self, answers: BlockProduct, prompts: Int8Product) -> None:
        self._answers, self._prompts = answers, prompts

    def __call__(self, rows: Rows) -> torch.Tensor:
        if rows.answering == len(rows):
            return self._answers(rows)
        prompts = self._prompts.after(rows, rows.answering)
        return torch.cat([self._answers(rows), prompts]) if rows.answering else prompts


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
        found = F.linear(rows.values().to(self._weight.dtype), self._weight).float()
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
        return tiled(rows.values(), self._weight, self._bias)


def tiled(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """values W^T + b, always in tiles of one height: no row's rounding depends on the others."""
    count = len(values)
    short = -count % _TILE
    if short:
        values = F.pad(values, (0, 0, 0, short))
    parts = [F.linear(tile, weight, bias) for tile in values.split(_TILE)]
    return torch.cat(parts)[:count]
