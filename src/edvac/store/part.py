"""What the parts of the store share: the database, the blobs, and a run's number.

Each part adds the methods of one noun; `Store` is their sum.
"""

from __future__ import annotations

from edvac.core.errors import UsageError
from edvac.core.seams import Clock
from edvac.store.blobs import Blobs
from edvac.store.database import Database
from edvac.store.owner import Owners


def unknown_run(run: str) -> UsageError:
    return UsageError(
        "run_unknown",
        f"there is no run {run!r} in this workspace",
        "",
        "See `edvac ps` for those there are.",
    )


class Part:
    _db: Database
    _blobs: Blobs
    _clock: Clock
    _owners: Owners
    _numbers: dict[str, int]

    def _number(self, run: str) -> int:
        """The run's row number, which is never given to another run.

        Raises:
            UsageError: no such run.
        """
        found = self._numbers.get(run)
        if found is None:
            rows = self._db.rows("SELECT number FROM run WHERE id = ?", (run,))
            if not rows:
                raise unknown_run(run)
            found = self._numbers[run] = rows[0][0]
        return found
