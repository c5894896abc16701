"""A processor before another one: like it in all that its own class does not do otherwise."""

from __future__ import annotations

from edvac.core.seams import Contacts
from edvac.processor.port import Doing, Price, Processor


class Passing:
    def __init__(self, inner: Processor) -> None:
        self._inner = inner
        self.price: Price = inner.price
        self.contacts: Contacts = inner.contacts

    @property
    def identity(self) -> str:
        return self._inner.identity

    @property
    def concurrency(self) -> int:
        return self._inner.concurrency

    @property
    def context_tokens(self) -> int:
        return self._inner.context_tokens

    @property
    def has_grammar(self) -> bool:
        return self._inner.has_grammar

    @property
    def endpoint(self) -> str:
        return self._inner.endpoint

    @property
    def local(self) -> bool:
        return self._inner.local

    async def open(self) -> None:
        await self._inner.open()

    def tell(self, run: str, doing: Doing, tool: str) -> None:
        self._inner.tell(run, doing, tool)

    async def close(self) -> None:
        await self._inner.close()
