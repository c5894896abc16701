"""Compares every kind of block that a GGUF file may hold with the gguf package's own decoding.

Run by hand where gguf is installed: ``python -m tests.engine.compare_quants``.
"""

from __future__ import annotations

import sys

import gguf
import numpy as np

from edvac.engine.gguf import BLOCK_TYPES
from edvac.engine.quants import dequantise

from .tiny import random_blocks

ROWS, WIDTH = 64, 1024


def main() -> int:
    worst = 0.0
    for number, kind in BLOCK_TYPES.items():
        raw = random_blocks(kind.name, ROWS, WIDTH)
        if kind.items == 1:
            whole = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype("<f4")
            raw = gguf.quants.quantize(whole, gguf.GGMLQuantizationType(number)).view(np.uint8)
        ours = dequantise(memoryview(raw.reshape(-1)), kind, (ROWS, WIDTH))
        shaped = raw.reshape(ROWS, -1)
        peer = gguf.quants.dequantize(shaped, gguf.GGMLQuantizationType(number))
        apart = float(np.abs(ours - peer.reshape(ROWS, WIDTH)).max() / np.abs(ours).max())
        sys.stdout.write(f"{kind.name}: {apart:.2g} of the largest number apart\n")
        worst = max(worst, apart)
    return 0 if worst < 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
