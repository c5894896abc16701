"""Compares the reference setting with transformers on a tiny random model of every family.

Run by hand where transformers and peft are: ``python -m tests.engine.compare_families``. Each model
is written as GGUF and, by transformers itself, as safetensors with its config.json, once as this
version of transformers writes that and once as older ones did; edvac reads all three. Logits after
every token are compared. docs/benchmarks/reference.md keeps what came of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from edvac.engine.adapters import Adapted, read_adapter
from edvac.engine.attention import Arena, Span, TensorPlan
from edvac.engine.pretokenizer import cutting
from edvac.engine.tokenizer import _core
from edvac.engine.weights import _hf_name

from .families import FAMILIES, TOKENS, Family, _halves
from .test_families import decoder, logits
from .tiny import FEED, HEADS, KV_HEADS, LAYERS, WIDTH, vocabulary

TOLERANCE = 1e-4
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_WINDOWS = ["sliding_attention", "full_attention"]
_CAPS = {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0}

# What transformers calls each; the last names the settings that older versions wrote otherwise.
PEERS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", "Llama", {}, {"rope_theta": 10_000.0}),
    "llama, llama3 rope": (
        "llama",
        "Llama",
        {"rope_parameters": LLAMA3},
        {"rope_theta": 10_000.0, "rope_scaling": LLAMA3},
    ),
    "llama, linear": (
        "llama, linear",
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}},
        {"rope_theta": 10_000.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
    ),
    "mistral": ("mistral", "Mistral", {"sliding_window": 6}, {"rope_theta": 10_000.0}),
    "qwen2": ("qwen2", "Qwen2", {}, {"rope_theta": 10_000.0}),
    "qwen3": ("qwen3, wide heads", "Qwen3", {}, {"rope_theta": 10_000.0}),
    "gemma": ("gemma", "Gemma", {}, {"rope_theta": 10_000.0}),
    "gemma2": (
        "gemma2",
        "Gemma2",
        {**_CAPS, "sliding_window": 6, "layer_types": _WINDOWS, "query_pre_attn_scalar": 32},
        {"rope_theta": 10_000.0, "layer_types": None},
    ),
    "gemma2, another scale": (
        "",
        "Gemma2",
        {**_CAPS, "sliding_window": 6, "layer_types": _WINDOWS, "query_pre_attn_scalar": 24},
        {"rope_theta": 10_000.0},
    ),
    "gemma3": (
        "gemma3",
        "Gemma3",
        {
            "sliding_window": 6,
            "layer_types": _WINDOWS,
            "query_pre_attn_scalar": 32,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 8.0},
            },
        },
        {
            "rope_theta": 10_000.0,
            "rope_local_base_freq": 500.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
}


def peer(name: str, settings: dict[str, Any], family: Family) -> Any:
    """transformers' model with the weights of ours."""
    sub = f"{name}Text" if name == "Gemma3" else name
    config = getattr(transformers, f"{sub}Config")(
        vocab_size=len(vocabulary()),
        hidden_size=WIDTH,
        intermediate_size=FEED,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=family.head_dim,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        attn_implementation="eager",
        dtype=torch.float32,
        **settings,
    )
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    state = {}
    offset = 1.0 if name.startswith("Gemma") else 0.0
    for own, array in family.weights().items():
        tensor = torch.from_numpy(array)
        if ".attn_q.weight" in own or ".attn_k.weight" in own:
            tensor = _halves(tensor, family)
        if "rope_freqs" not in own:
            called = _hf_name(own, family.architecture)
            state[called] = tensor - offset if "norm" in own else tensor
    left = model.load_state_dict(state, strict=False)
    assert set(left.missing_keys) <= {"lm_head.weight"} and not left.unexpected_keys, left
    return model


def compare(folder: Path, name: str) -> float:
    """The largest difference of a logit, of all ways in which the model can be read."""
    written, called, settings, older = PEERS[name]
    family = FAMILIES[written or name.partition(",")[0]]
    model = peer(called, settings, family)
    with torch.inference_mode():
        wanted = model(torch.tensor([TOKENS])).logits[0]
    model.save_pretrained(folder)
    how = cutting("qwen2")
    assert how is not None
    words = {word: index for index, word in enumerate(vocabulary())}
    (folder / "tokenizer.json").write_text(_core(words, [], how, folder).to_str())
    found = [folder / "model.safetensors"]
    stated = json.loads((folder / "config.json").read_text())
    stated.pop("rope_parameters")
    old = folder / "old"
    old.mkdir()
    (old / "config.json").write_text(json.dumps(stated | older))
    for file in ("model.safetensors", "tokenizer.json"):
        (old / file).symlink_to(folder / file)
    found.append(old / "model.safetensors")
    if written and name != "llama, llama3 rope":
        found.append(family.write(folder / "tiny.gguf"))
    worst = 0.0
    for path in found:
        ours = decoder(path)
        with torch.inference_mode():
            for cuts in ([20], [7, 6, 1, 1, 5]):
                worst = max(worst, float((logits(ours, cuts, True) - wanted).abs().max()))
    return worst


def compare_adapter(folder: Path, name: str, **settings: Any) -> float:
    """The same under a random LoRA adapter on every product, which PEFT itself writes."""
    written, called, more, _ = PEERS[name]
    family = FAMILIES[written]
    torch.manual_seed(1)
    wanted = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules="all-linear", init_lora_weights=False, **settings
    )
    model = peft.get_peft_model(peer(called, more, family), wanted).eval()
    with torch.inference_mode():
        theirs = model(input_ids=torch.tensor([TOKENS])).logits[0]
    model.save_pretrained(folder / "adapter")
    base = decoder(family.write(folder / "tiny.gguf"))
    adapter = read_adapter(folder / "adapter", base.config)
    arena = Arena(base.config, 1, 64, torch.float32)
    plan = TensorPlan([Span(0, 0, len(TOKENS))], arena, base.config, True)
    rows = list(range(len(TOKENS)))
    with torch.inference_mode():
        ours = base.forward(TOKENS, plan, rows, [Adapted.on("cpu", adapter, rows)])
    return float((ours - theirs).abs().max())


def main() -> int:
    worst = 0.0
    ways = dict.fromkeys(PEERS, compare)
    ways |= {
        f"{name}, adapter": compare_adapter for name in ("llama", "mistral", "qwen3", "gemma2")
    }
    for shown, way in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            apart = way(Path(folder), shown.removesuffix(", adapter"))
        sys.stdout.write(f"{shown}: logits differ by at most {apart:.2g}\n")
        worst = max(worst, apart)
    with tempfile.TemporaryDirectory() as folder:
        apart = compare_adapter(Path(folder), "qwen2", use_rslora=True)
    sys.stdout.write(f"qwen2, rank-stabilised adapter: logits differ by at most {apart:.2g}\n")
    worst = max(worst, apart)
    sys.stdout.write(f"transformers {transformers.__version__}: {worst:.2g} at most\n")
    return 0 if worst < TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
