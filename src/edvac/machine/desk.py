"""What people, and programs around a machine, ask of it between runs: to find one, answer it, send
it a signal, stop it.
"""

from __future__ import annotations

import json
from typing import Any

from edvac.machine import signals
from edvac.machine.history import History, read_history
from edvac.machine.ledger import Ledger
from edvac.machine.questions import write_answer
from edvac.store import RunInfo


class Desk:
    """The part of a `Machine` that drives nothing."""

    ledger: Ledger

    def find(self, run: str | None) -> RunInfo:
        """A run by a prefix of its name, or the latest."""
        return self.ledger.call_now(lambda store: store.find_run(run))

    def history(self, run: str) -> History:
        return self.ledger.call_now(lambda store: read_history(store, run))

    def kill(self, run: str) -> bool:
        """Ask the owner to stop; True when there seems to be one. A later resume ignores it."""
        info = self.find(run)
        self.ledger.call_now(lambda store: store.post(info.id, "kill"))
        return info.owner is not None

    def answer(self, run: str, slot: str, answer: bool | str) -> None:
        """Answer an open question: yes or no to an approval, a text to `human.ask`. A run that is
        not driven now reads it when it is resumed. See `questions.post_answers` for people."""
        payload = write_answer(slot, answer)
        self.ledger.call_now(lambda store: store.post(run, "answer", payload))

    def signal(self, run: str, name: str, value: Any = True, *, sender: str) -> int:
        """Send a signal with a plain value; how many of this name are ahead of it.

        Args:
            sender: who it is from: a source of the value, which the guard does not trust. Empty
                says that it is the user's own word.

        Raises:
            UsageError: see `signals.post_signal`.
        """
        text = json.dumps(value, default=str)
        return self.ledger.call_now(
            lambda store: signals.post_signal(store, run, name, text, sender=sender)
        )

    def events(self, run: str) -> dict[str, Any]:
        """The latest value of each name that the program has set with `event.set`."""
        found = self.ledger.call_now(lambda store: signals.events(store, run))
        return {one.name: one.value for one in found}
