"""Runs and who owns them: the list, lookup by prefix, leases with a fencing number, removal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from edvac.core.errors import InternalError, LeaseError, UsageError
from edvac.core.seams import durability_point
from edvac.store.chain import SEQ_BITS, first_link
from edvac.store.filing import keep_placed
from edvac.store.lease import Holder, at_work, is_live, may_take, refuse_stale, refuse_taken
from edvac.store.model import Lease, RunInfo, State
from edvac.store.owner import Process
from edvac.store.part import Part, unknown_run
from edvac.store.schema import Execute
from edvac.store.seal import reseal, sealed, sound

_COLUMNS = sealed(
    "SELECT run.id, run.created, run.state, run.task, run.program, run.title,"
    " head.owner, head.process, head.epoch, head.expires, head.seen,"
    " run.closed, run.seconds, run.counts, head.last,"
    " SOUND FROM run JOIN head USING (number)",
    "run",
    "head",
)


# Both lock the row: what is decided on it holds until the transaction ends.
_FENCE = sealed(
    "SELECT epoch, owner, last, hash, SOUND FROM head WHERE number = ? /* FOR UPDATE */", "head"
)
_HOLDER = sealed(
    "SELECT owner, process, epoch, expires, seen, SOUND FROM head"
    " WHERE number = ? /* FOR UPDATE */",
    "head",
)


def check_name(run: str) -> None:
    """Names go into messages and addresses, so they are plain.

    Raises:
        InternalError: it is not one to 64 letters, digits, `-`, `_` or `.`.
    """
    if not 0 < len(run) <= 64 or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in run):
        raise InternalError("run_name_malformed", f"{run!r} cannot name a run")


def is_meant(run: str, prefix: str) -> bool:
    """May somebody who gives this prefix mean the run? One that works for another is meant only by
    who names that."""
    return "." in prefix or "." not in run


def pick_run(prefix: str, found: Sequence[RunInfo]) -> RunInfo:
    """The one run meant by a prefix: the exact name, or the only one that starts so.

    Raises:
        UsageError: none or several do.
    """
    for info in found:
        if info.id == prefix:
            return info
    if not found:
        raise unknown_run(prefix)
    if len(found) > 1:
        names = ", ".join(info.id for info in found[:5])
        raise UsageError(
            "run_ambiguous",
            f"{prefix!r} could be several runs",
            f"{names}{', ...' if len(found) > 5 else ''} start with it.",
            "Give more letters.",
        )
    return found[0]


class RunPart(Part):
    _acknowledged: dict[str, tuple[int, bytes]]
    _doubtful: dict[str, tuple[int, bytes]]

    def create_run(self, run: RunInfo) -> None:
        """Add a run.

        Raises:
            UsageError: one of that name exists.
        """
        check_name(run.id)
        with self._db.write("creating a run") as execute:
            if execute("SELECT 1 FROM run WHERE id = ?", (run.id,)).fetchall():
                raise _exists(run.id)
            values = (run.id, run.created, run.state, run.task, run.program, run.title)
            rows = execute(
                "INSERT INTO run (id, created, state, task, program, title)"
                " VALUES (?,?,?,?,?,?) ON CONFLICT DO NOTHING RETURNING number",
                values,
            ).fetchall()
            if not rows:  # made by somebody else since the question above
                raise _exists(run.id)
            number: int = rows[0][0]
            head = first_link(run.id)
            execute("INSERT INTO head (number, hash) VALUES (?,?)", (number, head))
            reseal(execute, "run", "number = ?", (number,))
            reseal(execute, "head", "number = ?", (number,))
            durability_point("store.create.before_commit")
        self._numbers[run.id] = number
        self._acknowledged[run.id] = (0, head)
        durability_point("store.create.after_commit")

    def runs(self, limit: int = 50, states: Sequence[State] = ()) -> list[RunInfo]:
        """Runs, newest first, in the order of their creation and not of any clock; without those
        that work for another."""
        where = f" AND run.state IN ({','.join('?' * len(states))})" if states else ""
        sql = f"{_COLUMNS} WHERE instr(run.id, '.') = 0{where} ORDER BY run.number DESC LIMIT ?"
        return self._infos(self._db.rows(sql, (*states, limit)))

    def run(self, run: str) -> RunInfo:
        """One run by its full name.

        Raises:
            UsageError: no such run.
        """
        rows = self._db.rows(f"{_COLUMNS} WHERE run.id = ?", (run,))
        if not rows:
            raise unknown_run(run)
        return self._infos(rows)[0]

    def _infos(self, rows: list[tuple[Any, ...]]) -> list[RunInfo]:
        now = self._clock.wall() if rows else 0.0
        return [self._info(row, now) for row in sound("run", rows)]

    def _info(self, row: Sequence[Any], now: float) -> RunInfo:
        run, created, state, task, program, title, *head, closed, seconds, counts, last = row
        holder = _held(head)
        return RunInfo(
            run,
            created,
            state,
            task,
            program,
            title,
            at_work(holder, now, self._owners),
            holder.epoch,
            holder.expires,
            closed,
            seconds,
            msgspec.json.decode(counts),
            last,
        )

    def find_run(self, prefix: str | None = None) -> RunInfo:
        """The run that a person means; without a prefix the latest.

        Raises:
            UsageError: none or several match.
        """
        if prefix is None:
            latest = self.runs(limit=1)
            if not latest:
                raise UsageError(
                    "run_none", "there are no runs here yet", "", "Start one: `edvac run TASK`."
                )
            return latest[0]
        sql = f"{_COLUMNS} WHERE substr(run.id, 1, ?) = ? ORDER BY run.number DESC"
        found = self._infos(self._db.rows(sql, (len(prefix), prefix)))
        return pick_run(prefix, [info for info in found if is_meant(info.id, prefix)])

    def set_state(
        self,
        lease: Lease,
        state: State,
        *,
        closed: float | None = None,
        seconds: float | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Set how the run stands. `closed` is set as given, so that a run can be opened again;
        `seconds` and `counts` stay as they are where they are None.

        Raises:
            LeaseError: the lease is stale.
        """
        number = self._number(lease.run)
        packed = None if counts is None else msgspec.json.encode(dict(counts)).decode()
        with self._db.write("setting a run's state") as execute:
            check_epoch(execute, number, lease)
            execute(
                "UPDATE run SET state = ?, closed = ?, seconds = coalesce(?, seconds),"
                " counts = coalesce(?, counts) WHERE number = ?",
                (state, closed, seconds, packed, number),
            )
            reseal(execute, "run", "number = ?", (number,))
            durability_point("store.state.before_commit")
        durability_point("store.state.after_commit")

    def remove_run(self, run: str) -> None:
        """Remove a run and all of its rows; `gc` then frees its blobs.

        Raises:
            LeaseError: somebody is working on it.
        """
        number = self._number(run)
        with self._db.write("removing a run") as execute:
            holder = _holder(execute, number)
            if is_live(holder, self._clock.wall(), self._owners):
                raise refuse_taken(run, holder)
            first, last = number << SEQ_BITS, (number + 1) << SEQ_BITS
            execute("DELETE FROM record WHERE id >= ? AND id < ?", (first, last))
            keep_placed(execute, number)
            execute("DELETE FROM run WHERE number = ?", (number,))
            durability_point("store.remove.before_commit")
        for table in (self._numbers, self._acknowledged, self._doubtful):
            table.pop(run, None)

    def acquire(self, run: str, owner: str, ttl_s: float, now_wall: float) -> Lease:
        """Become the run's owner. The fencing number rises, so an earlier owner's appends fail.

        Raises:
            LeaseError: its owner is alive and its lease has not ended.
        """
        number = self._number(run)
        with self._db.write("acquiring a run") as execute:
            holder = _holder(execute, number)
            now = self._lease_time(now_wall)
            if not may_take(holder, owner, now, self._owners):
                raise refuse_taken(run, holder)
            now = max(now, holder.seen)
            lease = Lease(run, owner, holder.epoch + 1, now + ttl_s)
            execute(
                "UPDATE head SET owner = ?, process = ?, epoch = ?, acquired = ?, expires = ?,"
                " seen = ? WHERE number = ?",
                (owner, self._owners.me().stored(), lease.epoch, now, lease.expires, now, number),
            )
            reseal(execute, "head", "number = ?", (number,))
            last, head = execute(
                "SELECT last, hash FROM head WHERE number = ?", (number,)
            ).fetchall()[0]
            durability_point("store.lease.before_commit")
        self._acknowledged[run] = (last, head)
        self._doubtful.pop(run, None)  # a new epoch: the owner reads what is there
        durability_point("store.lease.after")
        return lease

    def renew(self, lease: Lease, ttl_s: float, now_wall: float) -> Lease:
        """Prolong a lease, also one that has run out while nobody took it.

        Raises:
            LeaseError: somebody took it.
        """
        number = self._number(lease.run)
        with self._db.write("renewing a lease") as execute:
            check_epoch(execute, number, lease)
            now = max(self._lease_time(now_wall), _holder(execute, number).seen)
            execute(
                "UPDATE head SET expires = ?, seen = ? WHERE number = ?",
                (now + ttl_s, now, number),
            )
            reseal(execute, "head", "number = ?", (number,))
        return replace(lease, expires=now + ttl_s)

    def release(self, lease: Lease) -> None:
        """Give the run up. A lease that is stale already is nothing to complain of."""
        number = self._number(lease.run)
        with self._db.write("releasing a run") as execute:
            execute(
                "UPDATE head SET owner = NULL, process = NULL, expires = 0"
                " WHERE number = ? AND epoch = ?",
                (number, lease.epoch),
            )
            reseal(execute, "head", "number = ?", (number,))
            durability_point("store.release.before_commit")
        self._acknowledged.pop(lease.run, None)
        self._doubtful.pop(lease.run, None)


def _exists(run: str) -> UsageError:
    return UsageError("run_exists", f"there is a run {run!r} already")


def check_epoch(execute: Execute, number: int, lease: Lease) -> tuple[int, bytes]:
    """The run's last seq and hash, if the lease is still its owner's.

    Raises:
        LeaseError: it is not.
    """
    rows = execute(_FENCE, (number,)).fetchall()
    if not rows:
        raise unknown_run(lease.run)
    epoch, owner, last, head = sound("head", rows)[0]
    if epoch != lease.epoch or owner is None:
        raise refuse_stale(lease.run, lease.epoch, epoch)
    return last, head


def _holder(execute: Execute, number: int) -> Holder:
    rows = execute(_HOLDER, (number,)).fetchall()
    if not rows:
        raise LeaseError("run_gone", "the run was removed in the meantime")
    return _held(sound("head", rows)[0])


def _held(row: Sequence[Any]) -> Holder:
    owner, process, epoch, expires, seen = row
    return Holder(owner, Process.restore(process) if process else None, epoch, expires, seen)
