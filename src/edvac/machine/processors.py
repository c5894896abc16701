"""Which processor a model name means."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edvac.core import event
from edvac.core.errors import ConfigError
from edvac.machine.budget import parse_budget, require_price
from edvac.machine.settings import Settings
from edvac.processor import Processor

if TYPE_CHECKING:
    from edvac.processor.openai import OpenAIProcessor

ENGINE_NEEDS = ("torch", "llguidance", "tokenizers", "jinja2", "numpy")  # the extra `engine`


@dataclass(frozen=True, slots=True)
class Roles:
    """Who does what: `work` executes the steps, `plan` writes programs, `escalate` is asked where
    `work` has failed twice. One model in two roles is one processor."""

    work: Processor
    plan: Processor
    escalate: Processor | None = None

    async def close(self) -> None:
        found = [self.work, self.plan, self.escalate]
        for number, processor in enumerate(found):
            if processor is not None and processor not in found[:number]:
                await processor.close()


def choose_roles(settings: Settings, emit: Callable[[event.Event], None] = lambda _: None) -> Roles:
    """Processors for the three roles; none is opened yet.

    Raises:
        ConfigError: no such model, or it is not on this machine.
    """
    made: dict[str, Processor] = {}
    named = [settings.model, settings.plan_model, settings.escalate_model]
    first = next((_host(model) for model in named if "://" in model), "")

    def of(model: str) -> Processor:
        if model not in made:
            key_env = settings.key_env if _host(model) == first else ""
            adapter = settings.adapter if model == settings.model else ""
            chosen = replace(settings, model=model, key_env=key_env, adapter=adapter)
            made[model] = choose_processor(chosen, emit)
        return made[model]

    escalate = settings.escalate_model
    return Roles(
        of(settings.model),
        of(settings.plan_model or settings.model),
        of(escalate) if escalate and escalate != settings.model else None,
    )


def _host(model: str) -> str:
    """Scheme and host of an endpoint; a key goes to one of them only."""
    return "/".join(model.partition("#")[0].split("/")[:3]).lower()


def choose_processor(
    settings: Settings, emit: Callable[[event.Event], None] = lambda _: None
) -> Processor:
    """A processor for ``settings.model``: ``URL#MODEL``, a .gguf file, or a name of the catalogue.

    Raises:
        ConfigError: no such model, it is not on this machine, or a budget in money needs its price.
    """
    budget = parse_budget([settings.budget] if settings.budget else [], settings.currency)
    price = require_price(settings.model, dict(settings.prices), budget)
    made = _choose(settings, emit)
    made.price = price
    return made


def _choose(settings: Settings, emit: Callable[[event.Event], None]) -> Processor:
    if "://" in settings.model:
        if settings.adapter:
            raise ConfigError(
                "adapter_endpoint",
                "an endpoint is given no adapter",
                f"{settings.model} is another program's, which loads its own.",
                "Name its adapter as the model, or leave `adapter` empty.",
            )
        return choose_endpoint(settings, emit)
    _require_engine()
    from edvac.engine import catalogue
    from edvac.engine.client import EngineSpec
    from edvac.processor.embedded import EmbeddedProcessor

    def stage(name: str, done: float, total: float) -> None:
        emit(event.Stage(name=name, done=done, total=total))

    spec = EngineSpec(
        model=model_path(settings.model),
        setting="reference" if settings.precision == "reference" else "fast",
        threads=settings.threads,
        context=settings.context,
        kv_mb=settings.kv_mb,
        kv_type=settings.kv_type,
        kv_disk_type=settings.kv_disk_type,
        idle_seconds=settings.idle_s,
        extra=_engine_options(settings),
    )
    return EmbeddedProcessor(
        spec,
        stage,
        sha256=catalogue.pinned(settings.model),
        adapter=Path(settings.adapter).expanduser() if settings.adapter else None,
        split=settings.engines == 2,
    )


def _engine_options(settings: Settings) -> tuple[str, ...]:
    kernels = ("--kernels", settings.kernels) if settings.kernels else ()
    draft = ("--draft", str(model_path(settings.draft_model))) if settings.draft_model else ()
    return (*kernels, *draft, "--kv-disk", settings.kv_disk)


def choose_endpoint(
    settings: Settings, emit: Callable[[event.Event], None] = lambda _: None
) -> OpenAIProcessor:
    """A processor for a model that is given as ``URL#MODEL``.

    Raises:
        ConfigError: it is no address, or names no model.
    """
    from edvac.processor.abilities import cache_dir
    from edvac.processor.openai import OpenAIProcessor

    url, _, model = settings.model.partition("#")
    if not model:
        raise ConfigError(
            "endpoint_url",
            f"{settings.model!r} names no model",
            "",
            "Use URL#MODEL, such as http://127.0.0.1:11434/v1#llama3.2.",
        )
    return OpenAIProcessor(
        url,
        model,
        key_env=settings.key_env,
        concurrency=settings.at_once,
        records=cache_dir(),
        on_note=lambda text: emit(event.Note(text=text)),
        on_stage=lambda name, done, total: emit(event.Stage(name=name, done=done, total=total)),
    )


def _require_engine() -> None:
    """The engine is an extra: without it only endpoints can be used."""
    missing = [name for name in ENGINE_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            "engine_missing",
            "the embedded engine is not installed",
            f"Missing: {', '.join(missing)}.",
            "pip install 'edvac[engine]', or name an endpoint with --model URL#MODEL.",
        )


def model_path(name: str) -> Path:
    """The weight file that a model name means, on this machine.

    Raises:
        ConfigError: no such model, or it has not been fetched.
    """
    from edvac.engine import catalogue

    found = catalogue.resolve(name)
    if found is not None:
        return found
    if "/" in name or name.endswith((".gguf", ".safetensors")):
        raise ConfigError(
            "model_missing", f"there is no model file {name!r}", "", "See `edvac model ls`."
        )
    entry = catalogue.find(name)
    raise ConfigError(
        "model_missing",
        f"the model {entry.name} is not on this machine",
        "",
        f"Fetch it with `edvac model pull {entry.name}`.",
    )
