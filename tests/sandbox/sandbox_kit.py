"""Is bubblewrap here? Asked of the system itself, not of edvac: a fault in edvac's own probe must
fail tests, not skip them."""

from __future__ import annotations

import asyncio
import functools
import shutil
import subprocess
from typing import Any

import pytest

from edvac.sandbox import Completed, Spec, run


@functools.cache
def missing() -> str:
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"bubblewrap is refused here: {done.stderr.strip()}"


def skip_without_bubblewrap(item: pytest.Item) -> None:
    if item.get_closest_marker("sandbox") and missing():
        pytest.skip(f"needs bubblewrap and user namespaces: {missing()}")


def inside(script: str, **more: Any) -> Completed:
    """A shell script in the sandbox."""
    return asyncio.run(run(Spec(("/bin/sh", "-c", script), **{"timeout_s": 20.0} | more)))


def outside(script: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """The same script on the host, to prove that it can succeed."""
    command = ["/bin/sh", "-c", script]
    return subprocess.run(command, capture_output=True, timeout=20, check=False, **more)
