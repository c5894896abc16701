"""The one door to the compiled kernels (`edvac-native`); without them its users do without.

The setting `kernels` reaches an engine as this variable of its environment: the best instruction
set to use, or ``none``.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Final

from edvac.core.errors import ConfigError

SETTING: Final = "EDVAC_KERNELS"
KINDS: Final = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"})
API: Final = 3  # the calls that are made here; kernels of another number are not used
ROW_STEP: Final = 16  # they take rows whose width is a multiple
HEAD_STEP: Final = 16  # and attend with such heads


def kernels() -> ModuleType | None:
    """The kernels, or None: not installed or of another version, not wanted, or not for this
    processor.

    Raises:
        ConfigError: others are wanted than the processor has.
    """
    wanted = os.environ.get(SETTING, "")
    if wanted == "none":
        return None
    try:
        import edvac_native
    except ImportError:
        return None
    if getattr(edvac_native, "API", 0) != API:
        return None
    if wanted:
        try:
            edvac_native.use_level(wanted)
        except RuntimeError as problem:
            raise ConfigError(
                "kernels_absent",
                f"there are no kernels for {wanted} here",
                f"This processor offers {edvac_native.level() or 'none that they know'}.",
                "Leave the setting `kernels` empty, or say none.",
            ) from problem
    return edvac_native if edvac_native.level() else None
