"""The fleet of a store on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edvac.core.errors import InternalError
from edvac.machine.fleet.errands import Fleet, Hearing
from edvac.store import Queue, Store

if TYPE_CHECKING:
    from edvac.store.postgresql import PostgresqlStore

PATIENCE_S = 300.0


def fleet(patience_s: float = PATIENCE_S) -> Fleet:
    """See `Fleet`."""
    return Fleet(queue_of, listen, patience_s)


def queue_of(store: Store) -> Queue:
    from edvac.store.queue_postgresql import PostgresqlQueue

    return PostgresqlQueue(_server(store))


def listen(store: Store) -> Hearing:
    from edvac.store.queue_postgresql import Listener

    return Listener(_server(store))


def _server(store: Store) -> PostgresqlStore:
    from edvac.store.postgresql import PostgresqlStore

    if not isinstance(store, PostgresqlStore):
        raise InternalError("queue_missing", "this store has no queue for workers")
    return store
