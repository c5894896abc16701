"""`rm`: no byte of a removed run stays in the workspace, and none of another is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_kit import Bench

from edvac.core.seams import SystemClock
from edvac.store import Store

PLANTED = "zebra-canary-5521"
PROGRAM = """\
notes = [llm.write("Shorten", files.read(p)) for p in files.list("inbox/*")]
files.write("notes.md", "\\n".join(notes))
"""


def holding(edvac: Bench, text: str) -> list[str]:
    """The files of the store in which a text stands, as it is or packed in a segment."""
    found = [
        str(path.relative_to(edvac.root))
        for path in (edvac.root / ".edvac").rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    ]
    with Store(edvac.root) as store:
        for info in store.runs():
            for record in store.records(info.id):
                found += [info.id for name in record.segments if text in store.segment(name)]
    return found


@pytest.mark.parametrize("size", [1, 20_000], ids=["small", "in blobs"])
def test_nothing_of_a_removed_run_stays(edvac: Bench, size: int) -> None:
    edvac.write("r.edv", PROGRAM)
    edvac.answer = lambda request: f"echo {PLANTED} " + "y " * 10 * size
    edvac.write("inbox/a.txt", f"secret {PLANTED} " + "x" * size * 5)
    done = edvac("run", "r.edv", "--yes", "--output", "out")
    assert done.code == 0
    edvac.write("out/notes.md", f"{PLANTED} before " + "z" * 10 * size)
    assert edvac("apply", "--force", "--output", "out").code == 0
    assert holding(edvac, PLANTED), "it would be found"
    run = edvac("ps", "--json").document["runs"][0]["id"]
    assert edvac("rm", run).code == 0
    assert holding(edvac, PLANTED) == []
    # A segment is packed, so its text cannot be seen in the file: none may be left.
    with Store(edvac.root) as store:
        assert store._db.rows("SELECT count(*) FROM segment") == [(0,)]
        assert store._db.rows("SELECT count(*) FROM label") == [(0,)]
        assert list(store._blobs.all()) == []
        assert store.verify() == []


def test_what_engines_keep_of_what_they_read_goes_with_a_run(
    edvac: Bench, engine_cache: Path
) -> None:
    for name in ("a.spill", "a.spill.index", "b.prefix.safetensors", "weights.int8.safetensors"):
        (engine_cache / name).write_bytes(b"x")
    edvac.write("r.edv", PROGRAM)
    edvac.write("inbox/a.txt", "x")
    assert edvac("run", "r.edv", "--yes").code == 0
    assert len(list(engine_cache.iterdir())) == 4
    assert edvac("rm", edvac("ps", "--json").document["runs"][0]["id"]).code == 0
    assert [path.name for path in engine_cache.iterdir()] == ["weights.int8.safetensors"]


def test_what_another_run_shares_stays_with_it(edvac: Bench) -> None:
    edvac.write("r.edv", PROGRAM)
    edvac.answer = lambda request: "long " * 20_000
    for name in ("one", "two"):
        edvac.write(f"{name}.edv", PROGRAM + f'files.write("{name}.txt", "{name}")\n')
        assert edvac("run", f"{name}.edv", "--yes").code == 0
    assert edvac("rm", edvac("ps", "--json").document["runs"][1]["id"]).code == 0
    kept = edvac("ps", "--json").document["runs"][0]["id"]
    assert edvac("show", kept, "notes[0]", "--prompt").out.count("long ") > 1_000
    with Store(edvac.root) as store:
        assert store.verify() == []


DAY = 86_400.0


def test_runs_older_than_keep_days_go_when_another_ends(
    edvac: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = SystemClock().wall()
    edvac.write("r.edv", PROGRAM)
    edvac.write("ask.edv", 'x = human.ask("Well?")\nfiles.write("x.md", x)\n')
    edvac.write("inbox/a.txt", f"secret {PLANTED}")
    edvac.answer = lambda request: "short"
    edvac.write("edvac.toml", "keep_days = 30\n")

    def after(days: float, *command: str) -> str:
        monkeypatch.setattr(SystemClock, "wall", lambda self: begun + days * DAY)
        done = edvac(*command)
        return done.out + done.err

    after(0, "run", "r.edv", "--yes")
    after(1, "run", "ask.edv", "--yes")  # waits for a person
    (edvac.root / "inbox" / "a.txt").unlink()
    assert "removed" not in after(29, "run", "p.edv", "--yes", "--fresh")
    assert holding(edvac, PLANTED)
    assert "removed 1 run older than 30 days" in after(31, "run", "p.edv", "--yes", "--fresh")
    assert holding(edvac, PLANTED) == []
    states = [run["state"] for run in edvac("ps", "--json").document["runs"]]
    assert states == ["done", "done", "open"], "one that waits is kept however old it is"
    assert "removed 1 run" in after(3000, "gc")
    states = [run["state"] for run in edvac("ps", "--json").document["runs"]]
    assert states == ["done", "open"], "nor is the newest lost to a clock that is wrong"


def test_a_program_goes_on_replacing_its_files_when_its_last_run_is_gone(
    edvac: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = SystemClock().wall()
    edvac.write("r.edv", PROGRAM)
    edvac.write("inbox/a.txt", "a")
    edvac.write("edvac.toml", "keep_days = 30\n")
    for day, answer in enumerate(("first", "second", "third")):
        monkeypatch.setattr(SystemClock, "wall", lambda self, d=day: begun + 40 * d * DAY)
        edvac.answer = lambda request, said=answer: said
        edvac("run", "p.edv", "--yes", "--fresh")  # what is newest is never removed
        done = edvac("run", "r.edv", "--yes", "--fresh", "--output", "out")
        assert done.code == 0, done.err
        assert answer in (edvac.root / "out" / "notes.md").read_text()
    assert len(edvac("ps", "--json").document["runs"]) == 2


def test_without_the_setting_nothing_goes(edvac: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert edvac("run", "p.edv", "--yes").code == 0
    begun = SystemClock().wall()
    monkeypatch.setattr(SystemClock, "wall", lambda self: begun + 9000 * DAY)
    assert edvac("run", "p.edv", "--yes").code == 0
    assert edvac("gc", "--json").document["removed"] == []
    assert len(edvac("ps", "--json").document["runs"]) == 2
