"""Codecs against their declarations, and the compiled kernels against the plain codecs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.core.errors import ConfigError
from edvac.engine import _native
from edvac.engine.attention import Attending, KernelPlan, KeyBias, Rotation, Span, rotate, rotation
from edvac.engine.config import ModelConfig
from edvac.engine.digest import file_digest
from edvac.engine.kv.codecs import (
    CODECS,
    F16,
    KV_TYPES,
    BlockFloat,
    Codec,
    KVType,
    Sorted,
    Uniform,
    hadamard,
    key_order,
    kv_type_named,
)
from edvac.engine.kv.pages import BLOCK, PagedArena, block_bytes, token_bytes
from edvac.engine.loader import LoadOptions, load
from edvac.machine import settings as machine

native = _native.kernels()
KNOWN = ("avx2", "avxvnni", "avx512")
LEVELS = KNOWN[: KNOWN.index(native.level()) + 1] if native is not None else ()
with_kernels = pytest.mark.skipif(native is None, reason="no compiled kernels (`make setup`)")
ALL: dict[str, Codec] = CODECS | {
    "int4 behind 16": Uniform(4, 16),
    "int8 behind 32": Uniform(8, 32),
    "bfp4 in 16": BlockFloat(4, 16),
}


def noise(seed: int, *shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def bound(codec: Codec, rows: torch.Tensor) -> torch.Tensor:
    """How far from a number its stored value may lie, by the codec's own arithmetic."""
    if isinstance(codec, Uniform):
        rows = hadamard(rows, codec.order)
        span = rows.amax(-1, keepdim=True) - rows.amin(-1, keepdim=True)
        # Half a step, what float16 takes from step and least, and float32's own rounding.
        half = span / ((1 << codec.bits) - 1) * 0.5
        slack = (span + rows.abs().amax(-1, keepdim=True)) * 2**-11 + 2.0 ** (codec.bits - 25)
        return (half + slack) * codec.order**0.5
    if isinstance(codec, BlockFloat):
        blocks = rows.unflatten(-1, (-1, codec.block))
        most = blocks.abs().amax(-1, keepdim=True) * 2.0 ** (2 - codec.bits) + 2.0**-95
        return most.expand(blocks.shape).flatten(-2)
    return rows.abs() * (2**-11 if codec is CODECS["f16"] else 2**-8) + 2**-24


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(ALL)),
    st.sampled_from([32, 64, 128]),
    st.integers(0, 1 << 30),
    st.floats(1e-6, 1e2),
    st.floats(-50, 50),
)
def test_numbers_come_back_within_the_codec_s_step(
    name: str, width: int, seed: int, scale: float, shift: float
) -> None:
    codec = ALL[name]
    rows = noise(seed, 3, 2, width, scale=scale) + shift * scale
    rows[0, 0] = 0
    rows[1, 0] = shift
    coded = codec.encode(rows)
    assert coded.dtype == torch.uint8
    assert coded.shape == (3, 2, codec.row_bytes(width))
    back = codec.decode(coded)
    assert back.shape == rows.shape
    assert bool(((back - rows).abs() <= bound(codec, rows)).all())
    assert torch.equal(codec.encode(rows[1:2, 1:]), coded[1:2, 1:]), "a row alone gives its bytes"


@pytest.mark.parametrize("bits", [4, 8])
def test_numbers_beyond_float16_are_cut_and_stay_numbers(bits: int) -> None:
    rows = torch.tensor([[-1e9, 5.0] * 16, [1e5, 2e5] * 16, [-1e8, 1e8] * 16])
    codec = Uniform(bits)
    assert bool(codec.decode(codec.encode(rows)).isfinite().all())


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([1, 2, 4, 8, 16, 64]), st.integers(0, 1 << 30))
def test_hadamard_keeps_products_and_undoes_itself(order: int, seed: int) -> None:
    first, second = noise(seed, 4, 64).double(), noise(seed + 1, 4, 64).double()
    turned = hadamard(first, order)
    torch.testing.assert_close(hadamard(turned, order), first)
    torch.testing.assert_close((turned * hadamard(second, order)).sum(-1), (first * second).sum(-1))
    if order > 1:
        spike = torch.zeros(1, 64)
        spike[0, 5] = 8
        assert hadamard(spike, order).abs().max() == pytest.approx(8 * order**-0.5)


