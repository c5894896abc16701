"""Random programs on a whole machine in which everything fails now and then end as in a calm one.

EDVAC_LIVES=N for more seeds; a failure names its seed, and the seed replays exactly.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from machine_sim import INPUTS, Lives, World, result_of, shrunk

SEEDS = int(os.environ.get("EDVAC_LIVES", "80"))
HEAD = """\
class Fact:
    name: str
    count: int
    kind: Literal["small", "large"]

"""


class Writer:
    """Programs in which each kind of step may follow from each other."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._texts = ['"start"']
        self._facts: list[str] = []
        self._count = 0

    def program(self) -> str:
        lines = [line for _ in range(self._chance.randint(3, 9)) for line in self._line()]
        return HEAD + "\n".join(lines) + "\n"

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def _text(self) -> str:
        return self._chance.choice(self._texts)

    def _line(self) -> list[str]:
        kinds = [self._read, self._model, self._fact, self._write, self._mail, self._loop]
        kinds += [self._branch, self._bad, self._worker]
        return self._chance.choice(kinds)()

    def _read(self) -> list[str]:
        name = self._name("r")
        path = self._chance.choice([*INPUTS, "out/a.txt"])
        self._texts.append(name)
        return [f'{name} = attempt(files.read("{path}"), "none")']

    def _model(self) -> list[str]:
        name, text = self._name("w"), self._text()
        self._texts.append(name)
        return [f'{name} = llm.write("go on", {text})']

    def _fact(self) -> list[str]:
        name, text = self._name("f"), self._text()
        self._facts.append(name)
        self._texts.append(f"{name}.name")
        return [f"{name} = llm.extract({text}, Fact)"]

    def _write(self) -> list[str]:
        path = self._chance.choice(["out/a.txt", "out/b.txt", f"out/{self._count}.txt"])
        return [f'files.write("{path}", {self._text()})']

    def _mail(self) -> list[str]:
        return [f"mail.send({self._text()})"]

    def _loop(self) -> list[str]:
        name = self._name("p")
        inner = f'llm.write("each", attempt(files.read({name}), "none"))'
        return [
            f'for {name} in files.list("in/*"):',
            f'    files.write(f"each/{{path.stem({name})}}.txt", {inner})',
        ]

    def _branch(self) -> list[str]:
        if not self._facts:
            return self._fact()
        fact, name = self._chance.choice(self._facts), self._name("b")
        taken, other = self._text(), self._text()
        self._texts.append(name)
        return [
            f'if {fact}.kind == "small":',
            f'    {name} = llm.write("small", {taken})',
            f'    files.write("out/{name}.txt", {name})',
            "else:",
            f"    {name} = {other}",
        ]

    def _bad(self) -> list[str]:
        name = self._name("x")
        self._texts.append(f'attempt({name}, "failed")')
        return [f'{name} = llm.write("go on", "unreadable {self._count}")']

    def _worker(self) -> list[str]:
        name, text = self._name("d"), self._text()
        self._texts.append(name)
        return [f'{name} = llm.do("find it", ["files.read"], 0, str, {text})']


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for path, text in INPUTS.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def lived(
    seed: int, place: Path, trouble: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, World]:
    program = Writer(random.Random(seed)).program()
    lives = Lives(program, seed, place, trouble)
    shrunk(monkeypatch)
    return lives.live(), lives.world


def check(seed: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    wanted_state, calm = lived(seed, place, 0, monkeypatch)
    state, world = lived(seed, place, 1 + seed % 9, monkeypatch)
    assert state == wanted_state
    assert result_of(world) == result_of(calm)
    assert set(world.durable().values()) <= {1}, "a step has two outcomes"
    assert world.durable() == calm.durable()
    assert world.log.count("cancelled") <= world.met["kill"], "a kill counted twice"
    for run in (run for run in world.store._runs if run.startswith(world.run)):
        assert world.store.run(run).state != "open", f"{run} has no end"
        kinds = Counter(record.kind for record in world.store.records(run))
        assert kinds["opened"] == kinds["program"] == 1 <= kinds["closed"], f"{run}: {kinds}"
    sent, once = Counter(world.mails), Counter(calm.mails)
    assert all(sent[text] <= once[text] + sum(world.asked.values()) for text in sent)
    return world.met


def test_whatever_fails_a_run_ends_as_if_nothing_had(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: Counter[str] = Counter()
    for seed in range(SEEDS):
        try:
            met += check(seed, place, monkeypatch)
        except BaseException as problem:
            problem.add_note(f"seed {seed}\n{Writer(random.Random(seed)).program()}")
            raise
    print(dict(met))
    assert len(met) >= 9, f"faults that never struck: {met}"


def test_a_seed_replays_exactly(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(seed: int) -> Any:
        _, world = lived(seed, place, 8, monkeypatch)
        return world.log, world.met, world.mails, world.clock.now(), result_of(world)

    assert [told(seed) for seed in range(5)] == [told(seed) for seed in range(5)]
