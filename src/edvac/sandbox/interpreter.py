"""What Python itself needs of the host to run inside: its binaries and libraries, and no more."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from pathlib import Path

from edvac.sandbox.bubblewrap import Grant

_PARTS = ("bin", "lib", "lib64", "pyvenv.cfg")


@functools.cache
def interpreter() -> tuple[Grant, ...]:
    """Grants for the running interpreter and its packages, read-only. What lies beside them in the
    same directory (a project around its own environment) stays outside."""
    wanted = {sys.executable, os.path.realpath(sys.executable)}
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        wanted |= {str(Path(prefix) / part) for part in _PARTS if (Path(prefix) / part).exists()}
    wanted |= {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found: list[str] = []
    for path in sorted(wanted):
        if not any(path.startswith(f"{above}/") for above in ("/usr", *found)):
            found.append(path)
    return tuple(Grant(Path(path), path) for path in found if Path(path).exists())
