"""Blocks in fewer bits on disk: how far off they come back, and that a file says what it is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.core.errors import ConfigError
from edvac.engine.attention import rotate, rotation
from edvac.engine.kv.codecs import KVType, hadamard, kv_type_named
from edvac.engine.kv.disk import BlockCodec, KeyBiases, disk_type_named
from edvac.engine.kv.spill import Keeping, SpillFile

LAYERS, HEADS, WIDTH = 3, 2, 16
SHAPE = (LAYERS, 1, HEADS, 32, 2 * WIDTH)
RATES = torch.tensor([1.0, 0.5, 0.1, 0.02, 0.01, 0.005, 0.002, 0.001], dtype=torch.float64)


def biases(size: float) -> KeyBiases:
    numbers = torch.arange(LAYERS * HEADS * WIDTH).view(LAYERS, HEADS, WIDTH)
    return KeyBiases((numbers % 7 - 3.0) * size, RATES)


def contents(seed: int, size: float) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    return (torch.randn(SHAPE, generator=made) * size).half()


def back(codec: BlockCodec, block: torch.Tensor, first: int, to: int | None = None) -> torch.Tensor:
    found = torch.full(SHAPE, torch.nan, dtype=torch.float16)
    codec.decode(codec.encode(block, first), first if to is None else to, found)
    return found


def test_a_bias_is_turned_as_the_model_turns_it() -> None:
    mine = biases(10.0)
    for first in (0, 32, 4096):
        turned = mine.turned(first, 32)
        turns = rotation(torch.arange(first, first + 32), RATES)
        for layer in range(LAYERS):
            wanted = rotate(mine.layers[layer].expand(32, -1, -1), turns).transpose(0, 1)
            assert torch.equal(turned[layer, 0], wanted)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["int8", "int4"]),
    st.integers(0, 1 << 30),
    st.sampled_from([0.0, 1e-3, 1.0, 30.0, 2000.0]),
    st.sampled_from([None, 1.0, 100.0]),
    st.integers(0, 300),
)
def test_each_row_is_off_by_half_a_step_at_most(
    name: str, seed: int, size: float, bias: float | None, block: int
) -> None:
    kv = disk_type_named(name, WIDTH)
    assert kv is not None
    apart = None if bias is None else biases(bias)
    first = block * 32
    turned = 0.0 if apart is None else apart.turned(first, 32)
    wanted = contents(seed, size).float()
    wanted[..., :WIDTH] += turned
    wanted = wanted.half().float()
    found = back(BlockCodec(kv, WIDTH, apart), wanted.half(), first).float()
    for part, codec in ((slice(WIDTH), kv.keys), (slice(WIDTH, None), kv.values)):
        added = turned if part == slice(WIDTH) else torch.zeros(())
        rows = hadamard(wanted[..., part] - added, getattr(codec, "order", 1))
        off = hadamard(found[..., part] - wanted[..., part], getattr(codec, "order", 1))
        steps = (1 << (8 if name == "int8" else 4)) - 1
        span = rows.amax(-1, keepdim=True) - rows.amin(-1, keepdim=True)
        # Step and least number are float16, and so is what comes back.
        largest = wanted[..., part].abs().amax(-1, keepdim=True) + rows.abs().amax(-1, keepdim=True)
        rounding = 2.0**-9 * largest + (steps + 2) * 2.0**-24
        assert bool((off.abs() <= 0.5 * span / steps + rounding).all())


def test_a_bias_takes_no_codes() -> None:
    kv = kv_type_named("int4", WIDTH)
    apart = biases(100.0)
    block = contents(1, 1.0)
    block[..., :WIDTH] = (block[..., :WIDTH] + apart.turned(64, 32)).half()
    off = [
        float((back(codec, block, 64) - block).float().abs().mean())
        for codec in (BlockCodec(kv, WIDTH, apart), BlockCodec(kv, WIDTH))
    ]
    assert off[0] * 10 < off[1]
    wrong = back(BlockCodec(kv, WIDTH, apart), block, 64, to=96)
    assert float((wrong - block).float().abs().mean()) > off[1], "it depends on the position"


def test_what_is_no_token_of_a_block_does_no_harm() -> None:
    """Kernels multiply what stands behind a row's end by zero, so it must be a number."""
    block = torch.full(SHAPE, 65504.0, dtype=torch.float16)
    block[..., 1::2] = -65504.0
    for name in ("int8", "int4"):
        found = back(BlockCodec(kv_type_named(name, WIDTH), WIDTH), block, 0)
        assert bool(torch.isfinite(found).all())


