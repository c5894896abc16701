"""The disk: journal, runs, versioned files, blobs, grants, threads; one durability contract.

Acknowledged means durable; a torn, stale or changed byte is an error and never data. Knows nothing
of models or of what programs mean.
"""

from edvac.store.memory import MemoryStore
from edvac.store.model import (
    DURABILITY_POINTS,
    KINDS,
    STATES,
    ApplyEntry,
    ApplyPlan,
    Checkpoint,
    CheckpointInfo,
    FileVersion,
    Grant,
    Kind,
    Lease,
    Message,
    MessageKind,
    NewChannel,
    NewCheckpoint,
    NewRecord,
    NewWrites,
    Problem,
    QueuedRun,
    QueuedState,
    Record,
    RunInfo,
    RunQueue,
    Schedule,
    State,
    Swept,
    TaskWrite,
    Typed,
)
from edvac.store.opening import open_store
from edvac.store.owner import Owners, Process, SystemOwners
from edvac.store.protocol import StoreProtocol
from edvac.store.queue import Done, Enlisted, MemoryQueue, Offer, Queue, Taken
from edvac.store.store import Store

__all__ = [
    "DURABILITY_POINTS",
    "KINDS",
    "STATES",
    "ApplyEntry",
    "ApplyPlan",
    "Checkpoint",
    "CheckpointInfo",
    "Done",
    "Enlisted",
    "FileVersion",
    "Grant",
    "Kind",
    "Lease",
    "MemoryQueue",
    "MemoryStore",
    "Message",
    "MessageKind",
    "NewChannel",
    "NewCheckpoint",
    "NewRecord",
    "NewWrites",
    "Offer",
    "Owners",
    "Problem",
    "Process",
    "Queue",
    "QueuedRun",
    "QueuedState",
    "Record",
    "RunInfo",
    "RunQueue",
    "Schedule",
    "State",
    "Store",
    "StoreProtocol",
    "Swept",
    "SystemOwners",
    "Taken",
    "TaskWrite",
    "Typed",
    "open_store",
]
