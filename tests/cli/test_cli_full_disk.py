"""A real `edvac run` on a disk that is really full: at every moment of its life.

EDVAC_FULL_STEP=1 tries every page instead of every few.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

from small_disk import PAGE, SmallDisk, mounted

from edvac.core.value import Failed
from edvac.machine.history import read_history
from edvac.store import Store

STEP = int(os.environ.get("EDVAC_FULL_STEP", "9"))
PROGRAM = """\
notes = [llm.write("Shorten", files.read(p)) for p in files.list("inbox/*")]
files.write("out/all.md", "\\n".join(notes))
files.write("out/copy.md", "\\n".join(notes))
files.write("out/first.md", notes[0])
files.write("out/late.md", llm.write("Once more", notes[0]))
"""


@dataclass
class Said:
    code: int
    out: str
    err: str


class Bench:
    """Workspaces in which `edvac` is run as a process; its notes lie on another disk."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        notes.mkdir()
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "full_child.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("EDVAC_")},
                "XDG_CONFIG_HOME": str(notes),
            },
        )

    def __call__(self, cwd: Path, *args: str, **limits: int) -> Said:
        order = {"args": args, "cwd": str(cwd), "notes": str(self._notes), "limits": limits}
        (self._notes / "executed").write_text("")
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        said = Said(code, *((self._notes / name).read_text() for name in ("out", "err")))
        assert "Traceback" not in said.err, said.err
        return said

    @property
    def executed(self) -> list[str]:
        """The steps that the last command executed."""
        return (self._notes / "executed").read_text().split("\n")[:-1]

    def close(self) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


@pytest.fixture(scope="module")
def edvac(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("full") / "notes")
    yield made
    made.close()


@pytest.fixture(scope="module")
def disk() -> Iterator[SmallDisk]:
    with mounted(6 << 20) as made:
        yield made


def workspace(root: Path) -> Path:
    (root / "inbox").mkdir(parents=True)
    for name in ("a", "b", "c", "large"):
        (root / "inbox" / f"{name}.txt").write_text(f"this is {name}")
    (root / "p.edv").write_text(PROGRAM)
    return root


def outputs(work: Path) -> dict[str, bytes]:
    """What was delivered, with whatever else lies there."""
    place = work / "result"
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


# What a run may end in when the system gives it too little.
ENDS = {"store_files_exhausted", "store_unwritable", "system_refused"}
RUN = ("run", "p.edv", "--yes", "--output", "result")


