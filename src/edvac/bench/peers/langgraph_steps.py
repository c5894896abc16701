"""LangGraph with its SQLite checkpointer, durability "sync": a chain, and a fan-out, of null steps.

Usage: python langgraph_steps.py STEPS DIRECTORY
"""

from __future__ import annotations

import json
import operator
import sys
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send


class Chain(TypedDict):
    count: int


class Fan(TypedDict):
    results: Annotated[list[int], operator.add]


def chain(steps: int) -> Any:
    graph = StateGraph(Chain)
    graph.add_node("step", lambda state: {"count": state["count"] + 1})
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda s: "step" if s["count"] < steps else END)
    return graph


def fan(width: int) -> Any:
    graph = StateGraph(Fan)
    graph.add_node("step", lambda number: {"results": [number]})
    graph.add_conditional_edges(START, lambda _: [Send("step", n) for n in range(width)])
    graph.add_edge("step", END)
    return graph


def measure(graph: Any, state: Any, steps: int, file: Path) -> dict[str, float]:
    with SqliteSaver.from_conn_string(str(file)) as saver:
        app = graph.compile(checkpointer=saver)
        config = {"configurable": {"thread_id": "bench"}, "recursion_limit": 10 * steps + 100}
        wall, cpu = time.perf_counter(), time.process_time()
        app.invoke(state, config, durability="sync")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = sum(found.stat().st_size for found in file.parent.glob(f"{file.name}*"))
    return {"cpu_ms": cpu / steps * 1e3, "wall_ms": wall / steps * 1e3, "bytes": size / steps}


def main() -> None:
    steps, directory = int(sys.argv[1]), Path(sys.argv[2])
    found = {
        "chain": measure(chain(steps), {"count": 0}, steps, directory / "chain.db"),
        "fan": measure(fan(steps), {"results": []}, steps, directory / "fan.db"),
    }
    sys.stdout.write(json.dumps(found))


main()
