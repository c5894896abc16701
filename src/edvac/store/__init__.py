"""The disk: journal, runs, versioned files, blobs, grants, and one durability contract.

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
    FileVersion,
    Grant,
    Kind,
    Lease,
    Message,
    MessageKind,
    NewRecord,
    Problem,
    Record,
    RunInfo,
    Schedule,
    State,
    Swept,
)
from edvac.store.opening import open_store
from edvac.store.owner import Owners, Process, SystemOwners
from edvac.store.protocol import StoreProtocol
from edvac.store.queue import Done, MemoryQueue, Offer, Queue, Taken
from edvac.store.store import Store

__all__ = [
    "DURABILITY_POINTS",
    "KINDS",
    "STATES",
    "ApplyEntry",
    "ApplyPlan",
    "Done",
    "FileVersion",
    "Grant",
    "Kind",
    "Lease",
    "MemoryQueue",
    "MemoryStore",
    "Message",
    "MessageKind",
    "NewRecord",
    "Offer",
    "Owners",
    "Problem",
    "Process",
    "Queue",
    "Record",
    "RunInfo",
    "Schedule",
    "State",
    "Store",
    "StoreProtocol",
    "Swept",
    "SystemOwners",
    "Taken",
    "open_store",
]
