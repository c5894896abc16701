"""llama.cpp's server (xllamacpp) until standard input ends.

Usage: python llamacpp_server.py MODEL THREADS SLOTS; prints its address on the last line.
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
    server = xlc.Server(params)
    sys.stdout.write(f"\n{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


main()
