"""`edvac trace` as a person types it."""

from __future__ import annotations

from cli_kit import Bench

PROGRAM = """\
notes = [llm.write("Shorten", files.read(p)) for p in files.list("inbox/*")]
files.write("out/notes.md", "\\n".join(notes))
"""


def test_a_line_is_traced_for_people_and_for_programs(edvac: Bench) -> None:
    edvac.write("t.edv", PROGRAM)
    edvac.answer = lambda request: "al\x1b[2J" if "alpha" in request.messages[-1].text else "beta!"
    ran = edvac("run", "t.edv", "--yes", "--output", "there")
    assert ran.code == 0
    for text in (ran.err, edvac("show").out):
        assert "contacted: nothing over the network" in text
    assert edvac("show", "--json").document["contacted"] == []
    assert edvac("apply", "--output", "there").code == 0
    done = edvac("trace", "there/out/notes.md:2")
    assert done.code == 0
    assert "recorded: written by" in done.out
    assert "found in its value" in done.out
    assert "it is found in inbox/b.txt:1: beta!" in done.out
    assert "--prompt" in done.out
    document = edvac("trace", "out/notes.md:1", "--json").document
    assert document["origins"][0]["parts"][0]["places"] == []
    assert "\x1b" not in edvac("trace", "out/notes.md:1").out, "a document cannot move the cursor"
    assert "2 llm.write" in edvac("trace", "out/notes.md").out


def test_a_file_that_no_run_wrote_is_refused(edvac: Bench) -> None:
    edvac.write("t.edv", PROGRAM)
    assert edvac("run", "t.edv", "--yes").code == 0
    done = edvac("trace", "inbox/a.txt:1")
    assert done.code == 2
    assert "trace_unknown_file" in done.err
    assert edvac("trace", "out/notes.md:0").code == 2
