"""LoRA adapters by names of one's own: read when a request first names one, let go of when told.

The engine knows an adapter by the hash of its content, so that clients with other names for it
share one copy, and no two that differ meet under one name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edvac.core.errors import ConfigError, EdvacError
from edvac.engine.digest import adapter_digest


class Loader(Protocol):
    """An engine's client, as far as adapters go."""

    @property
    def gone(self) -> bool: ...

    async def load_adapter(self, name: str, path: Path) -> str: ...

    async def unload_adapter(self, name: str) -> None: ...


@dataclass(slots=True, eq=False)
class _Held:
    """One adapter in one engine, from when it is first asked for.

    Attributes:
        loading: gives the engine's name for it.
        users: requests that have it or wait for it.
        over: is it to be let go of when nobody uses it?
    """

    client: Loader
    loading: asyncio.Task[str]
    users: int = 0
    over: bool = False


@dataclass(slots=True)
class NamedAdapters:
    """
    Args:
        paths: of the adapters, by name; absolute, since the engine has a working directory of its
            own.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    _held: dict[str, _Held] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)  # holds of each content
    _client: Loader | None = None

    @asynccontextmanager
    async def using(self, name: str, client: Loader) -> AsyncIterator[str]:
        """What the engine calls an adapter, which stays loaded for so long.

        Raises:
            ModelFileError: it cannot be used with this model. The next request tries again.
            ConfigError: no adapter has this name.
        """
        held = self._hold(name, client)
        held.users += 1
        try:
            # Who gives up waiting does not take it from the others.
            yield await asyncio.shield(held.loading)
        finally:
            held.users -= 1
            await self._let_go(held)

    def is_loaded(self, name: str) -> bool:
        held = self._held.get(name)
        return held is not None and held.loading.done() and not held.client.gone

    async def load(self, name: str, client: Loader) -> None:
        """Read it now. Raises as `using` does."""
        async with self.using(name, client):
            pass

    async def unload(self, name: str) -> None:
        """Let go of it as soon as no request uses it; the next one that names it reads it again."""
        held = self._held.pop(name, None)
        if held is not None:
            held.over = True
            await asyncio.wait({held.loading})
            await self._let_go(held)

    async def take(self, client: Loader, path: Path) -> str:
        """Hold an adapter that has no name here for as long as the client is there."""
        self._renew(client)
        return await self._load(client, path)

    def _hold(self, name: str, client: Loader) -> _Held:
        self._renew(client)
        held = self._held.get(name)
        if held is None:
            path = self.paths.get(name)
            if path is None:
                raise ConfigError("adapter_unknown", f"there is no adapter {name!r}")
            held = _Held(client, asyncio.ensure_future(self._load(client, path)))
            self._held[name] = held
            held.loading.add_done_callback(lambda done: self._forget_failed(name, done))
        return held

    def _renew(self, client: Loader) -> None:
        """Another engine holds nothing yet."""
        if client is not self._client:
            self._client = client
            self._held.clear()
            self._counts.clear()

    def _forget_failed(self, name: str, done: asyncio.Task[str]) -> None:
        held = self._held.get(name)
        failed = done.cancelled() or done.exception() is not None
        if failed and held is not None and held.loading is done:
            del self._held[name]

    async def _load(self, client: Loader, path: Path) -> str:
        digest = await asyncio.to_thread(adapter_digest, path)
        self._counts[digest] += 1  # before it is sent: an unloading must not overtake it
        try:
            return await client.load_adapter(digest, path)
        except BaseException:
            self._count_down(client, digest)
            raise

    async def _let_go(self, held: _Held) -> None:
        if held.users or not held.over or not held.loading.done():
            return
        held.over = False  # once
        if held.loading.cancelled() or held.loading.exception() is not None:
            return
        digest = held.loading.result()
        if self._count_down(held.client, digest) and not held.client.gone:
            with contextlib.suppress(EdvacError):  # an engine that ends holds nothing
                await held.client.unload_adapter(digest)

    def _count_down(self, client: Loader, digest: str) -> bool:
        """Was this the last hold of it?"""
        if client is not self._client:
            return False
        self._counts[digest] -= 1
        return self._counts[digest] <= 0
