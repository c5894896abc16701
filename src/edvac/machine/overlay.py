"""The run's own files as devices see them: the newest version of each, over the input roots."""

from __future__ import annotations

import fnmatch

from edvac.core.label import Label
from edvac.device import Held
from edvac.machine.ledger import Ledger
from edvac.store import FileVersion, Store


class Overlay:
    """Reads the run's versioned files from the store."""

    def __init__(self, ledger: Ledger, run: str) -> None:
        self._ledger = ledger
        self._run = run

    async def latest(self, path: str) -> Held | None:
        def read(store: Store) -> Held | None:
            found = store.file_latest(self._run, path)
            if found is None or found.deleted:
                return None
            return Held(store.read_file(self._run, path), store.label(found.label))

        return await self._ledger.call(read)

    async def deleted(self, path: str) -> bool:
        found = await self._ledger.call(lambda store: store.file_latest(self._run, path))
        return found is not None and found.deleted

    async def deleted_paths(self) -> frozenset[str]:
        return frozenset(f.path for f in await self._newest() if f.deleted)

    async def matching(self, glob: str) -> list[tuple[str, Label]]:
        def read(store: Store) -> list[tuple[str, Label]]:
            return [
                (found.path, store.label(found.label))
                for found in newest(store.file_versions(self._run))
                if not found.deleted and matches(found.path, glob)
            ]

        return await self._ledger.call(read)

    async def _newest(self) -> list[FileVersion]:
        return await self._ledger.call(lambda store: newest(store.file_versions(self._run)))


def newest(versions: list[FileVersion]) -> list[FileVersion]:
    """The last version of each path, sorted by path."""
    found: dict[str, FileVersion] = {}
    for version in versions:
        known = found.get(version.path)
        if known is None or version.version > known.version:
            found[version.path] = version
    return [found[path] for path in sorted(found)]


def matches(path: str, glob: str) -> bool:
    """As for input roots: ``*`` stays within a directory, ``**`` does not."""
    parts, wanted = path.split("/"), glob.split("/")
    if "**" in wanted:
        place = wanted.index("**")
        tail = wanted[place + 1 :]
        if len(parts) < place + len(tail):
            return False
        head = zip(parts[:place], wanted[:place], strict=True)
        ends = zip(parts[len(parts) - len(tail) :], tail, strict=True) if tail else []
        return all(fnmatch.fnmatchcase(a, b) for a, b in [*head, *ends])
    if len(parts) != len(wanted):
        return False
    return all(fnmatch.fnmatchcase(a, b) for a, b in zip(parts, wanted, strict=True))
