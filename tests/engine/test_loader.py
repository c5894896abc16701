"""One model, however its weights are stored and whatever the processor can multiply."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from edvac.core.seams import SystemClock
from edvac.engine import mapped
from edvac.engine.attention import CPU
from edvac.engine.digest import file_digest, note_path
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.linear import Int8Product, Packed, PlainProduct, Rows, int8_works
from edvac.engine.loader import LoadOptions, cache_path, load
from edvac.engine.model import Decoder
from edvac.engine.pretokenizer import cutting
from edvac.engine.tokenizer import _core
from edvac.engine.weights import WeightSource, _hf_name, open_weights

from .test_engine import LIMITS, PROMPTS, ask, drain
from .tiny import (
    FEED,
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    LAYERS,
    MERGES,
    SPECIALS,
    WIDTH,
    tensors,
    vocabulary,
)


def options(path: Path, cache: Path, reference: bool, **more: object) -> LoadOptions:
    digest = file_digest(path)
    return LoadOptions(path, digest, cache, reference, lambda done, total: None, **more)  # type: ignore[arg-type]


def answers(
    loaded: tuple[Decoder, WeightSource], exact: bool, device: torch.device = CPU
) -> list[tuple[str, int]]:
    decoder, source = loaded
    kind = torch.float32 if exact else torch.float16
    engine_options = EngineOptions(LIMITS, exact, kind, device=device)
    engine = Engine(decoder, source.codec, engine_options, SystemClock())
    asked = [ask(str(n), text, max_tokens=30) for n, text in enumerate(PROMPTS)]
    found = drain(engine, *asked)
    return [(found[one.id].text, found[one.id].prompt_tokens) for one in asked]


def write_safetensors(folder: Path, tiny: Path) -> Path:
    """The tiny model as its makers would publish it."""
    weights = {
        _hf_name(name, "qwen2"): torch.from_numpy(value)
        for name, value in tensors("qwen2", 1).items()
    }
    safetensors.torch.save_file(weights, str(folder / "model.safetensors"))
    words = vocabulary()
    config = {
        "model_type": "qwen2",
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "intermediate_size": FEED,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": len(words),
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "eos_token_id": words.index(SPECIALS[0]),
    }
    (folder / "config.json").write_text(json.dumps(config))
    how = cutting("qwen2")
    assert how is not None
    plain = {word: index for index, word in enumerate(words) if word not in SPECIALS}
    document = json.loads(_core(plain, MERGES, how, tiny).to_str())
    document["added_tokens"] = [
        {"id": words.index(word), "content": word, "special": True} for word in SPECIALS
    ]
    (folder / "tokenizer.json").write_text(json.dumps(document))
    template = {"chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(template))
    return folder / "model.safetensors"


@pytest.mark.parametrize("exact", [True, False], ids=["reference", "fast"])
def test_safetensors_and_gguf_give_the_same_text(tiny: Path, tmp_path: Path, exact: bool) -> None:
    path = write_safetensors(tmp_path, tiny)
    loaded = load(options(path, tmp_path / "one", exact))
    assert loaded[1].template == "{{ messages }}"
    wanted = answers(load(options(tiny, tmp_path / "other", exact)), exact)
    assert answers(loaded, exact) == wanted
    assert len({text for text, _ in wanted}) > 1


def test_weights_in_place_and_copied_give_the_same_text(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = answers(load(options(tiny, tmp_path, False)), False)
    owners = {type(p._packed.owner) for p in _products(load(options(tiny, tmp_path, False))[0])}
    assert owners == {mapped.Mapping}
    monkeypatch.setattr(Packed, "works", lambda self: False)
    refused = load(options(tiny, tmp_path, False))
    assert {p._packed.owner for p in _products(refused[0])} == {None}
    assert answers(refused, False) == wanted
    monkeypatch.undo()
    monkeypatch.setattr(mapped, "_creator", lambda: None)
    absent = load(options(tiny, tmp_path, False))
    assert {p._packed.owner for p in _products(absent[0])} == {None}
    assert answers(absent, False) == wanted


def _products(decoder: Decoder) -> list[Int8Product]:
    layers = [getattr(layer, part) for layer in decoder.layers for part in ("qkv", "gate_up")]
    assert all(isinstance(one, Int8Product) for one in layers)
    return layers


def test_what_was_let_go_is_read_again(tiny: Path) -> None:
    source = open_weights(tiny)
    before = source.tensor("token_embd.weight").clone(), source.embedding([3, 1])
    source.let_go()
    assert torch.equal(source.tensor("token_embd.weight"), before[0])
    assert torch.equal(source.embedding([3, 1]), before[1])


def test_caches_of_older_formats_are_removed(tiny: Path, tmp_path: Path) -> None:
    wanted = options(tiny, tmp_path, False)
    old = tmp_path / f"{wanted.digest[:24]}.v1.int8.safetensors"
    old.write_bytes(b"old")
    other = tmp_path / f"{'0' * 24}.v1.int8.safetensors"
    other.write_bytes(b"another model's")
    load(wanted)
    assert not old.exists()
    assert other.exists()
    assert cache_path(wanted).exists()


def test_without_the_8_bit_product_weights_stay_floats(tiny: Path, tmp_path: Path) -> None:
    loaded = load(options(tiny, tmp_path, False, int8=lambda: False))
    assert all(isinstance(layer.down, PlainProduct) for layer in loaded[0].layers)
    assert not cache_path(options(tiny, tmp_path, False)).exists()
    exact = answers(load(options(tiny, tmp_path, True)), True)
    found = answers(loaded, False)
    assert [count for _, count in found] == [count for _, count in exact]
    assert all(text for text, _ in found)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_plain_products_are_products(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, bias, values = torch.randn(24, 16), torch.randn(24), torch.randn(3, 16)
    found = PlainProduct(weight, bias, kind)(Rows(values))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, values @ weight.T + bias, atol=0.1, rtol=0.02)


def test_the_probe_notices_a_missing_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert int8_works()

    def missing(*_: object) -> torch.Tensor:
        raise NotImplementedError("no kernel")

    monkeypatch.setattr("edvac.engine.linear.qlinear", missing)
    assert not int8_works()
    monkeypatch.setattr("edvac.engine.linear.qlinear", lambda *_: torch.zeros(4, 32))
    assert not int8_works()


NOTES = [b"", b"{}", b'{"size":1', b'{"sha256":"\xcf"}', b'{"source":"\xcf"}']


@pytest.mark.parametrize("damage", NOTES)
def test_notes_that_are_damaged_are_made_again(tiny: Path, tmp_path: Path, damage: bytes) -> None:
    """The hash beside a model, and what stands beside its repacked weights."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny.read_bytes())
    digest = file_digest(path)
    note_path(path).write_bytes(damage)
    assert file_digest(path) == digest
    wanted = options(path, tmp_path / "cache", False)
    load(wanted)
    note = cache_path(wanted).with_suffix(".json")
    whole = note.read_bytes()
    note.write_bytes(damage)
    load(wanted)
    assert note.read_bytes() == whole
