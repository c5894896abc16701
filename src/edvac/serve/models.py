"""Which models are in memory: loaded when they are asked for, and given up when others wait.

So many places there are in memory. A model that is asked for and not there takes a free one, or
that of a model which nobody asks for, the least recently used first. Where all are busy, the one
that has been there longest gives way: no call of its own begins any more, and when those that run
have ended it is unloaded. But each stays for as long as its loading took, and at least `LEAST_S`,
so that more time goes into answers than into loading; and those that waited for it when it came
are served in any case. Models wait in the order in which they came, and one that has given way
waits behind the others. So everybody is served, after at most one stay of each model before.

It knows turns, loading and time; neither HTTP nor engines.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

from edvac.core.errors import EdvacError, InternalError
from edvac.core.seams import Clock, SystemClock
from edvac.serve.turns import Room, Turns

LEAST_S: Final = 1.0  # for which a model stays that is asked for
_log = logging.getLogger("edvac.serve")


class Loadable(Protocol):
    """What is loaded and unloaded; it may be opened again after either end."""

    @property
    def concurrency(self) -> int: ...

    async def open(self) -> None: ...

    async def unload(self) -> None: ...

    async def close(self) -> None: ...


class State(enum.Enum):
    """The values are llama.cpp's words."""

    AWAY = "unloaded"
    COMING = "loading"
    HERE = "loaded"
    GOING = "unloading"


P = TypeVar("P", bound=Loadable)


@dataclass(slots=True, eq=False)
class Place(Generic[P]):
    """One model.

    Attributes:
        names: that clients may ask for it by; the first is the one that it has in answers.
        visits: short uses that take no turn.
        asked: when it began to wait for memory, as a number that grows; 0 where it does not.
        came, took: when it was loaded, and how long that took, in seconds.
        used: when it was last used, in seconds.
    """

    model: P
    names: tuple[str, ...]
    turns: Turns
    state: State = State.AWAY
    visits: int = 0
    asked: int = 0
    came: float = 0.0
    took: float = 0.0
    used: float = 0.0

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def running(self) -> int:
        return self.turns.running + self.visits

    @property
    def idle(self) -> bool:
        return not self.running and not self.turns.waiting


