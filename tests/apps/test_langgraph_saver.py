"""edvac's checkpointer under graphs: beside LangGraph's own, across processes and threads."""

from __future__ import annotations

import asyncio
import dataclasses
import operator
import random
import re
import subprocess
import sys
import textwrap
import threading
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph.graph", reason="needs the package langgraph")

from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from edvac.apps.langgraph import EdvacSaver
from edvac.core.errors import ConfigError, StoreError, UsageError
from edvac.store import Store

THREAD = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    count: int
    items: Annotated[list[Any], operator.add]


def chain(steps: int, work: Any = None) -> Any:
    """Counts to `steps`, adding an item each time."""

    def step(state: State) -> dict[str, Any]:
        item = work(state["count"]) if work else f"item {state['count']}"
        return {"count": state["count"] + 1, "items": [item]}

    made = StateGraph(State)
    made.add_node("step", step)
    made.add_edge(START, "step")
    made.add_conditional_edges("step", lambda s: "step" if s["count"] % steps else END)
    return made


def run(saver: Any, graph: Any, state: Any = None, config: Any = THREAD, **more: Any) -> Any:
    state = {"count": 0, "items": []} if state is None else state
    return graph.compile(checkpointer=saver).invoke(
        state, {**config, "recursion_limit": 2000}, durability="sync", **more
    )


def history(saver: Any, graph: Any, config: Any = THREAD) -> list[Any]:
    """Everything that a program sees of its past, but for ids and times."""
    return [
        (one.values, one.next, one.metadata["step"], one.metadata["source"])
        for one in graph.compile(checkpointer=saver).get_state_history(config)
    ]


def test_a_graph_sees_the_same_past_as_with_langgraphs_own(saver: Any) -> None:
    other = InMemorySaver()
    graph = chain(5)
    for one in (saver, other):
        assert run(one, graph)["count"] == 5
        run(one, graph, {"count": 6, "items": ["again"]})
        app = graph.compile(checkpointer=one)
        past = list(app.get_state_history(THREAD))
        app.update_state(past[4].config, {"count": 3, "items": ["by hand"]})
        app.invoke(None, past[6].config)
    assert history(saver, graph) == history(other, graph)
    assert len(history(saver, graph)) == 15


def test_random_calls_give_the_same_tuples_as_langgraphs_own(saver: Any) -> None:
    other, chance = InMemorySaver(), random.Random(3)
    made: list[tuple[Any, dict[str, Any], dict[str, int]]] = []
    for number in range(120):
        where: dict[str, Any] = {"thread_id": chance.choice("tu"), "checkpoint_ns": ""}
        before = [one for one in made if one[0]["thread_id"] == where["thread_id"]]
        values, versions = {}, {}
        if before and chance.random() < 0.9:
            parent, values, versions = chance.choice(before[-3:])
            where["checkpoint_id"] = parent["checkpoint_id"]
        changed = dict.fromkeys(chance.sample("abc", chance.randrange(4)), number + 1)
        values = {**values, **{name: _grown(chance, values.get(name)) for name in changed}}
        versions = {**versions, **changed}
        checkpoint = {
            "v": 4, "id": f"{number:04}", "ts": "now", "channel_values": values,
            "channel_versions": versions, "versions_seen": {"n": changed},
        }  # fmt: skip
        for one in (saver, other):
            config = one.put({"configurable": where}, checkpoint, {"step": number}, changed)
            for task in range(number % 3):
                one.put_writes(config, [("a", number), ("__error__", "e")], f"task{task}", "path")
        made.append((config["configurable"], values, versions))
    for where, *_ in made:
        assert saver.get_tuple({"configurable": where}) == other.get_tuple({"configurable": where})
    for thread in "tu":
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        assert list(saver.list(config)) == list(other.list(config))
        narrow = {"filter": {"step": 77}, "before": {"configurable": {"checkpoint_id": "0090"}}}
        assert list(saver.list(config, **narrow)) == list(other.list(config, **narrow))
        for limit in (0, 1, 16, 17, 1000):
            assert list(saver.list(config, limit=limit)) == list(other.list(config, limit=limit))


def _grown(chance: random.Random, old: Any) -> Any:
    match chance.randrange(4):
        case 0:
            return None
        case 1:
            return chance.randbytes(chance.choice([3, 3000]))
    return [*(old if isinstance(old, list) else []), {"text": "x" * chance.randrange(400)}]


def test_a_list_without_a_thread_is_of_all(saver: Any) -> None:
    graph = chain(2)
    for name in ("t", "u"):
        run(saver, graph, config={"configurable": {"thread_id": name}})
    found = [one.config["configurable"]["thread_id"] for one in saver.list(None)]
    assert sorted(set(found)) == ["t", "u"] and len(found) == 8
    (one,) = saver.list(next(saver.list(None)).config)
    assert one.config["configurable"]["thread_id"] == "u"


