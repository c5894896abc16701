"""`rm`: no byte of a removed run stays in the workspace, and none of another is touched."""

from __future__ import annotations

import pytest
from cli_kit import Bench

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
