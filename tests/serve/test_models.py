"""Which models are in memory, and whose turn it is: the rule against a naive one, and scenes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.core.errors import EdvacError, ProcessorError
from edvac.core.seams import ManualClock
from edvac.serve.models import LEAST_S, Models, State


class Fake:
    """A model whose loading and unloading end when the test says so."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.loading: asyncio.Future[None] | None = None
        self.unloading: asyncio.Future[None] | None = None
        self.loads = self.unloads = self.closed = 0

    async def open(self) -> None:
        self.loads += 1
        self.loading = asyncio.get_running_loop().create_future()
        await self.loading

    async def unload(self) -> None:
        self.unloads += 1
        self.unloading = asyncio.get_running_loop().create_future()
        await self.unloading

    async def close(self) -> None:
        self.closed += 1


class Call:
    """One call; `fate` says how far it has come."""

    def __init__(self, scene: Scene, model: int, client: str) -> None:
        self.model, self.fate = model, "waits"
        self.end = asyncio.Event()
        self.task = asyncio.ensure_future(self._run(scene, client))

    async def _run(self, scene: Scene, client: str) -> None:
        place = scene.models.places[self.model]
        try:
            async with scene.models.turn(place, client):
                assert place.state is State.HERE
                self.fate = "runs"
                await self.end.wait()
                assert place.state is State.HERE, "it was unloaded under a call"
            self.fate = "answered"
        except EdvacError as error:
            self.fate = error.code
        except asyncio.CancelledError:
            self.fate = "gone"
            raise


class Scene:
    def __init__(self, count: int, most: int = 1, loaded: int = 1, **more: Any) -> None:
        self.clock = ManualClock()
        self.fakes = [Fake(most) for _ in range(count)]
        served = tuple((fake, (f"m{at}",)) for at, fake in enumerate(self.fakes))
        self.models = Models(served, loaded, clock=self.clock, **more)
        self.calls: list[Call] = []

    def ask(self, model: int, client: str = "") -> Call:
        call = Call(self, model, client or f"client {len(self.calls)}")
        self.calls.append(call)
        return call

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    async def loaded(self, model: int, seconds: float = 0.0, error: Any = None) -> None:
        self.clock.advance(seconds)
        loading = self.fakes[model].loading
        assert loading is not None
        self.fakes[model].loading = None
        loading.set_exception(error) if error else loading.set_result(None)
        await self.settle()

    async def unloaded(self, model: int) -> None:
        unloading = self.fakes[model].unloading
        assert unloading is not None
        self.fakes[model].unloading = None
        unloading.set_result(None)
        await self.settle()

    def states(self) -> str:
        """The first letters of the states: u, l(oading), L(oaded), U(nloading)."""
        letters = {State.AWAY: "u", State.COMING: "l", State.HERE: "L", State.GOING: "U"}
        return "".join(letters[place.state] for place in self.models.places)

    async def finish(self, *calls: Call) -> None:
        for call in calls:
            call.end.set()
        await self.settle()