def test_a_sorted_head_keeps_its_pairs_and_its_numbers() -> None:
    large = (torch.arange(16) % 2 == 0).repeat(4)
    weight = noise(1, 2 * 32, 48) * (1 + 30 * large)[:, None]
    order = key_order(weight, 2)
    assert [sorted(one) for one in order.tolist()] == [list(range(32))] * 2
    assert bool((order[:, 1::2] == order[:, 0::2] + 16).all()), "a pair shares its exponent"
    codec = Sorted(BlockFloat(4, 16), order)
    rows = noise(2, 5, 2, 32) * weight.norm(dim=1).view(2, 32)
    back = codec.decode(codec.encode(rows))
    plain = BlockFloat(4, 16)
    wrong, small = plain.decode(plain.encode(rows)), ~large.view(2, 32)
    assert (back - rows)[:, small].norm() < 0.5 * (wrong - rows)[:, small].norm()


def test_types_have_names_and_sizes() -> None:
    config = ModelConfig("qwen2", 28, 1536, 64, 12, 2, 128, 100, 4096, 1e4, 1e-6)
    sizes = {name: token_bytes(config, kv_type_named(name, 128)) for name in KV_TYPES}
    assert sizes == {"f16": 28_672, "int8": 14_784, "k8v4": 11_200, "int4": 7_616}
    for name in KV_TYPES:
        kv = kv_type_named(name, 128)
        assert kv.name == name
        assert block_bytes(config, kv) % 4096 == 0
        assert block_bytes(config, kv) - 32 * sizes[name] in range(4096)
        assert kv.keys.traits.exact == (name == "f16")
        assert kv.keys.traits.page_compatible
        assert kv.keys.traits.prefix_shareable
    assert KV_TYPES == machine.KV_TYPES, "settings name them without importing torch"
    with pytest.raises(ConfigError, match="Did you mean int8") as caught:
        kv_type_named("int5", 128)
    assert caught.value.code == "kv_type_unknown"


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", ["k8v4", "int4"])
def test_one_large_number_does_not_take_the_codes_of_values(name: str, biased: bool) -> None:
    rows = noise(11, 50, 128)
    rows[:, 5] = 60.0
    others = torch.arange(128) != 5

    def error(codec: Codec) -> float:
        return float((codec.decode(codec.encode(rows)) - rows)[:, others].abs().mean())

    assert error(kv_type_named(name, 128, biased=biased).values) < 0.7 * error(Uniform(4))


WIDTHS = [(12, 128), (6, 64), (2, 16), (14, 48)]


def kinds(width: int, *, biased: bool) -> list[KVType]:
    return [
        *(kv_type_named(name, width, biased=biased) for name in KV_TYPES),
        KVType("int4, plain", Uniform(4), Uniform(4)),
        *(KVType(f"int4 behind {n}", Uniform(4, n), Uniform(4)) for n in (2, 4, 8)),
        KVType("int8 behind 16", Uniform(8, 16), Uniform(8, 4)),
        KVType("int4 values behind 2", Uniform(4), Uniform(4, 2)),
    ]


