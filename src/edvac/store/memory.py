"""A store in dicts: the plain version that the real one is compared with, and the one that seeded
simulations run on.

It keeps the whole contract except surviving its process. `fault` is called before and after each
change (``append.before``, ``append.after``, ...) and may raise, which stands for a disk that fails
or a process that dies there. Knows nothing of SQLite or files.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from edvac.core.codec import INLINE_LIMIT
from edvac.core.errors import (
    DamageError,
    InternalError,
    StoreError,
    UnreachableError,
    UsageError,
)
from edvac.core.label import Label
from edvac.core.seams import Clock, SystemClock
from edvac.store.chain import content_digest, first_link
from edvac.store.filing import (
    apply_missing,
    apply_unfinished,
    check_version,
    file_missing,
    glob_pattern,
    place_key,
    stage_file,
)
from edvac.store.journal import Staged, as_record, check_records, make_batch
from edvac.store.lease import Holder, at_work, is_live, may_take, refuse_stale, refuse_taken
from edvac.store.memory_threads import MemoryThreads
from edvac.store.model import (
    MESSAGE_KINDS,
    ApplyEntry,
    ApplyPlan,
    FileVersion,
    Grant,
    Kind,
    Lease,
    Message,
    MessageKind,
    NewRecord,
    Problem,
    QueuedRun,
    QueuedState,
    Record,
    RunInfo,
    RunQueue,
    Schedule,
    State,
    Swept,
)
from edvac.store.owner import Owners, SystemOwners
from edvac.store.part import unknown_run
from edvac.store.run_queues import may_replace, queue_full, queue_unknown, replaced
from edvac.store.runs import check_name, is_meant, pick_run
from edvac.store.segments import has_row


@dataclass(slots=True)
class _Run:
    number: int
    info: RunInfo
    holder: Holder
    records: list[Record] = field(default_factory=list)
    versions: list[FileVersion] = field(default_factory=list)  # with content
    plans: list[ApplyPlan] = field(default_factory=list)
    inbox: list[Message] = field(default_factory=list)
    doubt: tuple[int, bytes] | None = None

    @property
    def head(self) -> tuple[int, bytes]:
        if not self.records:
            return 0, first_link(self.info.id)
        return self.records[-1].seq, bytes.fromhex(self.records[-1].hash)


def _standing(run: _Run) -> set[bytes]:
    """What it has put into directories and not taken back."""
    return {
        place_key(plan.root, entry.path, entry.after)
        for plan in run.plans
        for entry in plan.entries
        if plan.phase != "undone" and entry.state != "undone" and entry.after is not None
    }


def _no_fault(_place: str) -> None:
    return None


class MemoryStore(MemoryThreads):
    """See `StoreProtocol`. Closing it forgets nothing: a simulation closes it and goes on."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        owners: Owners | None = None,
        fault: Callable[[str], None] = _no_fault,
    ) -> None:
        self._clock = clock or SystemClock()
        self._owners = owners or SystemOwners()
        self.fault = fault
        self._runs: dict[str, _Run] = {}
        self._count = self._messages = 0
        self._labels: dict[str, Label] = {}
        self._segments: dict[str, str] = {}
        self._blobs: dict[str, bytes] = {}
        self._blob_times: dict[str, float] = {}
        self._reuse: dict[str, dict[int, tuple[str, int]]] = {}
        self._grants: dict[str, Grant] = {}
        self._schedules: dict[str, Schedule] = {}
        self._queues: dict[str, RunQueue] = {}
        self._queued: dict[int, QueuedRun] = {}
        self._queued_last = 0
        self._placed: set[bytes] = set()
        self._threads = {}

    def close(self) -> None:
        return None

    def _get(self, run: str) -> _Run:
        if run not in self._runs:
            raise unknown_run(run)
        return self._runs[run]

    def _owned(self, lease: Lease) -> _Run:
        run = self._get(lease.run)
        if run.holder.owner is None or run.holder.epoch != lease.epoch:
            raise refuse_stale(lease.run, lease.epoch, run.holder.epoch)
        return run

    # runs and ownership

    def create_run(self, run: RunInfo) -> None:
        check_name(run.id)
        if run.id in self._runs:
            raise UsageError("run_exists", f"there is a run {run.id!r} already")
        self.fault("create.before")
        self._count += 1
        info = RunInfo(run.id, run.created, run.state, run.task, run.program, run.title)
        self._runs[run.id] = _Run(self._count, info, Holder(None, None, 0, 0.0, 0.0))
        self.fault("create.after")

    def _info(self, run: _Run) -> RunInfo:
        held = run.holder
        return replace(
            run.info,
            owner=at_work(held, self._clock.wall(), self._owners),
            epoch=held.epoch,
            expires=held.expires,
            last_seq=run.head[0],
        )

    def _newest(self) -> list[RunInfo]:
        ordered = sorted(self._runs.values(), key=lambda run: run.number, reverse=True)
        return [self._info(run) for run in ordered]

    def runs(self, limit: int = 50, states: Sequence[State] = ()) -> list[RunInfo]:
        found = [i for i in self._newest() if not states or i.state in states]
        return [info for info in found if "." not in info.id][:limit]

    def run(self, run: str) -> RunInfo:
        return self._info(self._get(run))

    def find_run(self, prefix: str | None = None) -> RunInfo:
        newest = self._newest()
        if prefix is not None:
            found = [info for info in newest if info.id.startswith(prefix)]
            return pick_run(prefix, [info for info in found if is_meant(info.id, prefix)])
        newest = [info for info in newest if "." not in info.id]
        if not newest:
            raise UsageError(
                "run_none", "there are no runs here yet", "", "Start one: `edvac run TASK`."
            )
        return newest[0]

    def set_state(
        self,
        lease: Lease,
        state: State,
        *,
        closed: float | None = None,
        seconds: float | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        run = self._owned(lease)
        self.fault("state.before")
        run.info = replace(
            run.info,
            state=state,
            closed=closed,
            seconds=run.info.seconds if seconds is None else seconds,
            counts=run.info.counts if counts is None else dict(counts),
        )
        self.fault("state.after")

    def remove_run(self, run: str) -> None:
        found = self._get(run)
        if is_live(found.holder, self._clock.wall(), self._owners):
            raise refuse_taken(run, found.holder)
        self.fault("remove.before")
        self._placed |= _standing(found)
        del self._runs[run]
        for table in self._reuse.values():
            table.pop(found.number, None)
        self.fault("remove.after")

    def acquire(self, run: str, owner: str, ttl_s: float, now_wall: float) -> Lease:
        found = self._get(run)
        if not may_take(found.holder, owner, now_wall, self._owners):
            raise refuse_taken(run, found.holder)
        self.fault("lease.before")
        now = max(now_wall, found.holder.seen)
        lease = Lease(run, owner, found.holder.epoch + 1, now + ttl_s)
        found.holder = Holder(owner, self._owners.me(), lease.epoch, lease.expires, now)
        found.doubt = None
        self.fault("lease.after")
        return lease

    def renew(self, lease: Lease, ttl_s: float, now_wall: float) -> Lease:
        run = self._owned(lease)
        now = max(now_wall, run.holder.seen)
        run.holder = replace(run.holder, expires=now + ttl_s, seen=now)
        return replace(lease, expires=now + ttl_s)

    def release(self, lease: Lease) -> None:
        run = self._get(lease.run)
        if run.holder.epoch == lease.epoch:
            run.holder = replace(run.holder, owner=None, process=None, expires=0.0)

    # journal

    def append(
        self,
        lease: Lease,
        records: Sequence[NewRecord],
        files: Sequence[FileVersion] = (),
        taken: Sequence[int] = (),
    ) -> int:
        check_records(records)
        run = self._get(lease.run)
        staged: list[Staged] = [
            (r, self.put_blob(r.payload) if len(r.payload) > INLINE_LIMIT else None)
            for r in records
        ]
        filed = [stage_file(entry, self.put_blob) for entry in files]
        self._owned(lease)
        if run.doubt is not None and run.doubt[0] != run.head[0]:
            rows, hashes = make_batch(run.number, run.doubt, lease, staged, filed)
            if (rows[-1].seq, hashes[-1]) == run.head:
                run.doubt = None
                return rows[-1].seq
        before = run.head
        try:
            self.fault("append.before")
            self._append(run, lease, staged, filed)
            run.inbox = [message for message in run.inbox if message.id not in taken]
            self.fault("append.after")
        except StoreError as error:
            if error.code == "store_io_failed" and run.doubt is None:
                run.doubt = before
            raise
        run.doubt = None
        return run.head[0]

    def _append(
        self, run: _Run, lease: Lease, staged: Sequence[Staged], filed: Sequence[FileVersion]
    ) -> None:
        self._check_named(staged, filed)
        rows, hashes = make_batch(run.number, run.head, lease, staged, filed)
        latest: dict[str, int] = {entry.path: entry.version for entry in run.versions}
        for entry in filed:
            check_version(latest.get(entry.path), entry)
            latest[entry.path] = entry.version
        for (record, _), row, hash_ in zip(staged, rows, hashes, strict=True):
            run.records.append(as_record(lease.run, row, hash_, record.payload))
            self._labels.update(record.labels)
            if record.reuse_key is not None:
                table = self._reuse.setdefault(record.reuse_key, {})
                table[run.number] = (lease.run, row.seq)
        run.versions.extend(replace(entry, seq=rows[-1].seq) for entry in filed)

    def _check_named(self, staged: Sequence[Staged], filed: Sequence[FileVersion]) -> None:
        for ref in (
            *(ref for record, _ in staged for ref in record.blobs),
            *(entry.blob for entry in filed if entry.blob),
        ):
            if ref not in self._blobs:
                raise StoreError(
                    "blob_missing", f"a record names blob {ref}, which is not in the store"
                )
        for hash_ in (hash_ for record, _ in staged for hash_ in record.segments):
            if has_row(hash_) and hash_ not in self._segments:
                raise InternalError("segment_missing", f"no segment {hash_} was put")

    def records(
        self, run: str, kinds: Collection[Kind] | None = None, after: int = 0
    ) -> Iterator[Record]:
        found = self._get(run)
        at = after
        while at < len(found.records):
            record = found.records[at]
            at += 1
            if kinds is None or record.kind in kinds:
                yield record

    def reuse_get(self, reuse_key: str) -> Record | None:
        table = self._reuse.get(reuse_key)
        if not table:
            return None
        run, seq = table[max(table)]
        return self._runs[run].records[seq - 1]

    def label(self, key: str) -> Label:
        if key not in self._labels:
            raise DamageError("label_damaged", f"label {key} is not what was stored")
        return self._labels[key]

    def put_segment(self, text: str) -> str:
        if not has_row(text):
            return text
        hash_ = content_digest(text.encode())
        self._segments[hash_] = text
        return hash_

    def segment(self, hash_: str) -> str:
        if not has_row(hash_):
            return hash_
        if hash_ not in self._segments:
            raise DamageError("segment_damaged", f"prompt segment {hash_} is not what was stored")
        return self._segments[hash_]

    # blobs

    def worth_repeating(self, error: UnreachableError) -> bool:
        del error
        return False

    def put_blob(self, data: bytes) -> str:
        self.fault("blob.before")
        ref = content_digest(data)
        self._blobs[ref] = data
        self._blob_times[ref] = self._clock.wall()
        self.fault("blob.after")
        return ref

    def get_blob(self, ref: str) -> bytes:
        if ref not in self._blobs:
            raise DamageError("blob_damaged", f"blob {ref} cannot be used", "The file is missing.")
        return self._blobs[ref]

    def put_blob_stream(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        data = b"".join(chunks)
        return self.put_blob(data), len(data)

    def open_blob(self, ref: str) -> BinaryIO:
        return io.BytesIO(self.get_blob(ref))

    # versioned files and their application

    def file_latest(self, run: str, path: str) -> FileVersion | None:
        found = [entry for entry in self.file_versions(run) if entry.path == path]
        return found[-1] if found else None

    def file_versions(self, run: str) -> list[FileVersion]:
        found = (replace(entry, content=None) for entry in self._get(run).versions)
        return sorted(found, key=lambda entry: (entry.path, entry.version))

    def list_files(self, run: str, glob: str = "**") -> list[FileVersion]:
        pattern = glob_pattern(glob)
        latest = {entry.path: entry for entry in self.file_versions(run)}
        return [e for e in latest.values() if not e.deleted and pattern.fullmatch(e.path)]

    def read_file(self, run: str, path: str, version: int | None = None) -> bytes:
        found = [
            entry
            for entry in self._get(run).versions
            if entry.path == path and version in (None, entry.version)
        ]
        if not found or found[-1].deleted:
            raise file_missing(run, path, version)
        content, blob = found[-1].content, found[-1].blob
        return self.get_blob(blob or "") if content is None else content

    def begin_apply(self, run: str, root: str, entries: Sequence[ApplyEntry]) -> int:
        found = self._get(run)
        for entry in entries:
            if entry.before is not None and entry.before not in self._blobs:
                raise StoreError("blob_missing", f"blob {entry.before} is not in the store")
        if found.plans and found.plans[-1].phase == "begun":
            raise apply_unfinished(run)
        self.fault("apply.before")
        ordered = tuple(sorted(entries, key=lambda entry: entry.path))
        found.plans.append(ApplyPlan(run, len(found.plans) + 1, root, "begun", ordered))
        self.fault("apply.after")
        return len(found.plans)

    def mark_applied(self, run: str, path: str) -> None:
        plan = self._current(run)
        self._put_plan(
            plan,
            tuple(replace(e, state="applied") if e.path == path else e for e in plan.entries),
        )

    def finish_apply(self, run: str) -> None:
        plan = self._current(run)
        self._put_plan(replace(plan, phase="finished"), plan.entries)

    def mark_undone(self, run: str, path: str | None = None) -> None:
        plan = self._current(run)
        entries = tuple(
            replace(e, state="undone") if path in (None, e.path) else e for e in plan.entries
        )
        self._put_plan(replace(plan, phase="undone") if path is None else plan, entries)

    def applied(self, run: str) -> ApplyPlan | None:
        live = [plan for plan in self._get(run).plans if plan.phase != "undone"]
        return live[-1] if live else None

    def was_applied(self, root: str, path: str, digest: str) -> bool:
        here = (_standing(run) for run in self._runs.values())
        return place_key(root, path, digest) in self._placed.union(*here)

    def applied_roots(self) -> list[str]:
        return sorted({plan.root for run in self._runs.values() for plan in run.plans})

    def applied_labels(self, root: str, path: str, digest: str) -> list[str]:
        return sorted(
            {
                one.label
                for run in self._runs.values()
                for one in run.versions
                if one.path == path and digest in ("", one.digest)
                if place_key(root, path, one.digest) in _standing(run)
            }
        )

    def _current(self, run: str) -> ApplyPlan:
        plan = self.applied(run)
        if plan is None:
            raise apply_missing(run)
        return plan

    def _put_plan(self, plan: ApplyPlan, entries: tuple[ApplyEntry, ...]) -> None:
        self._runs[plan.run].plans[plan.round - 1] = replace(plan, entries=entries)

    # inbox and permissions

    def post(self, run: str, kind: MessageKind, payload: bytes = b"") -> int:
        return self.post_all(run, kind, [payload])[0]

    def post_all(self, run: str, kind: MessageKind, payloads: Sequence[bytes]) -> list[int]:
        if kind not in MESSAGE_KINDS:
            raise InternalError("message_kind_unknown", f"{kind!r} is no kind of message")
        found = self._get(run)
        first = self._messages + 1
        for payload in payloads:
            self._messages += 1
            found.inbox.append(Message(self._messages, run, kind, payload, self._clock.wall()))
        return list(range(first, self._messages + 1))

    def inbox(self, run: str, after: int = 0) -> list[Message]:
        return [message for message in self._get(run).inbox if message.id > after]

    def ack(self, run: str, message: int) -> bool:
        found = self._get(run)
        left = [waiting for waiting in found.inbox if waiting.id != message]
        taken = len(left) < len(found.inbox)
        found.inbox = left
        return taken

    def grant(self, given: Grant) -> None:
        self._grants[given.id] = given

    def grants(self, now_wall: float | None = None) -> list[Grant]:
        found = (
            grant
            for grant in self._grants.values()
            if now_wall is None or grant.expires is None or grant.expires > now_wall
        )
        return sorted(found, key=lambda grant: (grant.created, grant.id))

    def revoke(self, grant: str) -> bool:
        return self._grants.pop(grant, None) is not None

    def keep_schedule(self, schedule: Schedule) -> None:
        self._schedules[schedule.id] = schedule

    def schedules(self) -> list[Schedule]:
        return sorted(self._schedules.values(), key=lambda one: (one.created, one.id))

    def drop_schedule(self, schedule: str) -> bool:
        return self._schedules.pop(schedule, None) is not None

    def keep_queue(self, queue: RunQueue) -> None:
        known = self._queues.get(queue.name, queue)
        self._queues[queue.name] = replace(queue, created=known.created)

    def queues(self) -> list[RunQueue]:
        return sorted(self._queues.values(), key=lambda one: (one.created, one.name))

    def drop_queue(self, name: str) -> bool:
        self._queued = {key: one for key, one in self._queued.items() if one.queue != name}
        return self._queues.pop(name, None) is not None

    def enqueue(self, item: QueuedRun, most: int, *, replaces: bool = False) -> QueuedRun:
        if item.queue not in self._queues:
            raise queue_unknown(item.queue)
        here = self.queued(item.queue)
        for one in here:
            if item.key and one.key == item.key and not replaces:
                return one
            if item.key and one.key == item.key and may_replace(one, item):
                made = self._queued[one.id] = replaced(one, item)
                return made
            if item.key and one.key == item.key:
                self._queued[one.id] = replace(one, key="")
        if sum(one.state == "waiting" for one in here) >= most:
            raise queue_full(item.queue, most)
        self._queued_last += 1
        made = self._queued[self._queued_last] = replace(item, id=self._queued_last)
        return made

    def queued(self, queue: str, states: Sequence[QueuedState] = ()) -> list[QueuedRun]:
        found = [one for one in self._queued.values() if one.queue == queue]
        found = [one for one in found if not states or one.state in states]
        return sorted(found, key=lambda one: (-one.priority, one.id))

    def keep_queued(self, item: QueuedRun) -> bool:
        if item.id not in self._queued:
            return False
        self._queued[item.id] = replace(item, key=self._queued[item.id].key)
        return True

    def drop_queued(self, item: int) -> bool:
        return self._queued.pop(item, None) is not None

    # care

    def verify(self) -> list[Problem]:
        return []

    def gc(self, grace_s: float = 3600.0) -> Swept:
        now = self._clock.wall()
        live = [r.holder.seen for r in self._runs.values() if is_live(r.holder, now, self._owners)]
        cutoff = min([now - grace_s, *live])
        records = [record for run in self._runs.values() for record in run.records]
        used = {ref for record in records for ref in record.blobs}
        used.update(content_digest(r.payload) for r in records if len(r.payload) > INLINE_LIMIT)
        for run in self._runs.values():
            used.update(entry.blob for entry in run.versions if entry.blob)
            used.update(e.before for plan in run.plans for e in plan.entries if e.before)
        blobs = [r for r in self._blobs if r not in used and self._blob_times[r] <= cutoff]
        size = sum(len(self._blobs.pop(ref)) for ref in blobs)
        labels = set(self._labels) - {key for record in records for key in record.labels}
        for key in labels:
            del self._labels[key]
        return Swept(len(blobs), size, len(labels))
