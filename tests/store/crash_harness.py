"""The crash harness: one workload, its oracle, and the check of one image.

`Workload` runs on any store; on `MemoryStore` it gives, after each step, what must be readable
then. An image taken at any point of the log must hold exactly the state after the last acknowledged
step, or the one after the step that was under way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sim_disk import Choose, SimDisk, State, discard, scratch

from edvac.core.codec import label_key
from edvac.core.errors import EdvacError, StoreError, UsageError
from edvac.core.label import USER, Label
from edvac.core.seams import ManualClock
from edvac.store import (
    ApplyEntry,
    FileVersion,
    Grant,
    MemoryStore,
    NewChannel,
    NewCheckpoint,
    NewRecord,
    NewWrites,
    Process,
    QueuedRun,
    RunInfo,
    RunQueue,
    Schedule,
    Store,
    TaskWrite,
    Typed,
)

FILE_LABEL = Label.of(sources=["file:inbox/a.txt"], bits=12)


class OneOwner:
    """A process table in which only this process lives."""

    def __init__(self, pid: int = 1) -> None:
        self._me = Process("machine", "boot", "space", pid, "1")

    def me(self) -> Process:
        return self._me

    def die(self) -> None:
        """From now on it is another process that asks."""
        self._me = replace(self._me, pid=self._me.pid + 1)

    def alive(self, process: Process) -> bool | None:
        return process == self._me


def labels(*given: Label) -> dict[str, Label]:
    return {label_key(label): label for label in given}


def dump(store: Any) -> Any:
    """Everything readable in a store, in a form that can be compared."""
    found = []
    for info in store.runs(limit=1000):
        records = [
            (r, tuple(store.label(key) for key in r.labels), tuple(map(store.segment, r.segments)))
            for r in store.records(info.id)
        ]
        files = [
            (v, None if v.deleted else store.read_file(info.id, v.path, v.version))
            for v in store.file_versions(info.id)
        ]
        found.append((info, records, files, store.inbox(info.id), store.applied(info.id)))
    reuse = [store.reuse_get(f"key-{number}") for number in range(6)]
    threads = [
        (info, store.checkpoint(info.thread, info.namespace, info.id))
        for info in store.checkpoints()
    ]
    queues = [(one, store.queued(one.name)) for one in store.queues()]
    return found, reuse, (store.grants(), store.schedules(), queues), threads


Step = Callable[["Workload"], None]


@dataclass
class Workload:
    """Steps over one store. `acked` blobs must be readable in every later image."""

    make: Callable[[], Any]
    store: Any = None
    leases: dict[str, Any] = field(default_factory=dict)
    blobs: list[tuple[int, str, bytes]] = field(default_factory=list)
    at: int = 0

    def open(self) -> None:
        self.store = self.make()

    def close(self) -> None:
        store, self.store = self.store, None
        store.close()

    def create(self, run: str) -> None:
        self.store.create_run(RunInfo(run, 5.0, task="t" * 300))

    def acquire(self, run: str) -> None:
        self.leases[run] = self.store.acquire(run, "me", 60, 1_000_000_000.0)

    def append(self, run: str, count: int, size: int = 300, number: int = 0) -> None:
        records = [
            NewRecord(
                f"step[{number}.{i}]",
                "outcome" if i % 2 else "intent",
                bytes([number % 251, i]) * (size // 2),
                labels(USER, Label.of(sources=[f"file:{number}"])),
                reuse_key=f"key-{number % 6}" if i == 0 else None,
            )
            for i in range(count)
        ]
        self.store.append(self.leases[run], records)

    def append_rich(self, run: str, version: int) -> None:
        segment = self.store.put_segment(f"You are part {version}. " * 20)
        ref = self.put_blob(bytes([version]) * 3000)
        record = NewRecord(
            "rich", "outcome", b"rich", labels(FILE_LABEL), (ref,), (segment, segment)
        )
        files = [
            FileVersion("out/a.csv", version, "rich", b"a,b\n" * version, label="x"),
            FileVersion("out/b.bin", version, "rich", bytes([7, version]) * 40_000),
            FileVersion("out/c", version, "rich", deleted=True),
        ]
        self.store.append(self.leases[run], [record], files)

    def put_blob(self, data: bytes) -> str:
        ref = self.store.put_blob(data)
        self.blobs.append((self.at, ref, data))
        return ref

    def apply(self, run: str) -> None:
        before = self.blobs[0][1]
        self.store.begin_apply(run, "/r", [ApplyEntry("a", before, "d"), ApplyEntry("b", None, "")])

    def put_checkpoint(self, number: int, namespace: str = "", size: int = 0) -> None:
        """The state grows by two elements, and holds one value of about `size` bytes."""
        sizes = [(200, 30)[n % 2] for n in range(2 * number)]
        items = [bytes([0xC4, size, *[n] * size]) for n, size in enumerate(sizes)]
        grown = Typed("msgpack", b"".join([bytes([0x90 + len(items)]), *items]))
        values = {"items": grown, "count": Typed("msgpack", bytes([number]))}
        values |= {"large": Typed("bytes", bytes(range(251)) * (size // 251))} if size else {}
        channels = {name: NewChannel(number, lambda v=v: v) for name, v in values.items()}
        parent = f"c{number - 1}" if number > 1 else None
        self.store.put_checkpoint(
            NewCheckpoint("t", namespace, f"c{number}", b"state", channels, parent, "run")
        )

    def put_writes(self, number: int) -> None:
        value = Typed("msgpack", bytes([0x91, 0xC4, 200, *[number] * 200]))
        writes = [TaskWrite("task", -1, "error", value), TaskWrite("task", 0, "items", value, "p")]
        self.store.put_writes(NewWrites("t", "", f"c{number}", writes))

    def set_done(self, run: str) -> None:
        self.store.set_state(self.leases[run], "done", closed=9.0, seconds=2.0, counts={"steps": 3})


def steps() -> list[Step]:
    """The workload; each step is one durable change (or none)."""
    made: list[Step] = [
        lambda w: w.open(),
        lambda w: w.create("r1"),
        lambda w: w.acquire("r1"),
        lambda w: w.append("r1", 1, number=1),
        lambda w: w.append("r1", 3, number=2),
        lambda w: w.append("r1", 1, size=100_000, number=3),
        lambda w: w.append_rich("r1", 1) or None,
        lambda w: w.store.post("r1", "signal", b"go") and None,
        lambda w: w.append("r1", 4, size=6000, number=4),
        lambda w: w.store.ack("r1", 1) and None,
        lambda w: w.store.grant(Grant("g", "{}", "run", None, 1.0)),
        lambda w: w.store.keep_schedule(Schedule("s", "{}", 1.0, "2026-05-01")),
        lambda w: w.put_checkpoint(1),
        lambda w: w.put_writes(1),
        lambda w: w.put_checkpoint(2),
        lambda w: w.put_writes(2),
        lambda w: w.put_checkpoint(3, size=200_000),
        lambda w: w.put_checkpoint(1, "child"),
        lambda w: w.store.copy_thread("t", "u") and None,
        lambda w: w.store.prune_threads(["u"]) and None,
        lambda w: w.store.keep_queue(RunQueue("q", "{}", 1.0)),
        lambda w: w.store.enqueue(QueuedRun(0, "q", "{}", "k"), 9) and None,
        lambda w: w.store.keep_queued(QueuedRun(1, "q", "{}", "k", state="done")) and None,
        lambda w: w.create("r2"),
        lambda w: w.acquire("r2"),
        lambda w: w.append("r2", 2, number=5),
        lambda w: w.apply("r1"),
        lambda w: w.store.mark_applied("r1", "a"),
        lambda w: w.store.finish_apply("r1"),
        lambda w: w.put_blob(b"loose" * 100) and None,
        lambda w: w.append_rich("r1", 2) or None,
        lambda w: w.store.release(w.leases["r2"]),
        lambda w: w.close(),
        lambda w: w.open(),
        lambda w: w.append("r1", 2, number=6),
        lambda w: w.store.remove_run("r2"),
        lambda w: w.append("r1", 8, size=1500, number=7),
        lambda w: w.store.append(w.leases["r1"], [NewRecord("", "closed")]) and None,
        lambda w: w.set_done("r1"),
        lambda w: w.store.delete_threads(["u"]) and None,
        lambda w: w.put_checkpoint(4),
        lambda w: w.store.mark_undone("r1"),
        lambda w: w.close(),
    ]
    return made


# Steps that append (repeated blindly after a failure), steps about threads, steps that close.
APPENDS = frozenset({4, 5, 6, 7, 9, 26, 31, 35, 37, 38})
THREADS = frozenset(range(13, 21))
CLOSES = CLOSING = frozenset({33, 43})


@dataclass
class Recorded:
    """A workload that ran: the log of its disk, and the oracle's state after each step."""

    disk: SimDisk
    states: list[Any]
    blobs: list[tuple[int, str, bytes]]


