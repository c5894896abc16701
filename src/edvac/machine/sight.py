"""What the planner may see of the input files while a program is tried: `compiler/trial.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edvac.core.errors import DeviceError
from edvac.device import Roots

MAX_TEXT = 256 * 1024  # bytes of a file that are looked at; a JSON document is looked at whole
MAX_JSON = 1024 * 1024


class FileSight:
    """The files below the input directories, read and never changed.

    Args:
        roots: as a run has them.
    """

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = dict(roots)

    def names(self, pattern: str) -> Sequence[str]:
        with Roots(self._roots) as roots:
            try:
                return [path for path, _ in roots.matching(pattern).found]
            except DeviceError:
                return []

    def text(self, path: str) -> str | None:
        whole = path.endswith(".json")
        with Roots(self._roots) as roots:
            try:
                data = roots.beginning(path, MAX_JSON if whole else MAX_TEXT)
                cut = len(data) < roots.stat(path).size
            except DeviceError:
                return None
        if cut:
            data = b"" if whole else data[: data.rfind(b"\n") + 1]
        try:
            return data.decode() or None
        except UnicodeDecodeError:
            return None
