"""Decodes GGML's quantised blocks into float32, whole tensors or single rows at a time.

Plain array arithmetic on bytes; it knows nothing of files, names or models. A super-block of the
K family holds 256 numbers; the 4- and 5-bit members pack eight 6-bit scales and eight 6-bit
minima into 12 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from edvac.core.errors import InternalError
from edvac.engine.gguf import BlockType

Floats: TypeAlias = "npt.NDArray[np.float32]"
Bytes: TypeAlias = "npt.NDArray[np.uint8]"

_CHUNK_BYTES: Final = 8 << 20  # bounds the temporaries of one decode


def dequantise(raw: memoryview, kind: BlockType, shape: tuple[int, ...]) -> Floats:
    """The tensor whose blocks are `raw`, as float32 of `shape`."""
    data = np.frombuffer(raw, dtype=np.uint8)
    if kind.name == "F32":
        return data.view("<f4").astype(np.float32).reshape(shape)
    if kind.name == "F16":
        return data.view("<f2").astype(np.float32).reshape(shape)
    if kind.name == "BF16":
        return _widen(data).reshape(shape)
    decode = _DECODERS.get(kind.name)
    if decode is None:
        raise InternalError("quant_unknown", f"no decoder for {kind.name}")
    blocks = data.reshape(-1, kind.size)
    found = np.empty((len(blocks), kind.items), np.float32)
    step = max(1, _CHUNK_BYTES // kind.size)
    for start in range(0, len(blocks), step):
        found[start : start + step] = decode(blocks[start : start + step])
    return found.reshape(shape)


def rows(raw: memoryview, kind: BlockType, width: int, which: list[int]) -> Floats:
    """Only the rows `which` of a matrix `width` wide: what an embedding look-up needs."""
    size = width // kind.items * kind.size
    table = np.frombuffer(raw, dtype=np.uint8).reshape(-1, size)
    picked = np.ascontiguousarray(table[np.asarray(which, np.int64)])
    return dequantise(picked.reshape(-1).data, kind, (len(which), width))


def _widen(data: Bytes) -> Floats:
    return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _half(blocks: Bytes, at: int) -> Floats:
    """A float16 field at byte `at` of each block, as a column."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Low halves first, then high halves, of 16 bytes a block."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(blocks: Bytes, at: int) -> Bytes:
    """Bit i of the 32-bit field at `at` is the fifth bit of number i."""
    bits: Bytes = np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little")
    return bits * np.uint8(16)


def _q8_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * np.ascontiguousarray(blocks[:, 2:]).view(np.int8)


def _q4_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]) + _half(blocks, 2)


def _q5_0(blocks: Bytes) -> Floats:
    numbers = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)
    return _half(blocks, 0) * (numbers.astype(np.float32) - 16)


def _q5_1(blocks: Bytes) -> Floats:
    numbers = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return _half(blocks, 0) * numbers + _half(blocks, 2)


def _k_scales(packed: Bytes) -> tuple[Floats, Floats]:
    """Eight scales and eight minima of 6 bits each from 12 bytes.

    The first four of each stand in the low 6 bits of bytes 0-3 and 4-7; the last four have their
    low 4 bits in bytes 8-11 and borrow their top 2 bits from the top of bytes 0-7.
    """
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _k_nibbles(packed: Bytes) -> Bytes:
    """Four groups of 32 bytes; each gives 32 low halves, then 32 high halves: (n, 8, 32)."""
    groups = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([groups & 15, groups >> 4], axis=2).reshape(-1, 8, 32)


def _quarters(packed: Bytes, count: int) -> Bytes:
    """Groups of 32 bytes, each four times 32 numbers of 2 bits: (n, count, 4, 32)."""
    shifts = np.array([0, 2, 4, 6], np.uint8)[None, None, :, None]
    found: Bytes = packed.reshape(-1, count, 1, 32) >> shifts & np.uint8(3)
    return found


def _q2_k(blocks: Bytes) -> Floats:
    """Sixteen scales and minima of 4 bits, then 2-bit numbers, in sixteens."""
    scales = (blocks[:, :16] & 15) * _half(blocks, 80)
    minima = (blocks[:, :16] >> 4) * _half(blocks, 82)
    numbers = _quarters(np.ascontiguousarray(blocks[:, 16:80]), 2).reshape(-1, 16, 16)
    found: Floats = numbers * scales[:, :, None] - minima[:, :, None]
    return found.reshape(-1, 256)


