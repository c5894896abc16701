"""What went wrong at a PostgreSQL server, as one of the store's errors, and never with a password.

Knows nothing of connections beyond whether one is closed.
"""

from __future__ import annotations

from typing import Any

from edvac.core.errors import DamageError, StoreError, UnreachableError
from edvac.store.address import Address
from edvac.store.database import disk_full, io_failed

# SQLSTATEs. 57P0x, 25P03: the server ended the session; class 08: the connection itself.
_LOST = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
_BUSY = frozenset({"40001", "40P01", "55P03", "57014", "53300"})
_DENIED = frozenset({"42501", "25006"})
_DAMAGED = frozenset({"XX001", "XX002"})
_DOCTOR = "Run `edvac doctor` to see what is damaged."


def is_lost(error: Any, connection: Any) -> bool:
    """Is it the connection that failed, and not the statement?"""
    state = error.sqlstate or ""
    return connection is None or connection.closed or state in _LOST or state[:2] == "08"


def is_refused(error: Any) -> bool:
    """Did a server answer, and say no to who asks, or for what? libpq passes no code on when a
    connection is refused, so the text has to do; a server that speaks another language is taken for
    one that is away, which is said with its own words, too."""
    text = str(error)
    return "FATAL" in text and ("authentication" in text or "does not exist" in text)


def said(address: Address, error: Any) -> str:
    """The driver's words as a sentence."""
    text = address.scrub(str(error)) or type(error).__name__
    return text if text.endswith((".", "!")) else f"{text}."


def unreachable(address: Address, what: str, why: str) -> UnreachableError:
    return UnreachableError(
        "store_unreachable",
        f"the database at {address.shown} cannot be reached, which stopped {what}",
        why,
        "Try again once it is back; `edvac resume` goes on.",
    )


def refusal(address: Address, error: Any) -> StoreError:
    return StoreError(
        "store_refused",
        f"the database at {address.shown} lets nobody in with this name and password",
        said(address, error),
        "Check user, database and password of the store's URL, or your .pgpass file.",
    )


def explained(address: Address, error: Any, what: str) -> StoreError:
    """The typed error for a statement that failed on a connection that did not."""
    state, why = error.sqlstate or "", said(address, error)
    if state == "53100":
        return disk_full(what)
    if state == "58030":
        return io_failed(what, why)
    if state in _DAMAGED:
        fix = "Restore the database from a backup; `edvac doctor` shows what is damaged."
        return DamageError("store_damaged", f"the store is damaged, seen while {what}", why, fix)
    if state in _BUSY:
        return StoreError(
            "store_busy",
            f"another process kept the store locked while {what}",
            why,
            "Try again; look for a stopped edvac process if it stays so.",
        )
    if state in _DENIED:
        return StoreError(
            "store_unwritable",
            f"the store cannot be written while {what}",
            why,
            "Give the user its rights, and name the primary server, not a standby.",
        )
    return StoreError("store_failed", f"the database refused {what}", why, _DOCTOR)


def rolled_back(answer: str) -> StoreError:
    return StoreError(
        "store_failed", "the database did not store a transaction", f"It said {answer}.", _DOCTOR
    )


def lost_commits(address: Address, stored: int, confirmed: int) -> DamageError:
    return DamageError(
        "acknowledged_lost",
        f"the database at {address.shown} lost what it had confirmed",
        f"It had confirmed transaction {confirmed} of this process, and has them up to {stored}.",
        "Do not go on with it: restore the server, or switch to the standby that has all of them.",
    )
