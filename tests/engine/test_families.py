"""Each family is computed as a few plain lines compute it, however its steps are cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from edvac.core.errors import ModelFileError
from edvac.core.seams import SystemClock
from edvac.engine.assembly import attending_kernels
from edvac.engine.attention import CPU, Arena, Span, TensorPlan
from edvac.engine.config import ModelConfig, from_document
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.loader import LoadOptions, load
from edvac.engine.model import Decoder
from edvac.engine.pretokenizer import cutting
from edvac.engine.protocol import Failed, Segment
from edvac.engine.tokenizer import _core
from edvac.engine.weights import _hf_name, open_weights

from .families import FAMILIES, TOKENS, _halves, naive_logits
from .test_engine import LIMITS, PROMPTS, ask, drain
from .test_sentencepiece import tiny_spm
from .tiny import (
    FEED,
    HEADS,
    KV_HEADS,
    LAYERS,
    WIDTH,
    key,
    metadata,
    number,
    real,
    tensors,
    text,
    vocabulary,
    write_model,
)


def decoder(path: Path, reference: bool = True) -> Decoder:
    options = LoadOptions(path, "a" * 64, path.parent, reference, lambda done, total: None)
    return load(options)[0]


def logits(found: Decoder, cuts: list[int], exact: bool, slot: int = 1) -> torch.Tensor:
    """After every token, computed in steps of these lengths."""
    kind = torch.float32
    arena = Arena(found.config, 2, 64, kind)
    rows, start = [], 0
    for count in cuts:
        plan = TensorPlan([Span(slot, start, count)], arena, found.config, exact)
        new = TOKENS[start : start + count]
        rows.append(found.forward(new, plan, list(range(len(new)))))
        start += count
    return torch.cat(rows)


@pytest.mark.parametrize("exact", [True, False], ids=["reference", "fast attention"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_computed_as_its_oracle_does(name: str, exact: bool, tmp_path: Path) -> None:
    family = FAMILIES[name]
    found = decoder(family.write(tmp_path / "tiny.gguf"))
    wanted = naive_logits(family, TOKENS)
    with torch.inference_mode():
        for cuts in ([20], [1] * 20, [7, 6, 1, 1, 5]):
            torch.testing.assert_close(logits(found, cuts, exact), wanted, atol=1e-4, rtol=1e-4)
    assert wanted.std() > 0.5, "logits that are all alike would compare well"


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
def test_sequences_attend_in_their_own_windows_in_one_step(name: str, tmp_path: Path) -> None:
    """Two that are of different lengths, one answering and one reading."""
    family = FAMILIES[name]
    found = decoder(family.write(tmp_path / "tiny.gguf"))
    wanted = naive_logits(family, TOKENS)
    for exact in (True, False):
        arena = Arena(found.config, 2, 64, torch.float32)
        with torch.inference_mode():
            plan = TensorPlan([Span(0, 0, 13)], arena, found.config, exact)
            found.forward(TOKENS[:13], plan, [])
            plan = TensorPlan([Span(0, 13, 1), Span(1, 0, 9)], arena, found.config, exact, 1)
            both = found.forward([*TOKENS[13:14], *TOKENS[:9]], plan, list(range(10)))
        torch.testing.assert_close(both[0], wanted[13], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(both[1:], wanted[:9], atol=1e-4, rtol=1e-4)


PUBLISHED: dict[str, dict[str, object]] = {
    "mistral": {"model_type": "mistral", "sliding_window": 6},
    "gemma": {"model_type": "gemma", "hidden_act": "gelu"},
    "gemma2": {
        "model_type": "gemma2",
        "sliding_window": 6,
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
        "query_pre_attn_scalar": 32,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "sliding_window": 6,
        "sliding_window_pattern": 2,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_local_base_freq": 500.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "query_pre_attn_scalar": 32,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_family_is_the_same_as_its_makers_publish_it(name: str, tmp_path: Path) -> None:
    """Other names, norms without the one that is added to them, rotary halves in order."""
    family = FAMILIES[name]
    offset = 1.0 if name.startswith("gemma") else 0.0
    found = {}
    for own, array_ in family.weights().items():
        tensor = torch.from_numpy(array_)
        if ".attn_q.weight" in own or ".attn_k.weight" in own:
            tensor = _halves(tensor, family)
        found[_hf_name(own, name)] = tensor - offset if "norm" in own else tensor
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({key: one.contiguous() for key, one in found.items()}, str(path))
    stated = {
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "intermediate_size": FEED,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": family.head_dim,
        "vocab_size": len(vocabulary()),
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        **PUBLISHED[name],
    }
    (tmp_path / "config.json").write_text(json.dumps(stated))
    how = cutting("qwen2")
    assert how is not None
    words = {word: index for index, word in enumerate(vocabulary())}
    (tmp_path / "tokenizer.json").write_text(_core(words, [], how, path).to_str())
    with torch.inference_mode():
        ours = logits(decoder(path), [7, 6, 1, 1, 5], exact=True)
    torch.testing.assert_close(ours, naive_logits(family, TOKENS), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
def test_text_does_not_depend_on_how_work_is_cut(name: str, tmp_path: Path) -> None:
    """Longer than the windows: in pieces, one after another, and from what was computed before."""
    path = FAMILIES[name].write(tmp_path / "tiny.gguf")
    options = LoadOptions(path, "a" * 64, tmp_path, True, lambda done, total: None)
    found, source = load(options)

    def engine(**limits: int) -> Engine:
        kept = EngineOptions(replace(LIMITS, **limits), True, torch.float32)
        return Engine(found, source.codec, kept, SystemClock())

    asked = [
        ask(str(number), prompt, temperature=2.0, seed=number, max_tokens=30)
        for number, prompt in enumerate(PROMPTS)
    ]

    def said(by: Engine) -> dict[str, str]:
        return {name: done.text for name, done in drain(by, *asked).items()}

    warm = engine()
    wanted = said(warm)
    assert len(set(wanted.values())) > 1
    assert said(warm) == wanted
    assert warm.counters.cached_tokens > 0
    for limits in ({"step_tokens": 5}, {"slots": 1, "step_tokens": 17}):
        assert said(engine(**limits)) == wanted


def test_the_fast_setting_keeps_to_the_family(tmp_path: Path) -> None:
    """Eight bits a weight: near, and nearer than to the same weights under another family."""
    family = FAMILIES["gemma3"]
    found = decoder(family.write(tmp_path / "tiny.gguf"), reference=False)
    with torch.inference_mode():
        near = logits(found, [9, 11], exact=False)
    wanted = naive_logits(family, TOKENS)
    assert (near - wanted).abs().mean() < 0.1 * wanted.std()


def test_the_fast_setting_reads_blocks_of_a_family(tmp_path: Path) -> None:
    """GELU is not the kernels' own; answers and prompts go by different products."""
    path = tmp_path / "blocks.gguf"
    write_model(path, metadata("gemma", 32), tensors("gemma", 1, 32), ("Q8_0",))
    exact, fast = decoder(path), decoder(path, reference=False)
    with torch.inference_mode():
        wanted = logits(exact, [20], exact=True)
        for answering in (0, 20):
            arena = Arena(fast.config, 2, 64, torch.float32)
            plan = TensorPlan([Span(0, 0, 20)], arena, fast.config, False, answering)
            near = fast.forward(TOKENS, plan, list(range(20)))
            assert (near - wanted).abs().mean() < 0.1 * wanted.std()