def oracle() -> list[Any]:
    """The state before the first step and after each."""
    store = MemoryStore(clock=ManualClock(), owners=OneOwner())
    work = Workload(lambda: store)
    found = [dump(store)]
    for number, step in enumerate(steps(), start=1):
        work.at = number
        step(work)
        found.append(dump(store))
    return found


def open_store(root: Path, **seams: Any) -> Store:
    return Store(root, clock=ManualClock(), owners=OneOwner(), **seams)


def record(
    files: Callable[[SimDisk], Any] | None = None, kind: Callable[..., Any] = open_store
) -> Recorded:
    """Run the workload on the simulated disk."""
    root = scratch()
    disk = SimDisk(root)
    chosen = files(disk) if files else disk.files
    work = Workload(lambda: kind(root, vfs=disk.vfs_name, files=chosen))
    try:
        for number, step in enumerate(steps(), start=1):
            work.at = number
            step(work)
            disk.ack(number)
    finally:
        discard(root)
    return Recorded(disk, oracle(), work.blobs)


@dataclass
class Outage:
    """A workload under failing syncs."""

    recorded: Recorded
    reached: int  # the last step acknowledged
    failures: int
    broken: str = ""  # a rule that was seen broken


def record_failing(fail: Callable[[int], bool]) -> Outage:
    """Run the workload while `fail` fails syncs; each step is tried three times, as a caller may.

    An append is simply repeated. After another step the caller looks whether it took place.
    """
    root = scratch()
    disk = SimDisk(root)
    disk.fail = fail
    states = oracle()
    work = Workload(lambda: open_store(root, vfs=disk.vfs_name, files=disk.files))
    outage = Outage(Recorded(disk, states, work.blobs), 0, 0)
    before = begun = 0
    try:
        for number, step in enumerate(steps(), start=1):
            work.at = number
            before, begun = begun, len(disk.log)
            if not _insist(work, step, outage):
                return outage
            disk.ack(number)
            outage.reached = number
            # What a failure in this step or the last may have done; later the images tell.
            lately = any(op[0] in ("failed", "ignored") for op in disk.log[before:])
            if lately and work.store is not None and number not in CLOSES:
                try:
                    if dump(work.store) != states[number]:
                        outage.broken = outage.broken or f"step {number} did not happen once"
                except StoreError:
                    pass  # the disk failed again; the images tell
    finally:
        discard(root)
        if work.store is not None:
            work.store._db.drop()  # a store on a dead disk cannot be closed in order
    return outage


