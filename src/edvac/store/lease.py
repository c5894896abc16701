"""When a run may change hands: the pure rule, shared by every implementation of the store.

Time is what the caller's clock says, but never less than the store has seen for the run, so that a
clock that goes back does not lengthen anybody's lease.
"""

from __future__ import annotations

from dataclasses import dataclass

from edvac.core.errors import LeaseError
from edvac.store.owner import Owners, Process


@dataclass(frozen=True, slots=True)
class Holder:
    """The ownership fields of a run. `seen` is the latest wall time that the store was told."""

    owner: str | None
    process: Process | None
    epoch: int
    expires: float
    seen: float


def is_live(holder: Holder, now: float, owners: Owners) -> bool:
    """Whether the holder must be respected: neither expired nor known to be dead."""
    if holder.owner is None or max(now, holder.seen) >= holder.expires:
        return False
    return holder.process is None or owners.alive(holder.process) is not False


def at_work(holder: Holder, now: float, owners: Owners) -> str | None:
    """The owner to name in a list: nobody works on a run whose owner's lease or life has ended."""
    return holder.owner if is_live(holder, now, owners) else None


def may_take(holder: Holder, owner: str, now: float, owners: Owners) -> bool:
    """Whether `owner` may acquire now. The same owner in the same process may always."""
    if holder.owner == owner and holder.process == owners.me():
        return True
    return not is_live(holder, now, owners)


def refuse_taken(run: str, holder: Holder) -> LeaseError:
    who = f"process {holder.process.pid}" if holder.process else holder.owner
    return LeaseError(
        "run_owned",
        f"run {run} is being worked on by {who}",
        "A run has one owner at a time, and that one is alive.",
        f"Wait for it, or stop it with `edvac kill {run}`.",
    )


def refuse_stale(run: str, held: int, current: int) -> LeaseError:
    return LeaseError(
        "lease_stale",
        f"run {run} has another owner now",
        f"This lease has number {held}; the run is at number {current}.",
        "Stop working on it; the new owner goes on from the journal.",
    )
