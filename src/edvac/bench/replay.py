"""Agents that talk to the engine between calls of tools, replayed: who keeps whose context?

The talks are BFCL's multi-turn tasks (Apache-2.0): the functions' documentation and the task's own
data as the system's message, the users' requests, and the recorded calls as what the model says.
How long each call takes is drawn from tool calls of coding agents (AgentCgroup), each function
standing for one of the recorded tools. Every arm reads the same texts and waits the same times; it
is the time to the end of a task that counts. Keys and values have room for half of the programs.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from edvac.bench.arms import Arm, Took, engine_arm, llamacpp_arm
from edvac.bench.engine import words
from edvac.bench.report import Document, Figure
from edvac.bench.virtual import Machine, VirtualEngine
from edvac.core.errors import UsageError
from edvac.engine.job import Job
from edvac.engine.protocol import Hint, HintKind
from edvac.engine.scheduler import Limits

SPARE: Final = ("lru", "ttl=0", "ttl=cost", "ttl=2", "ttl=600", "continuum", "told", "oracle")
LONGEST: Final = 6000  # tokens of a talk at its end, about; longer tasks are left out
_CHARACTERS: Final = 3.6  # of a token, about
_ANSWER: Final = 24  # tokens of each answer
_RESULT: Final = 120  # tokens of what a tool gives back, about
_FEWEST: Final = 4  # records of a tool that can be drawn from
_RESULTS: Final = 1 << 18  # stands for the words of results on a virtual engine
_NEXT: Final = "### Assistant\n"
_FILES: Final = "multi_turn_func_doc"
_DOCS: Final = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}


@dataclass(frozen=True, slots=True)
class Call:
    """What the model says, which tool that calls, and how long it takes."""

    said: str
    tool: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Talk:
    """One task: what it begins with, and for each request of its user the calls."""

    name: str
    begins: str
    turns: tuple[tuple[str, tuple[Call, ...]], ...]
    arrives: float  # seconds after the first


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Args:
        bfcl: directory of bfcl-eval's data.
        durations: directory of the recorded tool calls.
        talks: how many in all, `at_once` of them at a time.
    """

    model: Path
    bfcl: Path
    durations: Path
    python: str | None
    threads: int
    talks: int = 16
    at_once: int = 8
    seed: int = 1
    arms: tuple[str, ...] = SPARE

    @property
    def name(self) -> str:
        return self.model.name.partition("-q4")[0]


def bfcl_data(python: str) -> Path:
    """Where the package's data lie in the environment of this interpreter; nothing is run.

    Raises:
        UsageError: they are not there.
    """
    for found in Path(python).parent.parent.glob("lib/python3*/site-packages/bfcl_eval/data"):
        return found
    fix = f"{python} -m pip install --no-deps bfcl-eval"
    raise UsageError("bench_data", "BFCL's tasks are not there", "They are in bfcl-eval.", fix)


