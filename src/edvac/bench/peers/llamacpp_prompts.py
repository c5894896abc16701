"""llama.cpp (xllamacpp): same prompts, weights and threads, one by one under a JSON schema.

Usage: python llamacpp_prompts.py MODEL THREADS REQUESTS.json

REQUESTS is a list of {"prompt", "schema", "max_tokens"}; the prompt holds the chat template's
text already.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import xllamacpp as xlc


def main() -> None:
    model, threads, file = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    requests = json.loads(file.read_text(encoding="utf-8"))
    params = xlc.CommonParams()
    params.model.path = model
    params.n_ctx = 8192
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.warmup = True
    server = xlc.Server(params)
    found = []
    start = time.perf_counter()
    for request in requests:
        body = {
            "prompt": request["prompt"],
            "max_tokens": request["max_tokens"],
            "n_predict": request["max_tokens"],
            "temperature": 0.0,
            "cache_prompt": True,
        }
        if request.get("schema"):
            body["json_schema"] = request["schema"]
        answer = server.handle_completions(body)
        found.append(answer if isinstance(answer, dict) else json.loads(answer))
    seconds = time.perf_counter() - start
    tokens = sum(one.get("usage", {}).get("completion_tokens", 0) for one in found)
    texts = [one["choices"][0]["text"] for one in found if one.get("choices")]
    sys.stdout.write("\n" + json.dumps({"seconds": seconds, "tokens": tokens, "texts": texts}))


main()
