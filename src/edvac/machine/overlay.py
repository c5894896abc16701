"""The run's own files as devices see them: the newest version of each, over the input roots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edvac.core.label import PUBLIC, Label
from edvac.device import Held, Version
from edvac.machine.ledger import Ledger
from edvac.store import FileVersion, Store


class Overlay:
    """Reads the run's versioned files from the store."""

    def __init__(self, ledger: Ledger, run: str, inputs: Mapping[str, Path]) -> None:
        self._ledger = ledger
        self._run = run
        self._inputs = inputs
        self._roots: list[str] | None = None  # that runs have been applied to
        self._labels: dict[str, Label] = {}  # only used on the store's thread

    async def latest(self, path: str) -> Held | None:
        def read(store: Store) -> Held | None:
            found = store.file_latest(self._run, path)
            if found is None or found.deleted:
                return None
            return Held(store.read_file(self._run, path), self._label(store, found.label))

        return await self._ledger.call(read)

    async def deleted(self, path: str) -> bool:
        found = await self._ledger.call(lambda store: store.file_latest(self._run, path))
        return found is not None and found.deleted

    async def maker(self, path: str) -> str:
        found = await self._ledger.call(lambda store: store.file_latest(self._run, path))
        return found.slot if found is not None and not found.deleted else ""

    async def versions(self) -> dict[str, Version]:
        def read(store: Store) -> dict[str, Version]:
            found = newest(store.file_versions(self._run))
            return {f.path: Version(self._label(store, f.label), f.deleted) for f in found}

        return await self._ledger.call(read)

    async def origin(self, path: str, digest: str) -> Label:
        """See `RunFiles`. What was copied from there, or has changed since, is nobody's but the
        file's."""
        first, _, below = path.partition("/")
        known = first in self._inputs
        place = self._inputs[first] / below if known else self._inputs.get("", Path()) / path

        def look(store: Store) -> Label:
            if self._roots is None:
                self._roots = store.applied_roots()
            found = PUBLIC
            for root in self._roots:
                if place.is_relative_to(root):
                    made = str(place.relative_to(root)), digest
                    for key in store.applied_labels(root, *made):
                        found = found.join(self._label(store, key))
            return found

        return PUBLIC if self._roots == [] else await self._ledger.call(look)

    def _label(self, store: Store, key: str) -> Label:
        """A label has its content's hash for a key: what was read once stays true."""
        if key not in self._labels:
            self._labels[key] = store.label(key)
        return self._labels[key]


def newest(versions: list[FileVersion]) -> list[FileVersion]:
    """The last version of each path, sorted by path."""
    found: dict[str, FileVersion] = {}
    for version in versions:
        known = found.get(version.path)
        if known is None or version.version > known.version:
            found[version.path] = version
    return [found[path] for path in sorted(found)]
