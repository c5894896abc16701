"""Where a workspace keeps its store: in its own directory, or on a server by URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edvac.core.errors import UsageError
from edvac.core.seams import Clock
from edvac.store import Store, open_store
from edvac.store.store import DATABASE, DIRECTORY


@dataclass(frozen=True, slots=True)
class Storage:
    """A workspace and its store. The directory holds logs, locks and the settings either way.

    Attributes:
        url: of a database; empty for the workspace's own.
        wait_s: how long a server that is away is waited for; None is some seconds.
        on_wait: is told, now and then, for how many seconds it has been; on the store's thread.
    """

    workspace: Path
    url: str = field(default="", repr=False)
    wait_s: float | None = None
    on_wait: Callable[[float], None] = lambda _: None

    def open(self, clock: Clock | None = None) -> Store:
        """The store, made where there is none; raises what `open_store` does."""
        if not self.url:
            return Store(self.workspace, clock=clock)
        return open_store(
            self.url, self.workspace, clock=clock, patience_s=self.wait_s, on_wait=self.on_wait
        )

    def reach(self) -> None:
        """Wait for a server that is away, without holding anything; raises what `open` does."""
        if self.url:
            self.open().close()

    @property
    def made(self) -> bool:
        """Has anything been stored here? A server is not asked."""
        return bool(self.url) or (self.workspace / DIRECTORY / DATABASE).exists()


def require_server(url: str) -> None:
    """
    Raises:
        UsageError: the store is none that workers on other machines can reach.
    """
    if not url:
        raise UsageError(
            "workers_need_server",
            "workers take their steps from a store on a server, and this workspace has its own",
            "A directory's store is for the processes of one machine.",
            'Set store = "postgresql://..." in edvac.toml, or EDVAC_STORE; see'
            " docs/how-to/scale-out.md.",
        )


def is_workspace(directory: Path) -> bool:
    """Has edvac worked here? With a store on a server only the settings tell."""
    kept = directory / DIRECTORY
    if (kept / DATABASE).is_file() or (kept / "apps").is_dir():
        return True
    return kept.is_dir() and (directory / "edvac.toml").is_file()


def shown_url(url: str) -> str:
    """What may be printed of a URL; of one that cannot be read, nothing."""
    from edvac.store.address import parse

    try:
        return parse(url).shown if url else ""
    except UsageError:
        return "***"
