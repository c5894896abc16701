"""Models that are on this machine already: served by others, or in their caches; and what the
endpoints of the settings can do. `doctor` prints it."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edvac.cli import ui
from edvac.core.errors import ConfigError

if TYPE_CHECKING:
    from edvac.machine import Settings
    from edvac.processor.abilities import Abilities

MOST_LINES = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        state: ok, note or bad.
        paste: lines for edvac.toml.
    """

    name: str
    state: str
    found: str
    fix: str = ""
    paste: tuple[str, ...] = ()


def servers() -> list[Finding]:
    """ollama, llama.cpp's server, vLLM and LM Studio on their usual ports."""
    from edvac.processor.discover import find_servers

    findings = []
    for one in asyncio.run(find_servers()):
        version = f" {one.server.version}" if one.server.version else ""
        many = ui.counted(len(one.models), "model")
        text = f"{one.server.product}{version} at {one.address.origin} serves {many}"
        state = "ok" if one.models else "note"
        findings.append(Finding("server", state, text, paste=_lines(one.models)))
    return findings or [Finding("server", "ok", "none on the usual ports of this machine")]


def kept() -> list[Finding]:
    """GGUF files in the caches of other programs."""
    from edvac.engine.caches import find_kept
    from edvac.engine.catalogue import BY_TENSORS

    slower = "Its attention is computed by torch, not by the compiled kernels: it answers slower."
    findings = []
    for one in find_kept():
        text = f"{one.keeper}: {one.name}, {ui.megabytes(one.size)}"
        if one.runs_here:
            fix = slower if one.architecture in BY_TENSORS else ""
            findings.append(Finding("file", "ok", text, fix, paste=_lines([str(one.path)])))
        else:
            fix = "The embedded engine does not compute it; its own program, or llama-server, does."
            findings.append(Finding("file", "note", f"{text} ({one.architecture})", fix))
    return findings


def endpoints(*, reprobe: bool) -> list[Finding]:
    """What the endpoints in the settings can do.

    Args:
        reprobe: forget what was found out before.
    """
    from edvac.machine.settings import load
    from edvac.processor.abilities import cache_dir, forget

    if reprobe:
        forget(cache_dir())
    try:
        settings, _ = load(ui.workspace(), {})
    except ConfigError as error:
        return [Finding("settings", "bad", error.what, error.fix)]
    named = dict.fromkeys((settings.model, settings.plan_model, settings.escalate_model))
    return [
        _endpoint(replace(settings, model=model, budget="")) for model in named if "://" in model
    ]


def _endpoint(settings: Settings) -> Finding:
    from edvac.core.errors import EdvacError
    from edvac.machine.processors import choose_endpoint

    async def look() -> Abilities | None:
        processor = choose_endpoint(settings)
        try:
            await processor.open()
            return processor.abilities
        finally:
            await processor.close()

    try:
        found = asyncio.run(look())
    except EdvacError as error:
        return Finding("endpoint", "bad", error.what, error.why or error.fix)
    if found is None:
        return Finding("endpoint", "note", f"{settings.model} does not answer", "Is it running?")
    return Finding("endpoint", "ok", f"{settings.model}: {_described(found)}")


def _described(found: Abilities) -> str:
    can = [
        name
        for name, able in (
            ("JSON schema", found.schema),
            ("grammar", bool(found.grammar)),
            ("tools", found.tools),
            ("thinks first", found.thinks),
        )
        if able
    ]
    can += [f"context {found.context:,}"] if found.context else ["context unknown"]
    can += [f"{found.slots} at once"] if found.slots else []
    if not found.probed:
        return f"{found.product}; it did not say what it can do"
    when = dt.datetime.fromtimestamp(found.probed).strftime("%Y-%m-%d")
    return f"{found.product}; {', '.join(can)}; found out {when}"


def _lines(models: list[str]) -> tuple[str, ...]:
    shown = [f"model = {json.dumps(model, ensure_ascii=False)}" for model in models[:MOST_LINES]]
    left = len(models) - len(shown)
    return (*shown, f"# and {left} more") if left > 0 else tuple(shown)
