"""Products straight from the quantised blocks of a GGUF file, compiled for the processor at hand.

edvac reaches it through `edvac.engine._native` and does without where it is not installed.
"""

from edvac_native._kernels import (
    Matrix,
    Rows,
    attend,
    encode,
    level,
    multiply,
    pack,
    rows,
    use_level,
)

__all__ = [
    "Matrix", "Rows", "attend", "encode", "level", "multiply", "pack", "rows", "use_level",
]  # fmt: skip