def _q3_k(blocks: Bytes) -> Floats:
    """2-bit numbers with a third bit apart, which is there where four is *not* taken away; sixteen
    6-bit scales in 12 bytes: four low bits in the first eight, two high ones in the last four."""
    packed = blocks[:, 96:108]
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    shifts = np.array([0, 2, 4, 6], np.uint8)[None, :, None]
    high = (packed[:, None, 8:] >> shifts & 3).reshape(-1, 16)
    scales = ((low | high << 4).astype(np.float32) - 32) * _half(blocks, 108)
    numbers = _quarters(np.ascontiguousarray(blocks[:, 32:96]), 2).astype(np.float32)
    bits = blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[None, :, None] & 1
    numbers -= 4 * (1 - bits.reshape(-1, 2, 4, 32).astype(np.float32))
    found: Floats = numbers.reshape(-1, 16, 16) * scales[:, :, None]
    return found.reshape(-1, 256)


# What the sixteen codes of the IQ4 kinds stand for: denser around zero, as weights are.
_UNEVEN: Final = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)


def _iq4_nl(blocks: Bytes) -> Floats:
    found: Floats = _half(blocks, 0) * _UNEVEN[_nibbles(blocks[:, 2:])]
    return found


def _iq4_xs(blocks: Bytes) -> Floats:
    """Eight 6-bit scales: two high bits each in a 16-bit field, four low ones in nibbles."""
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    field = np.ascontiguousarray(blocks[:, 2:4]).view("<u2").astype(np.uint32)
    high = field >> np.arange(0, 16, 2, dtype=np.uint32)[None, :] & 3
    scales = ((low | high << 4).astype(np.float32) - 32) * _half(blocks, 0)
    numbers = _nibbles(np.ascontiguousarray(blocks[:, 8:]).reshape(-1, 16)).reshape(-1, 8, 32)
    found: Floats = _UNEVEN[numbers] * scales[:, :, None]
    return found.reshape(-1, 256)


# A sign, two bits of exponent and one of mantissa (OCP Microscaling Formats, 2023, §5.3.3).
_FP4: Final = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_FP4_SIGNED: Final = np.concatenate([_FP4, -_FP4])


def _mxfp4(blocks: Bytes) -> Floats:
    """A power of two, then 32 numbers of 4 bits."""
    numbers = _FP4_SIGNED[_nibbles(blocks[:, 1:])]
    found: Floats = np.ldexp(numbers, blocks[:, :1].astype(np.int32) - 127)
    return found


def _q4_k(blocks: Bytes) -> Floats:
    scales, minima = _k_scales(blocks[:, 4:16])
    scales *= _half(blocks, 0)
    minima *= _half(blocks, 2)
    found = _k_nibbles(np.ascontiguousarray(blocks[:, 16:])) * scales[:, :, None]
    return (found - minima[:, :, None]).reshape(-1, 256)


def _q5_k(blocks: Bytes) -> Floats:
    scales, minima = _k_scales(blocks[:, 4:16])
    scales *= _half(blocks, 0)
    minima *= _half(blocks, 2)
    shifts = np.arange(8, dtype=np.uint8)[None, :, None]
    fifth = (blocks[:, None, 16:48] >> shifts & 1) << 4
    numbers = _k_nibbles(np.ascontiguousarray(blocks[:, 48:])) | fifth
    return (numbers * scales[:, :, None] - minima[:, :, None]).reshape(-1, 256)


def _q6_k(blocks: Bytes) -> Floats:
    low = blocks[:, :128].reshape(-1, 2, 2, 32)  # two halves of 128 numbers, each 2 x 32 bytes
    low4 = np.concatenate([low & 15, low >> 4], axis=2)  # (n, half, 4, 32)
    high2 = _quarters(np.ascontiguousarray(blocks[:, 128:192]), 2)
    numbers = (low4 | high2 << 4).astype(np.float32) - 32
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8) * _half(blocks, 208)
    found: Floats = numbers.reshape(-1, 16, 16) * scales[:, :, None]
    return found.reshape(-1, 256)


_DECODERS: Final[dict[str, Callable[[Bytes], Floats]]] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
}
