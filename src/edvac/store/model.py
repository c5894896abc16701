"""The nouns of the store: what goes in, what comes out, and the closed sets of their kinds.

Knows nothing of databases or files. A payload is bytes that only its writer can read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias, get_args

from edvac.core.label import Label

Kind: TypeAlias = Literal[
    "opened",
    "program",
    "intent",
    "outcome",
    "blocked",
    "approved",
    "extended",
    "cancelled",
    "closed",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

State: TypeAlias = Literal["open", "done", "partial", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)

MessageKind: TypeAlias = Literal["kill", "answer", "signal"]
MESSAGE_KINDS: tuple[MessageKind, ...] = get_args(MessageKind)

ApplyState: TypeAlias = Literal["planned", "applied", "undone"]
ApplyPhase: TypeAlias = Literal["begun", "finished", "undone"]


# Where a crash is interesting; sorted, and tested to be complete.
DURABILITY_POINTS: tuple[str, ...] = (
    "store.append.after_commit",
    "store.append.before_commit",
    "store.apply.before_commit",
    "store.apply.begun",
    "store.apply.finished",
    "store.blob.after_dirsync",
    "store.blob.after_rename",
    "store.blob.before_dirsync",
    "store.blob.before_rename",
    "store.checkpoint.after",
    "store.checkpoint.before",
    "store.commit.after",
    "store.commit.before",
    "store.create.after_commit",
    "store.create.before_commit",
    "store.gc.before_commit",
    "store.lease.after",
    "store.lease.before_commit",
    "store.open.before_marker",
    "store.open.before_schema",
    "store.post.after_commit",
    "store.post.before_commit",
    "store.recover.after",
    "store.recover.before",
    "store.release.before_commit",
    "store.remove.before_commit",
    "store.state.after_commit",
    "store.state.before_commit",
    "store.thread.after_commit",
    "store.thread.before_commit",
    "store.thread.before_prune",
)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run as a list shows it. `create_run` reads the first six fields; the store keeps the
    rest. `owner` works on it now; None where nobody does, or a process that is known to be dead.
    """

    id: str
    created: float
    state: State = "open"
    task: str = ""
    program: str = ""  # digest of the program text
    title: str = ""
    owner: str | None = None
    epoch: int = 0
    expires: float = 0.0
    closed: float | None = None
    seconds: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    last_seq: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to append to a run. `epoch` is the fencing number: each acquire raises it."""

    run: str
    owner: str
    epoch: int
    expires: float


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to append.

    `labels` are those met in the payload, by key; `blobs` and `segments` what it names, so that
    `gc` keeps them; `reuse_key` makes the record findable from other runs.
    """

    slot: str
    kind: Kind
    payload: bytes = b""
    labels: Mapping[str, Label] = field(default_factory=dict)
    blobs: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    reuse_key: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was appended, its chain checked."""

    run: str
    seq: int
    epoch: int
    slot: str
    kind: Kind
    payload: bytes
    labels: tuple[str, ...]
    blobs: tuple[str, ...]
    segments: tuple[str, ...]
    hash: str


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of one file of a run.

    To append, give `content` or, for a large file, `blob` with `size`; `digest` (blake2b-20 hex of
    the bytes) is filled in by the store. What comes back never carries `content`: see `read_file`.
    """

    path: str
    version: int
    slot: str
    content: bytes | None = field(default=None, repr=False)
    blob: str | None = None
    size: int = 0
    digest: str = ""
    label: str = ""  # key; the label itself travels with a record of the same batch
    deleted: bool = False
    seq: int = 0  # the record in whose batch it was appended


@dataclass(frozen=True, slots=True)
class ApplyEntry:
    """One file of a planned apply: `before` is the blob to restore (None: there was no file),
    `after` the digest that apply leaves (None: it removes the file)."""

    path: str
    before: str | None
    after: str | None
    mode: int = 0o644
    state: ApplyState = "planned"


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    run: str
    round: int
    root: str
    phase: ApplyPhase
    entries: tuple[ApplyEntry, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """A row of a run's inbox."""

    id: int
    run: str
    kind: MessageKind
    payload: bytes
    posted: float


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission somebody gave: `shape` is JSON that only the guard reads."""

    id: str
    shape: str
    scope: str
    expires: float | None
    created: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is run at set times: `spec` is JSON that only the scheduler reads, `fired` the name of
    the occurrence begun last, `run` what it became, `said` why it did not."""

    id: str
    spec: str
    created: float
    fired: str
    run: str = ""
    said: str = ""


ChannelVersion: TypeAlias = int | float | str


class Typed(NamedTuple):
    """A serialised value; `kind` tells its reader how to read it."""

    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class NewChannel:
    """A channel's value in a checkpoint to put. `value` is asked for it only where it `changed`, or
    where the parent checkpoint does not hold this version."""

    version: ChannelVersion
    value: Callable[[], Typed]
    changed: bool = True


@dataclass(frozen=True, slots=True)
class NewCheckpoint:
    """A checkpoint to put: the state of a thread, in one of its namespaces, at one moment.

    `id` sorts as the moments do. `payload` is what only its writer can read. `run` is the run that
    it may be removed by. `bound` says that it cannot be read without its parent, so that pruning
    keeps that too; None is as its parent is.
    """

    thread: str
    namespace: str
    id: str
    payload: bytes
    channels: Mapping[str, NewChannel] = field(default_factory=dict)
    parent: str | None = None
    run: str | None = None
    bound: bool | None = False


@dataclass(frozen=True, slots=True)
class TaskWrite:
    """What a task wrote to a channel beside a checkpoint: it counts for the next one. The first
    write of an `index` stays, unless the index is negative; then the last one does."""

    task: str
    index: int
    channel: str
    value: Typed
    path: str = ""


@dataclass(frozen=True, slots=True)
class NewWrites:
    """Writes of tasks to keep beside a checkpoint, which may come later."""

    thread: str
    namespace: str
    checkpoint: str
    writes: Sequence[TaskWrite]


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint without its values. `created` is the wall time of the first put."""

    thread: str
    namespace: str
    id: str
    parent: str | None
    run: str | None
    created: float
    bound: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint with the values of its channels, and the writes of its tasks ordered by path,
    task and index."""

    info: CheckpointInfo
    channels: Mapping[str, Typed]
    writes: tuple[TaskWrite, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `verify` found: `where` names the table, run or blob."""

    code: str
    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Swept:
    """What `gc` removed."""

    blobs: int = 0
    blob_bytes: int = 0
    labels: int = 0
    segments: int = 0
