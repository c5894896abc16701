"""The way through a GPU, on a machine that has none: torch's meta tensors have shapes and refuse to
mix with those of the processor. Where there is a GPU, answers are compared too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edvac.engine.adapters import Adapted, read_adapter
from edvac.engine.assembly import held_from_the_start
from edvac.engine.attention import Arena, Span, TensorPlan
from edvac.engine.linear import Rows
from edvac.engine.loader import load
from edvac.engine.scheduler import Limits

from .families import FAMILIES
from .lora import matrices, write_gguf
from .test_loader import answers, options

GPU = torch.device("cuda", 0)
META = torch.device("meta")


@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma2", "gemma3"])
def test_every_tensor_of_a_step_lies_on_the_device(name: str, tmp_path: Path) -> None:
    """A chunk from the start, one that goes on, and short ones of neighbours, in one step, two of
    them under an adapter: nothing fails but the very last thing, bringing the logits home."""
    family = FAMILIES[name]
    path = family.write(tmp_path / "tiny.gguf")
    decoder, _ = load(replace(options(path, tmp_path, False), device=META))
    found = matrices(1, family.head_dim)
    lora = write_gguf(tmp_path / "lora.gguf", found, family.architecture, family.head_dim)
    adapted = [Adapted.on(META, read_adapter(lora, decoder.config, META), [0, 5, 40])]
    arena = Arena(decoder.config, 6, 128, torch.float16, META)
    spans = [Span(0, 0, 20), Span(1, 20, 20), Span(2, 40, 1), Span(3, 35, 3)]
    plan = TensorPlan(spans, arena, decoder.config, False)
    rows = list(range(sum(span.count for span in spans)))
    seen: list[torch.Tensor] = []
    head = decoder.head

    def last(given: Rows) -> torch.Tensor:
        seen.append(head(given))
        return seen[0]

    decoder.head = last
    with torch.inference_mode(), pytest.raises(NotImplementedError, match="out of meta"):
        decoder.forward(rows, plan, [19, 40, 43], adapted)
    (logits,) = seen
    assert (logits.device, logits.shape) == (META, (3, decoder.config.vocabulary))
    arena.copy(0, 4, 20)
    arena.load(5, 0, torch.zeros(2, decoder.config.layers, 2, 20, decoder.config.head_dim))
    arena.trim({4, 5}, 0)


def test_rows_that_hold_their_memory_fit_into_it() -> None:
    wanted = Limits(slots=32, context=8192, step_tokens=256, kv_tokens=40_000)
    found = held_from_the_start(wanted)
    assert found.slots * found.context <= found.kv_tokens
    assert found.slots == 4
    small = held_from_the_start(replace(wanted, kv_tokens=5000))
    assert (small.slots, small.context) == (1, 5000)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_answers_like_the_processor(tiny: Path, tmp_path: Path) -> None:
    there = load(replace(options(tiny, tmp_path, False), device=GPU))
    here = load(options(tiny, tmp_path, False, int8=lambda: False))
    assert [n for _, n in answers(there, False, GPU)] == [n for _, n in answers(here, False)]