@pytest.fixture(scope="module")
def wanted(edvac: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    work = workspace(tmp_path_factory.mktemp("undisturbed") / "work")
    said = edvac(work, *RUN)
    assert said.code == 0, said.err
    assert len(edvac.executed) >= 12
    found = outputs(work)
    assert sorted(found) == ["out/all.md", "out/copy.md", "out/first.md", "out/late.md"]
    assert len(found["out/all.md"]) > 100_000, "large enough for a blob"
    return found


def typed(said: Said, codes: set[str]) -> str:
    """The code of the one error that was shown, which says what to do."""
    assert said.err.count("error: ") == 1, said.err
    head, *rest = said.err[said.err.index("error: ") :].splitlines()
    assert len(rest) >= 2 and all(line.startswith("  ") for line in rest[:2]), "why and fix"
    found = head.rpartition("[")[2].rstrip("]")
    assert found in codes, said.err
    assert said.code == (3 if found == "system_refused" else 1), said.err
    return found


def looked_at(work: Path, wanted: dict[str, bytes]) -> tuple[str, set[str]]:
    """Check what a failure left; the run's state and the steps whose outcome is durable."""
    for path, content in outputs(work).items():
        assert content == wanted.get(path), f"{path} is half written or does not belong there"
    if not (work / ".edvac" / "store.db").exists():
        return "nothing", set()
    with Store(work) as store:
        assert store.verify() == []
        runs = store.runs()
        if not runs:
            return "nothing", set()
        (run,) = runs
        found = [e for e in read_history(store, run.id).entries if e.kind == "outcome"]
        done = {entry.slot for entry in found if not isinstance(entry.value, Failed)}
        return ("begun" if run.last_seq else "named") if run.state == "open" else run.state, done


def goes_on(edvac: Bench, work: Path, wanted: dict[str, bytes], state: str, done: set[str]) -> None:
    """With room again: what the messages advise leads to the end, and runs nothing twice."""
    executed: list[str] = []
    if state == "done":
        said = edvac(work, "apply")
    elif state == "begun":
        said = edvac(work, "resume")
        if said.code:  # what had failed before it stopped is not tried again unasked
            assert "`edvac resume" in said.err and "--retry`" in said.err, said.err
            executed = edvac.executed
            said, state = edvac(work, "resume", "--retry"), "partial"
    elif state == "partial":
        said = edvac(work, "resume", "--retry")
    else:
        assert edvac(work, "resume").code == 2
        said = edvac(work, *RUN)
    assert said.code == 0, said.err
    again = done & {*executed, *edvac.executed}
    assert not again, f"executed though their outcome was durable: {again}"
    assert outputs(work) == wanted
    with Store(work) as store:
        assert store.verify() == []
        finished = [run for run in store.runs() if run.state == "done"]
        assert len(finished) == 1
        slots = Counter(r.slot for r in store.records(finished[0].id, kinds=["outcome"]))
        assert max(slots.values()) == 1 or state == "partial"


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_moment(
    edvac: Bench, disk: SmallDisk, wanted: dict[str, bytes]
) -> None:
    """From no room at all to enough: as far as a run comes, nothing is harmed."""
    moments: Counter[str] = Counter()
    stopped: set[int] = set()
    pages, succeeded = 0, False
    while not succeeded:
        disk.clear()
        work = workspace(disk.root / "work")
        disk.leave(pages * PAGE)
        said = edvac(work, *RUN)
        disk.make_room()
        if said.code == 0:
            succeeded = True
            assert outputs(work) == wanted
        else:
            code = typed(said, {"disk_full", "apply_failed"})
            state, done = looked_at(work, wanted)
            assert (code == "apply_failed") <= (state == "done")
            goes_on(edvac, work, wanted, state, done)
            moments[f"{state} {code}"] += 1
            stopped.add(len(done))
        pages += STEP
    print(f"{sum(moments.values())} runs on a full disk, by moment {dict(moments)}; lost: 0")
    assert moments["nothing disk_full"] and moments["begun disk_full"], moments
    # Deliveries find room again: closing a run gives back what its log took. See the next test.
    assert len(stopped) >= 3, f"runs stopped after {stopped} finished steps"


def test_apply_on_a_full_disk_leaves_whole_files_or_none(
    edvac: Bench, disk: SmallDisk, wanted: dict[str, bytes]
) -> None:
    disk.clear()
    work = workspace(disk.root / "work")
    old = {"out/copy.md": b"what was there before"}
    (work / "result" / "out").mkdir(parents=True)
    (work / "result" / "out" / "copy.md").write_bytes(old["out/copy.md"])
    assert edvac(work, "run", "p.edv", "--yes").code == 0
    refused = 0
    for pages in (0, 4, 12, 24, 40, 60):
        disk.leave(pages * PAGE)
        said = edvac(work, "apply", "--output", "result", "--force")
        disk.make_room()
        if said.code:
            typed(said, {"disk_full", "apply_failed"})
            refused += 1
        found = outputs(work)
        assert set(old) <= set(found)
        for path, content in found.items():
            assert content in (wanted.get(path), old.get(path)), f"{path} is half written"
        with Store(work) as store:
            assert store.verify() == []
    assert refused >= 3
    assert edvac(work, "apply", "--output", "result", "--force").code == 0
    assert outputs(work) == wanted
    assert edvac(work, "undo").code == 0
    assert outputs(work) == old


@pytest.mark.parametrize("most", [4, 8, 40, 80, 200])
def test_a_limit_on_the_size_of_files(
    edvac: Bench, wanted: dict[str, bytes], tmp_path: Path, most: int
) -> None:
    """The same without a disk of one's own: no file may grow beyond `most` KiB."""
    work = workspace(tmp_path / "work")
    said = edvac(work, *RUN, RLIMIT_FSIZE=most << 10)
    if most < 200:
        typed(said, {"disk_full", "store_io_failed", "apply_failed"})
    if said.code:
        goes_on(edvac, work, wanted, *looked_at(work, wanted))


def test_a_process_that_may_open_few_files(
    edvac: Bench, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    """Whatever it cannot open any more, it ends with an error of its own and goes on later."""
    codes: Counter[Any] = Counter()
    for most in (10, 12, 13, 14, 15, 16, 40):
        work = workspace(tmp_path / f"work{most}")
        said = edvac(work, *RUN, RLIMIT_NOFILE=most)
        codes["done"] += said.code == 0
        if said.code:
            state, done = looked_at(work, wanted)
            # Where a step could open nothing it alone fails.
            codes["partial" if state == "partial" else typed(said, ENDS)] += 1
            goes_on(edvac, work, wanted, state, done)
    assert codes["done"] and codes["store_files_exhausted"], codes
    assert codes["partial"] + codes["system_refused"], codes