def test_the_compiled_kernels_are_left_where_they_cannot_attend(tmp_path: Path) -> None:
    plain = open_weights(FAMILIES["qwen2"].write(tmp_path / "a.gguf")).config
    windowed = open_weights(FAMILIES["mistral"].write(tmp_path / "b.gguf")).config
    capped = open_weights(FAMILIES["gemma2"].write(tmp_path / "c.gguf")).config
    have = attending_kernels(CPU, plain, 4096)
    assert attending_kernels(CPU, windowed, 4096) is None
    assert attending_kernels(CPU, windowed, 6) is have
    assert attending_kernels(CPU, capped, 6) is None
    assert attending_kernels(CPU, replace(plain, query_scale=0.3), 6) is None


def test_the_largest_gemma_scales_by_what_its_file_does_not_say(tmp_path: Path) -> None:
    for layers, wanted in ((2, 0.0), (46, (64 / 4) ** -0.5)):
        path = tmp_path / "deep.gguf"
        write_model(path, metadata("gemma2", 32, layers), tensors("gemma2", 1, 32))
        assert open_weights(path).config.query_scale == wanted


GEMMA3 = {
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "hidden_size": 64,
    "head_dim": 32,
    "num_hidden_layers": 6,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 4096,
    "rope_theta": 1e6,
    "sliding_window": 512,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 16,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def stated(**changed: object) -> ModelConfig:
    document = {**GEMMA3, **changed}
    return from_document(document, Path("model.safetensors"))


def test_a_config_json_states_what_its_family_leaves_out() -> None:
    found = stated()
    assert found.windowed == (True,) * 5 + (False,)
    assert (found.window, found.window_rope_base, found.query_scale) == (512, 10_000.0, 0.25)
    assert (found.norm_offset, found.embedding_scale, found.gelu) == (1.0, 8.0, True)
    plain = {"hidden_activation": None, "query_pre_attn_scalar": None}
    mistral = stated(model_type="mistral", **plain)
    assert mistral.windowed == (True,) * 6
    assert stated(model_type="mistral", **plain | {"sliding_window": None}).window == 0
    qwen = stated(model_type="qwen2", **plain)
    assert (qwen.window, qwen.gelu, qwen.embedding_scale) == (0, False, 1.0)
    assert stated(model_type="gemma2").windowed == (True, False) * 3


def test_llama_3_stretches_slow_frequencies_and_no_fast_ones() -> None:
    plain = {"hidden_activation": None, "query_pre_attn_scalar": None, "sliding_window": None}
    found = stated(model_type="llama", rope_scaling=LLAMA3, **plain)
    assert found.rope_stretch is not None
    # 8192 tokens are 1 and 4 turns at these rates; between them the share grows evenly.
    turn = 2 * torch.pi / 8192
    divisors = found.rope_stretch.divisors([0.5 * turn, turn, 2.5 * turn, 4 * turn, 1.0])
    assert divisors == pytest.approx([8, 8, 1 / (0.5 / 8 + 0.5), 1, 1])


@pytest.mark.parametrize(
    "changed",
    [
        {"model_type": "gemma3"},
        {"model_type": "llama"},  # with GELU
        {"hidden_activation": "relu"},
        {"partial_rotary_factor": 0.5},
        {"query_pre_attn_scalar": 0},
        {"layer_types": ["full_attention"]},
        {"layer_types": ["chunked_attention"] * 6},
        {"rope_scaling": {"type": "yarn", "factor": 4.0}},
        {"rope_scaling": {"rope_type": "linear"}},
        {"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}},
        {"rope_scaling": [8.0]},
        {"rope_parameters": "linear"},
        {"rope_parameters": {"full_attention": 3}},
        {"num_attention_heads": 0},
        {"num_hidden_layers": 1e9},
        {"head_dim": "32"},
        {"final_logit_softcapping": float("nan")},
    ],
    ids=str,
)
def test_a_config_json_that_is_not_computed_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ModelFileError):
        stated(**changed)


def test_a_prompt_begins_once_whoever_writes_it(tmp_path: Path) -> None:
    """A vocabulary of SentencePiece's in a whole engine; its template may write <s> or not."""
    path = tiny_spm(tmp_path / "tiny.gguf")
    options = LoadOptions(path, "a" * 64, tmp_path, True, lambda done, total: None)
    found, source = load(options)
    engine = Engine(found, source.codec, EngineOptions(LIMITS, True, torch.float32), SystemClock())
    asked = [
        ask("bare", segments=[Segment("ab c")]),
        ask("written", segments=[Segment("<s>", True), Segment("ab"), Segment(" c")]),
    ]
    done = drain(engine, *asked)
    assert {one.prompt_tokens for one in done.values()} == {4}  # <s> ▁ab ▁ c
    assert len({one.text for one in done.values()}) == 1


REFUSED = {
    "yarn": ("llama", [key("llama.rope.scaling.type", 8, text("yarn"))]),
    "partly rotated": ("llama", [number("llama.rope.dimension_count", 8)]),
    "values of another width": ("llama", [number("llama.attention.value_length", 8)]),
    "experts": ("llama", [number("llama.expert_count", 8)]),
    "negative cap": ("gemma2", [real("gemma2.attn_logit_softcapping", -1.0)]),
    "infinite factor": (
        "llama",
        [
            key("llama.rope.scaling.type", 8, text("linear")),
            real("llama.rope.scaling.factor", float("inf")),
        ],
    ),
    "window of text": ("llama", [key("llama.attention.sliding_window", 8, text("6"))]),
    "another family": ("rwkv", []),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_computed_is_refused(name: str, tmp_path: Path) -> None:
    architecture, keys = REFUSED[name]
    path = tmp_path / "bad.gguf"
    stated = [one for one in metadata(architecture) if b"value_length" not in one]
    write_model(path, stated + keys, tensors(architecture, 1))
    with pytest.raises(ModelFileError):
        open_weights(path)


def test_weights_that_are_no_numbers_end_requests_with_a_typed_error(tmp_path: Path) -> None:
    """Eight-bit weights are never made of them; as floats or blocks they show in the answer."""
    weights = tensors("llama", 1)
    weights["blk.1.ffn_down.weight"][3, 5] = np.nan
    path = write_model(tmp_path / "tiny.gguf", metadata("llama"), weights)
    with pytest.raises(ModelFileError, match="no number"):
        decoder(path, reference=False)
    options = LoadOptions(path, "a" * 64, tmp_path, True, lambda done, total: None)
    found, source = load(options)
    engine = Engine(found, source.codec, EngineOptions(LIMITS, True, torch.float32), SystemClock())
    engine.submit(ask("a"))
    messages = [message for _ in range(9) for message in engine.step()]
    assert [one.code for one in messages if isinstance(one, Failed)] == ["model_numbers"]
    assert not engine.busy
