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
    Record,
    RunInfo,
    Schedule,
    State,
    Swept,
    TaskWrite,
    Typed,
)
from edvac.store.owner import Owners, Process, SystemOwners
from edvac.store.protocol import StoreProtocol
from edvac.store.store import Store

__all__ = [
    "DURABILITY_POINTS",
    "KINDS",
    "STATES",
    "ApplyEntry",
    "ApplyPlan",
    "Checkpoint",
    "CheckpointInfo",
    "FileVersion",
    "Grant",
    "Kind",
    "Lease",
    "MemoryStore",
    "Message",
    "MessageKind",
    "NewChannel",
    "NewCheckpoint",
    "NewRecord",
    "NewWrites",
    "Owners",
    "Problem",
    "Process",
    "Record",
    "RunInfo",
    "Schedule",
    "State",
    "Store",
    "StoreProtocol",
    "Swept",
    "SystemOwners",
    "TaskWrite",
    "Typed",
]