class Step:
    """A step of some sequences, computed by the kernels and by the plain codecs."""

    def __init__(self, heads: int, width: int, kv: KVType, *, biased: bool) -> None:
        self.config = ModelConfig(
            "qwen2", 1, heads * width, 64, heads, 2, width, 9, 4096, 1e4, 1e-6
        )
        self.kv, self.width = kv, width
        self.rates = 1e4 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        self.key_bias = noise(3, 2 * width, scale=40.0) if biased else None

    def arena(self) -> PagedArena:
        """Four rows of tokens that somebody stored before."""
        arena = PagedArena(self.config, 4, 2304, 300, self.kv)
        for slot in range(4):
            arena.touch(slot, 2304)
            rows = noise(slot, 2, 72, 2, BLOCK, self.width)
            coded = (self.kv.keys.encode(rows[0]), self.kv.values.encode(rows[1]))
            arena.raw(0)[slot] = torch.cat(coded, dim=-1)
        return arena

    def plan(self, arena: PagedArena, spans: list[Span], answering: int) -> KernelPlan:
        bias = None
        if self.key_bias is not None:
            bias = KeyBias.up_to(2304, [self.key_bias], self.rates)
        attending = Attending(native, arena, self.config.heads, bias)  # type: ignore[arg-type]
        return KernelPlan(attending, spans, answering)

    def row(self, arena: PagedArena, which: int, slot: int) -> torch.Tensor:
        """The bytes of a row's keys (0) or values (1), (tokens, heads, bytes)."""
        found = arena.raw(0)[slot].transpose(1, 2)
        keys = self.kv.keys.row_bytes(self.width)
        part = found[..., keys:] if which else found[..., :keys]
        return part.reshape(-1, 2, part.shape[-1])

    def turns(self, positions: torch.Tensor) -> Rotation:
        return rotation(positions, self.rates)

    def wanted(self, arena: PagedArena, spans: list[Span], qkv: torch.Tensor) -> torch.Tensor:
        """Attention over what the memory holds, as the codecs read it."""
        heads, width, found = self.config.heads, self.width, []
        query = qkv.view(len(qkv), -1, width)[:, :heads]
        at = 0
        for span in spans:
            keys = self.kv.keys.decode(self.row(arena, 0, span.slot))
            values = self.kv.values.decode(self.row(arena, 1, span.slot))
            if self.key_bias is not None:
                bias = self.key_bias.view(1, 2, width).expand(len(keys), -1, -1)
                keys = keys + rotate(bias, self.turns(torch.arange(len(keys))))
            for position in range(span.start, span.end):
                one = rotate(query[at : at + 1], self.turns(torch.tensor([position])))
                grouped = one.view(2, heads // 2, width).double()
                there = slice(0, position + 1)
                scores = grouped @ keys[there].permute(1, 2, 0).double() * width**-0.5
                mixed = torch.softmax(scores, -1) @ values[there].transpose(0, 1).double()
                found.append(mixed.float().view(-1))
                at += 1
        return torch.stack(found)


SPANS = [Span(0, 2100, 1), Span(3, 5, 3), Span(1, 1023, 2), Span(2, 0, 70)]


@with_kernels
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("heads", "width"), WIDTHS)
def test_kernels_store_and_read_what_the_codecs_say(heads: int, width: int, biased: bool) -> None:
    assert native is not None
    for kv in kinds(width, biased=biased):
        step = Step(heads, width, kv, biased=biased)
        count = sum(span.count for span in SPANS)
        qkv = noise(5, count, (heads + 4) * width)
        found = []
        for level in LEVELS:
            native.use_level(level)
            arena = step.arena()
            plan = step.plan(arena, SPANS, 6)
            found.append(plan.mix(0, qkv, step.turns(plan.positions), None))
        wanted = step.wanted(arena, SPANS, qkv)
        torch.testing.assert_close(found[-1], wanted, atol=1e-4, rtol=2e-4)
        assert all(torch.equal(one, found[0]) for one in found), "each level gives the same bits"
        new = qkv.view(count, -1, width)[:, heads:]
        keys, at = rotate(new[:, :2], step.turns(plan.positions)), 0
        for span in SPANS:
            rows = slice(at, at + span.count)
            there = slice(span.start, span.end)
            stored = step.row(arena, 0, span.slot)[there]
            assert torch.equal(stored, kv.keys.encode(keys[rows])), kv.name
            stored = step.row(arena, 1, span.slot)[there]
            assert torch.equal(stored, kv.values.encode(new[rows, 2:])), kv.name
            at += span.count
        arena.close()


@with_kernels
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(LEVELS),
    st.sampled_from([16, 48, 64]),
    st.integers(0, 9),
    st.integers(0, 1 << 30),
    st.floats(1e-7, 1e6),
    st.floats(-1e5, 1e5),
)
def test_kernels_store_the_oracle_s_bytes(
    level: str, width: int, kind: int, seed: int, scale: float, shift: float
) -> None:
    assert native is not None
    native.use_level(level)
    known = kinds(width, biased=False)
    kv = known[kind % len(known)]
    step = Step(2, width, kv, biased=False)
    arena = PagedArena(step.config, 1, 64, 3, kv)
    arena.touch(0, 40)
    qkv = noise(seed, 9, 6 * width, scale=scale) + shift
    qkv[2] = 0
    qkv[3] = shift
    plan = step.plan(arena, [Span(0, 27, 9)], 0)
    turns = step.turns(plan.positions)
    plan.mix(0, qkv, turns, None)
    new = qkv.view(9, -1, width)[:, 2:]
    rows = slice(27, 36)
    assert torch.equal(step.row(arena, 0, 0)[rows], kv.keys.encode(rotate(new[:, :2], turns)))
    assert torch.equal(step.row(arena, 1, 0)[rows], kv.values.encode(new[:, 2:]))
    arena.close()


