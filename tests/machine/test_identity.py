"""Slots and reuse: what did not change is not done again, whatever else was changed."""

from __future__ import annotations

import random

import pytest
from machine_kit import Bench

PROGRAM = """
class Item:
    word: str

paths = files.list("inbox/*")
items = [llm.extract(files.read(p), Item) for p in paths]
note = llm.write("Say something about", [i.word for i in items])
files.write("note.md", note)
lone = llm.write("Something else")
"""


def model_steps(bench: Bench) -> dict[str, int]:
    """Executions since the last look, of model steps only: files are as cheap as a look-up."""
    model = {k: n for k, n in bench.executed.items() if "files." not in k}
    found = {k: n for k, n in model.items() if k.startswith(("items", "note", "lone"))}
    bench.executed.clear()
    return found


def test_the_same_again_executes_no_model_step(bench: Bench) -> None:
    first = bench.run(PROGRAM)
    assert first.state == "done" and len(model_steps(bench)) == 5
    again = bench.run(PROGRAM)
    assert model_steps(bench) == {} and again.counts["reused"] == 5
    assert bench.files(first.run) == bench.files(again.run)


def test_fresh_takes_nothing(bench: Bench) -> None:
    bench.run(PROGRAM)
    model_steps(bench)
    bench.run(PROGRAM, fresh=True)
    assert len(model_steps(bench)) == 5


@pytest.mark.parametrize("seed", range(6))
def test_inserting_deleting_and_renaming_files_re_runs_only_what_reads_them(
    bench: Bench, seed: int
) -> None:
    chance = random.Random(seed)
    words = {"0": "ann", "1": "bert", "2": "cleo"}
    bench.run(PROGRAM)
    known = set(words.values())
    order = [tuple(words[k] for k in sorted(words))]
    for turn in range(4):
        model_steps(bench)
        match chance.choice(["insert", "delete", "permute"]):
            case "insert":
                name, word = f"{chance.randint(0, 9)}x{turn}", f"new{turn}"
                words[name] = word
                bench.file(f"inbox/{name}.txt", f"word={word}\n")
            case "delete" if len(words) > 1:
                name = chance.choice(sorted(words))
                del words[name]
                (bench.work / "inbox" / f"{name}.txt").unlink()
            case _:
                names, given = sorted(words), list(words.values())
                chance.shuffle(given)
                words = dict(zip(names, given, strict=True))
                for name, word in words.items():
                    bench.file(f"inbox/{name}.txt", f"word={word}\n")
        new = set(words.values()) - known
        known |= new
        now = tuple(words[k] for k in sorted(words))
        is_known = now in order
        order.append(now)
        report = bench.run(PROGRAM)
        executed = model_steps(bench)
        assert report.state == "done"
        assert sum(n for k, n in executed.items() if k.startswith("items")) == len(new)
        assert ("note" in executed) == (not is_known)
        assert "lone" not in executed


def test_editing_another_line_re_runs_nothing_else(bench: Bench) -> None:
    bench.run(PROGRAM)
    model_steps(bench)
    edited = PROGRAM.replace("Something else", "Something quite different")
    edited = "# a comment\n" + edited.replace("lone =", "unused = 1\nlone =")
    bench.run(edited)
    assert model_steps(bench) == {"lone": 1}


def test_equal_files_are_told_apart_by_their_ordinal(bench: Bench) -> None:
    bench.file("inbox/3.txt", "word=ann\n")
    text = "xs = [llm.write('Shorten', w) for w in ['a', 'b', 'a']]\nfiles.write('x', str(xs))\n"
    report = bench.run(text)
    assert report.state == "done" and report.counts["finished"] == 4


def test_external_and_human_steps_are_never_reused(bench: Bench) -> None:
    text = "mail.send('hello')\n"
    bench.run(text)
    bench.run(text)
    assert bench.post.sent == ["hello", "hello"]
