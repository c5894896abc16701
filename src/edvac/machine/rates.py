"""How fast models were on this machine: measured in runs, kept for the user, used in estimates.

Seconds are modelled as linear in the tokens that were read without a cache and the tokens written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

KEPT = 20  # runs of each model
_LEAST_TOKENS = 500  # a run with fewer says more about starting up than about the model
_RATIO = 4.0  # what a written token takes, in read ones, before anything else is known


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds for a token. `spread` is by how much real runs differed, as a factor of at least
    1; `runs` how many there were."""

    read_s: float
    write_s: float
    spread: float
    runs: int

    def seconds(self, read: float, written: float) -> float:
        return self.read_s * read + self.write_s * written


def rates_path() -> Path:
    return Path(platformdirs.user_cache_dir("edvac")) / "rates.json"


def note(model: str, seconds: float, read: int, written: int, path: Path | None = None) -> None:
    """Remember a run. That it cannot be remembered harms nothing but estimates."""
    if read + written < _LEAST_TOKENS or seconds <= 0:
        return
    path = path or rates_path()
    known = _load(path)
    known[model] = [*known.get(model, []), [round(seconds, 2), read, written]][-KEPT:]
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.write_text(json.dumps(known), encoding="utf-8")
        new.replace(path)
    except OSError:
        return


def measured(model: str, path: Path | None = None) -> Rates | None:
    """What runs of the model took; None before the first one."""
    runs = _load(path or rates_path()).get(model, [])
    return _fit(runs) if runs else None


def _fit(runs: Sequence[Sequence[float]]) -> Rates:
    """Least squares on relative errors, drawn to the usual ratio while there are few runs."""
    mean = sum(t / (r + _RATIO * w) for t, r, w in runs) / len(runs)
    # In units of the mean rate: a ≈ 1 for a read token, b ≈ RATIO for a written one.
    rows = [(r * mean / t, w * mean / t) for t, r, w in runs]
    aa = sum(r * r for r, _ in rows) + 1.0
    bb = sum(w * w for _, w in rows) + 1.0 / _RATIO**2
    ab = sum(r * w for r, w in rows)
    ya = sum(r for r, _ in rows) + 1.0
    yb = sum(w for _, w in rows) + 1.0 / _RATIO
    det = aa * bb - ab * ab
    read = max((ya * bb - yb * ab) / det, 0.1) * mean
    write = max((yb * aa - ya * ab) / det, 0.1) * mean
    off = [max(p, 1 / p) for p in ((read * r + write * w) / t for t, r, w in runs)]
    return Rates(read, write, max([1.25, *off]), len(runs))


def _load(path: Path) -> dict[str, list[list[float]]]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: [run for run in runs if _is_run(run)]
        for name, runs in found.items()
        if isinstance(name, str) and isinstance(runs, list)
    }


def _is_run(run: object) -> bool:
    return (
        isinstance(run, list)
        and len(run) == 3
        and all(isinstance(x, int | float) and x >= 0 for x in run)
        and run[0] > 0
        and run[1] + run[2] > 0
    )
