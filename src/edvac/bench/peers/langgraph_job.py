"""The sample job as a LangGraph program: a node for each document, checkpoints in SQLite.

Asynchronous, because its threads write down finished nodes after all that wait to begin, so that a
kill lost them all.

Usage: python langgraph_job.py INBOX OUTPUT URL MODEL; run again, it goes on from its checkpoints.
"""

from __future__ import annotations

import asyncio
import operator
import sys
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

sys.path.insert(0, str(Path(__file__).parent))
from script_job import extract, finish  # the same questions to the same model


class State(TypedDict):
    rows: Annotated[list[dict[str, Any]], operator.add]


async def run(inbox: Path, names: list[str], out: Path, url: str, model: str) -> None:
    gate = asyncio.Semaphore(4)

    async def read(name: str) -> dict[str, Any]:
        async with gate:
            row = await asyncio.to_thread(extract, url, model, inbox / name)
        return {"rows": [row] if row else []}

    async def conclude(state: State) -> dict[str, Any]:
        rows = sorted(state["rows"], key=lambda row: row["file"])
        await asyncio.to_thread(finish, rows, out, url, model)
        return {}

    graph = StateGraph(State)
    graph.add_node("read", read)
    graph.add_node("conclude", conclude)
    graph.add_conditional_edges(START, lambda _: [Send("read", name) for name in names], ["read"])
    graph.add_edge("read", "conclude")
    graph.add_edge("conclude", END)
    async with AsyncSqliteSaver.from_conn_string(str(out / "checkpoints.db")) as saver:
        app = graph.compile(checkpointer=saver)
        config = {"configurable": {"thread_id": "job"}}
        begun = bool((await app.aget_state(config)).next)  # killed: go on from the checkpoint
        await app.ainvoke(None if begun else {"rows": []}, config, durability="sync")


def main() -> None:
    inbox, out, url, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    out.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in inbox.iterdir())
    asyncio.run(run(inbox, names, out, url, model))


main()
