"""The sample job as a LangGraph program: a node for each document, checkpoints in SQLite.

Usage: python langgraph_job.py INBOX OUTPUT URL MODEL; run again, it goes on from its checkpoints.
"""

from __future__ import annotations

import operator
import sys
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

sys.path.insert(0, str(Path(__file__).parent))
from script_job import extract, finish  # the same questions to the same model


class State(TypedDict):
    rows: Annotated[list[dict[str, Any]], operator.add]


def main() -> None:
    inbox, out, url, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    out.mkdir(parents=True, exist_ok=True)

    def read(name: str) -> dict[str, Any]:
        row = extract(url, model, inbox / name)
        return {"rows": [row] if row else []}

    def conclude(state: State) -> dict[str, Any]:
        finish(sorted(state["rows"], key=lambda row: row["file"]), out, url, model)
        return {}

    graph = StateGraph(State)
    graph.add_node("read", read)
    graph.add_node("conclude", conclude)
    names = sorted(path.name for path in inbox.iterdir())
    graph.add_conditional_edges(START, lambda _: [Send("read", name) for name in names], ["read"])
    graph.add_edge("read", "conclude")
    graph.add_edge("conclude", END)
    with SqliteSaver.from_conn_string(str(out / "checkpoints.db")) as saver:
        app = graph.compile(checkpointer=saver)
        config = {"configurable": {"thread_id": "job"}, "max_concurrency": 4}
        begun = app.get_state(config).values
        app.invoke(None if begun else {"rows": []}, config, durability="sync")


main()
