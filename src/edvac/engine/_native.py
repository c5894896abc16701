"""The one door to the compiled kernels (`edvac-native`); without them its users do without.

`EDVAC_KERNELS` names the best instruction set to use (``avx512``, ``avxvnni``, ``avx2``), or is
``none``: how benchmarks and tests compare them.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Final

SETTING: Final = "EDVAC_KERNELS"
KINDS: Final = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"})
HEAD_STEP: Final = 16  # attention takes heads whose width is a multiple


def kernels() -> ModuleType | None:
    """The kernels, or None: not installed, not wanted, or not for this processor."""
    wanted = os.environ.get(SETTING, "")
    if wanted == "none":
        return None
    try:
        import edvac_native
    except ImportError:
        return None
    if wanted:
        edvac_native.use_level(wanted)
    return edvac_native if edvac_native.level() else None
