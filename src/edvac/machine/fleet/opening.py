"""A worker's way to the store: opened however long its server is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from edvac.core import event
from edvac.core.errors import UnreachableError
from edvac.machine.fleet.postgresql import listen, queue_of
from edvac.machine.fleet.worker import Ways
from edvac.machine.ledger import Ledger
from edvac.machine.storage import Storage

ATTEMPT_S = 5.0  # that one call waits for the server, before a worker looks whether it is to stop


@asynccontextmanager
async def opened(place: Storage, emit: event.Emit) -> AsyncIterator[Ways]:
    """The store and its queue.

    Raises:
        StoreError: the server refuses, or holds something else.
    """
    place = replace(place, wait_s=ATTEMPT_S)
    told = False
    while True:
        try:
            ledger = await asyncio.to_thread(Ledger, place.open)
            break
        except UnreachableError as error:
            if not told:
                told = True
                text = f"waiting for the store: {error.what}"
                emit(event.Note(text=text, level="warning"))
            await asyncio.sleep(1.0)
    try:
        hearing = await ledger.call(listen)
        yield Ways(ledger, queue_of, hearing)
        await asyncio.to_thread(hearing.close)
    finally:
        await asyncio.to_thread(ledger.close)
