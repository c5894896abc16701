"""A record of the journal, read back."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import msgspec

from edvac.core.codec import Decoder, holds_failure
from edvac.core.errors import UsageError
from edvac.core.label import Label
from edvac.core.value import Failed, Value
from edvac.store import Record as StoredRecord
from edvac.store import Store


class Entry:
    """A stored record, read back. Its value is decoded when somebody looks at it: a list of twenty
    thousand steps looks at few."""

    __slots__ = ("_decoder", "_stored", "_value", "body", "kind", "prompt", "seq", "slot")

    def __init__(  # noqa: PLR0917 - the columns of a record
        self,
        seq: int,
        kind: str,
        slot: str,
        body: dict[str, Any],
        value: Value | None = None,
        prompt: tuple[str, ...] = (),
    ) -> None:
        self.seq = seq
        self.kind = kind
        self.slot = slot
        self.body = body
        self.prompt = prompt  # names of its segments
        self._value = value
        self._stored = b""
        self._decoder: Decoder | None = None

    @staticmethod
    def stored(record: StoredRecord, decoder: Decoder) -> Entry:
        body: dict[str, Any] = msgspec.msgpack.decode(record.payload)
        made = Entry(record.seq, record.kind, record.slot, body, prompt=record.segments)
        made._stored = body.pop("value", b"")
        made._decoder = decoder
        return made

    @property
    def value(self) -> Value | None:
        """What the step returned, labelled.

        Raises:
            DamageError: it is not what was written.
        """
        if self._stored and self._decoder is not None:
            self._value = self._decoder.decode(self._stored)
            self._stored = b""
        return self._value

    @property
    def failed(self) -> bool:
        """Is the value a failure? Decodes nothing."""
        return isinstance(self._value, Failed) or holds_failure(self._stored)

    @property
    def address(self) -> str:
        return str(self.body.get("at", ""))


def decoder_of(store: Store) -> Decoder:
    labels: dict[str, Label] = {}

    def label(key: str) -> Label:
        if key not in labels:
            labels[key] = store.label(key)
        return labels[key]

    return Decoder(store.get_blob, label)


def read_entry(decoder: Decoder, record: StoredRecord) -> Entry:
    return Entry.stored(record, decoder)


def step_unknown(run: str, step: str, entries: Iterable[Entry]) -> UsageError:
    """A run has no step of this name; near ones are named."""
    known = list(dict.fromkeys(entry.address for entry in entries if entry.address))
    near = difflib.get_close_matches(step, known, 3)
    fix = f"Did you mean {', '.join(near)}?" if near else f"`edvac show {run}` lists its steps."
    return UsageError("step_unknown", f"run {run} has no step {step!r}", "", fix)
