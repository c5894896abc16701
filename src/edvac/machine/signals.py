"""Signals to a run, and the events that it sets: what a program and the world say to each other.

A signal has a name and a value, which is JSON. It may be sent before the program waits for it:
those of one name are taken in the order in which they came, each once. Whoever sent it is a source
of its value: the user, where they typed it at a terminal, else an outsider of the given name, whose
word the guard trusts no more than a document's. Knows nothing of terminals.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

import msgspec

from edvac.core.errors import EdvacError, ProgramError, UsageError
from edvac.core.label import UNBOUNDED, USER, Label
from edvac.core.schema import Type, decode
from edvac.core.value import Value, plain
from edvac.device import CATALOGUE
from edvac.device.waiting import NAMING, wrong_name
from edvac.machine.entry import Entry, decoder_of, read_entry
from edvac.machine.history import read_history
from edvac.program import parse
from edvac.program.annotate import read_type
from edvac.store import Message, Store

LONGEST = 65_536  # characters of a value
SENDER = "sender:"  # what the principal of an outsider begins with


@dataclass(frozen=True, slots=True)
class Signal:
    """One that was sent and not taken yet; `sender` is empty for the user."""

    message: int
    name: str
    text: str
    sender: str
    posted: float


@dataclass(frozen=True, slots=True)
class Awaited:
    """A wait of the program that is open.

    Attributes:
        kind: type of what is to come with it, as the program has it.
        until: when it is given up, in UTC seconds; 0 for never.
    """

    name: str
    kind: str
    address: str
    until: float


@dataclass(frozen=True, slots=True)
class Event:
    """The latest value of a name that the program has set."""

    name: str
    value: Any
    address: str
    seq: int


def read_signal(message: Message) -> Signal:
    name, text, sender = msgspec.msgpack.decode(message.payload, type=tuple[str, str, str])
    return Signal(message.id, name, text, sender, message.posted)


def signals(store: Store, run: str) -> list[Signal]:
    """Those that nothing has taken, in the order in which they came."""
    return [read_signal(one) for one in store.inbox(run) if one.kind == "signal"]


def post_signal(store: Store, run: str, name: str, text: str = "true", *, sender: str = "") -> int:
    """Send one; durable on return. How many of this name are ahead of it.

    Args:
        text: the value as JSON.
        sender: who it is from; empty for the user's own word.

    Raises:
        UsageError: the run is over, it is no name, no JSON, too long, or not of the type that is
            waited for now.
    """
    info = store.run(run)
    if info.state != "open":
        raise UsageError(
            "run_over",
            f"run {info.id} is {info.state}: it waits for no signal",
            "",
            "`edvac ps` shows what is running.",
        )
    why = wrong_name(name)
    if why or (sender and wrong_name(sender)):
        raise UsageError(
            "signal_name",
            why or f"{sender[:60]!r} cannot name a sender",
            "It stands in the program, in labels and in the journal.",
            f"It has {NAMING}.",
        )
    if len(text) > LONGEST:
        raise UsageError(
            "signal_too_large",
            f"the value has {len(text):,} characters",
            f"A signal carries at most {LONGEST:,}.",
            "Put it into a file, and send its name.",
        )
    ahead = [one for one in signals(store, run) if one.name == name]
    _check_type(store, run, name, Signal(0, name, text, sender, 0.0), ahead)
    store.post(run, "signal", msgspec.msgpack.encode((name, text, sender)))
    return len(ahead)


def _check_type(store: Store, run: str, name: str, signal: Signal, ahead: list[Signal]) -> None:
    """What is known not to fit is refused at once, as far as that is known: where no other signal
    is ahead of it, and a wait for it is open."""
    try:
        _parsed(signal.text)
    except ValueError as problem:
        raise UsageError(
            "signal_not_json",
            f"the value of the signal {name} is not JSON",
            f"{problem}.",
            "A text stands in quotes: edvac signal RUN NAME '\"yes\"'. Nothing was sent.",
        ) from problem
    found = next((one for one in awaited(store, run) if one.name == name), None)
    if found is None or ahead:
        return
    kind = _type_of(store, run, found.kind)
    why = signal_value(signal, kind)[1] if kind is not None else ""
    if why:
        raise UsageError(
            "signal_misfit",
            f"{found.address} waits for {found.kind}: {why}",
            "",
            f"Send {found.kind} as JSON. Nothing was sent.",
        )


def _type_of(store: Store, run: str, text: str) -> Type | None:
    """None where the program has devices of its own, and cannot be read here."""
    try:
        program = parse(read_history(store, run, lazy=True).program, CATALOGUE)
    except ProgramError:
        return None
    return read_type(ast.parse(text, mode="eval").body, program.records)


def signal_value(signal: Signal, kind: Type) -> tuple[Value | None, str]:
    """What a program gets of a signal, or why it does not fit the type, as a clause."""
    label = USER
    if signal.sender:
        label = Label.of([f"{SENDER}{signal.sender}"], readers=["user"], bits=UNBOUNDED)
    try:
        return decode(_parsed(signal.text), kind, label), ""
    except EdvacError as error:
        return None, error.what
    except ValueError as problem:
        return None, str(problem)


def _parsed(text: str) -> Any:
    """
    Raises:
        ValueError: it is not JSON, or not text that can be kept.
    """
    try:
        data = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
        json.dumps(data, default=str, ensure_ascii=False).encode()  # no halves of surrogate pairs
    except (RecursionError, ArithmeticError) as problem:
        raise ValueError("it is too deep or too large") from problem
    return data


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


# -- read from the journal


def awaited(store: Store, run: str) -> list[Awaited]:
    """The signals that the run waits for, in the order in which it began to."""
    found: dict[str, Awaited] = {}
    for entry in _entries(store, run, "signal.wait"):
        found.pop(entry.slot, None)
        if entry.kind == "intent" and entry.value is not None:
            name = str(plain(entry.value)["name"])
            until = float(entry.body.get("until", (0.0,))[0])
            found[entry.slot] = Awaited(name, entry.body["type"], entry.address, until)
    return list(found.values())


def events(store: Store, run: str) -> list[Event]:
    """The latest value of each name that the run has set, in the order of their last setting."""
    begun: dict[str, Entry] = {}
    found: dict[str, Event] = {}
    for entry in _entries(store, run, "event.set"):
        if entry.kind == "intent":
            begun[entry.slot] = entry
        elif entry.kind == "outcome" and not entry.failed and entry.slot in begun:
            operands = begun[entry.slot].value
            given = plain(operands) if operands is not None else {}
            name = str(given["name"])
            found.pop(name, None)
            found[name] = Event(name, given["value"], entry.address, entry.seq)
    return list(found.values())


def _entries(store: Store, run: str, op: str) -> list[Entry]:
    """What the journal has of the steps of one op, and of those that were blocked."""
    decoder, mark = decoder_of(store), op.encode()
    return [
        read_entry(decoder, record)
        for record in store.records(run, kinds=("intent", "outcome", "blocked"))
        if mark in record.payload
    ]
