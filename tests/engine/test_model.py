"""The smallest real model, where it is installed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from edvac.engine.catalogue import resolve
from edvac.engine.client import EngineSpec, connect_or_start
from edvac.engine.protocol import Generate, Segment

from .prompts import rendered

pytestmark = pytest.mark.model
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}


def test_a_real_model_answers_under_a_schema(tmp_path: Path) -> None:
    path = resolve("smollm2:135m")
    if path is None:
        pytest.skip("smollm2:135m is not installed: edvac model pull smollm2:135m")
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    spec = EngineSpec(path, runtime=runtime, cache=tmp_path, idle_seconds=0.5, kv_mb=256)

    async def scene() -> None:
        async with await connect_or_start(spec) as client:
            prompt = [Segment(rendered("What is the capital of France?"), control=True)]
            free = await client.generate(Generate(id="a", segments=prompt, max_tokens=24))
            assert "Paris" in free.text
            bound = await client.generate(
                Generate(id="b", segments=prompt, max_tokens=60, schema=json.dumps(SCHEMA))
            )
            assert set(json.loads(bound.text)) == {"city", "large"}

    asyncio.run(scene())
