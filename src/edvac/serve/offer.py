"""What is to be served, as a user says it, and the models that this means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from edvac.core.errors import ConfigError, UsageError
from edvac.engine.digest import adapter_files
from edvac.machine import Settings
from edvac.machine.processors import choose_processor
from edvac.processor.embedded import EmbeddedProcessor
from edvac.serve.app import MOST_WAITING
from edvac.serve.models import Models
from edvac.serve.offered import Offered


@dataclass(frozen=True, slots=True)
class Offer:
    """What is served, where and to whom.

    Args:
        settings: of the first model, which they name.
        names: other names of the first model, or ``NAME=MODEL`` for another one.
        others: more models, as settings name them.
        adapters: as ``NAME=PATH`` for the first model, or ``NAME@MODEL=PATH`` for another one.
        most_loaded: models in memory at a time.
        idle_s: seconds after its last use until a model is unloaded; 0 keeps it.
        hosts: names that this machine is reached by, beside the address that is listened at; with
            a port where it is another than the listener's.
        keys: what clients have to know, with the name of who has it; none for no key.
    """

    settings: Settings
    names: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    most_loaded: int = 1
    idle_s: float = 0.0
    hosts: tuple[str, ...] = ()
    keys: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Model:
    """One model while the offer is read; `setting` is how settings name it."""

    setting: str
    names: list[str]
    adapters: dict[str, Path] = field(default_factory=dict)


def name_of(model: str) -> str:
    """The name by which clients ask for a model.

    Raises:
        ConfigError: it is another server's.
    """
    if "://" in model:
        raise ConfigError(
            "serve_endpoint",
            f"{model} is served already",
            "What is served is a model that edvac itself runs.",
            "Choose one with --model; `edvac model ls` lists them.",
        )
    return Path(model).stem if model.endswith(".gguf") else model


def models_of(offer: Offer) -> Models[Offered]:
    """The models of an offer; none is loaded yet.

    Raises:
        ConfigError: a model is not on this machine, or two things have one name.
        UsageError: an alias or an adapter is of no model, or there is no such adapter.
    """
    found = [_Model(one, [name_of(one)]) for one in (offer.settings.model, *offer.others)]
    taken = {model.names[0] for model in found}
    if len(taken) < len(found):
        raise _taken(", ".join(model.setting for model in found))
    for alias in offer.names:
        name, _, model = alias.partition("=")
        _of(model, found).names.append(_free(name, taken))
    for adapter in offer.adapters:
        about, _, path = adapter.partition("=")
        name, _, model = about.partition("@")
        _of(model, found).adapters[_free(name, taken)] = _adapter_at(path, adapter)
    return Models(tuple(_served(found, offer)), offer.most_loaded, MOST_WAITING, offer.idle_s)


def _served(found: list[_Model], offer: Offer) -> Iterator[tuple[Offered, tuple[str, ...]]]:
    for model in found:
        settings = replace(offer.settings, plan_model="", escalate_model="")
        if model is not found[0]:  # these belong to the first
            settings = replace(settings, model=model.setting, adapter="", draft_model="")
        processor = choose_processor(settings)
        assert isinstance(processor, EmbeddedProcessor), "name_of refuses others"
        processor.adapters.paths = model.adapters
        yield Offered(processor, tuple(model.adapters)), tuple(model.names)


def _of(name: str, found: list[_Model]) -> _Model:
    """The model that an alias or an adapter is of; the first one where none is said."""
    for model in found:
        if not name or name in (model.setting, model.names[0]):
            return model
    raise UsageError("serve_unknown", f"{name!r} is none of the models", "", "Add --model for it.")


def _free(name: str, taken: set[str]) -> str:
    if not name:
        raise UsageError(
            "serve_name", "a name is missing", "", "Say NAME, or NAME=... where asked."
        )
    if name in taken:
        raise _taken(name)
    taken.add(name)
    return name


def _taken(names: str) -> ConfigError:
    what = "two of what is served have one name"
    return ConfigError("serve_names", what, names, "Choose other names.")


def _adapter_at(path: str, said: str) -> Path:
    file = Path(path).expanduser().absolute()
    if not path or not adapter_files(file)[0].is_file():
        what = f"there is no adapter at {path!r}"
        raise UsageError("serve_adapter", what, f"Said was {said!r}.", "Say NAME=PATH.")
    return file
