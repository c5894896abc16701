"""How the conditions of a program went in its earlier runs: what a run's guesses begin with.

The latest run of a name keeps the trail of those before it, so that one look into the journal finds
all. Knows nothing of how guesses are made.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edvac.control import Record
from edvac.control.predictor import Decided
from edvac.store import Store


def past_of(store: Store, name: str) -> list[Decided]:
    """Conditions of earlier runs, the oldest first; none where there was no run."""
    found = store.reuse_get(_key(name)) if name else None
    if found is None:
        return []
    body: dict[str, Any] = msgspec.msgpack.decode(found.payload)
    sites = body["sites"]
    return [(sites[at], taken == "1") for at, taken in zip(body["at"], body["taken"], strict=True)]


def trail_record(name: str, trail: list[Decided]) -> Record:
    """What the next run of this name finds."""
    sites = {site: at for at, site in enumerate(dict.fromkeys(site for site, _ in trail))}
    body = {
        "verdict": "conditions",
        "sites": list(sites),
        "at": [sites[site] for site, _ in trail],
        "taken": "".join("01"[taken] for _, taken in trail),
    }
    return Record("approved", "", body, reuse_key=_key(name))


def _key(name: str) -> str:
    return f"conditions\n{name}"
