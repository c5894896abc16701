"""How long runs are kept: those that ended too long ago go, with their prompts and values, and with
what engines kept of what they read."""

from __future__ import annotations

from edvac.core.errors import LeaseError, UsageError
from edvac.machine.detach import log_path
from edvac.store import Store

DAY_S = 86_400.0
ALL = 2**31  # runs of a workspace
ENDED = ("done", "partial", "cancelled")


def forget_read() -> None:
    """Have engines give up what they keep of all that they have read; it is not told apart by run,
    and costs only time to read again."""
    from edvac.engine.client import default_cache, default_runtime
    from edvac.engine.forget import forget

    forget(default_runtime(), default_cache())


def forget_expired(store: Store, keep_days: int, wall: float) -> list[str]:
    """Remove the runs that ended more than `keep_days` days before `wall`, as `rm` does; returns
    their names.

    What can still go on stays however old it is, and so does the newest run: a clock that is wrong
    by years must not empty a workspace of the run that has just ended. What a run applied can then
    no longer be undone, but a later run still replaces it.

    Args:
        keep_days: 0 keeps everything.
        wall: seconds since 1970.
    """
    if not keep_days:
        return []
    removed = []
    ended = [info for info in store.runs(ALL)[1:] if info.state in ENDED]
    for info in ended:
        if info.closed is not None and info.closed < wall - keep_days * DAY_S:
            try:
                store.forget_run(info.id)
            except (LeaseError, UsageError):
                continue  # somebody goes on with it just now, or has removed it
            log_path(store.workspace, info.id).unlink(missing_ok=True)
            removed.append(info.id)
    if removed:
        forget_read()
    return removed