@with_kernels
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", KV_TYPES)
def test_a_row_does_not_depend_on_its_neighbours(name: str, biased: bool) -> None:
    step = Step(6, 64, kv_type_named(name, 64, biased=biased), biased=biased)
    count = sum(span.count for span in SPANS)
    qkv = noise(9, count, 10 * 64)

    def mixed(spans: list[Span], first: int, answering: int, arena: PagedArena) -> torch.Tensor:
        rows = slice(first, first + sum(span.count for span in spans))
        plan = step.plan(arena, spans, answering)
        return plan.mix(0, qkv[rows].contiguous(), step.turns(plan.positions), None)

    arena = step.arena()
    together = mixed(SPANS, 0, 6, arena)
    for at, first in ((0, 0), (1, 1), (2, 4)):
        alone = mixed([SPANS[at]], first, SPANS[at].count, step.arena())
        assert torch.equal(alone, together[first : first + SPANS[at].count])
    cut = step.arena()
    assert torch.equal(mixed([Span(2, 0, 40)], 6, 0, cut), together[6:46]), "a prompt in two parts"
    assert torch.equal(mixed([Span(2, 40, 30)], 46, 0, cut), together[46:])


@with_kernels
def test_a_bias_apart_is_the_same_bias(tiny: Path, tmp_path: Path) -> None:
    """A whole model: logits hardly change when the bias is added elsewhere, and little in int8."""
    assert native is not None
    prompt = [(7 * at + at * at) % 250 for at in range(90)]
    whole = logits(tiny, tmp_path, "f16", prompt, apart=False)
    apart = logits(tiny, tmp_path, "f16", prompt, apart=True)
    torch.testing.assert_close(apart, whole, atol=0.1, rtol=0)
    for name, most in (("int8", 0.05), ("k8v4", 0.4), ("int4", 0.8)):
        lossy = logits(tiny, tmp_path, name, prompt, apart=True)
        assert 0 < float((lossy - whole).abs().mean()) < most
    assert float(whole.std()) > 2


def logits(path: Path, cache: Path, name: str, prompt: list[int], *, apart: bool) -> torch.Tensor:
    """Of the whole prompt, read in two parts and then token by token."""
    options = LoadOptions(
        *(path, file_digest(path), cache, False, lambda done, total: None),
        split_key_bias=apart,
        plain=torch.float32,
    )
    decoder, source = load(options)
    assert apart == (decoder.layers[1].key_bias is not None)
    kv = kv_type_named(name, source.config.head_dim, biased=apart)
    arena = PagedArena(source.config, 1, 128, 4, kv)
    arena.touch(0, 128)
    by = Attending(native, arena, source.config.heads, decoder.key_bias(128))  # type: ignore[arg-type]
    found = []
    for start, end in ((0, 40), (40, 80), *((at, at + 1) for at in range(80, 90))):
        plan = KernelPlan(by, [Span(0, start, end - start)], int(end - start == 1))
        found.append(decoder.forward(prompt[start:end], plan, list(range(end - start))))
    return torch.cat(found)


@with_kernels
def test_what_does_not_fit_is_refused() -> None:
    assert native is not None
    for wrong in (
        *((5, 8, 1, 1, 64), (8, 5, 1, 1, 64), (8, 8, 3, 1, 64), (8, 8, 128, 1, 64)),
        *((8, 8, 0, 1, 64), (16, 16, 2, 1, 64), (8, 8, 1, 1, 40), (8, 8, 1, 3, 64)),
        *((8, 8, 1, 128, 64), (8, 8, 1, 0, 64), (8, 16, 1, 2, 64)),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            native.stored(*wrong, None, None)
    turns, small = torch.zeros(3, 64), torch.zeros(64, 31)
    with pytest.raises(ValueError, match="turns of tokens"):
        native.stored(8, 8, 1, 1, 64, turns, small)
    with pytest.raises(ValueError, match="16 at most"):
        native.stored(8, 8, 32, 1, 64, turns, torch.zeros(64, 32))
    with pytest.raises(ValueError, match="both"):
        native.stored(8, 8, 1, 1, 64, turns, None)
    kv = kv_type_named("int8", 64)
    step = Step(6, 64, kv, biased=True)
    arena = PagedArena(step.config, 1, 64, 3, kv)
    arena.touch(0, 64)
    qkv = noise(1, 2, 640)
    for bias in (
        KeyBias.up_to(32, [noise(1, 128)], step.rates),  # turns for one block of two
        KeyBias.up_to(64, [noise(1, 64)], step.rates),
    ):
        plan = KernelPlan(Attending(native, arena, 6, bias), [Span(0, 0, 2)], 0)
        with pytest.raises(ValueError, match="bias"):
            plan.mix(0, qkv, step.turns(plan.positions), None)
    other = PagedArena(step.config, 1, 64, 3, F16)
    other.touch(0, 64)
    attending = Attending(native, arena, 6)
    attending.arena = other
    plan = KernelPlan(attending, [Span(0, 0, 2)], 0)
    with pytest.raises(ValueError, match="one after the other"):
        plan.mix(0, qkv, step.turns(plan.positions), None)
