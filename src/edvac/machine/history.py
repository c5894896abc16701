"""A run's journal, read back as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edvac.control import Replay
from edvac.core.value import Value, plain
from edvac.machine.budget import UNLIMITED, Budget
from edvac.machine.entry import Entry, decoder_of, read_entry
from edvac.machine.replay import replayed
from edvac.program.extending import EXTEND
from edvac.store import Store


@dataclass(slots=True)
class History:
    """Everything that the journal holds of a run."""

    opened: dict[str, Any] = field(default_factory=dict)
    program: str = ""
    added: str = ""  # lines that it has decided on itself, below those
    previous: Value | None = None  # what `run.previous` is
    budget: Budget = UNLIMITED  # the last one that somebody gave it
    contacted: list[str] = field(default_factory=list)  # endpoints, in drives that have ended
    whole: bool = True  # False while the program is still being written
    entries: list[Entry] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The program with the lines that it has added to itself: what people look at."""
        return self.program + self.added

    def replay(self) -> Replay:
        """What a control unit needs to go on."""
        return replayed(self.entries)


def read_history(store: Store, run: str, *, lazy: bool = False) -> History:
    """Read a run's journal, chain checked. With `lazy`, values are decoded when they are looked
    at, which has to be in the store's thread.

    Raises:
        DamageError: a record is not what was written.
    """
    decoder = decoder_of(store)
    history = History()
    for record in store.records(run):
        entry = read_entry(decoder, record)
        if not lazy:
            _ = entry.value
        match record.kind:
            case "opened":
                history.opened = entry.body
                history.previous = entry.value
                history.budget = Budget.restore(entry.body.get("budget", {}))
            case "program":
                history.program = entry.body["text"]
                history.whole = not history.opened.get("growing", False)
            case "extended":
                history.program += entry.body["text"]
                history.whole = entry.body["whole"]
            case "approved" if entry.body.get("verdict") == "budget":
                history.budget = Budget.restore(entry.body)
            case "approved" if entry.body.get("verdict") == "contacted":
                _contacted(history, entry)
            case "approved" if entry.body.get("verdict") == "conditions":
                pass  # for later runs
            case _:
                if record.kind == "closed":
                    _contacted(history, entry)
                if entry.body.get("op") == EXTEND and record.kind == "outcome":
                    _added(history, entry)
                history.entries.append(entry)
    return history


def _added(history: History, entry: Entry) -> None:
    texts = None if entry.value is None or entry.failed else plain(entry.value)
    history.added = "".join(texts or ())


def program_so_far(store: Store, run: str) -> tuple[str, bool]:
    """A run's program, and whether that is all of it, without its steps."""
    text, whole, decoder = "", True, decoder_of(store)
    for record in store.records(run, kinds=("opened", "program", "extended")):
        body = read_entry(decoder, record).body
        if record.kind == "opened":
            whole = not body.get("growing", False)
        else:
            text += body["text"]
            whole = body.get("whole", whole)
    return text, whole


def _contacted(history: History, entry: Entry) -> None:
    known = dict.fromkeys([*history.contacted, *entry.body.get("contacted", ())])
    history.contacted = list(known)