def test_asynchronous_and_synchronous_calls_agree(saver: Any) -> None:
    graph = chain(4)
    app = graph.compile(checkpointer=saver)

    async def use() -> list[Any]:
        await app.ainvoke({"count": 0, "items": []}, THREAD)
        return [one async for one in app.aget_state_history(THREAD)]

    past = asyncio.run(use())
    assert [one.values for one in past] == [one.values for one in app.get_state_history(THREAD)]
    assert past[0].values == {"count": 4, "items": [f"item {n}" for n in range(4)]}


def test_an_interrupted_graph_goes_on_with_another_object(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(state: State) -> dict[str, Any]:
        asked.append("asked")
        return {"items": [interrupt({"question": "go on?"})]}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    with EdvacSaver(tmp_path) as saver:
        found = run(saver, graph, {"count": 1, "items": ["first"]})
        assert found["__interrupt__"][0].value == {"question": "go on?"}
    with EdvacSaver(tmp_path) as saver:
        app = graph.compile(checkpointer=saver)
        assert app.get_state(THREAD).next == ("ask",)
        assert app.invoke(Command(resume="yes"), THREAD)["items"] == ["first", "yes"]
    assert len(asked) == 2


def test_what_the_program_changes_after_a_put_is_not_put(saver: Any) -> None:
    items = ["before"]
    checkpoint = {
        "v": 4, "id": "1", "ts": "now", "channel_values": {"items": items},
        "channel_versions": {"items": 1}, "versions_seen": {},
    }  # fmt: skip
    where = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}

    async def use() -> None:
        writing = asyncio.create_task(saver.aput(where, checkpoint, {}, {"items": 1}))
        await asyncio.sleep(0)  # it has begun
        items.append("after")
        await writing

    asyncio.run(use())
    assert saver.get_tuple(where).checkpoint["channel_values"] == {"items": ["before"]}


@dataclasses.dataclass
class Mine:
    number: int


def test_types_that_are_not_known_are_refused_until_allowed(tmp_path: Path) -> None:
    graph = chain(1, Mine)
    with EdvacSaver(tmp_path) as saver:
        run(saver, graph)
        with pytest.raises(UsageError) as error:
            saver.get_tuple(THREAD)
        assert error.value.code == "checkpoint_type_refused"
        assert "allow=[Mine]" in error.value.fix
    with EdvacSaver(tmp_path, allow=[Mine]) as saver:
        found = saver.get_tuple(THREAD).checkpoint["channel_values"]["items"]
    assert found == [Mine(0)]
    with EdvacSaver(tmp_path) as saver:  # as LangGraph does with the types of a graph's state
        copy = saver.with_allowlist([(Mine.__module__, "Mine")])
        assert copy.get_tuple(THREAD).checkpoint["channel_values"]["items"] == [Mine(0)]


def test_a_saver_that_was_closed_says_so(tmp_path: Path) -> None:
    with EdvacSaver(tmp_path) as saver:
        copy = saver.with_allowlist([("a", "b")])
        saver.close()
    for use in (
        lambda: saver.get_tuple(THREAD),
        lambda: list(copy.list(THREAD)),
        lambda: copy.delete_thread("t"),
        lambda: asyncio.run(saver.aprune(["t"])),
    ):
        with pytest.raises(UsageError) as error:
            use()
        assert error.value.code == "saver_closed"
    saver.close()


