"""llama.cpp's server (xllamacpp) until standard input ends.

Usage: python llamacpp_server.py MODEL THREADS SLOTS [KV]; prints its address on the last line. KV
is the type of keys and values, f16, q8_0 or q4_0; where it is given attention is the flash
kernel's, which quantised values need.
"""

from __future__ import annotations

import sys

import xllamacpp as xlc


def main() -> None:
    params = xlc.CommonParams()
    params.model.path = sys.argv[1]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[2])
    params.n_parallel = int(sys.argv[3])
    params.n_ctx = 8192 * params.n_parallel
    params.port = 0
    params.use_jinja = True
    if len(sys.argv) > 4:
        kind = getattr(xlc.ggml_type, f"GGML_TYPE_{sys.argv[4].upper()}")
        params.cache_type_k = params.cache_type_v = kind
        params.flash_attn_type = xlc.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    server = xlc.Server(params)
    sys.stdout.write(f"\n{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


main()