@dataclass(slots=True)
class Models(Generic[P]):
    """
    Args:
        served: models with their names; the first one is meant where a request names none.
        most_loaded: models in memory at a time, those that come and go included.
        most_waiting: calls that wait, for all models together; more are refused.
        idle_s: seconds after its last use until a model is unloaded; 0 keeps it.
    """

    served: tuple[tuple[P, tuple[str, ...]], ...]
    most_loaded: int = 1
    most_waiting: int = 256
    idle_s: float = 0.0
    clock: Clock = field(default_factory=SystemClock)
    places: tuple[Place[P], ...] = field(init=False)
    room: Room = field(init=False)
    _numbers: Iterator[int] = field(init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _timer: asyncio.TimerHandle | None = None
    _closed: bool = False

    def __post_init__(self) -> None:
        self._numbers, self.room = itertools.count(1), Room(self.most_waiting)
        self.places = tuple(
            Place(one, names, Turns(one.concurrency, self.room, self.review, shut=True))
            for one, names in self.served
        )

    def find(self, name: str | None) -> Place[P] | None:
        """The model of a name; the first one where none is given."""
        if name is None:
            return self.places[0]
        return next((place for place in self.places if name in place.names), None)

    @asynccontextmanager
    async def turn(self, place: Place[P], client: str) -> AsyncIterator[None]:
        """One call of a client's, from its turn to its end; the model is there for so long.

        Raises:
            ProcessorError: too many wait already (`service_busy`).
            EdvacError: the model cannot be loaded. The next call tries again.
        """
        self.review()  # its stay may just be over
        async with place.turns.turn(client):
            try:
                yield
            finally:
                place.used = self.clock.now()

    @asynccontextmanager
    async def visit(self, place: Place[P], client: str) -> AsyncIterator[None]:
        """A use that is short: it takes no turn where the model is there. Raises as `turn` does."""
        self.review()
        if place.turns.shut:
            async with self.turn(place, client):
                yield
        else:
            with self.looking(place):
                try:
                    yield
                finally:
                    place.used = self.clock.now()

    @contextmanager
    def looking(self, place: Place[P]) -> Iterator[bool]:
        """Keeps a model in memory where it is there, which is what is given; brings none there, and
        is no use of it."""
        here = place.state is State.HERE
        place.visits += here
        try:
            yield here
        finally:
            place.visits -= here
            self.review()

    async def load(self, place: Place[P]) -> None:
        """Bring a model to memory. Raises as `turn` does."""
        async with self.visit(place, ""):
            pass

    def refuse(self, error: EdvacError) -> None:
        """Tell all who wait that they are not served."""
        for place in self.places:
            place.turns.refuse(error)

    async def close(self) -> None:
        """Let go of all models; to be called when no call runs."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for place in self.places:
            await place.model.close()

    # --- the rule --------------------------------------------------------------------------

    def review(self) -> None:
        """Load, hold back and unload as the rule says. Called at whatever changes."""
        if self._closed:
            return
        wanted = sorted(self._wanted(), key=lambda place: place.asked)
        taken = sum(place.state is not State.AWAY for place in self.places)
        free = max(0, self.most_loaded - taken)
        for place in wanted[:free]:
            place.state, place.asked = State.COMING, 0
            self._start(self._bring(place))
        going = sum(place.state is State.GOING for place in self.places)
        giving = self._giving(len(wanted) - free - going)
        for place in self.places:
            if place.state is not State.HERE:
                continue
            if place in giving:
                place.turns.shut = True
                if not place.running:
                    place.state = State.GOING
                    self._start(self._drop(place))
            elif place.turns.shut:
                place.turns.open()  # who waited for its place has gone, or found another
        self._watch_idle()

    def _wanted(self) -> Iterator[Place[P]]:
        """Models that are asked for and not there."""
        for place in self.places:
            if place.state is State.AWAY and place.turns.waiting:
                place.asked = place.asked or next(self._numbers)
                yield place
            else:
                place.asked = 0

    def _giving(self, number: int) -> list[Place[P]]:
        """So many models that give way to others, as far as there are, and those that were unused
        for too long."""
        now = self.clock.now()
        here = [place for place in self.places if place.state is State.HERE]
        idle = sorted((place for place in here if place.idle), key=lambda place: place.used)
        over = [
            place
            for place in here
            if not place.idle and now - place.came >= max(LEAST_S, place.took)
        ]
        over.sort(key=lambda place: place.came)
        found = [*idle, *over][: max(0, number)]
        if self.idle_s:
            found += [one for one in idle if one not in found and now - one.used >= self.idle_s]
        return found

    async def _bring(self, place: Place[P]) -> None:
        start = self.clock.now()
        try:
            await place.model.open()
        except EdvacError as error:
            self._fail(place, error)
            return
        except Exception as problem:  # else those who wait would wait for ever
            _log.exception("a model could not be loaded")
            what = f"the model {place.name} could not be loaded"
            self._fail(place, InternalError("model_load_fault", what, type(problem).__name__))
            return
        place.state = State.HERE
        place.came = place.used = self.clock.now()
        place.took = place.came - start
        place.turns.open()  # before anybody can ask it to give way
        self.review()

    def _fail(self, place: Place[P], error: EdvacError) -> None:
        place.state = State.AWAY
        place.turns.refuse(error)
        self.review()

    async def _drop(self, place: Place[P]) -> None:
        try:
            await place.model.unload()
        except Exception:  # it is let go of in any case
            _log.exception("a model could not be unloaded")
        place.state = State.AWAY
        self.review()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _watch_idle(self) -> None:
        """Look again when the next model has been unused for too long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        here = [place for place in self.places if place.state is State.HERE]
        ends = [place.used + self.idle_s for place in here if place.idle]
        if self.idle_s and ends:
            left = max(0.0, min(ends) - self.clock.now())
            # A little later, so that it is over then whatever the loop's clock rounds.
            self._timer = asyncio.get_running_loop().call_later(left + 0.01, self.review)
