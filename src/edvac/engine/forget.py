"""Removes what engines keep of what they read: on disk, and in those that are running.

No torch, no waiting for answers: an engine that is busy does it after its step.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Final

from edvac.engine.protocol import Forget, Hello, encode

_PATTERNS: Final = ("*.spill", "*.spill.index", "*.prefix.safetensors")
_PATIENCE: Final = 1.0  # seconds


def forget(runtime: Path, cache: Path) -> None:
    """Every engine behind a socket in `runtime`, and every file of theirs in `cache`; what cannot
    be removed is left."""
    for path in runtime.glob("*.sock"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as talk:
            talk.settimeout(_PATIENCE)
            talk.connect(str(path))
            talk.sendall(encode(Hello()) + encode(Forget()))
            talk.shutdown(socket.SHUT_WR)
            while talk.recv(65_536):  # until it has been heard: later requests come after it
                pass
    for pattern in _PATTERNS:
        for path in cache.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()
