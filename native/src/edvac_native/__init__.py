"""Products straight from the quantised blocks of a GGUF file, compiled for the processor at hand.

edvac reaches it through `edvac.engine._native` and does without where it is not installed.
"""

from edvac_native._kernels import (
    Matrix,
    Rows,
    Stored,
    attend,
    encode,
    level,
    multiply,
    pack,
    rows,
    stored,
    use_level,
)

API = 3  # raised whenever a call changes; edvac does without kernels of another number

__all__ = [
    "API", "Matrix", "Rows", "Stored", "attend", "encode", "level", "multiply", "pack", "rows",
    "stored", "use_level",
]  # fmt: skip
