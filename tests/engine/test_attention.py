"""KV memory: what is written stays, what is given back is gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from edvac.engine.attention import Arena
from edvac.engine.server import resident_bytes
from edvac.engine.weights import open_weights

from .test_engine import LIMITS, PROMPTS, Make, ask, drain, make

__all__ = ["make"]  # the fixture


def test_free_slots_give_their_memory_back(tiny: Path) -> None:
    config = replace(open_weights(tiny).config, head_dim=256)
    arena = Arena(config, 4, 8192, torch.float32)
    before = resident_bytes()
    block = torch.ones(2, config.layers, config.kv_heads, 2048, config.head_dim)
    for slot in range(4):
        arena.load(slot, 0, block)
    held = resident_bytes() - before
    assert arena.touched == 4 * 2048
    assert held > 3 * 2048 * arena.token_bytes
    arena.trim({0, 2}, 3 * 2048)
    assert arena.touched == 3 * 2048
    arena.trim({0, 2}, 0)
    assert arena.touched == 2 * 2048
    assert resident_bytes() - before < held * 3 // 4
    for slot, value in ((0, 0.0), (1, 1.0), (2, 0.0), (3, 1.0)):
        assert bool((arena.export(slot, 0, 2048) == value).all())


def test_answers_survive_trimming(make: Make) -> None:
    """Memory for one answer only: every slot is given back after use."""
    asked = [ask(str(n), text) for n, text in enumerate(PROMPTS)]
    wanted = {name: done.text for name, done in drain(make(), *asked).items()}
    engine = make(limits=replace(LIMITS, slots=4, kv_tokens=160))
    assert {name: done.text for name, done in drain(engine, *asked).items()} == wanted
    assert engine._arena.touched <= 160
    assert {name: done.text for name, done in drain(engine, *asked).items()} == wanted
