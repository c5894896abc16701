"""Compares the reference setting's greedy tokens with transformers' on twenty prompts.

Run by hand: ``python -m tests.engine.compare_reference MODEL.gguf`` where transformers and gguf
are installed; they are no dependency of edvac. The last line says how many prompts agree.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from edvac.core.seams import SystemClock
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.loader import LoadOptions, load
from edvac.engine.protocol import Done, Generate, Segment
from edvac.engine.scheduler import Limits

from .prompts import QUESTIONS, rendered

TOKENS = 24


def main() -> int:
    path = Path(sys.argv[1]).resolve()
    folder, name = str(path.parent), path.name
    peer = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    with tempfile.TemporaryDirectory() as cache:
        options = LoadOptions(path, "0" * 64, Path(cache), True, lambda done, total: None)
        decoder, source = load(options)
    limits = Limits(slots=20, context=512, step_tokens=256, kv_tokens=10_000)
    engine = Engine(
        decoder, source.codec, EngineOptions(limits, True, torch.float32), SystemClock()
    )
    answers: dict[str, str] = {}
    for number, question in enumerate(QUESTIONS):
        segments = [Segment(rendered(question), control=True)]
        engine.submit(Generate(id=str(number), segments=segments, max_tokens=TOKENS))
    while engine.busy:
        for message in engine.step():
            if isinstance(message, Done):
                answers[message.id] = message.text
    same_tokens = same_text = 0
    for number, question in enumerate(QUESTIONS):
        ids = tokenizer(rendered(question), add_special_tokens=False).input_ids
        same_tokens += ids == source.codec.encode(rendered(question), control=True)
        with torch.inference_mode():
            found = peer.generate(
                torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False, use_cache=True
            )
        text = tokenizer.decode(found[0][len(ids) :], skip_special_tokens=True)
        same_text += text == answers[str(number)]
        if text != answers[str(number)]:
            sys.stdout.write(f"{question!r}\n  peer {text!r}\n  ours {answers[str(number)]!r}\n")
    sys.stdout.write(f"prompts encoded alike {same_tokens}/20, answers alike {same_text}/20\n")
    return 0 if same_text == len(QUESTIONS) else 1


if __name__ == "__main__":
    sys.exit(main())