def recorded(directory: Path) -> dict[str, list[float]]:
    """Seconds of recorded calls, by tool.

    Raises:
        UsageError: there are none.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for path in sorted(directory.glob("*.tool_times.json")):
        for one in json.loads(path.read_bytes()):
            start, end = (dt.datetime.fromisoformat(one[key]) for key in ("start", "end"))
            found[one["tool"]].append((end - start).total_seconds())
    if not found:
        raise UsageError("bench_data", f"there are no recorded tool calls in {directory}")
    return {tool: times for tool, times in found.items() if len(times) >= _FEWEST}


def talks(wanted: Wanted) -> list[Talk]:
    """Tasks of the base set, the same for the same seed."""
    draw = random.Random(wanted.seed)  # noqa: S311
    tools = recorded(wanted.durations)
    asked = _lines(wanted.bfcl / "BFCL_v4_multi_turn_base.json")
    calls = {one["id"]: one["ground_truth"] for one in
             _lines(wanted.bfcl / "possible_answer" / "BFCL_v4_multi_turn_base.json")}  # fmt: skip
    tasks = list(asked)
    draw.shuffle(tasks)
    found: list[Talk] = []
    arrives = 0.0
    for task in tasks:
        turns = tuple(
            (_said(turn), tuple(_call(text, tools, draw) for text in made))
            for turn, made in zip(task["question"], calls[task["id"]], strict=False)
        )
        talk = Talk(task["id"], _begins(task, wanted.bfcl / _FILES), turns, arrives)
        if _size(talk) <= LONGEST:
            found.append(talk)
            arrives += draw.expovariate(0.5)
        if len(found) == wanted.talks:
            break
    return found


def _size(talk: Talk) -> float:
    """Tokens at its end, about."""
    calls = sum(len(made) for _, made in talk.turns)
    letters = len(talk.begins) + sum(len(said) for said, _ in talk.turns)
    return letters / _CHARACTERS + calls * (_ANSWER + _RESULT)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _begins(task: dict[str, Any], directory: Path) -> str:
    functions = "".join(
        (directory / f"{_DOCS[one]}.json").read_text(encoding="utf-8")
        for one in task["involved_classes"]
    )
    state = json.dumps(task["initial_config"])
    return f"### System\nYou are {task['id']}. Your functions:\n{functions}\nThe state:\n{state}\n"


def _said(turn: list[dict[str, str]]) -> str:
    return "".join(f"### User\n{one['content']}\n" for one in turn)


def _call(text: str, tools: dict[str, list[float]], draw: random.Random) -> Call:
    name = text.partition("(")[0]
    kind = sorted(tools)[sum(name.encode()) % len(tools)]
    return Call(text, f"{kind}:{name}", draw.choice(tools[kind]))


@dataclass(slots=True)
class Went:
    """How an arm did: seconds from a task's arrival to its end, and tokens that it read anew."""

    name: str
    seconds: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    read: int = 0

    @property
    def mean(self) -> float:
        return statistics.mean(self.seconds)

    @property
    def p95(self) -> float:
        return sorted(self.seconds)[max(0, -(-len(self.seconds) * 95 // 100) - 1)]


async def replay(arm: Arm, name: str, tasks: list[Talk], at_once: int) -> Went:
    """All talks, each arriving at its time; an agent is busy with one of them at a time."""
    went = Went(name)
    agents = asyncio.Semaphore(at_once)
    start = time.perf_counter()

    async def one(talk: Talk) -> None:
        await asyncio.sleep(talk.arrives)
        async with agents:
            await _talk(arm, talk, went, oracle=name == "oracle")
        went.seconds.append(time.perf_counter() - start - talk.arrives)

    await asyncio.gather(*(one(talk) for talk in tasks))
    return went


async def _talk(arm: Arm, talk: Talk, went: Went, *, oracle: bool) -> None:
    past = talk.begins
    seeds = random.Random(talk.name)  # noqa: S311
    arm.tell("open", talk.name)
    for said, calls in talk.turns:
        past += said
        for call in calls:
            took = await arm.complete(past + _NEXT, _ANSWER, talk.name)
            _note(went, took)
            arm.tell("tool_started", talk.name, call.tool, call.seconds if oracle else 0.0)
            await asyncio.sleep(call.seconds)
            arm.tell("tool_ended", talk.name)
            result = words(_RESULT, seeds.randrange(100_000))
            past += f"{_NEXT}{call.said}\n### Tool\n{result}\n"
    _note(went, await arm.complete(past + _NEXT, _ANSWER, talk.name))
    arm.tell("close", talk.name)


def _note(went: Went, took: Took) -> None:
    went.waits.append(took.first)
    went.read += took.prompt - took.cached


def simulate(
    tasks: list[Talk], name: str, encode: Callable[[str], list[int]], room: int, at_once: int
) -> Went:
    """The same talks on a virtual engine: no model, exact counts, a clock that is moved by hand."""
    went = Went(name)
    waiting = list(tasks)
    talking: dict[str, _Virtual] = {}

    def done(job: Job) -> None:
        went.waits.append(job.admitted - job.arrived)
        talking[job.program].answered()

    longest = LONGEST + 2048
    limits = Limits(slots=32, context=longest, step_tokens=256, kv_tokens=max(room, longest))
    engine = VirtualEngine(limits, name, done, Machine())

    def begin() -> None:
        while waiting and len(talking) < at_once and waiting[0].arrives <= engine.clock.now():
            talk = waiting.pop(0)
            talking[talk.name] = _Virtual(talk, engine, encode, oracle=name == "oracle", end=end)
            talking[talk.name].ask()

    def end(talk: Talk) -> None:
        del talking[talk.name]
        went.seconds.append(engine.clock.now() - talk.arrives)
        begin()

    for talk in tasks:
        engine.at(talk.arrives, begin)
    engine.run()
    went.read = engine.counted.computed
    return went


class _Virtual:
    """A talk on a virtual engine."""

    def __init__(
        self,
        talk: Talk,
        engine: VirtualEngine,
        encode: Callable[[str], list[int]],
        *,
        oracle: bool,
        end: Callable[[Talk], None],
    ) -> None:
        self._talk, self._engine, self._oracle, self._end = talk, engine, oracle, end
        self._encode = encode
        self._past = encode(talk.begins)
        self._calls = [(said if at == 0 else "", call) for said, made in talk.turns
                       for at, call in enumerate(made)]  # fmt: skip
        self._at = self._numbers = 0
        self._hint("open")

    def _hint(self, kind: HintKind, tool: str = "", seconds: float = 0.0) -> None:
        name = self._talk.name
        self._engine.hint(
            Hint(kind=kind, program=name, detail=tool, after=seconds if self._oracle else 0.0)
        )

    def ask(self) -> None:
        if self._at < len(self._calls):
            self._past += self._encode(self._calls[self._at][0])
        self._numbers += 1
        name = f"{self._talk.name}.{self._numbers}"
        tokens = [*self._past, *self._encode(_NEXT)]
        job = Job(name, self._talk.name, "online", "user", tokens, _ANSWER)
        self._engine.scheduler.add(job)

    def answered(self) -> None:
        if self._at == len(self._calls):
            self._hint("close")
            self._end(self._talk)
            return
        call = self._calls[self._at][1]
        self._at += 1
        self._hint("tool_started", call.tool, call.seconds)
        self._past += self._encode(f"{_NEXT}{call.said}\n### Tool\n")
        self._past += [_RESULTS + self._numbers * 4096 + at for at in range(_RESULT)]
        self._engine.at(self._engine.clock.now() + call.seconds, self._resume)

    def _resume(self) -> None:
        self._hint("tool_ended")
        self.ask()


def measure_virtual(
    document: Document, wanted: Wanted, seeds: int, say: Callable[[str], None]
) -> None:
    """The arms on virtual engines, over as many draws of tasks."""
    from edvac.engine.weights import open_weights

    codec = open_weights(wanted.model).codec
    encode = lru_cache(maxsize=4096)(lambda text: tuple(codec.encode(text, control=False)))
    went = {name: Went(name) for name in wanted.arms}
    for seed in range(seeds):
        tasks = talks(replace(wanted, seed=seed))
        room = _room(tasks, wanted.at_once)
        for name in wanted.arms:
            one = simulate(tasks, name, lambda text: list(encode(text)), room, wanted.at_once)
            went[name].seconds += one.seconds
            went[name].waits += one.waits
            went[name].read += one.read
        say(f"draw {seed + 1} of {seeds} done")
    label = f"{seeds} draws of {wanted.talks} tasks, {wanted.at_once} at a time"
    ours = went.get("told") or next(iter(went.values()))
    for other in went.values():
        for what, mine, theirs in (
            ("mean", ours.mean, other.mean),
            ("p95", ours.p95, other.p95),
            ("tokens read", ours.read, other.read),
        ):
            unit = "tokens" if what == "tokens read" else "s"
            figure = Figure(f"{label}: {what}, {ours.name}", mine, unit, "lower", None, other.name,
                            theirs)  # fmt: skip
            if other is not ours:
                document.figures.append(figure)
        document.notes.append(_line("virtual", other))


def _room(tasks: list[Talk], at_once: int) -> int:
    """Tokens of memory for half of those that run at a time."""
    sizes = [_size(talk) for talk in tasks]
    return int(max(statistics.mean(sizes) * at_once / 2, 1.3 * max(sizes)))


async def measure(document: Document, wanted: Wanted, say: Callable[[str], None]) -> None:
    """Add the figures of one model."""
    tasks = talks(wanted)
    room = _room(tasks, wanted.at_once)
    kv_mb = _megabytes(wanted.model, room)
    went: list[Went] = []
    for name, disk in [*((one, "none") for one in wanted.arms), ("lru", "session"),
                       ("told", "session")]:  # fmt: skip
        label = name if disk == "none" else f"{name}, disk"
        extra = ("--retention", name, "--kv-disk", disk)
        async with engine_arm(label, wanted.model, wanted.threads, extra, kv_mb) as arm:
            went.append(await replay(arm, name, tasks, wanted.at_once))
            went[-1].name = label
            say(_line(wanted.name, went[-1]))
    if wanted.python is not None:
        async with AsyncExitStack() as stack:
            slots = max(1, wanted.at_once // 2)
            peer = llamacpp_arm("llama.cpp", wanted.python, wanted.model, wanted.threads, slots)
            arm = await stack.enter_async_context(peer)
            went.append(await replay(arm, "llama.cpp", tasks, wanted.at_once))
            say(_line(wanted.name, went[-1]))
    _figures(document, wanted, went)
    document.notes.append(
        f"{wanted.name}: {len(tasks)} tasks, {wanted.at_once} at a time, room for {room} "
        f"tokens of keys and values ({kv_mb} MB)"
    )


def _figures(document: Document, wanted: Wanted, went: list[Went]) -> None:
    ours = next(one for one in went if one.name == "told, disk")
    spare = next((one for one in went if one.name == "told"), ours)
    for other in went:
        against = ours if other.name in ("lru, disk", "llama.cpp") else spare
        if other is against:
            continue
        for what, mine, theirs in (
            ("mean", against.mean, other.mean),
            ("p95", against.p95, other.p95),
        ):
            label = f"{wanted.name}: {what} time of a task, {against.name}"
            document.figures.append(Figure(label, mine, "s", "lower", None, other.name, theirs))
    document.notes += [_line(wanted.name, one) for one in went]


def _line(model: str, went: Went) -> str:
    return (
        f"{model}, {went.name}: mean {went.mean:.1f} s, p95 {went.p95:.1f} s, first token "
        f"{statistics.median(went.waits):.2f} s (median), read {went.read} tokens"
    )


def _megabytes(model: Path, tokens: int) -> int:
    from edvac.engine.weights import open_weights

    config = open_weights(model).config
    return -(-tokens * 2 * config.layers * config.kv_heads * config.head_dim * 2 // (1 << 20))
