"""A LangGraph chain with one of the checkpointers, durability "sync": time and bytes of a step.

Usage: python langgraph_checkpoints.py edvac|sqlite|memory SHAPE STEPS DIRECTORY

SHAPE is what each step of a chain adds to the state: `none` nothing (it counts), `noise` 1 KB of
random bytes to a list, `text` 1 KB of words to a list; or `fan`, steps side by side. Prints one
JSON object.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import operator
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

KB = 1024
TEXT = (
    "the invoice from a vendor was paid late because our order number did not match what they had "
    "written on it so that somebody in accounting called them and asked for another copy of the "
    "letter which arrived two weeks after the deadline together with an apology and a discount"
)


class State(TypedDict):
    count: Annotated[int, lambda old, new: new]
    items: Annotated[list[Any], operator.add]


def item(shape: str, number: int) -> list[Any]:
    rng = random.Random(number)  # noqa: S311 (the same bytes for every peer)
    if shape == "noise":
        return [rng.randbytes(KB)]
    if shape == "text":
        return [" ".join(rng.choices(TEXT.split(), k=KB))[:KB]]
    return []


def graph(shape: str, steps: int) -> Any:
    def step(state: State) -> dict[str, Any]:
        update: dict[str, Any] = {"count": state["count"] + 1}
        if shape != "none":
            update["items"] = item(shape, state["count"])
        return update

    made = StateGraph(State)
    if shape == "fan":
        made.add_node("step", lambda number: {"count": 0, "items": [number]})
        made.add_conditional_edges(START, lambda _: [Send("step", n) for n in range(steps)])
        made.add_edge("step", END)
        return made
    made.add_node("step", step)
    made.add_edge(START, "step")
    made.add_conditional_edges("step", lambda s: "step" if s["count"] < steps else END)
    return made


@contextlib.contextmanager
def saver(name: str, directory: Path) -> Iterator[Any]:
    if name == "edvac":
        # By name: a program of its own, it stands outside of edvac's layers.
        edvac = importlib.import_module("edvac.apps.langgraph")
        with edvac.EdvacSaver(directory) as made:
            yield made
    elif name == "sqlite":
        from langgraph.checkpoint.sqlite import SqliteSaver

        with SqliteSaver.from_conn_string(str(directory / "checkpoints.db")) as made:
            yield made
    else:
        from langgraph.checkpoint.memory import InMemorySaver

        yield InMemorySaver()


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def main() -> None:
    name, shape, steps, directory = *sys.argv[1:3], int(sys.argv[3]), Path(sys.argv[4])
    config = {"configurable": {"thread_id": "bench"}, "recursion_limit": 10 * steps + 100}
    with saver(name, directory) as made:
        app = graph(shape, steps).compile(checkpointer=made)
        wall, cpu, found = timed(
            lambda: app.invoke({"count": 0, "items": []}, config, durability="sync")
        )
    # Another object, as another process would have it: what it takes to go on.
    with saver(name, directory) as made:
        load, _, state = timed(lambda: made.get_tuple(config))
    if name != "memory":
        assert state.checkpoint["channel_values"]["items"] == found["items"]
        assert len(found["items"]) == steps or found["count"] == steps
    size = sum(one.stat().st_size for one in directory.rglob("*") if one.is_file())
    figures = {
        "wall_ms": wall / steps * 1e3,
        "cpu_ms": cpu / steps * 1e3,
        "bytes": size / steps,
        "load_ms": load * 1e3,
    }
    versions = {
        package: importlib.metadata.version(package)
        for package in ("langgraph", "langgraph-checkpoint")
    }
    sys.stdout.write("\n" + json.dumps({"figures": figures, "versions": versions}))


main()
