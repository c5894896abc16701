"""Services in this process, over tiny models in engine processes of their own."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from edvac.engine.client import EngineSpec
from edvac.processor.embedded import EmbeddedProcessor
from edvac.serve.models import Models
from edvac.serve.offered import Offered

from .conftest import CONTEXT, TEMPLATE


def write_models(folder: Path, count: int) -> list[Path]:
    """Models that differ in all their weights."""
    from engine.tiny import write_tiny

    return [
        write_tiny(folder / f"m{at}.gguf", seed=at + 1, template=TEMPLATE, context=CONTEXT)
        for at in range(count)
    ]


def spec_of(model: Path, home: Path) -> EngineSpec:
    """Its engine stays for long, so that one which is gone was told to go."""
    runtime = home / "run"
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    return EngineSpec(
        model,
        setting="reference",
        threads=1,
        kv_mb=64,
        idle_seconds=120.0,
        start_seconds=60,
        runtime=runtime,
        cache=home / "cache",
    )


def models_at(paths: list[Path], home: Path, **more: Any) -> Models[Offered]:
    """Each by the name of its file."""
    served = tuple(
        (Offered(EmbeddedProcessor(spec_of(path, home))), (path.stem,)) for path in paths
    )
    return Models(served, **more)


def with_adapters(path: Path, home: Path, adapters: dict[str, Path]) -> Models[Offered]:
    processor = EmbeddedProcessor(spec_of(path, home))
    processor.adapters.paths = adapters
    return Models(((Offered(processor, tuple(adapters)), (path.stem,)),))


def engines_at(runtime: Path) -> int:
    """How many engine processes there are: each holds a lock for as long as it lives."""
    found = 0
    for lock in runtime.glob("*.lock"):
        handle = os.open(lock, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found += 1
        finally:
            os.close(handle)
    return found


async def end_all(models: Models[Offered]) -> None:
    """Unload what is there, so that no engine outlives its test."""
    for place in models.places:
        await place.model.unload()
    await models.close()
