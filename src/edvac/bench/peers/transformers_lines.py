"""transformers on torch, asked over standard input like `openvino_lines.py`; one at a time.

Usage: python transformers_lines.py MODEL.gguf THREADS
The file's weights are made bfloat16, which is what this library computes with on CPUs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer


class _First(BaseStreamer):
    """Tells of the first token that is written; the prompt comes before it."""

    def __init__(self, name: int) -> None:
        self._name, self._count = name, 0

    def put(self, value: Any) -> None:
        self._count += 1
        if self._count == 2:
            _say({"id": self._name, "first": True})

    def end(self) -> None:
        pass


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(int(sys.argv[2]))
    path = Path(sys.argv[1])
    named: dict[str, Any] = {"gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **named)
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.bfloat16, **named)
    model.eval()
    _say({"ready": True})
    for line in sys.stdin:
        one = json.loads(line)
        prompt = tokenizer(one["prompt"], return_tensors="pt")
        size = prompt.input_ids.shape[1]
        found = model.generate(
            **prompt,
            max_new_tokens=one["tokens"],
            do_sample=False,
            streamer=_First(one["id"]),
            pad_token_id=tokenizer.eos_token_id,
        )[0, size:]
        text = tokenizer.decode(found, skip_special_tokens=True)
        _say({"id": one["id"], "prompt": size, "tokens": len(found), "text": text})


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


main()
