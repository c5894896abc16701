"""A run's open questions, read from its journal, and the answers that people give to them.

An answer is a row in the run's inbox: durable before it takes effect, taken out in the transaction
that holds its effect. It names the asking that it answers, so that it never fits a later one. Knows
nothing of terminals.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edvac.core.errors import UsageError
from edvac.core.value import plain
from edvac.machine.entry import Entry, decoder_of, read_entry
from edvac.store import Store
from edvac.store.store import DIRECTORY

LOCK = "answer.lock"
LONGEST = 65_536  # characters of an answer


@dataclass(frozen=True, slots=True)
class Asked:
    """One asking: which step, and the key that an answer has to carry."""

    slot: str
    key: str
    address: str


@dataclass(frozen=True, slots=True)
class Question:
    """What a person sees: equal questions are one, however many steps ask it.

    Attributes:
        number: stays the same as long as the run exists, whatever is asked or answered meanwhile.
        options: what may be answered; empty for a text.
        data: what was shown with it, as plain data.
        approval: the guard asks, for a step that waits for a yes.
        steps: those that it decides.
    """

    number: int
    text: str
    options: tuple[str, ...]
    data: Any
    approval: bool
    steps: tuple[Asked, ...]


def write_answer(slot: str, answer: bool | str, key: str = "") -> bytes:
    return msgspec.msgpack.encode((slot, answer, key))


def read_answer(payload: bytes) -> tuple[str, bool | str, str]:
    """Slot, answer and key of a message of the inbox."""
    return msgspec.msgpack.decode(payload, type=tuple[str, bool | str, str])


def questions(store: Store, run: str) -> list[Question]:
    """Every question of the run that nobody has answered, in the order in which they came up.

    Raises:
        UsageError: no such run.
    """
    return [question for question in _all(store, run) if question.steps]


def answered(store: Store, run: str) -> int:
    """How many answers lie in the inbox and have not taken effect yet."""
    return sum(message.kind == "answer" for message in store.inbox(run))


def _all(store: Store, run: str) -> list[Question]:
    """Those that were answered too, without steps."""
    # The inbox first: an answer that is taken between the two reads shows in the journal.
    waiting = {read_answer(m.payload)[2] for m in store.inbox(run) if m.kind == "answer"}
    groups: dict[str, Question] = {}
    asked: dict[str, tuple[Asked, str]] = {}  # by slot: what is open, and its group
    for entry in _entries(store, run):
        if entry.kind in ("outcome", "blocked") or "key" not in entry.body:
            asked.pop(entry.slot, None)
            continue
        question = _question(entry, len(groups) + 1)
        same = _same(question, entry.slot if entry.body.get("doubt") else "")
        groups.setdefault(same, question)
        asked[entry.slot] = Asked(entry.slot, entry.body["key"], entry.address), same
    steps: dict[str, list[Asked]] = {same: [] for same in groups}
    for one, same in asked.values():
        if one.key not in waiting:
            steps[same].append(one)
    return [
        Question(q.number, q.text, q.options, q.data, q.approval, tuple(steps[same]))
        for same, q in groups.items()
    ]


def _entries(store: Store, run: str) -> Iterator[Entry]:
    """The records that open and close questions; only questions are decoded."""
    decoder = decoder_of(store)
    for record in store.records(run, kinds=("intent", "approved", "outcome", "blocked")):
        if record.kind in ("outcome", "blocked"):
            yield Entry(record.seq, record.kind, record.slot, {})
        elif record.kind == "approved" or b"\xa3key" in record.payload:
            yield read_entry(decoder, record)


def _question(entry: Entry, number: int) -> Question:
    operands = plain(entry.value) if entry.value is not None else {}
    if entry.kind == "approved":
        op = entry.body["op"]
        text = str(entry.body["text"]).replace(f"{entry.address} ({op})", op, 1)
        return Question(number, text, tuple(entry.body["options"]), operands, True, ())
    text = str(operands.pop("question", ""))
    options = tuple(map(str, operands.pop("options", None) or ()))
    return Question(number, text, options, operands.get("data") or None, False, ())


def _same(question: Question, apart: str) -> str:
    """Equal for equal questions. `apart` keeps one from all others: whether an effect took place
    is another question for each, however equal the effects are."""
    shown = [question.approval, question.text, question.options, question.data, apart]
    return hashlib.blake2b(json.dumps(shown, default=str).encode(), digest_size=16).hexdigest()


def post_answers(store: Store, run: str, given: Mapping[int, str]) -> int:
    """Answer questions by their numbers; how many steps that decides. All are checked before any
    is posted, and durable on return.

    Raises:
        UsageError: there is no such question, it was answered before, or the answer does not fit.
    """
    with _alone(store.workspace):
        known = {question.number: question for question in _all(store, run)}
        payloads = []
        for number, text in given.items():
            question = known.get(number)
            if question is None:
                raise _no_question(run, number, list(known))
            if not question.steps:
                raise UsageError(
                    "question_answered",
                    f"question {number} of run {run} has been answered",
                    "An answer counts once, and the first one counts.",
                    f"See what is open: `edvac answer {run}`.",
                )
            answer = checked_answer(question, text)
            payloads += [write_answer(one.slot, answer, one.key) for one in question.steps]
        if payloads:
            store.post_all(run, "answer", payloads)
    return len(payloads)


def checked_answer(question: Question, text: str) -> bool | str:
    """What is posted for an answer as it was typed.

    Raises:
        UsageError: it is none of the options, empty or too long.
    """
    text = text.strip()
    if question.approval:
        found = {"yes": True, "y": True, "no": False, "n": False}.get(text.lower())
        if found is not None:
            return found
    elif question.options:
        if text in question.options:
            return text
    elif 0 < len(text) <= LONGEST:
        return text
    wanted = f"one of {', '.join(question.options)}" if question.options else "a text"
    raise UsageError(
        "answer_unfit",
        f"{text[:60]!r} does not answer question {question.number}",
        f"The answer is {wanted}, of at most {LONGEST:,} characters.",
        "Nothing was answered.",
    )


def _no_question(run: str, number: int, known: list[int]) -> UsageError:
    there = f"Its questions are {known[0]} to {known[-1]}." if known else "It has asked nothing."
    return UsageError(
        "question_unknown",
        f"run {run} has no question {number}",
        there,
        f"See what is open: `edvac answer {run}`.",
    )


@contextmanager
def _alone(workspace: Path) -> Iterator[None]:
    """One at a time looks what is open and answers it."""
    descriptor = os.open(workspace / DIRECTORY / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def nobody(address: str, text: str, options: list[str]) -> str:
    """No person can be asked here: wait until the run is stopped; the question is journalled."""
    del address, text, options
    await asyncio.Event().wait()
    raise AssertionError("the wait above ends only by cancellation")
