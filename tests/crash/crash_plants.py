"""Bugs to plant in the child: a harness that does not find them proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from edvac.core.value import Failed
from edvac.machine import delivery, driver, questions, waits
from edvac.machine.driver import Driver
from edvac.machine.history import History
from edvac.machine.ledger import Ledger, _version, encode
from edvac.program import stepping
from edvac.store import NewRecord


def act_before_commit() -> None:
    """Executions begin before the records of the same work are durable."""
    act = Driver._act

    async def early(self: Driver, work: Any) -> None:
        import asyncio

        for intent in work.intents:
            self._begin(intent)
        await asyncio.sleep(0.003)
        work.intents.clear()
        await act(self, work)

    Driver._act = early  # type: ignore[method-assign]


def _replayed(change: Callable[[Any], Any]) -> None:
    replay = History.replay
    History.replay = lambda self: change(replay(self))  # type: ignore[method-assign]


def forget_outcomes() -> None:
    _replayed(lambda known: replace(known, outcomes={}))


def forget_some_outcomes() -> None:
    def change(known: Any) -> Any:
        kept = {s: o for s, o in known.outcomes.items() if isinstance(o.value, Failed) or s > "2"}
        return replace(known, outcomes=kept)

    _replayed(change)


def ignore_unknown() -> None:
    _replayed(lambda known: replace(known, unknown=frozenset()))


def no_intents() -> None:
    commit = Ledger._commit

    def kept(store: Any, lease: Any, records: Any, taken: Any) -> None:
        left = [record for record in records if record.kind != "intent"]
        if left:
            commit(store, lease, left, taken)

    Ledger._commit = staticmethod(kept)  # type: ignore[method-assign]


def files_after_outcome() -> None:
    """Written files in a transaction of their own, after that of the outcome."""

    def apart(store: Any, lease: Any, records: Any, taken: Any) -> None:
        store.append(lease, [encode(store, record) for record in records], (), taken)
        files = [
            _version(store, lease.run, record.slot, new, {})
            for record in records
            for new in record.files
        ]
        for file in files:
            nothing = msgspec.msgpack.encode({"text": "", "whole": True})
            store.append(lease, [NewRecord("", "extended", nothing)], [file])

    Ledger._commit = staticmethod(apart)  # type: ignore[method-assign]


def slots_by_count() -> None:
    """A slot that depends on the order in which steps are reached."""
    count = [0]

    class Counted:
        def __init__(self, text: str) -> None:
            self._text = text

        def hex(self) -> str:
            return self._text

    def mixed(path: Any, key: Any) -> Any:
        count[0] += 1
        return Counted(f"{count[0]:032x}")

    stepping.mix = mixed  # type: ignore[assignment]


def no_before_image() -> None:
    plan = delivery._plan
    delivery._plan = lambda *a, **k: [  # type: ignore[assignment]
        replace(entry, before=None) for entry in plan(*a, **k)
    ]


def marked_before_written() -> None:
    carry = delivery._carry_out

    def early(store: Any, plan: Any, entry: Any, *, force: bool) -> None:
        store.mark_applied(plan.run, entry.path)
        carry(store, plan, entry, force=force)

    delivery._carry_out = early  # type: ignore[assignment]


def put_in_place() -> None:
    """Files are written where they are, in two pieces."""
    from edvac.core.seams import durability_point

    def put(root: Any, path: str, content: bytes | None, mode: int | None = None) -> None:
        target = root / path
        if content is None:
            target.unlink(missing_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        half = len(content) // 2
        target.write_bytes(content[:half])
        durability_point("apply.after_file")
        target.write_bytes(content)

    delivery.put = put


def answers_taken_before_they_act() -> None:
    act = Driver._act

    async def early(self: Driver, work: Any) -> None:
        read, self._read = self._read, []
        await self._ledger.call(lambda store: self._take_out(store, read))
        await act(self, work)

    Driver._act = early  # type: ignore[method-assign]


def answers_taken_after_they_act() -> None:
    """In a transaction of their own, and fitting whatever is asked about the step."""
    act, read_answer = Driver._act, driver.read_answer

    async def late(self: Driver, work: Any) -> None:
        read, self._read = self._read, []
        await act(self, work)
        await self._ledger.call(lambda store: self._take_out(store, read))

    Driver._act = late  # type: ignore[method-assign]
    driver.read_answer = lambda payload: (*read_answer(payload)[:2], "")  # type: ignore[assignment]


def retries_not_durable() -> None:
    """The process that retries knows what it forgets, and the next one does not."""
    commit = Ledger._commit

    def kept(store: Any, lease: Any, records: Any, taken: Any) -> None:
        left = [record for record in records if record.body.get("verdict") != "retry"]
        if left:
            commit(store, lease, left, taken)

    Ledger._commit = staticmethod(kept)  # type: ignore[method-assign]


def answers_not_alone() -> None:
    """Who answers does not look what was answered before."""
    questions.read_answer = lambda payload: ("", "", "")  # type: ignore[assignment]


def times_fixed_anew() -> None:
    """Each process fixes the times of its waits itself."""
    made = waits.Waits.__init__
    waits.Waits.__init__ = lambda self, known, clock: made(self, {}, clock)  # type: ignore[method-assign]


def signals_read_and_gone() -> None:
    """Taken out when they are seen, as a kill is."""
    visit = Driver._visit

    def early(self: Driver, store: Any, renew: bool, standing: Any) -> Any:
        found = visit(self, store, renew, standing)
        self._take_out(store, [message.id for message in found])
        return found

    Driver._visit = early  # type: ignore[method-assign]


def the_last_signal_first() -> None:
    heard = waits.Waits._heard

    def last(self: Any, slot: str, wait: Any) -> Any:
        self._come[wait.name].rotate(1)
        return heard(self, slot, wait)

    waits.Waits._heard = last  # type: ignore[method-assign]


RUN_PLANTS = (
    "act_before_commit",
    "forget_outcomes",
    "forget_some_outcomes",
    "ignore_unknown",
    "no_intents",
    "files_after_outcome",
    "slots_by_count",
)
APPLY_PLANTS = ("no_before_image", "marked_before_written", "put_in_place")
ANSWER_PLANTS = (
    "answers_taken_before_they_act",
    "answers_taken_after_they_act",
    "answers_not_alone",
    "retries_not_durable",
)
SIGNAL_PLANTS = (
    "answers_taken_before_they_act",
    "answers_taken_after_they_act",
    "times_fixed_anew",
    "signals_read_and_gone",
    "the_last_signal_first",
)
PLANTS: dict[str, Callable[[], None]] = {
    name: globals()[name] for name in (*RUN_PLANTS, *APPLY_PLANTS, *ANSWER_PLANTS, *SIGNAL_PLANTS)
}
