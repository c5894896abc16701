"""A model with its adapters, as the service offers it: what is known of it, also while it is away.

Adapters have the names that the service was started with, and are numbered in that order; clients
name no files. One that was unloaded is not served until it is loaded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from edvac.core.errors import UsageError
from edvac.engine.protocol import Ready, Segment, StatsReply, Tokens
from edvac.processor import Answer, OnText, OnTokens, Processor, Request
from edvac.serve.models import Place, State
from edvac.serve.reading import Scale, adapter_at, decode, malformed

OWNER: Final = "edvac"
_scales: Final = msgspec.json.Decoder(list[Scale])


class Served(Processor, Protocol):
    """What is served: a processor that also tells tokens and what it is."""

    @property
    def card(self) -> Ready: ...

    @property
    def file(self) -> str: ...

    async def complete(
        self, request: Request, on_text: OnText | None = None, on_tokens: OnTokens | None = None
    ) -> Answer: ...

    def segments(self, request: Request) -> list[Segment]: ...

    async def tokenize(self, segments: list[Segment], *, bos: bool) -> Tokens: ...

    async def stats(self) -> StatsReply: ...

    async def unload(self) -> None: ...

    async def load_adapter(self, name: str) -> None: ...

    async def unload_adapter(self, name: str) -> None: ...

    def has_adapter(self, name: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class About:
    """What an engine said of its model when it was last there."""

    card: Ready
    context: int
    identity: str


@dataclass(slots=True, eq=False)
class Offered:
    """
    Args:
        adapters: names that requests may pick.

    Attributes:
        about: None until the model was there for the first time.
        off: adapters that were unloaded.
        usual: the adapter of requests that name the model; empty for none.
    """

    processor: Served
    adapters: tuple[str, ...] = ()
    about: About | None = None
    off: set[str] = field(default_factory=set)
    usual: str = ""

    @property
    def concurrency(self) -> int:
        return self.processor.concurrency

    async def open(self) -> None:
        await self.processor.open()
        one = self.processor
        self.about = About(one.card, one.context_tokens, one.identity)

    async def unload(self) -> None:
        await self.processor.unload()

    async def close(self) -> None:
        await self.processor.close()

    @property
    def numbered(self) -> tuple[str, ...]:
        """Adapters by their numbers; an empty name stands for one that is not served now."""
        return tuple("" if name in self.off else name for name in self.adapters)

    def offers(self, adapter: str) -> bool:
        return adapter in self.adapters and adapter not in self.off

    async def complete(
        self, request: Request, on_text: OnText | None, on_tokens: OnTokens | None
    ) -> Answer:
        try:
            return await self.processor.complete(request, on_text, on_tokens)
        finally:
            if request.adapter in self.off:  # it was unloaded while this call waited
                await self.processor.unload_adapter(request.adapter)

    async def switch_on(self, adapter: str) -> None:
        """Read an adapter and serve it. The model has to be there.

        Raises:
            ModelFileError: it cannot be used with this model.
        """
        await self.processor.load_adapter(adapter)
        self.off.discard(adapter)

    def switch_off(self, adapter: str) -> None:
        """Serve it no more to those who come from now on."""
        self.off.add(adapter)
        if self.usual == adapter:
            self.usual = ""


def told(place: Place[Offered], version: str) -> dict[str, Any]:
    """A model as it is listed. What only a loaded one can say is missing before."""
    model = place.model
    found: dict[str, Any] = {
        "id": place.name,
        "object": "model",
        "created": 0,
        "owned_by": OWNER,
        "aliases": list(place.names),
        "slots": model.concurrency,
        "status": {"value": place.state.value},
        "version": version,
    }
    if model.about is not None:
        found |= {"max_model_len": model.about.context, "identity": model.about.identity}
    return found


def told_adapter(place: Place[Offered], name: str) -> dict[str, Any]:
    """An adapter as it is listed among the models; `parent` is the model that it belongs to."""
    here = place.state is State.HERE and place.model.processor.has_adapter(name)
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": OWNER,
        "parent": place.name,
        "status": {"value": (State.HERE if here else State.AWAY).value},
    }


def told_scales(model: Offered) -> list[dict[str, Any]]:
    """Adapters as llama.cpp's clients know them; those that are not served now are left out."""
    return [
        {"id": at, "name": name, "scale": float(name == model.usual)}
        for at, name in enumerate(model.numbered)
        if name
    ]


def read_scales(data: bytes, adapters: Sequence[str]) -> str:
    """The adapter that is usual from now on; empty for none.

    Raises:
        UsageError: it is no list of scales, or there is no such adapter.
    """
    try:
        scales = _scales.decode(data)
    except (msgspec.DecodeError, RecursionError) as problem:
        raise malformed("it is no list of id and scale", str(problem)) from problem
    return adapter_at(scales, tuple(adapters))


class _Named(msgspec.Struct):
    lora_name: str
    lora_path: str | None = None


def read_adapter_name(data: bytes) -> str:
    """The adapter that a client of vLLM's wants loaded or unloaded.

    Raises:
        UsageError: it names none, or a file.
    """
    asked = decode(data, _Named)
    if asked.lora_path:
        what = "files are not read for clients"
        fix = "Leave lora_path out; `edvac serve --adapter NAME=PATH` says what there is."
        raise UsageError("adapter_path", what, "", fix)
    return asked.lora_name
