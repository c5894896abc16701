"""Compares the reference setting with llama.cpp on a tiny GGUF file of every family, with adapters.

Run by hand: ``python -m tests.engine.compare_llamacpp PYTHON``, that of an environment which holds
xllamacpp. It is what says that GGUF's keys and names are read as llama.cpp means them; the logits
that transformers computes are compared by `compare_families`. llama.cpp computes in half precision
here and there, so the twenty likeliest tokens' log-probabilities are close and not equal.
docs/benchmarks/reference.md keeps what came of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from edvac.engine.adapters import Adapted, read_adapter
from edvac.engine.attention import Arena, Span, TensorPlan

from . import tiny
from .families import FAMILIES, TOKENS
from .lora import matrices, write_gguf
from .test_families import decoder

TOLERANCE = 0.05
DEEP = 7  # layers: one that sees everything among windowed ones, where the family decides which
LIKELIEST = 20
# Half characters and special tokens show no text, and without text the peer tells nothing.
SILENT = [*range(128, 256), *range(len(tiny.vocabulary()) - 3, len(tiny.vocabulary()))]


def models(folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Names, files, and the width of a head."""
    for name in ("llama", "llama, stretched", "llama, linear", "qwen2", "qwen3", "gemma"):
        family = FAMILIES[name]
        yield name, family.write(folder / f"{name}.gguf"), family.head_dim
    more = {
        "gemma2": [
            tiny.real("gemma2.attn_logit_softcapping", 3.0),
            tiny.real("gemma2.final_logit_softcapping", 5.0),
        ],
        "gemma3": [
            tiny.key("gemma3.rope.scaling.type", 8, tiny.text("linear")),
            tiny.real("gemma3.rope.scaling.factor", 8.0),
        ],
    }
    for name, keys in more.items():
        window = tiny.number(f"{name}.attention.sliding_window", 6)
        whole = [*tiny.metadata(name, 32, DEEP), window, *keys]
        path = tiny.write_model(folder / f"{name}.gguf", whole, tiny.tensors(name, 3, 32, DEEP))
        yield name, path, 32


@contextmanager
def served(python: str, *files: Path) -> Iterator[str]:
    script = Path(__file__).with_name("llamacpp_peer.py")
    process = subprocess.Popen(
        [python, str(script), *map(str, files)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield next(line.strip() for line in process.stdout if line.startswith("http"))
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


def theirs(address: str) -> dict[int, float]:
    """Log-probabilities of the likeliest tokens after the text."""
    body = {
        "prompt": TOKENS,
        "n_predict": 1,
        "n_probs": LIKELIEST,
        "temperature": 0,
        "logit_bias": [[token, False] for token in SILENT],
    }
    wanted = urllib.request.Request(f"{address}/completion", json.dumps(body).encode())
    with urllib.request.urlopen(wanted) as reply:
        found = json.load(reply)["completion_probabilities"][0]["top_logprobs"]
    return {one["id"]: one["logprob"] for one in found}


def ours(model: Path, adapter: Path | None) -> torch.Tensor:
    base = decoder(model)
    arena = Arena(base.config, 1, 64, torch.float32)
    rows = list(range(len(TOKENS)))
    adapted = []
    if adapter is not None:
        adapted = [Adapted.on("cpu", read_adapter(adapter, base.config), rows)]
    plan = TensorPlan([Span(0, 0, len(TOKENS))], arena, base.config, True)
    with torch.inference_mode():
        found = base.forward(TOKENS, plan, rows[-1:], adapted)[0]
    return torch.log_softmax(found, 0)


def main() -> int:
    worst = 0.0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, model, head_dim in list(models(folder)):
            architecture = name.partition(",")[0]
            layers = DEEP if name in ("gemma2", "gemma3") else tiny.LAYERS
            found = matrices(1, head_dim, size=0.2, layers=layers)
            found = {key: array for key, array in found.items() if not key.startswith("output")}
            lora = write_gguf(folder / "lora.gguf", found, architecture, head_dim)
            for shown, adapter in ((name, None), (f"{name}, adapter", lora)):
                with served(sys.argv[1], *filter(None, (model, adapter))) as address:
                    peer = theirs(address)
                mine = ours(model, adapter)
                apart = max(abs(value - float(mine[token])) for token, value in peer.items())
                sys.stdout.write(f"{shown}: log-probabilities differ by at most {apart:.2g}\n")
                sys.stdout.flush()
                worst = max(worst, apart)
    sys.stdout.write(f"{worst:.2g} at most\n")
    return 0 if worst < TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