def test_layers_are_coded_alike_however_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    block, codec = contents(3, 2.0), BlockCodec(kv_type_named("int4", WIDTH), WIDTH, biases(5.0))
    wanted = codec.encode(block, 32)
    for most in (1, 2 * HEADS * 32 * 2 * WIDTH):
        monkeypatch.setattr("edvac.engine.kv.disk._AT_ONCE", most)
        assert torch.equal(codec.encode(block, 32), wanted)
        assert torch.equal(back(codec, block, 32), back(codec, block, 32))


def test_types_of_the_disk() -> None:
    assert disk_type_named("same", 64) is None
    assert disk_type_named("int4", 64) == KVType(
        "int4", kv_type_named("int4", 64).keys, kv_type_named("int4", 64).values
    )
    with pytest.raises(ConfigError, match="'int5'") as caught:
        disk_type_named("int5", 64)
    assert (caught.value.code, caught.value.fix) == ("kv_disk_type_unknown", "Did you mean int8?")


@pytest.mark.parametrize(("name", "places"), [("same", 100), ("int8", 160), ("int4", 266)])
def test_fewer_bits_hold_more_blocks(tmp_path: Path, name: str, places: int) -> None:
    """Heads of 16: a row takes 64 bytes, 40 or 24."""
    kv = disk_type_named(name, WIDTH)
    codec = None if kv is None else BlockCodec(kv, WIDTH)
    spill = SpillFile(tmp_path, SHAPE, 100 * 3 * 2 * 32 * 64, codec=codec)
    block = contents(1, 1.0)
    put = 0
    while spill.put(block) is not None:
        put += 1
    assert put == places
    assert spill.lossy == (name != "same")
    spill.close()


class Slow(BlockCodec):
    def decode(self, coded: torch.Tensor, first: int, target: torch.Tensor) -> None:
        time.sleep(0.05)
        super().decode(coded, first, target)


def test_decoding_is_part_of_the_time_that_a_block_takes(tmp_path: Path) -> None:
    spill = SpillFile(tmp_path, SHAPE, 1 << 20, codec=Slow(kv_type_named("int8", WIDTH), WIDTH))
    place = spill.put(contents(1, 1.0))
    assert place is not None
    assert spill.read(place, torch.empty(SHAPE, dtype=torch.float16))
    assert spill.seconds >= 0.05
    spill.close()


def test_a_damaged_place_is_not_decoded(tmp_path: Path) -> None:
    codec = BlockCodec(kv_type_named("int8", WIDTH), WIDTH)
    spill = SpillFile(tmp_path, SHAPE, 1 << 20, codec=codec)
    place = spill.put(contents(1, 1.0))
    assert place is not None
    spill._sums[place] = b"another"
    target = torch.zeros(SHAPE, dtype=torch.float16)
    assert not spill.read(place, target)
    assert not target.any()
    spill.close()


def test_a_file_of_another_codec_is_not_read(tmp_path: Path) -> None:
    """Neither of other sizes nor, where they are of one, of other contents."""
    plain = BlockCodec(kv_type_named("int8", WIDTH), WIDTH)
    apart = BlockCodec(kv_type_named("int8", WIDTH), WIDTH, biases(1.0))
    small = BlockCodec(kv_type_named("int4", WIDTH), WIDTH)
    keeping = Keeping("one", time.time())
    left = SpillFile(tmp_path, SHAPE, 1 << 20, keeping=keeping, codec=plain)
    place = left.put(contents(1, 1.0))
    assert place is not None
    key = left.key(left.root("a"), range(32))
    left.save([(key, place)])
    left.close()
    for codec, count in ((apart, 0), (small, 0), (None, 0), (plain, 1)):
        spill = SpillFile(tmp_path, SHAPE, 1 << 20, keeping=keeping, codec=codec)
        assert len(spill) == count
        spill.close()