def play(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(work(), 20)

    asyncio.run(main())


def test_a_model_is_loaded_when_it_is_asked_for_and_the_least_recently_used_goes() -> None:
    async def work() -> None:
        scene = Scene(3, loaded=2)
        for model in (0, 1):
            call = scene.ask(model)
            await scene.settle()
            await scene.loaded(model, 5)
            assert call.fate == "runs"
            await scene.finish(call)
        assert scene.states() == "LLu"
        scene.clock.advance(1)
        again = scene.ask(0)
        await scene.settle()
        await scene.finish(again)  # now 1 is the least recently used
        call = scene.ask(2)
        await scene.settle()
        assert scene.states() == "LUu", "it waits until memory is free"
        await scene.unloaded(1)
        assert scene.states() == "Lul"
        await scene.loaded(2)
        assert call.fate == "runs" and scene.states() == "LuL"
        await scene.finish(call)

    play(work)


def test_a_busy_model_gives_way_when_its_calls_have_ended_and_comes_back() -> None:
    async def work() -> None:
        scene = Scene(2, most=2)
        first = scene.ask(0)
        await scene.settle()
        await scene.loaded(0, 3)
        other = scene.ask(1)
        during = scene.ask(0)
        await scene.settle()
        assert during.fate == "runs", "it has just come, and stays for as long as that took"
        scene.clock.advance(3)
        late = scene.ask(0)
        await scene.settle()
        assert late.fate == "waits" and scene.states() == "Lu"
        await scene.finish(first)
        assert late.fate == "waits" and scene.states() == "Lu", "one still runs"
        await scene.finish(during)
        assert scene.states() == "Uu"
        await scene.unloaded(0)
        assert scene.states() == "ul"
        await scene.loaded(1, 2)
        assert other.fate == "runs" and late.fate == "waits"
        await scene.finish(other)
        await scene.unloaded(1)
        await scene.loaded(0)
        assert late.fate == "runs"
        await scene.finish(late)
        assert [call.fate for call in scene.calls] == ["answered"] * 4

    play(work)


def test_who_waited_for_a_place_and_left_makes_nobody_give_way() -> None:
    async def work() -> None:
        scene = Scene(2)
        first = scene.ask(0)
        await scene.settle()
        await scene.loaded(0)
        scene.clock.advance(9)
        other, late = scene.ask(1), scene.ask(0)
        await scene.settle()
        other.task.cancel()
        await scene.settle()
        await scene.finish(first)
        assert late.fate == "runs" and scene.states() == "Lu" and not scene.fakes[0].unloads
        await scene.finish(late)
        assert scene.models.room.waiting == 0

    play(work)


def test_a_model_whose_last_waiter_is_passed_over_gives_way() -> None:
    """It has left, but does not know it yet when its turn comes."""

    async def work() -> None:
        scene = Scene(2)
        first = scene.ask(0)
        await scene.settle()
        await scene.loaded(0, 5)
        leaves, other = scene.ask(0), scene.ask(1)
        await scene.settle()
        first.end.set()
        leaves.task.cancel()
        await scene.settle()
        assert leaves.fate == "gone" and scene.states() == "Uu"
        await scene.unloaded(0)
        await scene.loaded(1)
        await scene.finish(other)

    play(work)


def test_a_load_that_nobody_waits_for_any_more_is_brought_to_its_end() -> None:
    async def work() -> None:
        scene = Scene(2)
        call = scene.ask(0)
        await scene.settle()
        call.task.cancel()
        await scene.settle()
        assert scene.states() == "lu" and scene.models.room.waiting == 0
        other = scene.ask(1)
        await scene.loaded(0)
        assert scene.states() == "Uu", "it goes at once: nobody asks for it"
        await scene.unloaded(0)
        await scene.loaded(1)
        assert other.fate == "runs"
        await scene.finish(other)

    play(work)


@pytest.mark.parametrize("error", [ProcessorError("engine_died", "no memory"), ValueError("bug")])
def test_a_load_that_fails_is_told_to_all_who_wait_and_tried_again(error: Exception) -> None:
    async def work() -> None:
        scene = Scene(2)
        calls = [scene.ask(0), scene.ask(0), scene.ask(1)]
        await scene.settle()
        await scene.loaded(0, error=error)
        code = "engine_died" if isinstance(error, EdvacError) else "model_load_fault"
        assert [call.fate for call in calls[:2]] == [code, code]
        assert scene.states() == "ul", "its place is free for the next"
        await scene.loaded(1)
        await scene.finish(calls[2])
        again = scene.ask(0)
        await scene.settle()
        await scene.unloaded(1)
        await scene.loaded(0)
        assert again.fate == "runs" and scene.fakes[0].loads == 2
        await scene.finish(again)

    play(work)


def test_too_many_that_wait_are_refused_whatever_they_wait_for() -> None:
    async def work() -> None:
        scene = Scene(3, most_waiting=3)
        calls = [scene.ask(at % 3) for at in range(5)]
        await scene.settle()
        assert [call.fate for call in calls] == ["waits"] * 3 + ["service_busy"] * 2
        scene.models.refuse(ProcessorError("service_stopping", "it stops"))
        await scene.settle()
        assert [call.fate for call in calls[:3]] == ["service_stopping"] * 3
        assert scene.models.room.waiting == 0

    play(work)


def test_an_unused_model_is_unloaded_and_a_look_is_no_use() -> None:
    async def work() -> None:
        scene = Scene(1, idle_s=10)
        call = scene.ask(0)
        await scene.settle()
        await scene.loaded(0)
        scene.clock.advance(50)
        scene.models.review()
        assert scene.states() == "L", "it is in use"
        await scene.finish(call)
        scene.clock.advance(9)
        with scene.models.looking(scene.models.places[0]) as here:
            assert here
            scene.clock.advance(2)
            scene.models.review()
            assert scene.states() == "L", "it is being looked at"
        assert scene.states() == "U"
        with scene.models.looking(scene.models.places[0]) as here:
            assert not here
        await scene.settle()
        await scene.unloaded(0)
        assert scene.states() == "u"

    play(work)


def test_an_unused_model_is_unloaded_by_the_clock_alone() -> None:
    class Quick(Fake):
        async def open(self) -> None:
            self.loads += 1

        async def unload(self) -> None:
            self.unloads += 1

    async def work() -> None:
        quick = Quick(1)
        models = Models(((quick, ("m",)),), idle_s=0.1)
        await models.load(models.places[0])
        for _ in range(6):
            await asyncio.sleep(0.05)
            async with models.visit(models.places[0], ""):  # a use, though no turn
                pass
        assert quick.unloads == 0
        await asyncio.sleep(0.3)
        assert quick.unloads == 1 and models.places[0].state is State.AWAY
        await models.load(models.places[0])
        await models.close()
        assert quick.loads == 2 and quick.closed == 1

    play(work)


def test_a_visit_takes_no_turn_and_keeps_the_model() -> None:
    async def work() -> None:
        scene = Scene(2)
        running = scene.ask(0)
        await scene.settle()
        await scene.loaded(0)
        async with scene.models.visit(scene.models.places[0], ""):  # though its turns are taken
            await scene.finish(running)
            other = scene.ask(1)
            await scene.settle()
            assert scene.states() == "Lu"
        await scene.settle()
        assert scene.states() == "Uu"
        await scene.unloaded(0)
        await scene.loaded(1)
        await scene.finish(other)

    play(work)


@pytest.mark.parametrize(("models", "loaded", "most"), [(2, 1, 2), (3, 1, 1), (4, 2, 3), (5, 3, 1)])
def test_nobody_starves_however_all_are_asked_for(models: int, loaded: int, most: int) -> None:
    """Each model is asked for without a pause by more clients than it serves at once. Loading
    takes 4 s and a call 1 s."""

    async def work() -> None:
        scene = Scene(models, most=most, loaded=loaded)
        open_calls = [scene.ask(at % models) for at in range(models * most * 3)]
        answered, longest, since = [0] * models, 0.0, [scene.clock.now()] * models
        for _ in range(60 * models):
            await scene.settle()
            scene.clock.advance(1.0)
            for at, fake in enumerate(scene.fakes):
                place = scene.models.places[at]
                if fake.unloading is not None:
                    await scene.unloaded(at)
                elif fake.loading is not None and scene.clock.now() % 4 < 1:
                    await scene.loaded(at, 0.0)
                assert place.turns.running <= most
            for call in [one for one in open_calls if one.fate == "runs"]:
                await scene.finish(call)
                answered[call.model] += 1
                now = scene.clock.now()
                longest, since[call.model] = max(longest, now - since[call.model]), now
                open_calls.remove(call)
                open_calls.append(scene.ask(call.model))
        assert min(answered) > 0 and max(answered) <= 3 * min(answered), answered
        assert longest <= 14 * models, "a stay and two changes of each of the others"
        for call in open_calls:
            call.task.cancel()
        await scene.settle()
        assert scene.models.room.waiting == 0 and not any(p.running for p in scene.models.places)

    play(work)


# -- the rule, done naively ----------------------------------------------------------------------


@dataclass
class Slow:
    """The rule as one would write it with lists alone."""

    count: int
    most: int
    loaded: int
    waiting_most: int
    now: float = 0.0
    state: list[str] = field(default_factory=list)
    waits: list[list[int]] = field(default_factory=list)
    runs: list[list[int]] = field(default_factory=list)
    line: list[int] = field(default_factory=list)
    shut: set[int] = field(default_factory=set)
    fates: dict[int, str] = field(default_factory=dict)
    came: dict[int, float] = field(default_factory=dict)
    stay: dict[int, float] = field(default_factory=dict)
    used: dict[int, float] = field(default_factory=dict)
    began: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = ["u"] * self.count
        self.waits = [[] for _ in range(self.count)]
        self.runs = [[] for _ in range(self.count)]

    def arrive(self, call: int, model: int) -> None:
        self.rule()
        if self.state[model] == "L" and model not in self.shut and self.fits(model):
            self.run(model, call)
        elif sum(map(len, self.waits)) >= self.waiting_most:
            self.fates[call] = "service_busy"
        else:
            self.waits[model].append(call)
            self.fates[call] = "waits"
            self.rule()

    def fits(self, model: int) -> bool:
        return len(self.runs[model]) < self.most

    def run(self, model: int, call: int) -> None:
        self.runs[model].append(call)
        self.fates[call] = "runs"

    def give(self, model: int) -> None:
        while self.waits[model] and self.fits(model):
            self.run(model, self.waits[model].pop(0))

    def end(self, call: int, model: int) -> None:
        self.fates[call] = "answered"
        self.used[model] = self.now
        self.runs[model].remove(call)
        self.rule()
        if self.state[model] == "L" and model not in self.shut:
            self.give(model)

    def cancel(self, call: int, model: int) -> None:
        self.fates[call] = "gone"
        self.waits[model].remove(call)
        self.rule()

    def load(self, model: int, good: bool) -> None:
        if good:
            self.state[model] = "L"
            self.came[model] = self.used[model] = self.now
            self.stay[model] = max(LEAST_S, self.now - self.began[model])
            self.give(model)
        else:
            self.state[model] = "u"
            for call in self.waits[model]:
                self.fates[call] = "engine_died"
            self.waits[model].clear()
        self.rule()

    def unload(self, model: int) -> None:
        self.state[model] = "u"
        self.rule()

    def rule(self) -> None:
        asked = [m for m in range(self.count) if self.state[m] == "u" and self.waits[m]]
        self.line = [m for m in self.line if m in asked]
        self.line += [m for m in asked if m not in self.line]
        while self.line and sum(one != "u" for one in self.state) < self.loaded:
            model = self.line.pop(0)
            self.state[model], self.began[model] = "l", self.now
        need = len(self.line) - self.state.count("U")
        quiet, busy = [], []
        for model in range(self.count):
            if self.state[model] == "L":
                if not self.waits[model] and not self.runs[model]:
                    quiet.append(model)
                elif self.now - self.came[model] >= self.stay[model]:
                    busy.append(model)
        quiet.sort(key=lambda m: self.used[m])
        busy.sort(key=lambda m: self.came[m])
        go = (quiet + busy)[: max(0, need)]
        for model in range(self.count):
            if self.state[model] == "L" and model not in go and model in self.shut:
                self.shut.remove(model)
                self.give(model)
        self.shut = {m for m in go if self.runs[m]}
        for model in go:
            if not self.runs[model]:
                self.state[model] = "U"


@settings(max_examples=120, deadline=None)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32))
def test_the_rule_is_the_naive_one(count: int, most: int, loaded: int, seed: int) -> None:
    """Calls come, end and give up at any moment, loads fail: each call has the fate that the naive
    rule gives it, after each step; and in the end none is left."""

    async def work() -> None:
        rng = random.Random(seed)
        loads = min(loaded, count)
        scene = Scene(count, most=most, loaded=loads, most_waiting=9)
        naive = Slow(count, most, loads, 9)
        for step in range(160):
            await act(rng, scene, naive, more=step < 90)
            await scene.settle()
            assert {at: call.fate for at, call in enumerate(scene.calls)} == naive.fates, step
            assert scene.states() == "".join(naive.state), step
            assert sum(state != "u" for state in naive.state) <= loads
            assert scene.models.room.waiting == sum(map(len, naive.waits))
        while any(call.fate in ("waits", "runs") for call in scene.calls):
            await act(rng, scene, naive, more=False)
            await scene.settle()
        assert scene.models.room.waiting == 0
        assert not any(place.running for place in scene.models.places)

    play(work)


