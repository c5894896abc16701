"""The compiled kernels against plain arithmetic, and against each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.core.errors import ConfigError
from edvac.engine import _native
from edvac.engine.attention import Attending, KernelPlan, Norms, Rotation, Span, rotate
from edvac.engine.config import ModelConfig
from edvac.engine.digest import file_digest
from edvac.engine.gguf import BLOCK_TYPES
from edvac.engine.kv.pages import PagedArena
from edvac.engine.linear import BlockProduct, ByRole, Int8Product, Norm, Packed, Rows
from edvac.engine.loader import LoadOptions, load
from edvac.engine.quants import dequantise

from .test_loader import answers
from .tiny import random_blocks, write_tiny

native = _native.kernels()
if native is None:
    pytest.skip("the compiled kernels are not installed (`make setup`)", allow_module_level=True)
KINDS = sorted(_native.KINDS)
BEST = native.level()
LEVELS = ("avx2", "avxvnni", "avx512")[: ("avx2", "avxvnni", "avx512").index(BEST) + 1]


def items(kind: str) -> int:
    return next(one.items for one in BLOCK_TYPES.values() if one.name == kind)


def weights(kind: str, raw: np.ndarray, outputs: int, width: int) -> np.ndarray:
    block = next(one for one in BLOCK_TYPES.values() if one.name == kind)
    return dequantise(raw.data, block, (outputs, width))


def rounded(values: torch.Tensor) -> np.ndarray:
    """The rows as 8-bit codes and a scale for each 256 numbers let them be seen."""
    found = values.numpy().copy()
    for start in range(0, found.shape[1], 256):
        part = found[:, start : start + 256]
        peak = np.abs(part).max(axis=1, keepdims=True)
        inverse = np.divide(np.float32(127), peak, out=np.zeros_like(peak), where=peak > 0)
        part[:] = np.round(part * inverse) * (peak / np.float32(127))
    return found.astype(np.float64)


def plain(values: torch.Tensor) -> object:
    return native.rows(values, None, 0, False)


def product(matrix: object, rows: object, outputs: int) -> torch.Tensor:
    found = torch.full((rows.count, outputs), torch.nan)  # type: ignore[attr-defined]
    native.multiply(rows, [matrix], found, None)
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(KINDS), st.integers(1, 5), st.integers(1, 40), st.integers(1, 21), st.integers()
)
def test_products_are_those_of_the_decoded_weights(
    kind: str, blocks: int, outputs: int, count: int, seed: int
) -> None:
    seed %= 1 << 32
    width = blocks * items(kind)
    raw = random_blocks(kind, outputs, width, seed)
    values = torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 3
    values[0, :7] = 0
    matrix = native.pack(kind, raw, outputs, width, [])
    by_level = []
    for level in LEVELS:
        native.use_level(level)
        by_level.append(product(matrix, plain(values), outputs))
    wanted = rounded(values) @ weights(kind, raw, outputs, width).T.astype(np.float64)
    np.testing.assert_allclose(by_level[-1].numpy(), wanted, atol=2e-5 * np.abs(wanted).max())
    assert all(torch.equal(one, by_level[0]) for one in by_level), "each level gives the same bits"


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_neighbours(kind: str) -> None:
    width, outputs = 3 * items(kind), 50
    matrix = native.pack(kind, random_blocks(kind, outputs, width), outputs, width, [])
    values = torch.randn(250, width)  # two blocks of 128 rows, the second not full
    found = product(matrix, plain(values), outputs)
    for part in (slice(0, 1), slice(3, 5), slice(7, 10), slice(11, 27), slice(240, 250)):
        assert torch.equal(product(matrix, plain(values[part]), outputs), found[part])


def test_rows_of_zeros_and_of_extremes() -> None:
    raw = random_blocks("Q8_0", 16, 32)
    matrix = native.pack("Q8_0", raw, 16, 32, [])
    values = torch.zeros(2, 32)
    values[1] = 1e30
    found = product(matrix, plain(values), 16)
    assert (found[0] == 0).all()
    wanted = values[1].double().numpy() @ weights("Q8_0", raw, 16, 32).T.astype(np.float64)
    np.testing.assert_allclose(found[1].numpy(), wanted, rtol=1e-3)


def test_the_largest_codes_do_not_overflow() -> None:
    """Bytes of 255 times codes of 127: pairs of these do not fit 16 bits."""
    block = np.concatenate([np.array([1], "<f2").view(np.uint8), np.full(32, 127, np.uint8)])
    matrix = native.pack("Q8_0", np.tile(block, 16), 16, 32, [])
    lowest = np.concatenate([block[:2], np.full(32, 128, np.uint8)])  # -128
    other = native.pack("Q8_0", np.tile(lowest, 16), 16, 32, [])
    for level in LEVELS:
        native.use_level(level)
        rows = plain(torch.ones(1, 32))
        assert product(matrix, rows, 16)[0, 0] == pytest.approx(32 * 127)
        assert product(other, rows, 16)[0, 0] == pytest.approx(-32 * 128)


def test_an_order_names_the_rows() -> None:
    raw = random_blocks("Q5_0", 20, 64)
    order = np.random.default_rng(1).permutation(20).tolist()
    rows = plain(torch.randn(3, 64))
    straight = product(native.pack("Q5_0", raw, 20, 64, []), rows, 20)
    assert torch.equal(product(native.pack("Q5_0", raw, 20, 64, order), rows, 20),
                       straight[:, order])  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
def test_norm_and_gate_are_torch_s(level: str) -> None:
    native.use_level(level)
    torch.manual_seed(0)
    outputs, width = 24, 512
    matrix = native.pack("Q4_K", random_blocks("Q4_K", outputs, width), outputs, width, [])
    values, norm = torch.randn(5, width) * 40, Norm(torch.rand(width) + 0.5, 1e-6)
    both = torch.randn(5, 2 * width) * 30
    for fused, stepped in (
        (native.rows(values, norm.weight, norm.epsilon, False), norm(values)),
        (native.rows(both, None, 0, True), Rows(both, gated=True).values()),
    ):
        wanted = product(matrix, plain(stepped), outputs)
        # A number that lies between two codes may be rounded to either.
        torch.testing.assert_close(
            product(matrix, fused, outputs), wanted, rtol=0, atol=float(wanted.abs().max()) * 2e-3
        )


@pytest.mark.parametrize("level", LEVELS)
def test_codes_of_prompts_are_torch_s(level: str) -> None:
    native.use_level(level)
    torch.manual_seed(0)
    values, norm = torch.randn(21, 96) * 40, Norm(torch.rand(96) + 0.5, 1e-6)
    values[2] = 0
    for more in ((0, None, False), (0, norm, False), (0, None, True)):
        for start in (0, 5):
            codes, scales = Rows(values, *more).codes(start, native)
            wanted, wanted_scales = Rows(values, *more).codes(start)
            torch.testing.assert_close(scales, wanted_scales, rtol=1e-5, atol=1e-9)
            assert int((codes.int() - wanted.int()).abs().max()) <= 1, "a tie goes either way"
            assert float((codes == wanted).float().mean()) > 0.98


def test_matrices_lie_side_by_side_and_have_a_bias() -> None:
    torch.manual_seed(0)
    first, second = random_blocks("Q4_0", 40, 96), random_blocks("Q8_0", 10, 96)
    packed = [native.pack("Q4_0", first, 40, 96, []), native.pack("Q8_0", second, 10, 96, [])]
    values, bias = torch.randn(3, 96), torch.randn(50)
    found = BlockProduct(native, packed, bias)(Rows(values, 3))
    both = np.concatenate([weights("Q4_0", first, 40, 96), weights("Q8_0", second, 10, 96)])
    np.testing.assert_allclose(found, rounded(values) @ both.T + bias.numpy(), atol=1e-3)


@pytest.mark.parametrize("answering", [0, 2, 5])
def test_each_role_has_its_path(answering: int) -> None:
    torch.manual_seed(0)
    matrix = native.pack("Q4_0", random_blocks("Q4_0", 32, 64), 32, 64, [])
    answers_by = BlockProduct(native, [matrix])
    prompts_by = Int8Product(Packed(torch.ones(32, 64, dtype=torch.int8)), torch.ones(32))
    values = torch.randn(5, 64)
    found = ByRole(answers_by, prompts_by)(Rows(values, answering))
    assert found.shape == (5, 32)
    if answering:
        assert torch.equal(found[:answering], answers_by(Rows(values[:answering], answering)))
    if answering < 5:
        assert torch.equal(found[answering:], prompts_by(Rows(values[answering:])))


def test_shapes_are_checked() -> None:
    raw = random_blocks("Q4_0", 16, 64)
    matrix, rows = native.pack("Q4_0", raw, 16, 64, []), plain(torch.randn(2, 64))
    wrong = [
        lambda: native.pack("Q9_9", raw, 16, 64, []),
        lambda: native.pack("Q4_0", raw, 16, 96, []),
        lambda: native.pack("Q4_0", raw, 16, 65, []),
        lambda: native.pack("Q4_0", raw, 0, 64, []),
        lambda: native.pack("Q4_0", raw[:-1].copy(), 16, 64, []),
        lambda: native.pack("Q4_0", raw, 16, 64, [0] * 15),
        lambda: native.pack("Q4_0", raw, 16, 64, [16] * 16),
        lambda: plain(torch.randn(2, 33)),
        lambda: plain(torch.randn(0, 64)),
        lambda: native.rows(torch.randn(2, 65), None, 0, True),
        lambda: native.rows(torch.randn(2, 64), torch.ones(63), 1e-6, False),
        lambda: native.multiply(rows, [matrix], torch.empty(3, 16), None),
        lambda: native.multiply(rows, [matrix], torch.empty(2, 17), None),
        lambda: native.multiply(rows, [matrix, matrix], torch.empty(2, 16), None),
        lambda: native.multiply(rows, [matrix], torch.empty(2, 16), torch.zeros(15)),
        lambda: native.multiply(plain(torch.randn(2, 32)), [matrix], torch.empty(2, 16),
                                None),
    ]  # fmt: skip
    for number, call in enumerate(wrong):
        with pytest.raises(ValueError, match=r"\w"):
            call()
            pytest.fail(f"call {number} was taken")


def test_a_quantised_model_answers_from_its_own_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama", kinds=("Q8_0", "Q4_0", "Q5_1", "Q8_0"))
    options = LoadOptions(path, file_digest(path), tmp_path, False, lambda done, total: None)
    loaded = load(options)
    assert isinstance(loaded[0].head, BlockProduct)
    assert all(isinstance(layer.qkv, ByRole) for layer in loaded[0].layers)
    text = [text for text, _ in answers(loaded, False)]
    exact = LoadOptions(path, options.digest, tmp_path, True, lambda done, total: None)
    wanted = [text for text, _ in answers(load(exact), True)]
    agreed = sum(one[:3] == other[:3] for one, other in zip(text, wanted, strict=True))
    assert agreed >= len(wanted) - 1, "a near tie may fall to either side in one of them"
    monkeypatch.setenv(_native.SETTING, "none")
    assert isinstance(load(options)[0].layers[0].qkv, Int8Product)


def test_an_unknown_level_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_native.SETTING, "sse9")
    with pytest.raises(ConfigError, match="sse9"):
        _native.kernels()


def attended(
    spans: list[Span], answering: int, heads: int, width: int, norms: Norms = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the kernels mix, and what plain arithmetic on their own memory gives."""
    config = ModelConfig("qwen2", 1, heads * width, 64, heads, 2, width, 100, 4096, 1e4, 1e-6)
    arena = filled(config)
    generator = torch.Generator().manual_seed(1)
    count = sum(span.count for span in spans)
    qkv = torch.randn(count, (heads + 4) * width, generator=generator)
    angles = torch.randn(count, width // 2, generator=generator)
    rotation = (angles.cos(), angles.sin())
    plan = KernelPlan(Attending(native, arena, config.heads), spans, answering)
    found = plan.mix(0, qkv, rotation, norms)
    query, key, value = qkv.view(count, -1, width).split([heads, 2, 2], dim=1)
    if norms is not None:
        query, key = norms[0](query), norms[1](key)
    wanted = torch.empty(count, heads, width)
    row = 0
    for span in spans:
        rows = slice(row, row + span.count)
        all_keys, all_values = in_row(arena, 0, span.slot), in_row(arena, 1, span.slot)
        new = all_keys[:, span.start : span.end].transpose(0, 1)
        torch.testing.assert_close(new.float(), rotate(key, rotation)[rows], atol=5e-3, rtol=2e-3)
        new = all_values[:, span.start : span.end].transpose(0, 1)
        assert torch.equal(new, value[rows].half())
        for position in range(span.start, span.end):
            keys = all_keys[:, : position + 1].float()
            values = all_values[:, : position + 1].float()
            one = rotate(query[row : row + 1], rotation_of(rotation, row))
            grouped = one.view(2, heads // 2, width)
            scores = torch.softmax(grouped @ keys.transpose(1, 2) * width**-0.5, dim=-1)
            wanted[row] = (scores @ values).view(heads, width)
            row += 1
    return found, wanted.view(count, -1)


def filled(config: ModelConfig) -> PagedArena:
    """Four rows full of noise."""
    arena = PagedArena(config, 4, 2304, 300)
    generator = torch.Generator().manual_seed(7)
    arena._pooled.copy_(torch.randn(arena._pooled.shape, generator=generator))
    for slot in range(4):
        arena.touch(slot, 2304)
    return arena


def in_row(arena: PagedArena, which: int, slot: int) -> torch.Tensor:
    """A row's keys (0) or values (1), (heads, tokens, width)."""
    found = arena.raw(0)[slot].transpose(0, 1)
    both = found.reshape(found.shape[0], -1, found.shape[-1]).view(torch.float16)
    return both.chunk(2, dim=-1)[which]


def rotation_of(rotation: Rotation, row: int) -> Rotation:
    return rotation[0][row : row + 1], rotation[1][row : row + 1]


SPANS = [Span(0, 2100, 1), Span(3, 5, 3), Span(1, 1023, 2), Span(2, 0, 70), Span(3, 900, 19)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("heads", "width"), [(12, 128), (6, 64), (2, 16), (14, 48)])
def test_attention_is_that_of_plain_arithmetic(level: str, heads: int, width: int) -> None:
    native.use_level(level)
    norms = (Norm(torch.rand(width) + 0.5, 1e-6), Norm(torch.rand(width) + 0.5, 1e-6))
    for more in (None, norms):
        found, wanted = attended(SPANS[:4], 6, heads, width, more)
        torch.testing.assert_close(found, wanted, atol=3e-5, rtol=1e-4)


def test_attention_of_a_row_does_not_depend_on_its_neighbours() -> None:
    native.use_level(BEST)
    config = ModelConfig("qwen2", 1, 768, 64, 6, 2, 128, 100, 4096, 1e4, 1e-6)
    arena = filled(config)
    count = sum(span.count for span in SPANS[:4])
    qkv, angles = torch.randn(count, 10 * 128), torch.randn(count, 64)
    rotation = (angles.cos(), angles.sin())

    def mixed(spans: list[Span], first: int, answering: int) -> torch.Tensor:
        rows = slice(first, first + sum(span.count for span in spans))
        part = (rotation[0][rows], rotation[1][rows])
        plan = KernelPlan(Attending(native, arena, config.heads), spans, answering)
        return plan.mix(0, qkv[rows].contiguous(), part, None)

    together = mixed(SPANS[:4], 0, 6)
    for at, first in ((0, 0), (1, 1), (2, 4)):
        alone = mixed([SPANS[at]], first, SPANS[at].count)
        assert torch.equal(alone, together[first : first + SPANS[at].count])
    assert torch.equal(mixed([Span(2, 0, 40)], 6, 0), together[6:46]), "a prompt in two parts"
    assert torch.equal(mixed([Span(2, 40, 30)], 46, 0), together[46:])


def test_spans_are_checked() -> None:
    config = ModelConfig("qwen2", 1, 64, 64, 4, 2, 16, 100, 4096, 1e4, 1e-6)
    arena, turn = PagedArena(config, 2, 64, 8), (torch.ones(2, 8), torch.zeros(2, 8))
    qkv = torch.randn(2, 128)
    for span in (Span(2, 0, 2), Span(-1, 0, 2), Span(0, 63, 2), Span(0, -1, 2), Span(0, 0, 3)):
        plan = KernelPlan(Attending(native, arena, config.heads), [Span(0, 0, 2)], 0)
        plan._table = torch.tensor([[span.slot, span.start, span.count, 0]], dtype=torch.int32)
        with pytest.raises(ValueError, match="a span"):
            plan.mix(0, qkv, turn, None)
    with pytest.raises(ValueError, match="width"):
        KernelPlan(Attending(native, arena, config.heads), [Span(0, 0, 2)], 0).mix(
            0, qkv[:, :-1], turn, None
        )


def test_kernels_of_another_version_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _native.kernels() is not None
    monkeypatch.setattr(native, "API", _native.API + 1)
    assert _native.kernels() is None
