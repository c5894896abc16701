"""Data of others that benchmarks read where they lie; none of it is part of edvac."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edvac.core.errors import UsageError

VARIABLE: Final = "EDVAC_DATA"
_BESIDE: Final = Path("../shared/data")


def root() -> Path:
    """The directory of external data, whether it is there or not."""
    return Path(os.environ.get(VARIABLE) or _BESIDE)


def data(name: str) -> Path:
    """A folder of external data, from the directory that the variable names, or the usual one.

    Raises:
        UsageError: it is not there.
    """
    if (root() / name).exists():
        return root() / name
    raise UsageError(
        "bench_data",
        f"the data {name!r} are not there",
        f"They were looked for in {root()}.",
        f"Set {VARIABLE} to the directory that holds them.",
    )
