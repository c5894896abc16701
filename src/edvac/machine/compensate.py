"""Taking back what a run has done outside: by the steps that its program names with ``undo=``.

For each finished effect, the latest first, the step that undoes it is done once, with the effect's
own operands and what it had returned. That is a run of its own, ``RUN.undo``: journalled, asked
about and resumed as any other. The run that it undoes goes on no more. Knows nothing of what the
effects are.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

from edvac.control import Record
from edvac.control.journal import DOUBTFUL
from edvac.core.errors import UsageError
from edvac.core.label import PROGRAM
from edvac.core.seams import Clock
from edvac.core.signature import Catalogue
from edvac.core.value import Failed, Mapping, Operand, Sequence, Value
from edvac.machine.driver import LEASE_S
from edvac.machine.entry import Entry
from edvac.machine.history import read_history
from edvac.machine.ledger import append
from edvac.program import parse
from edvac.program.options import RESULT
from edvac.store import RunInfo, Store

SUFFIX = ".undo"  # what is added to a run's name
UNDOES = "undoes"  # in the first record: the run that is undone


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that was done outside, and the op that takes it back."""

    address: str
    undo: str
    operands: dict[str, Operand]
    result: Value


@dataclass(slots=True)
class Effects:
    """Attributes:
    done: in the order in which they happened.
    unknown: addresses of those of which nobody knows whether they did.
    """

    done: list[Effect] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def effects(store: Store, run: str) -> Effects:
    """What the run has done outside that its program says how to undo."""
    begun: dict[str, Entry] = {}
    done: dict[str, Effect] = {}
    for entry in read_history(store, run).entries:
        if entry.kind == "intent" and entry.body.get("undo"):
            begun[entry.slot] = entry
            done.pop(entry.slot, None)
        elif entry.kind == "outcome" and entry.slot in begun and entry.value is not None:
            intent, value = begun[entry.slot], entry.value
            if isinstance(value, Failed) and value.code in DOUBTFUL:
                continue  # it may have happened all the same
            del begun[entry.slot]
            if not isinstance(value, Failed) and isinstance(intent.value, Mapping):
                given = dict(intent.value.entries)
                done[entry.slot] = Effect(entry.address, intent.body["undo"], given, value)
    return Effects(list(done.values()), [entry.address for entry in begun.values()])


def prepare(store: Store, run: str, catalogue: Catalogue, clock: Clock, owner: str) -> str:
    """The run that undoes another, made where there is none yet; its name.

    Raises:
        UsageError: there is nothing to undo.
        LeaseError: somebody works on the run.
    """
    info = store.find_run(run)
    name = f"{info.id}{SUFFIX}"
    if is_undone(store, info.id):
        return name
    found = effects(store, info.id)
    if not found.done:
        doubt = ", ".join(found.unknown)
        raise UsageError(
            "nothing_to_undo",
            f"run {info.id} has done nothing outside that its program says how to undo",
            f"Nobody knows whether {doubt} took effect." if doubt else "",
            'A step says it by undo="DEVICE.FUNCTION".',
        )
    wall = clock.wall()
    lease = store.acquire(info.id, owner, LEASE_S, wall)  # refused while somebody works on it
    try:
        if info.state == "open":
            store.set_state(lease, "cancelled", closed=wall)
        made = RunInfo(name, wall, title=f"undoes {info.id}")
        opened = _opened(store, info.id, found.unknown)
        _make(store, made, opened, _program(found, catalogue), owner)
    finally:
        store.release(lease)
    return name


def _opened(store: Store, run: str, unknown: list[str]) -> dict[str, Any]:
    """The first record of the run that undoes another: with its models and its directories."""
    opened = dict(read_history(store, run, lazy=True).opened)
    own = {"task": "", "name": "", "settings": {}, "growing": False, "budget": {}}
    return opened | own | {UNDOES: run, "unknown": unknown}


def _make(store: Store, made: RunInfo, opened: dict[str, Any], text: str, owner: str) -> None:
    with contextlib.suppress(UsageError):  # made by somebody who died before it had a program
        store.create_run(made)
    lease = store.acquire(made.id, owner, LEASE_S, made.created)
    append(store, lease, [Record("opened", "", opened), Record("program", "", {"text": text})])
    store.release(lease)


def is_undone(store: Store, run: str) -> bool:
    """Has somebody begun to take back what the run did?"""
    try:
        return bool(store.run(f"{run}{SUFFIX}").last_seq)
    except UsageError:
        return False


def _program(found: Effects, catalogue: Catalogue) -> str:
    """A line for each effect, the latest first. Operands come in as parameters, each in a list of
    its own: their types are known when they are there."""
    heads, lines = [], []
    for at, effect in reversed(list(enumerate(found.done))):
        words = []
        for name in _given(effect, catalogue):
            heads.append(f"{_param(at, name)} = param([])")
            words.append(f"{name}={_param(at, name)}[0]")
        lines.append(f"undone_{at} = {effect.undo}({', '.join(words)})  # {effect.address}")
    text = "\n".join([*heads, *lines]) + "\n"
    return parse(text, catalogue).text


def operands(store: Store, run: str, catalogue: Catalogue) -> dict[str, Value]:
    """The parameters of the program that undoes a run, with their labels."""
    return {
        _param(at, name): Sequence((value,), PROGRAM)
        for at, effect in enumerate(effects(store, run).done)
        for name, value in _given(effect, catalogue).items()
    }


def _given(effect: Effect, catalogue: Catalogue) -> dict[str, Operand]:
    known = {RESULT: effect.result} | effect.operands
    wanted = [one.name for one in catalogue.signatures[effect.undo].params if not one.variadic]
    return {name: known[name] for name in wanted if name in known}


def _param(at: int, name: str) -> str:
    return f"{name}_of_{at}"
