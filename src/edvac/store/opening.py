"""A store by what names it: a directory, or the URL of a database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edvac.core.errors import UsageError
from edvac.core.seams import Clock
from edvac.store.address import SCHEMES, is_url
from edvac.store.owner import Owners
from edvac.store.store import Store


def open_store(
    where: Path | str,
    workspace: Path | None = None,
    *,
    clock: Clock | None = None,
    owners: Owners | None = None,
    patience_s: float | None = None,
    on_wait: Callable[[float], None] = lambda _: None,
) -> Store:
    """Open a store.

    Args:
        where: a workspace, whose ``.edvac`` then holds the store in SQLite; or
            ``postgresql://USER@HOST/DATABASE?schema=NAME``.
        workspace: with a URL, the directory on this machine; the current one by default.
        clock: the local wall clock by default, and for a URL the database's.
        patience_s, on_wait: of a URL: how long a server that is away is waited for, and who is
            told for how many seconds it has been.

    Raises:
        UsageError: a URL of another kind, one that is malformed, or its driver is missing.
        StoreError: it cannot be opened, is of a newer format or may lose what it confirms.
        DamageError: what is there is not a store, or is cut short.
    """
    if isinstance(where, Path) or not is_url(where):
        return Store(Path(where), clock=clock, owners=owners)
    if where.partition("://")[0] not in SCHEMES:
        raise UsageError(
            "store_url_unknown",
            "a store cannot be opened by this URL",
            "It begins with none of postgresql:// and postgres://.",
            "Give a directory, or the URL of a PostgreSQL database.",
        )
    from edvac.store.database_postgresql import PATIENCE_S
    from edvac.store.postgresql import PostgresqlStore

    patience_s = PATIENCE_S if patience_s is None else patience_s
    return PostgresqlStore(
        where,
        workspace or Path.cwd(),
        clock=clock,
        owners=owners,
        patience_s=patience_s,
        on_wait=on_wait,
    )
