"""OpenVINO GenAI, asked over standard input: a JSON object a line, answers the same way.

Usage: python openvino_lines.py MODEL.gguf THREADS
In:  {"id": 1, "prompt": "...", "tokens": 64}
Out: {"ready": true}, then for each request {"id": 1, "first": true} and at its end
     {"id": 1, "prompt": 512, "tokens": 64, "text": "..."}
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from typing import Any

import openvino_genai as genai


def main() -> None:
    scheduling = genai.SchedulerConfig()
    scheduling.cache_size = 2  # GB
    scheduling.enable_prefix_caching = True
    scheduling.dynamic_split_fuse = True
    options = {"INFERENCE_NUM_THREADS": int(sys.argv[2])}
    pipeline = genai.ContinuousBatchingPipeline(sys.argv[1], scheduling, "CPU", options)
    tokenizer = pipeline.get_tokenizer()
    asked: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(asked,), daemon=True).start()
    _say({"ready": True})
    running: dict[int, tuple[Any, int, list[int], bool]] = {}
    while True:
        while not asked.empty() or not running:
            one = asked.get()
            if one is None:
                return
            config = genai.GenerationConfig()
            config.max_new_tokens = one["tokens"]
            tokens = tokenizer.encode(one["prompt"]).input_ids
            handle = pipeline.add_request(one["id"], tokens, config)
            running[one["id"]] = (handle, tokens.shape[1], [], False)
        pipeline.step()
        for name, (handle, prompt, found, told) in list(running.items()):
            while handle.can_read():
                for output in handle.read().values():
                    found += output.generated_ids
            if found and not told:
                _say({"id": name, "first": True})
                running[name] = (handle, prompt, found, True)
            if str(handle.get_status()).rpartition(".")[2] not in ("RUNNING", "WAITING"):
                text = tokenizer.decode(found)
                _say({"id": name, "prompt": prompt, "tokens": len(found), "text": text})
                del running[name]


def _read(asked: queue.Queue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        asked.put(json.loads(line))
    asked.put(None)


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


main()
