"""Taking a message out of a run's inbox, inside a transaction of the caller's."""

from __future__ import annotations

from edvac.store.schema import Execute
from edvac.store.seal import reseal


def take_message(execute: Execute, number: int, message: int) -> bool:
    """Mark a message as taken; False if it was already, or is no message of this run."""
    rows = execute(
        "UPDATE inbox SET taken = 1 WHERE id = ? AND number = ? AND taken = 0 RETURNING id",
        (message, number),
    ).fetchall()
    if rows:
        reseal(execute, "inbox", "id = ?", (message,))
    return bool(rows)
