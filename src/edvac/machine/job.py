"""What a machine is asked to do: a new job, or to go on with a run."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from edvac.core.errors import ConfigError, UsageError
from edvac.core.label import USER
from edvac.core.schema import show
from edvac.core.seams import Entropy
from edvac.core.value import Value, lift
from edvac.machine.budget import UNLIMITED, Budget
from edvac.machine.compensate import is_undone
from edvac.machine.history import History, read_history
from edvac.program import Program
from edvac.store import Lease, RunInfo, Store


@dataclass(frozen=True, slots=True)
class Job:
    """What to run.

    Attributes:
        roots: input directories by the name under which the program sees them; the name "" makes
            a directory's own entries visible.
        settings: values for the program's parameters, as text.
        output: directory that `apply` writes into by default.
        model: the name by which the processor was chosen, so that a resumed run is given the same;
            `escalate_model` likewise.
        fresh: take no results from earlier runs.
        budget: what the run may use.
        shared: pairs of a host and a directory whose files may be sent there, as agreed.
        occurrence: of a schedule, for which this is the run.
        name: what makes two runs runs of the same program, whatever was edited in between: the
            path of its file. Empty: the task in words, or else the program's text.
    """

    program: str
    task: str = ""
    roots: Mapping[str, Path] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    output: Path | None = None
    fresh: bool = False
    budget: Budget = UNLIMITED
    seed: int = 0
    model: str = ""
    name: str = ""
    occurrence: str = ""
    escalate_model: str = ""
    shared: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """Its first line, for lists."""
        line = (self.task or self.program).strip().splitlines()[0]
        return line[:80]


def run_name(job: Job, entropy: Entropy) -> str:
    """A new name; for an occurrence always the same, so that whoever else begins it, on whatever
    machine, finds the run there."""
    if job.occurrence:
        return hashlib.blake2b(job.occurrence.encode(), digest_size=8).hexdigest()
    return entropy.token(4)


def begin(store: Store, info: RunInfo, owner: str, ttl_s: float) -> Lease | None:
    """Make a run, whose name may have been taken by this very call, whose answer was lost, or for
    the same occurrence. None where its program has been stored.

    Raises:
        LeaseError: somebody else makes it now.
    """
    try:
        store.create_run(info)
    except UsageError as error:
        if error.code != "run_exists":
            raise
    lease = store.acquire(info.id, owner, ttl_s, info.created)
    if not store.run(info.id).last_seq:
        return lease
    store.release(lease)
    return None


def history_to_resume(store: Store, run: str | None, *, retry: bool) -> tuple[RunInfo, History]:
    """A run that can go on (by a prefix of its name; default: the latest), and what is known of it.

    Raises:
        UsageError: there is no such run, or nothing to go on with.
    """
    info = store.find_run(run)
    if info.state == "done" or (info.state == "partial" and not retry):
        raise _ended(info)
    if is_undone(store, info.id):
        raise UsageError(
            "effects_undone",
            f"what run {info.id} did outside has been taken back",
            "Its steps that are finished are not done any more.",
            f"See `edvac show {info.id}.undo`; to do it anew, start it again with `edvac run`.",
        )
    if not info.last_seq:
        raise UsageError(
            "run_not_begun",
            f"run {info.id} was cut off before its program was stored",
            "Nothing of it has been executed.",
            "Start it again with `edvac run`.",
        )
    history = read_history(store, info.id)
    if not history.whole:
        raise UsageError(
            "plan_cut_off",
            f"run {info.id} was cut off while its program was being written",
            "",
            "Start it again with `edvac run`: what it has computed is reused.",
        )
    return info, history


def _ended(info: RunInfo) -> UsageError:
    """A run that cannot go on, and what one may want instead."""
    show = f"`edvac show {info.id}`"
    if info.state == "partial":
        why = "What could be done is done; the rest failed, or waits for what failed."
        fix = f"Try that again with `edvac resume {info.id} --retry`; {show} says why it failed."
    else:
        why = "Every step of it has ended."
        fix = (
            f"Look at it with {show}. To do it anew, start it again with `edvac run`, which reuses "
            "what has not changed; with --fresh nothing is reused."
        )
    return UsageError("nothing_to_resume", f"run {info.id} is {info.state}", why, fix)


def program_parameters(program: Program, settings: Mapping[str, str]) -> dict[str, Value]:
    """``--set`` values by name, converted to the type of each parameter's default.

    Raises:
        ConfigError: an unknown parameter, or a text that is no value of its type.
    """
    made: dict[str, Value] = {}
    for name, text in settings.items():
        info = program.params.get(name)
        if info is None:
            known = ", ".join(program.params) or "none"
            raise ConfigError(
                "parameter_unknown", f"the program has no parameter {name!r}", f"It has: {known}."
            )
        kind = show(info.type)
        try:
            made[name] = lift(_CONVERT[kind](text), USER)
        except (KeyError, ValueError, InvalidOperation) as problem:
            raise ConfigError(
                "parameter_type", f"--set {name}={text}: not a value of type {kind}", str(problem)
            ) from problem
    return made


def _truth(text: str) -> bool:
    found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return found[text.lower()]


_CONVERT: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "Decimal": Decimal,
    "bool": _truth,
    "date": dt.date.fromisoformat,
}
