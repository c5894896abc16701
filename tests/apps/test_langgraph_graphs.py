"""Programs of several kinds see the same with edvac's checkpointer as with LangGraph's own."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph.graph", reason="needs the package langgraph")

from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt

from edvac.apps.langgraph import EdvacSaver

CONFIG = {"configurable": {"thread_id": "t"}}
DURABILITIES = ("sync", "async", "exit")


class Items(TypedDict):
    items: Annotated[list[Any], operator.add]


def past(app: Any) -> list[Any]:
    return [(one.values, one.next, one.metadata["step"]) for one in app.get_state_history(CONFIG)]


def asks_in_a_subgraph(saver: Any, durability: str) -> list[Any]:
    inner = StateGraph(Items)
    inner.add_node("ask", lambda state: {"items": [interrupt("which?")]})
    inner.add_edge(START, "ask")
    outer = StateGraph(Items)
    outer.add_node("before", lambda state: {"items": ["before"]})
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "before")
    outer.add_edge("before", "inner")
    app = outer.compile(checkpointer=saver)
    found = [app.invoke({"items": ["input"]}, CONFIG, durability=durability)["items"]]
    state = app.get_state(CONFIG, subgraphs=True)
    found += [(one.interrupts[0].value, one.state.values) for one in state.tasks]
    found.append(app.invoke(Command(resume="this"), CONFIG, durability=durability)["items"])
    return found + past(app)


def functions_with_a_memory(saver: Any, durability: str) -> list[Any]:
    @task
    def double(number: int) -> int:
        return 2 * number

    @entrypoint(checkpointer=saver)
    def flow(count: int, *, previous: int | None = None) -> Any:
        total = sum(one.result() for one in [double(n) for n in range(count)])
        answer = interrupt(total)
        return entrypoint.final(value=(total, answer, previous), save=(previous or 0) + 1)

    found = []
    for turn in range(3):
        stopped = flow.invoke(4, CONFIG, durability=durability)
        found.append([one.value for one in stopped["__interrupt__"]])
        found.append(flow.invoke(Command(resume=turn), CONFIG, durability=durability))
    return found


def a_chat_that_forgets(saver: Any, durability: str) -> list[Any]:
    def reply(state: MessagesState) -> dict[str, Any]:
        messages = state["messages"]
        new: list[Any] = [AIMessage(f"reply {len(messages)}", id=f"ai {len(messages)}")]
        if len(messages) > 6:
            new.append(RemoveMessage(id=messages[0].id))
        return {"messages": new}

    graph = StateGraph(MessagesState)
    graph.add_node("reply", reply)
    graph.add_edge(START, "reply")
    app = graph.compile(checkpointer=saver)
    for turn in range(8):
        said = HumanMessage(f"turn {turn}", id=f"human {turn}")
        app.invoke({"messages": [said]}, CONFIG, durability=durability)
    return past(app)


def many_tasks_of_which_one_fails_at_first(saver: Any, durability: str) -> list[Any]:
    tried: list[int] = []

    def work(number: int) -> dict[str, Any]:
        tried.append(number)
        if number == 5 and tried.count(5) == 1:
            raise ValueError("not yet")
        return {"items": [number]}

    graph = StateGraph(Items)
    graph.add_node("work", work)
    graph.add_conditional_edges(START, lambda _: [Send("work", n) for n in range(12)])
    app = graph.compile(checkpointer=saver)
    with pytest.raises(ValueError, match="not yet"):
        app.invoke({"items": []}, CONFIG, durability=durability)
    found = app.invoke(None, CONFIG, durability=durability)["items"]
    return [found, tried.count(5)]


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize(
    "program",
    [
        asks_in_a_subgraph,
        functions_with_a_memory,
        a_chat_that_forgets,
        many_tasks_of_which_one_fails_at_first,
    ],
)
def test_it_sees_the_same(
    tmp_path: Path, program: Callable[[Any, str], list[Any]], durability: str
) -> None:
    with EdvacSaver(tmp_path) as saver:
        found = program(saver, durability)
        assert saver._ledger.call_now(lambda store: store.verify()) == []
    assert found == program(InMemorySaver(), durability) and found
