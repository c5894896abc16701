"""Settings: flags over environment over project file over user file over default, each with its
origin.

The project file is ``edvac.toml`` in the workspace, the user file ``config.toml`` in the user's
configuration directory. An unknown key or variable is an error with a suggestion, never ignored.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs

from edvac.core.errors import ConfigError
from edvac.machine.budget import read_prices
from edvac.machine.storage import shown_url
from edvac.processor import Price

ENVIRONMENT = "environment"  # the origin of what EDVAC_* variables say
KV_DISK = ("keep", "session", "none")
LEVELS = ("avx512", "avxvnni", "avx2")  # of the engine's compiled kernels
KV_TYPES = ("f16", "int8", "k8v4", "int4")  # of the engine
KV_DISK_TYPES = ("same", "int8", "int4")
DEFAULT_MODEL = "qwen2.5-coder:1.5b"
INTERNAL = {"EDVAC_KILL_AT", "EDVAC_DATA", "EDVAC_MODELS", "EDVAC_CRASH_IMAGES", "EDVAC_KILLS"}
INTERNAL |= {
    "EDVAC_SCALE",
    "EDVAC_RUN",
    "EDVAC_QUESTIONS",
    "EDVAC_HANDSHAKE",
}  # told to other processes


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, with its default.

    Attributes:
        model: the role *work*, which executes the steps: name in the catalogue, path of a .gguf
            file, or ``URL#MODEL`` of an OpenAI-compatible endpoint.
        plan_model: the role *plan*, which turns a task into a program; empty takes `model`.
        draft_model: a smaller model of the same vocabulary that guesses what `model` will say; it
            changes no answer. Empty is none.
        escalate_model: the role *escalate*, which is asked once where an answer did not fit its
            type twice; empty is none.
        adapter: path of a LoRA adapter for `model`, where edvac itself runs that: a .gguf file, or
            the directory of one of PEFT's; empty is none.
        key_env: name of the environment variable that holds the key of an endpoint. It is sent to
            one host only: that of the first endpoint among the three models. Keys of other hosts
            stand in ``keys.toml`` beside the user's settings.
        precision: ``fast`` (quantised) or ``reference`` (fp32).
        kernels: the best instruction set that the engine's compiled kernels may use: ``avx512``,
            ``avxvnni`` or ``avx2``; ``none`` does without them, empty takes what there is.
        threads: of the engine; 0 takes the free cores.
        context: tokens of context that the engine plans for.
        kv_mb: memory for keys and values, MiB.
        engines: 1, or 2 for one that reads long prompts while the other writes answers.
        kv_disk: whether keys and values that leave memory go to a file in the cache directory:
            ``keep`` leaves it for later engines, for a week or until a run is removed, ``session``
            until the engine ends, ``none`` drops them.
        kv_type: how the engine stores them: ``f16``, or in about 1.9 (``int8``), 2.5 (``k8v4``) or
            3.6 times less memory (``int4``), which changes answers, the more the smaller they
            are, and needs the compiled kernels.
        kv_disk_type: how keys and values of type ``f16`` lie in that file: the ``same``, or in 1.9
            (``int8``) or 3.6 times fewer bytes (``int4``). Then answers may be others where
            something came back from there; this needs the compiled kernels.
        idle_s: seconds after its last client until the engine ends.
        budget: of a run, as ``--budget`` takes it; empty is no limit.
        at_once: model steps in flight; 0 lets the processor decide.
        ahead: ``on`` lets steps that only read run ahead of a condition that is not known yet, on
            the side that is more likely, where nothing else needs the place; ``off`` waits.
        notify: command and arguments to call when a run waits for a person.
        keep_days: days after its end until a run is removed, with its prompts and values, when
            another run ends here or `edvac gc` is called; 0 keeps every run.
        store: where runs are kept: empty is the workspace's own directory, else the URL of a
            PostgreSQL database. Its password is shown nowhere.
        store_wait_s: seconds that a run waits for such a database when it is away.
        workers: ``on`` lets steps that can travel be done by the workers of that store.
        workers_wait_s: seconds that such a step waits where no worker lives that could do it, until
            it is done here; 0 waits for ever.
        browser_further: origins that pages may connect to, and programs may open, beside those
            that a program spells.
        browser_private: origins that may lie at an address of this machine or its networks.
        browser_sandbox: origins where acting changes nothing that matters: a program that reaches
            only these is not asked about its acts. They may lie at such an address, too.
        browser_steering: ``ask`` asks a person about an act that anything on a page decides about;
            ``seen`` does not where only answers of `browser.sees` do.
        currency: of the prices and of budgets in money.
        prices: by model, what a million tokens cost: tables with input, cached and output.
    """

    model: str = DEFAULT_MODEL
    plan_model: str = ""
    draft_model: str = ""
    escalate_model: str = ""
    adapter: str = ""
    key_env: str = "OPENAI_API_KEY"
    precision: str = "fast"
    kernels: str = ""
    threads: int = 0
    context: int = 8192
    kv_mb: int = 1024
    engines: int = 1
    kv_disk: str = "keep"
    kv_type: str = "f16"
    kv_disk_type: str = "same"
    idle_s: int = 300
    budget: str = ""
    at_once: int = 0
    ahead: str = "on"
    notify: tuple[str, ...] = ()
    keep_days: int = 0
    store: str = ""
    store_wait_s: int = 300
    workers: str = "off"
    workers_wait_s: int = 300
    browser_further: tuple[str, ...] = ()
    browser_private: tuple[str, ...] = ()
    browser_sandbox: tuple[str, ...] = ()
    browser_steering: str = "ask"
    currency: str = "USD"
    prices: tuple[tuple[str, Price], ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting's value came from."""

    name: str
    value: Any
    origin: str

    @property
    def shown(self) -> Any:
        """What may be printed: a URL may hold a password."""
        return shown_url(self.value) if self.name == "store" else self.value


def load(
    workspace: Path, flags: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> tuple[Settings, list[Origin]]:
    """The settings in force, and the origin of each.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, an unreadable file.
    """
    layers = _layers(workspace, environment)
    layers.append(({k: v for k, v in flags.items() if v is not None}, "flag"))
    values: dict[str, Any] = {}
    origins: list[Origin] = []
    for field in fields(Settings):
        origin = "default"
        values[field.name] = field.default
        for layer, name in layers:
            if field.name in layer:
                values[field.name] = _checked(field.name, layer[field.name], field.default, name)
                origin = name
        origins.append(Origin(field.name, values[field.name], origin))
    for layer, name in layers:
        for key in layer:
            _known(key, name)
    return Settings(**values), origins


def store_url(workspace: Path, environment: Mapping[str, str] | None = None) -> str:
    """The setting `store` alone: what is wrong with others does not matter to who only reads.

    Raises:
        ConfigError: it is no text, or a file is unreadable.
    """
    url = ""
    for layer, name in _layers(workspace, environment):
        if "store" in layer:
            url = _checked("store", layer["store"], "", name)
    return url


def _layers(
    workspace: Path, environment: Mapping[str, str] | None
) -> list[tuple[dict[str, Any], str]]:
    environment = os.environ if environment is None else environment
    user = Path(platformdirs.user_config_dir("edvac")) / "config.toml"
    return [
        (_from_file(user), str(user)),
        (_from_file(workspace / "edvac.toml"), str(workspace / "edvac.toml")),
        (_from_environment(environment), ENVIRONMENT),
    ]


def _known(key: str, origin: str) -> None:
    names = [field.name for field in fields(Settings)]
    if key in names:
        return
    near = difflib.get_close_matches(key, names, 1)
    fix = f"Did you mean {_name(near[0], origin)!r}?" if near else f"Settings: {', '.join(names)}."
    raise ConfigError(
        "setting_unknown", f"{_name(key, origin)!r} in {origin} is no setting", "", fix
    )


def _name(key: str, origin: str) -> str:
    """A setting as it is called where it was given."""
    return f"EDVAC_{key.upper()}" if origin == ENVIRONMENT else key


def _checked(name: str, value: Any, default: Any, origin: str) -> Any:
    if isinstance(default, int) and origin == ENVIRONMENT and re.fullmatch("-?[0-9]{1,18}", value):
        value = int(value)
    value = _read(name, value, origin)
    said = "***" if name == "store" else repr(value)
    shown = f"{_name(name, origin)} = {said} in {origin}"
    if type(value) is not type(default):
        kind = _KINDS.get(type(default), type(default).__name__)
        raise ConfigError(
            "setting_type", f"{shown} is not {kind}", "", f"The default is {default!r}."
        )
    if isinstance(value, int) and value < 0:
        raise ConfigError(
            "setting_range", f"{shown} is negative", "", f"The default is {default!r}."
        )
    if name in _CHOICES and value not in _CHOICES[name]:
        *others, last = (str(one) or "empty" for one in _CHOICES[name])
        fix = f"{', '.join(others)} or {last}."
        raise ConfigError("setting_range", f"{shown} is no choice", "", fix)
    return value


_CHOICES: dict[str, tuple[object, ...]] = {
    "kernels": (*LEVELS, "none", ""),  # empty for the best that there are
    "ahead": ("on", "off"),
    "engines": (1, 2),
    "kv_disk": tuple(KV_DISK),
    "kv_type": tuple(KV_TYPES),
    "kv_disk_type": tuple(KV_DISK_TYPES),
    "precision": ("fast", "reference"),
    "workers": ("on", "off"),
    "browser_steering": ("ask", "seen"),
}
_LISTS = ("notify", "browser_further", "browser_private", "browser_sandbox")  # of texts
_KINDS = {int: "a whole number", str: "a text", tuple: "a list of texts or a table"}


def _read(name: str, value: Any, origin: str) -> Any:
    """Lists and tables as they are kept."""
    if name == "prices" and isinstance(value, dict):
        return read_prices(value)
    if name in _LISTS and origin == ENVIRONMENT:
        try:
            return tuple(shlex.split(value))
        except ValueError:
            return value
    if name in _LISTS and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    return value


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise ConfigError(
            "settings_unreadable",
            f"the settings file {str(path)!r} cannot be read",
            str(problem),
            "Mend or remove it.",
        ) from problem


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        name.removeprefix("EDVAC_").lower(): text
        for name, text in environment.items()
        if name.startswith("EDVAC_") and name not in INTERNAL
    }