def test_nothing_is_pickled(tmp_path: Path) -> None:
    class Inner:
        serde = JsonPlusSerializer(pickle_fallback=True)

    for serde in (JsonPlusSerializer(pickle_fallback=True), Inner()):
        with pytest.raises(ConfigError) as error:
            EdvacSaver(tmp_path, serde=serde)
        assert error.value.code == "pickle_refused"
    with EdvacSaver(tmp_path) as saver, pytest.raises(TypeError, match="serializable"):
        saver.put_writes(
            {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1"}},
            [("a", object())],
            "task",
        )


def on_disk(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


WORDS = "the of and to in is that for it was on are as with they be at one have this"


@pytest.mark.slow
@pytest.mark.parametrize(("form", "most"), [("noise", 2.2), ("text", 1.3)])
def test_a_growing_state_costs_little_more_than_what_it_grows_by(
    tmp_path: Path, form: str, most: float
) -> None:
    """Each step a kilobyte; beyond what a store takes that holds nothing."""
    chance, steps = random.Random(1), 300

    def kilobyte(number: int) -> Any:
        if form == "noise":
            return chance.randbytes(1024)
        return " ".join(chance.choices(WORDS.split(), k=400))[:1024]

    EdvacSaver(tmp_path).close()
    empty = on_disk(tmp_path)
    with EdvacSaver(tmp_path) as saver:
        run(saver, chain(steps, kilobyte))
    assert on_disk(tmp_path) - empty < most * steps * 1024
    with EdvacSaver(tmp_path) as saver:
        found = saver.get_tuple(THREAD).checkpoint["channel_values"]["items"]
        assert len(found) == steps
        assert found == next(saver.list(THREAD)).checkpoint["channel_values"]["items"]
        oldest = list(saver.list(THREAD))[-3].checkpoint["channel_values"]
        assert oldest["items"] == found[:1]


def test_the_state_of_a_subgraph_is_not_stored_again(tmp_path: Path) -> None:
    """Each call of a subgraph has a namespace of its own, which begins with the whole state."""
    child = StateGraph(State)
    child.add_node("add", lambda state: {"items": [random.Random(state["count"]).randbytes(1024)]})
    child.add_edge(START, "add")
    inner = child.compile(checkpointer=True)
    outer = StateGraph(State)
    outer.add_node("step", lambda state: {"count": state["count"] + 1})
    outer.add_node("inner", lambda state: {"items": inner.invoke(state)["items"][-1:]})
    outer.add_edge(START, "step")
    outer.add_edge("step", "inner")
    outer.add_conditional_edges("inner", lambda s: "step" if s["count"] < 40 else END)
    with EdvacSaver(tmp_path) as saver:
        assert len(run(saver, outer)["items"]) == 40
    assert on_disk(tmp_path) < 600_000, "stored whole, it would be 20 KB twice in each call"


def test_pruning_keeps_a_thread_usable(saver: Any) -> None:
    graph = chain(6)
    run(saver, graph)
    saver.prune(["t"], keep=2)
    assert [one.metadata["step"] for one in saver.list(THREAD)] == [6, 5]
    assert run(saver, graph, {"count": 6, "items": []})["items"][:6] == [
        f"item {n}" for n in range(6)
    ]
    with pytest.raises(UsageError) as error:
        saver.prune(["t"], strategy="keep_some")
    assert error.value.code == "prune_unknown"


def test_old_threads_can_be_removed_all_at_once(saver: Any) -> None:
    for name in ("t", "u"):
        run(saver, chain(2), config={"configurable": {"thread_id": name}})
    saver.prune(None, strategy="delete", older_than=timedelta(hours=1))
    assert len(list(saver.list(None))) == 8, "nothing is that old"
    saver.prune(None, strategy="delete", older_than=timedelta(0))
    assert list(saver.list(None)) == []


def test_pruning_keeps_what_a_delta_channel_is_read_from(saver: Any) -> None:
    class Deltas(TypedDict):
        count: int
        log: Annotated[
            list[Any],
            DeltaChannel(
                lambda old, new: [*old, *(x for w in new for x in w)], snapshot_frequency=5
            ),
        ]

    graph = StateGraph(Deltas)
    graph.add_node("step", lambda s: {"count": s["count"] + 1, "log": [f"entry {s['count']}"]})
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda s: "step" if s["count"] < 13 else END)
    app = graph.compile(checkpointer=saver)
    app.invoke({"count": 0, "log": []}, {**THREAD, "recursion_limit": 100})
    wanted = [f"entry {n}" for n in range(13)]
    assert app.get_state(THREAD).values["log"] == wanted
    count = len(list(saver.list(THREAD)))
    saver.prune(["t"])
    left = len(list(saver.list(THREAD)))
    assert app.get_state(THREAD).values["log"] == wanted
    assert 1 < left <= 7 < count, "back to the latest snapshot, and no further"


def test_many_threads_use_one_saver(saver: Any) -> None:
    graph, failures = chain(10), list[BaseException]()

    def use(name: str) -> None:
        try:
            found = run(saver, graph, config={"configurable": {"thread_id": name}})
            assert found["items"] == [f"item {n}" for n in range(10)]
        except BaseException as error:
            failures.append(error)

    users = [threading.Thread(target=use, args=(f"thread {n}",)) for n in range(8)]
    for one in users:
        one.start()
    for one in users:
        one.join()
    assert not failures
    assert len(list(saver.list(None, filter={"step": 10}))) == 8


def test_two_processes_use_one_workspace(saver: Any, tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_langgraph_saver import EdvacSaver, chain, run\n"
        "with EdvacSaver(sys.argv[2]) as saver:\n"
        "    run(saver, chain(30), config={'configurable': {'thread_id': sys.argv[3]}})\n"
    )
    here = str(Path(__file__).parent)
    running = [
        subprocess.Popen([sys.executable, "-c", program, here, str(tmp_path), name])
        for name in ("one", "two")
    ]
    assert [process.wait(90) for process in running] == [0, 0]
    for name in ("one", "two"):
        found = saver.get_tuple({"configurable": {"thread_id": name}})
        assert found.checkpoint["channel_values"]["items"] == [f"item {n}" for n in range(30)]


@pytest.mark.parametrize("how", ["put", "put_writes", "aput", "aput_writes"])
def test_what_returned_is_there_though_the_process_is_killed_at_once(
    tmp_path: Path, how: str
) -> None:
    program = (
        "import asyncio, os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_langgraph_saver import EdvacSaver\n"
        "saver, how = EdvacSaver(sys.argv[2]), sys.argv[3]\n"
        "where = {'configurable': {'thread_id': 't', 'checkpoint_ns': ''}}\n"
        "state = {'v': 4, 'id': '1', 'ts': '', 'channel_values': {'a': 'x' * 5000},\n"
        "         'channel_versions': {'a': 1}, 'versions_seen': {}}\n"
        "async def use():\n"
        "    config = where\n"
        "    if how != 'put': config = await saver.aput(where, state, {}, {'a': 1})\n"
        "    if how == 'aput_writes': await saver.aput_writes(config, [('a', 'y')], 'task')\n"
        "    if how == 'put': saver.put(where, state, {}, {'a': 1})\n"
        "    if how == 'put_writes': saver.put_writes(config, [('a', 'y')], 'task')\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(use())\n"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", program, here, str(tmp_path), how], check=False)
    assert done.returncode == -9
    with EdvacSaver(tmp_path) as saver:
        found = saver.get_tuple(THREAD)
    assert found.checkpoint["channel_values"] == {"a": "x" * 5000}
    wanted = [("task", "a", "y")] if how.endswith("writes") else []
    assert found.pending_writes == wanted


def test_puts_at_once_share_transactions_and_each_is_told_of_its_own_failure(
    saver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = Store.put_together

    def counted(self: Store, puts: Any) -> None:
        sizes.append(len(puts))
        real(self, puts)

    monkeypatch.setattr(Store, "put_together", counted)

    def put(name: str, value: Any, changed: bool = True) -> Any:
        where = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}
        state = {
            "v": 4, "id": "1", "ts": "", "channel_values": {"a": value},
            "channel_versions": {"a": 1}, "versions_seen": {},
        }  # fmt: skip
        return saver.aput(where, state, {}, {"a": 1} if changed else {})

    async def use() -> list[Any]:
        # Of the bad one the value is asked for late: its parent should have it, and has not.
        puts = [put(f"t{n}", n) for n in range(40)] + [put("bad", object(), changed=False)]
        return await asyncio.gather(*puts, *[put(f"u{n}", n) for n in range(40)],
                                    return_exceptions=True)  # fmt: skip

    found = asyncio.run(use())
    assert [n for n, one in enumerate(found) if isinstance(one, Exception)] == [40]
    assert isinstance(found[40], TypeError)
    assert len(list(saver.list(None))) == 80 and max(sizes) > 1


def test_a_full_disk_is_told_to_whoever_puts(saver: Any) -> None:
    where = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1"}}
    saver.put_writes(where, [("a", "small")], "task")
    pages = saver._ledger.call_now(lambda store: store._db.rows("PRAGMA page_count"))[0][0]
    saver._ledger.call_now(lambda store: store._db.rows(f"PRAGMA max_page_count = {pages}"))
    large = random.Random(1).randbytes(300_000)
    with pytest.raises(StoreError) as error:
        saver.put_writes(where, [("a", large)], "other")
    with pytest.raises(StoreError):
        asyncio.run(saver.aput_writes(where, [("a", large)], "other"))
    assert error.value.code == "disk_full"


def test_a_copy_goes_its_own_way(saver: Any) -> None:
    graph = chain(3)
    run(saver, graph)
    saver.copy_thread("t", "u")
    other = {"configurable": {"thread_id": "u"}}
    assert history(saver, graph, other) == history(saver, graph)
    run(saver, graph, {"count": 3, "items": ["on"]}, config=other)
    assert len(history(saver, graph)) == 5 < len(history(saver, graph, other))
    with pytest.raises(UsageError) as error:
        saver.copy_thread("t", "u")
    assert error.value.code == "thread_exists"


def test_the_guide_runs(tmp_path: Path) -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "langgraph.md"
    blocks = re.findall(r"^( *)```py\n(.*?)```", guide.read_text("utf-8"), flags=re.S | re.M)
    program = "\n".join(textwrap.dedent(block) for _, block in blocks)
    assert len(blocks) >= 3
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['begun', 'read it']\n"
