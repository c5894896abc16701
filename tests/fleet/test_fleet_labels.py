"""Labels when steps are done on other machines, and when a run is stopped and goes on elsewhere.

Workers know no labels: what they answer is labelled by the owner as if it had been done here. The
oracle carries beside each name the files whose words are in it.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from fleet_kit import Yard
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from edvac.core import event
from edvac.core.value import total_label
from edvac.machine import Job
from edvac.machine.machine import Terminal
from edvac.processor import Request

FILES = 3


def say(request: Request) -> str:
    return "made" if request.schema is None else json.dumps({"answer": "no"})


class Moving(RuleBasedStateMachine):
    """A program that is written line by line, and driven in turns with and without workers."""

    names = Bundle("names")

    @initialize()
    def begin(self) -> None:
        self.lines: list[str] = []
        self.whose: dict[str, frozenset[str]] = {}

    def _line(self, text: str, whose: frozenset[str]) -> str:
        name = f"v{len(self.whose)}"
        self.lines.append(f"{name} = {text}")
        self.whose[name] = whose
        return name

    @rule(target=names, at=st.integers(0, FILES - 1))
    def read(self, at: int) -> str:
        return self._line(f'files.read("inbox/{at}.txt")', frozenset({f"file:inbox/{at}.txt"}))

    @rule(target=names)
    def own_words(self) -> str:
        return self._line('"mine"', frozenset())

    @rule(target=names, one=names, other=names)
    def model(self, one: str, other: str) -> str:
        whose = self.whose[one] | self.whose[other]
        return self._line(f'llm.write("Say {len(self.whose)}", {one}, {other})', whose)

    @rule(target=names, one=names)
    def choice(self, one: str) -> str:
        text = f'llm.choose("Is it {len(self.whose)}?", ["yes", "no"], {one})'
        return self._line(text, self.whose[one])

    @rule(target=names, one=names, decides=names)
    def branch(self, one: str, decides: str) -> str:
        """A step that is done as somebody else decides."""
        whose = self.whose[one] | self.whose[decides]
        step = f'llm.write("Go {len(self.whose)}", {one})'
        return self._line(f'{step} if {decides} == "made" else {one}', whose)

    @rule(target=names, one=names)
    def by_way_of_a_file(self, one: str) -> str:
        path = f"out/{len(self.whose)}.txt"
        self.lines.append(f'files.write("{path}", {one})')
        return self._line(f'files.read("{path}")', self.whose[one])

    def teardown(self) -> None:
        if not self.lines:
            return
        for number, cut in enumerate((0, 1, 3)):
            with tempfile.TemporaryDirectory() as place:
                self._moves(Path(place), cut, first_away=number % 2 == 0)

    def _moves(self, place: Path, cut: int, *, first_away: bool) -> None:
        """Stopped after `cut` steps and resumed, one half of it with a worker, the other alone."""
        yard = Yard(place, script=say, here=say)
        (place / "inbox").mkdir()
        for at in range(FILES):
            (place / "inbox" / f"{at}.txt").write_text(f"word {at}")
        run = asyncio.run(self._drive(yard, cut, away=first_away))
        if first_away and not cut:
            sure = [line for line in self.lines if "llm." in line and " if " not in line]
            assert yard.counted or not sure
        asyncio.run(self._drive(yard, 0, away=not first_away, run=run))
        with yard.machine() as machine:
            values = {
                e.address: e.value
                for e in machine.history(run).entries
                if e.kind == "outcome" and e.value is not None
            }
        for name, whose in self.whose.items():
            if name in values:
                label = total_label(values[name])
                found = {one for one in label.integrity if one.startswith("file:")}
                assert found == whose, (name, "\n".join(self.lines))

    async def _drive(self, yard: Yard, cut: int, *, away: bool, run: str = "") -> str:
        left = [cut]
        drivers: list[Any] = []

        def see(happened: event.Event) -> None:
            left[0] -= isinstance(happened, event.StepFinished)
            if left[0] == 0 and cut:
                drivers[-1].stop("interrupted")

        terminal = Terminal(see, on_driver=drivers.append)
        options = {} if away else {"workers": None}
        with yard.machine(**options) as machine:
            workers = [yard.worker(machine, doer=None)] if away else []
            async with yard.working(*workers):
                if run:
                    info = machine.find(run)
                    done = info.state in ("done", "partial")
                    report = None if done else await machine.resume(run, terminal)
                    return run if report is None else report.run
                job = Job("\n".join(self.lines) + "\n", roots={"inbox": yard.work / "inbox"})
                return (await machine.run(job, terminal)).run


TestMoving = Moving.TestCase
TestMoving.settings = settings(
    max_examples=20,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_who_decides_that_a_worker_makes_something_is_in_it() -> None:
    """What chance seldom comes to."""
    moving = Moving()
    moving.begin()
    read = moving.read(1)
    moving.branch(moving.own_words(), moving.model(read, read))
    moving.teardown()


def test_a_worker_is_told_no_label_and_answers_none(tmp_path: Path) -> None:
    """What travels names no file, no principal and no bits."""
    yard = Yard(tmp_path, script=say, here=say)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/0.txt").write_text("word")
    sent: list[bytes] = []
    offer = yard.queue.offer

    def listening(offers: Any, *rest: Any, **more: Any) -> Any:
        sent.append(repr(offers).encode())
        return offer(offers, *rest, **more)

    yard.queue.offer = listening  # type: ignore[method-assign]
    program = 'x = llm.write("Say it", files.read("inbox/0.txt"))\n'

    async def go() -> str:
        with yard.machine() as machine:
            async with yard.working(yard.worker(machine)):
                job = Job(program, roots={"inbox": tmp_path / "inbox"})
                return (await machine.run(job, yard.terminal)).state

    assert asyncio.run(go()) == "done" and sent
    assert not any(b"file:inbox" in one for one in sent)
