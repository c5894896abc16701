"""llama.cpp's server (xllamacpp) over one model and perhaps an adapter, until standard input ends.

Usage where xllamacpp is installed: python llamacpp_peer.py MODEL [ADAPTER]; prints its address.
"""

from __future__ import annotations

import sys

import xllamacpp as xlc

params = xlc.CommonParams()
params.model.path = sys.argv[1]
if len(sys.argv) > 2:
    params.lora_adapters = [xlc.CommonAdapterLoraInfo(sys.argv[2], 1.0)]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.n_parallel, params.n_ctx, params.port = 1, 512, 0
server = xlc.Server(params)
sys.stdout.write(f"\n{server.listening_address}\n")
sys.stdout.flush()
sys.stdin.read()
