"""Staging, apply and undo against a plain tree of files, for any writes, copies and moves."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edvac.machine import Job, Machine, delivery
from edvac.processor.scripted import ScriptedProcessor

NAMES = ("a.txt", "b.txt", "d/c.txt", "d/e.txt", "f/g/h.txt")
TEXTS = st.text("xyé\n", max_size=6)
TREES = st.dictionaries(st.sampled_from(NAMES), TEXTS, max_size=4)
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["write", "copy", "move"]), st.integers(0, 9), st.sampled_from(NAMES), TEXTS
    ),
    min_size=1,
    max_size=8,
)


def planned(tree: dict[str, str], acts: list[tuple[str, int, str, str]]) -> str:
    """A program of these acts; `tree` becomes what a plain file system would hold after them. What
    the run itself has made is replaced by writes only: copies and moves refuse to."""
    lines = []
    made: set[str] = set()
    for act, number, target, text in acts:
        sources = [name for name in sorted(tree) if name != target]
        if act == "write" or not sources or target in made:
            lines.append(f"files.write({target!r}, {text!r})")
            tree[target] = text
            made.add(target)
            continue
        source = sources[number % len(sources)]
        lines.append(f"files.{act}({source!r}, {target!r})")
        tree[target] = tree[source]
        made.add(target)
        if act == "move":
            del tree[source]
            made.discard(source)
    return "\n".join(lines) + "\n"


def held(place: Path) -> dict[str, str]:
    return {
        str(path.relative_to(place)): path.read_bytes().decode()
        for path in place.rglob("*")
        if path.is_file()
    }


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(TREES, ACTS)
def test_what_is_applied_is_what_a_plain_tree_would_hold_and_undo_takes_it_back(
    before: dict[str, str], acts: list[tuple[str, int, str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as root:
        place, work = Path(root) / "home", Path(root) / "work"
        place.mkdir()
        work.mkdir()
        for name, text in before.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(text.encode())
        after = dict(before)
        program = planned(after, acts)
        with Machine(work, ScriptedProcessor(lambda _: "x")) as machine:
            report = asyncio.run(machine.run(Job(program, roots={"": place}, seed=1)))
            assert report.state == "done", program
            assert held(place) == before, "nothing is real before apply"
            # Forced: a file that the program has not read is replaced only when one says so.
            done = machine.ledger.call_now(
                lambda store: delivery.apply(store, report.run, place, force=True)
            )
            assert held(place) == after, program
            if done:  # else there is nothing to take back, which undo says
                machine.ledger.call_now(lambda store: delivery.undo(store, report.run))
            assert held(place) == before, program
