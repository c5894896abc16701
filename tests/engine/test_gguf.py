"""Hostile and broken model files end in a typed error, at once and without memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.core.errors import ModelFileError
from edvac.engine.gguf import BLOCK_TYPES, open_gguf
from edvac.engine.quants import dequantise
from edvac.engine.weights import check_safetensors

from .tiny import gguf, head, key, text, write_tiny

U32 = struct.Struct("<I").pack
BIG = 1 << 40

MALFORMED = {
    "empty": b"",
    "magic": b"GGML" + bytes(100),
    "cut in header": b"GGUF\x03\x00",
    "version 1": gguf([], [], version=1),
    "version from another byte order": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "many tensors": b"GGUF" + struct.pack("<IQQ", 3, BIG, 0),
    "many keys": b"GGUF" + struct.pack("<IQQ", 3, 0, BIG),
    "long key": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", BIG),
    "long string": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IQ", 8, BIG),
    "not utf-8": gguf([key("a", 8, text(b"\xff\xfe"))], []),
    "unknown value type": gguf([key("a", 99, b"")], []),
    "huge array": gguf([key("a", 9, struct.pack("<IQ", 0, BIG))], []),
    "huge array of strings": gguf([key("a", 9, struct.pack("<IQ", 8, 3_000_000))], []),
    "nested array": gguf([key("a", 9, struct.pack("<IQIQ", 9, 1, 0, 0))], []),
    "duplicate key": gguf([key("a", 4, U32(1))] * 2, []),
    "alignment 2^30": gguf([key("general.alignment", 4, U32(1 << 30))], []),
    "alignment 24": gguf([key("general.alignment", 4, U32(24))], []),
    "alignment 0": gguf([key("general.alignment", 4, U32(0))], []),
    "alignment is text": gguf([key("general.alignment", 8, text("32"))], []),
    "no dimensions": gguf([], [head("t", (), 0, 0)], bytes(64)),
    "n_dims huge": gguf([], [text("t") + U32(1 << 31) + bytes(64)]),
    "dims overflow": gguf([], [head("t", (1 << 33, 1 << 33), 0, 0)], bytes(64)),
    "zero dimension": gguf([], [head("t", (0, 8), 0, 0)], bytes(64)),
    "duplicate tensor": gguf([], [head("t", (8,), 0, 0), head("t", (8,), 0, 32)], bytes(64)),
    "unknown tensor type": gguf([], [head("t", (8,), 77, 0)], bytes(64)),
    "offset past the end": gguf([], [head("t", (8,), 0, 1 << 20)], bytes(64)),
    "offset near 2^64": gguf([], [head("t", (8,), 0, (1 << 64) - 32)], bytes(64)),
    "unaligned offset": gguf([], [head("t", (8,), 0, 4)], bytes(64)),
    "overlap": gguf([], [head("a", (16,), 0, 0), head("b", (8,), 0, 32)], bytes(64)),
    "data cut short": gguf([], [head("t", (64,), 0, 0)], bytes(64)),
    "broken blocks": gguf([], [head("t", (100,), 12, 0)], bytes(512)),
    "long tensor name": gguf([], [head("t" * 65, (8,), 0, 0)], bytes(64)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file_is_refused_quickly(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(MALFORMED[name])
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(ModelFileError) as caught:
        open_gguf(path)
    assert time.monotonic() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()
    assert caught.value.code.startswith("model_")
    assert caught.value.fix


def test_missing_file_is_typed(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        open_gguf(tmp_path / "absent.gguf")


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 4000), place=st.integers(0, 4000), byte=st.integers(0, 255))
def test_damage_never_ends_in_another_error(cut: int, place: int, byte: int) -> None:
    whole = bytearray(_tiny_bytes())
    whole[place % len(whole)] = byte
    path = Path(_scratch.name) / "fuzz.gguf"
    path.write_bytes(bytes(whole[: len(whole) - cut]))
    try:
        open_gguf(path)
    except ModelFileError:
        pass


import tempfile  # noqa: E402

_scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
_cached: list[bytes] = []


def _tiny_bytes() -> bytes:
    if not _cached:
        _cached.append(write_tiny(Path(_scratch.name) / "tiny.gguf").read_bytes())
    return _cached[0]


SAFETENSORS = {
    "empty": b"",
    "cut": b"\x08",
    "header 2^40": struct.pack("<Q", BIG) + b"{}",
    "not json": struct.pack("<Q", 4) + b"abcd",
    "past the end": struct.pack("<Q", 58)
    + b'{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}}   ',
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_malformed_safetensors_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(SAFETENSORS[name])
    with pytest.raises(ModelFileError):
        check_safetensors(path)


def _half(data: bytes) -> float:
    return float(struct.unpack("<e", data)[0])


def _scale_min(scales: bytes, j: int) -> tuple[int, int]:
    if j < 4:
        return scales[j] & 63, scales[j + 4] & 63
    low = (scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4
    return low, (scales[j + 4] >> 4) | (scales[j] >> 6) << 4


def low_bits(name: str, block: bytes) -> list[float]:
    """Two bits a number, 32 numbers to a byte row and shift; Q3_K has the third bit inverted."""
    found = []
    for i in range(256):
        half, rest = divmod(i, 128)
        quarter, place = divmod(rest, 32)
        if name == "Q2_K":
            number = block[16 + 32 * half + place] >> (2 * quarter) & 3
            both = block[i // 16]
            scale, least = _half(block[80:82]), _half(block[82:84])
            found.append(scale * (both & 15) * number - least * (both >> 4))
            continue
        number = block[32 + 32 * half + place] >> (2 * quarter) & 3
        if not block[place] >> (4 * half + quarter) & 1:
            number -= 4
        sub = i // 16
        packed = block[96:108]
        low = packed[sub % 8] >> 4 if sub >= 8 else packed[sub]
        high = packed[8 + sub % 4] >> (2 * (sub // 4)) & 3
        found.append(_half(block[108:110]) * ((low & 15 | high << 4) - 32) * number)
    return found


def powers(block: bytes) -> list[float]:
    """A power of two, and numbers of a sign, two bits of exponent and one of mantissa."""
    found = []
    for i in range(32):
        code = block[1 + i % 16] >> (4 if i >= 16 else 0) & 15
        exponent, half = code >> 1 & 3, code & 1
        size = half / 2 if exponent == 0 else (1 + half / 2) * 2.0 ** (exponent - 1)
        found.append((-size if code & 8 else size) * 2.0 ** (block[0] - 127))
    return found


def uneven(name: str, block: bytes) -> list[float]:
    """Four bits choose one of sixteen numbers."""
    numbers = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
    found = []
    for i in range(32 if name == "IQ4_NL" else 256):
        sub, place = divmod(i, 32)
        scale = _half(block[:2])
        at = 2
        if name == "IQ4_XS":
            at = 8 + 16 * sub
            low = block[4 + sub // 2] >> (4 * (sub % 2)) & 15
            high = struct.unpack("<H", block[2:4])[0] >> (2 * sub) & 3
            scale *= (low | high << 4) - 32
        packed = block[at + place % 16]
        found.append(scale * numbers[packed >> 4 if place >= 16 else packed & 15])
    return found


def oracle(name: str, block: bytes) -> list[float]:
    """Each number of a block by itself, from the format's description."""
    if name == "MXFP4":
        return powers(block)
    if name == "Q8_0":
        return [_half(block[:2]) * struct.unpack("b", block[2 + i : 3 + i])[0] for i in range(32)]
    if name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        scale, offset, at = _half(block[:2]), 0.0, 2
        if name.endswith("1"):
            offset, at = _half(block[2:4]), 4
        high = 0
        if name.startswith("Q5"):
            high, at = struct.unpack("<I", block[at : at + 4])[0], at + 4
        middle = {"Q4_0": 8, "Q5_0": 16}.get(name, 0)
        found = []
        for i in range(32):
            packed = block[at + i % 16]
            number = packed & 15 if i < 16 else packed >> 4
            found.append(scale * ((number | (high >> i & 1) << 4) - middle) + offset)
        return found
    if name in ("Q2_K", "Q3_K"):
        return low_bits(name, block)
    if name.startswith("IQ4"):
        return uneven(name, block)
    found = []
    if name in ("Q4_K", "Q5_K"):
        scale, least = _half(block[:2]), _half(block[2:4])
        high_at, low_at = 16, 16 if name == "Q4_K" else 48
        for i in range(256):
            sub, place = divmod(i, 32)
            packed = block[low_at + sub // 2 * 32 + place]
            number = packed >> 4 if sub % 2 else packed & 15
            if name == "Q5_K":
                number |= (block[high_at + place] >> sub & 1) << 4
            step, floor = _scale_min(block[4:16], sub)
            found.append(scale * step * number - least * floor)
        return found
    scale = _half(block[208:210])
    for i in range(256):
        half, rest = divmod(i, 128)
        quarter, place = divmod(rest, 32)
        low = block[half * 64 + (quarter % 2) * 32 + place]
        number = (low >> 4 if quarter >= 2 else low & 15) | (
            block[128 + half * 32 + place] >> (2 * quarter) & 3
        ) << 4
        step = struct.unpack("b", block[192 + i // 16 : 193 + i // 16])[0]
        found.append(scale * step * (number - 32))
    return found


@pytest.mark.parametrize("kind", [k for k in BLOCK_TYPES.values() if k.items > 1], ids=str)
def test_blocks_decode_as_the_format_says(kind) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(7)
    raw = random.integers(0, 256, (5, kind.size), dtype=np.uint8)
    places = {"Q6_K": (208,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,)}
    places["MXFP4"] = ()
    halves = places.get(kind.name, (0,))
    if kind.name in ("Q4_1", "Q5_1"):
        halves = (0, 2)
    for row in raw:
        for at in halves:  # random bits could be infinite as halves
            row[at : at + 2] = np.frombuffer(struct.pack("<e", random.uniform(-2, 2)), np.uint8)
    found = dequantise(memoryview(raw.tobytes()), kind, (5, kind.items))
    wanted = np.array([oracle(kind.name, row.tobytes()) for row in raw])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