def _insist(work: Workload, step: Step, outage: Outage) -> bool:
    log = outage.recorded.disk.log
    blobs = len(work.blobs)
    for _ in range(3):
        try:
            step(work)
        except StoreError as error:
            assert error.code == "store_io_failed", error
            outage.failures += 1
            del work.blobs[blobs:]
            if work.at in CLOSES:
                return True  # closed all the same; what was acknowledged is durable
            if work.at not in APPENDS and _took_place(work, outage.recorded.states):
                return True
            continue
        failed = [index for index, op in enumerate(log) if op[0] == "failed"]
        opened = [index for index, op in enumerate(log) if op[0] == "opened"]
        if failed and not CLOSING & {work.at, work.at - 1} and max(failed) > max(opened):
            # A failure inside a checkpoint comes after the commit; then the next use recovers.
            try:
                work.store.runs()
            except StoreError:
                continue
            if max(failed) > max(i for i, op in enumerate(log) if op[0] == "opened"):
                outage.broken = "the store went on after a failed sync without verifying itself"
        return True
    return False


def _took_place(work: Workload, states: list[Any]) -> bool:
    try:
        return work.store is not None and bool(dump(work.store) == states[work.at])
    except StoreError:
        return False


@dataclass
class Tally:
    images: int = 0
    lost: int = 0
    invented: int = 0
    unreadable: int = 0
    unclean: int = 0
    first: str = ""

    @property
    def bad(self) -> int:
        return self.lost + self.invented + self.unreadable + self.unclean

    def blame(self, kind: str, where: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.first = self.first or f"{kind}: {where}"


def check(image: Path, recorded: Recorded, acked: int, tally: Tally, where: str) -> None:
    """Open an image with the real store and compare."""
    tally.images += 1
    try:
        store = open_store(image)
    except EdvacError as error:
        tally.blame("unreadable", f"{where}: {error!r}")
        return
    try:
        found = dump(store)
        allowed = recorded.states[acked : acked + 2]
        if found not in allowed:
            kind = "lost" if found in recorded.states[:acked] else "invented"
            tally.blame(kind, f"{where}: not the state after step {acked} or the next")
        for at, ref, data in recorded.blobs:
            if at <= acked and store.get_blob(ref) != data:
                tally.blame("lost", f"{where}: blob {ref}")
        problems = store.verify()
        if problems:
            tally.blame("unclean", f"{where}: {problems[:3]}")
    except (StoreError, UsageError) as error:
        tally.blame("lost", f"{where}: {error!r}")
    finally:
        store.close()


def points(log: list[Any]) -> Iterator[tuple[int, int]]:
    """Each place in the log where a crash differs from the one before, with the last step
    acknowledged there."""
    acked = 0
    for index, op in enumerate(log):
        if op[0] == "ack":
            acked = op[1]
        else:
            yield index, acked


def crash(
    recorded: Recorded, images: int, seed: int, *, stop: bool = False, second: bool = True
) -> Tally:
    """Try `images` images of a recorded workload, spread over all points of its log."""
    tally = Tally()
    places = list(points(recorded.disk.log))
    hows = ["all", "none", "last", *["random"] * max(1, images // len(places) - 3)]
    rng = random.Random(seed)
    state, place = State(), 0
    root = scratch()
    try:
        for index, op in enumerate(recorded.disk.log):
            if op[0] == "ack":
                continue
            acked = places[place][1]
            place += 1
            state.apply(op)
            for number, how in enumerate(hows):
                if images < len(places) * len(hows) and rng.random() > images / (
                    len(places) * len(hows)
                ):
                    continue
                image = root / f"{index}-{number}"
                state.image(Choose(how, rng), image)
                where = f"seed {seed}, op {index} {op[:3]!r:.80}, {how}"
                if second and how == "random" and rng.random() < 0.25:
                    _crash_again(image, recorded, acked, tally, (rng, where))
                else:
                    check(image, recorded, acked, tally, where)
                discard(image)
                if stop and tally.bad:
                    return tally
    finally:
        discard(root)
    return tally


def _crash_again(
    image: Path, recorded: Recorded, acked: int, tally: Tally, how: tuple[random.Random, str]
) -> None:
    """Open an image, and lose power once more somewhere in that opening."""
    rng, where = how
    disk = SimDisk(image)
    try:
        open_store(image, vfs=disk.vfs_name, files=disk.files).close()
    except EdvacError as error:
        tally.blame("unreadable", f"{where}: {error!r}")
        return
    at = rng.randrange(disk.start, len(disk.log))
    state = State()
    for op in disk.log[: at + 1]:
        state.apply(op)
    second = image.parent / f"{image.name}-again"
    state.image(Choose("random", rng), second)
    check(second, recorded, acked, tally, f"{where}, again at op {at}")
    discard(second)
