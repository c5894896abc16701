"""Which server is behind an address, and what it says of its models.

Another edvac, ollama, llama.cpp's server, vLLM and LM Studio are told apart by who they say owns a
model and by paths that only one of them has; any other is taken as it is. Only questions without
any of the user's data are asked.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import httpx2

from edvac.processor.address import Address
from edvac.processor.web import ask_json, get, number, rows, text

OLLAMA, LLAMACPP, VLLM, LMSTUDIO = "ollama", "llama.cpp", "vLLM", "LM Studio"
EDVAC = "edvac"
OTHER = "OpenAI-compatible"
_OWNERS = {
    EDVAC: EDVAC,
    "library": OLLAMA,
    "llamacpp": LLAMACPP,
    "vllm": VLLM,
    "organization_owner": LMSTUDIO,
}


@dataclass(frozen=True, slots=True)
class Served:
    """A model as its server describes it.

    Attributes:
        mark: tells one set of weights from another behind the same name; empty where the server
            says nothing that would.
        context: tokens that one request has room for; 0 where it is not said.
        slots: requests that are computed at once; 0 where it is not said.
        tools: can it call tools? None where it is not said.
        chat: does it answer messages (an embedding model does not)?
    """

    name: str
    mark: str = ""
    context: int = 0
    slots: int = 0
    tools: bool | None = None
    chat: bool = True


@dataclass(frozen=True, slots=True)
class Server:
    product: str
    version: str
    models: tuple[Served, ...]

    def served(self, name: str) -> Served | None:
        """The model of a name. One that serves a single model under any name has it."""
        for one in self.models:
            if one.name in (name, f"{name}:latest"):
                return one
        if self.product == LLAMACPP and len(self.models) == 1:
            return self.models[0]
        return None


async def look(
    http: httpx2.AsyncClient, address: Address, key: str = "", timeout_s: float = 5.0
) -> Server | None:
    """The server at an address and its models; None where it lists none.

    Raises:
        httpx2.HTTPError: nobody is there, or not in time.
    """
    listed = await ask_json(http, f"{address.base}/models", key=key, timeout_s=timeout_s)
    entries = [one for one in rows(listed, "data") if text(one, "id")]
    if get(listed, "data") is None and not entries:
        return None
    owners = {_OWNERS.get(text(one, "owned_by"), OTHER) for one in entries}
    product = owners.pop() if len(owners) == 1 else OTHER
    if product is OTHER and not address.local:
        return Server(OTHER, "", tuple(Served(text(one, "id")) for one in entries))
    asks = _Questions(http, address, key, timeout_s)
    for wanted, find in _FINDERS:
        if product in (wanted, OTHER):
            found = await find(asks, entries)
            if found is not None:
                return found
    return Server(OTHER, "", tuple(Served(text(one, "id")) for one in entries))


@dataclass(frozen=True, slots=True)
class _Questions:
    http: httpx2.AsyncClient
    address: Address
    key: str
    timeout_s: float

    async def ask(self, path: str, body: dict[str, Any] | None = None) -> Any | None:
        url = f"{self.address.root}{path}"
        return await ask_json(self.http, url, key=self.key, body=body, timeout_s=self.timeout_s)


async def _ollama(asks: _Questions, entries: list[dict[str, Any]]) -> Server | None:
    version = text(await asks.ask("/api/version"), "version")
    if not version:
        return None
    tags = rows(await asks.ask("/api/tags"), "models")
    loaded = rows(await asks.ask("/api/ps"), "models")
    contexts = {text(one, "name"): number(one, "context_length") for one in loaded}
    digests = {text(one, "name"): text(one, "digest") for one in tags}
    models = [
        Served(name, digests.get(name, ""), contexts.get(name, 0))
        for name in (text(one, "id") for one in entries)
    ]
    return Server(OLLAMA, version, tuple(models))


async def detail(
    http: httpx2.AsyncClient, address: Address, key: str, server: Server, served: Served
) -> Served:
    """What only a question about one model tells.

    Raises:
        httpx2.HTTPError: nobody is there, or not in time.
    """
    if server.product != OLLAMA:
        return served
    asks = _Questions(http, address, key, 5.0)
    shown = await asks.ask("/api/show", {"model": served.name})
    abilities = get(shown, "capabilities")
    context = served.context
    for line in text(shown, "parameters").splitlines():
        words = line.split()
        if not context and len(words) == 2 and words[0] == "num_ctx" and words[1].isdecimal():
            context = int(words[1][:9])
    if not isinstance(abilities, list):
        return replace(served, context=context)
    return replace(
        served, context=context, tools="tools" in abilities, chat="completion" in abilities
    )


async def _llamacpp(asks: _Questions, entries: list[dict[str, Any]]) -> Server | None:
    props = await asks.ask("/props")
    if not number(props, "total_slots"):
        return None
    template = text(props, "chat_template")
    models = []
    for one in entries:
        meta = get(one, "meta")
        facts = {k: v for k, v in meta.items() if k != "n_ctx"} if isinstance(meta, dict) else {}
        told = (facts, text(props, "model_path"), template)
        models.append(
            Served(
                text(one, "id"),
                _mark(*told),
                number(props, "default_generation_settings", "n_ctx"),
                number(props, "total_slots"),
                bool(get(props, "chat_template_caps", "supports_tools")),
            )
        )
    return Server(LLAMACPP, text(props, "build_info"), tuple(models))


async def _vllm(asks: _Questions, entries: list[dict[str, Any]]) -> Server | None:
    version = text(await asks.ask("/version"), "version")
    if not version or not any("max_model_len" in one for one in entries):
        return None
    models = [
        Served(text(one, "id"), _mark(text(one, "root")), number(one, "max_model_len"))
        for one in entries
    ]
    return Server(VLLM, version, tuple(models))


async def _lmstudio(asks: _Questions, entries: list[dict[str, Any]]) -> Server | None:
    listed = rows(await asks.ask("/api/v0/models"), "data")
    if not listed:
        return None
    models = []
    for one in listed:
        facts = [text(one, name) for name in ("publisher", "arch", "quantization", "id")]
        abilities = get(one, "capabilities")
        models.append(
            Served(
                text(one, "id"),
                _mark(*facts),
                number(one, "loaded_context_length") or number(one, "max_context_length"),
                0,
                "tool_use" in abilities if isinstance(abilities, list) else None,
                text(one, "type") not in ("embeddings", "embedding"),
            )
        )
    return Server(LMSTUDIO, "", tuple(models))


async def _edvac(asks: _Questions, entries: list[dict[str, Any]]) -> Server | None:
    del asks  # its listing says all there is
    if not any(text(one, "identity") for one in entries):
        return None
    models = [
        Served(
            text(one, "id"),
            # A model that was not loaded yet says nothing of its weights, nor does an adapter.
            _mark(one["identity"]) if text(one, "identity") else "",
            number(one, "max_model_len"),
            number(one, "slots"),
            tools=False,
        )
        for one in entries
    ]
    return Server(EDVAC, text(entries[0], "version"), tuple(models)) if entries else None


_FINDERS = (
    (EDVAC, _edvac),
    (OLLAMA, _ollama),
    (LLAMACPP, _llamacpp),
    (VLLM, _vllm),
    (LMSTUDIO, _lmstudio),
)


def _mark(*facts: Any) -> str:
    data = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.blake2b(data.encode(errors="replace"), digest_size=8).hexdigest()