async def act(rng: random.Random, scene: Scene, naive: Slow, more: bool) -> None:
    """One event, told to both."""
    waiting = [at for at, call in enumerate(scene.calls) if call.fate == "waits"]
    running = [at for at, call in enumerate(scene.calls) if call.fate == "runs"]
    loading = [at for at, fake in enumerate(scene.fakes) if fake.loading is not None]
    leaving = [at for at, fake in enumerate(scene.fakes) if fake.unloading is not None]
    kinds = [kind for kind, found in (("end", running), ("load", loading), ("unload", leaving))
             if found]  # fmt: skip
    kinds += ["ask"] * 3 * more + ["cancel"] * bool(waiting and more) + ["time"]
    kind = rng.choice(kinds)
    if kind == "ask":
        model = rng.randrange(len(scene.fakes))
        naive.arrive(len(scene.calls), model)
        scene.ask(model)
    elif kind == "cancel":
        call = rng.choice(waiting)
        naive.cancel(call, scene.calls[call].model)
        scene.calls[call].task.cancel()
    elif kind == "end":
        call = rng.choice(running)
        naive.end(call, scene.calls[call].model)
        scene.calls[call].end.set()
    elif kind == "load":
        model, good = rng.choice(loading), rng.random() < 0.8
        naive.load(model, good)
        await scene.loaded(model, error=None if good else ProcessorError("engine_died", "so"))
    elif kind == "unload":
        model = rng.choice(leaving)
        naive.unload(model)
        await scene.unloaded(model)
    else:
        seconds = rng.choice([0.3, 2.0, 6.0])
        naive.now += seconds
        scene.clock.advance(seconds)
