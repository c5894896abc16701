"""`run.previous`: what the last finished run of the same program saw and made."""

from __future__ import annotations

import random
from typing import Any

import pytest
from machine_kit import Bench

from edvac.core import event
from edvac.core.errors import InternalError, ProgramError
from edvac.core.value import total_label
from edvac.device import CATALOGUE
from edvac.machine import previous
from edvac.machine.machine import Terminal
from edvac.program import parse
from edvac.store import Store

NEW = """
seen = run.previous.files
new = [p for p in files.list("inbox/*") if files.hash(p) != seen.get(p, "")]
texts = [llm.write("Shorten", files.read(p)) for p in new]
files.write("new.txt", "\\n".join(new))
whole = run.previous.written.get("all.txt", "") + "".join(texts)
files.write("all.txt", whole)
"""
ASKS = NEW + 'x = human.ask("Go on?")\nfiles.write("x.txt", x)\n'


def new(bench: Bench, name: str = "a.edv", text: str = NEW) -> str:
    report = bench.run(text, name=name)
    assert report.state == "done", report.failures
    return bench.files(report.run)["new.txt"]


def test_the_second_run_sees_what_is_new_and_what_was_made(bench: Bench) -> None:
    assert new(bench) == "inbox/0.txt\ninbox/1.txt\ninbox/2.txt"
    assert new(bench) == ""
    bench.file("inbox/3.txt", "word=dora\n")
    bench.file("inbox/1.txt", "word=other\n")
    assert new(bench) == "inbox/1.txt\ninbox/3.txt"
    assert bench.files(bench_run(bench))["all.txt"].count("word=") == 5, "it grows from run to run"


def bench_run(bench: Bench) -> str:
    with Store(bench.work) as store:
        return store.find_run().id


def test_it_is_of_the_same_program_whatever_was_edited_and_of_no_other(bench: Bench) -> None:
    new(bench)
    assert new(bench, text=NEW + "extra = 1\n") == ""
    assert new(bench, name="b.edv") != ""


def test_without_an_earlier_run_it_is_empty(bench: Bench) -> None:
    report = bench.run(
        'files.write("d.txt", f"{run.previous.date} {len(run.previous.files)}")\n', name="a"
    )
    assert bench.files(report.run) == {"d.txt": "None 0"}


def test_a_run_that_is_not_done_is_no_previous_run(bench: Bench) -> None:
    bench.broken.add("bert")
    assert bench.run(NEW, name="a.edv").state == "partial"
    bench.broken.clear()
    assert new(bench).count("\n") == 2
    with Store(bench.work) as store:
        partial = store.runs()[-1].id
    assert bench.resume(partial, retry=True).state == "done"
    assert new(bench) == "", "the newest run counts, by when it was begun"


def test_a_resumed_run_sees_the_same_though_others_finish_or_go(bench: Bench) -> None:
    new(bench)
    bench.file("inbox/3.txt", "word=dora\n")
    waiting = bench.run(ASKS, name="a.edv")
    assert waiting.state == "waiting"
    for number in range(3):
        bench.file(f"inbox/more{number}.txt", "word=more\n")
        new(bench)
    with Store(bench.work) as store:
        for info in store.runs():
            if info.id != waiting.run:
                store.remove_run(info.id)
        store.gc(0)
    with bench.open() as machine:
        slot = next(e.slot for e in machine.history(waiting.run).entries if "key" in e.body)
        machine.answer(waiting.run, slot, "yes")
    assert bench.resume(waiting.run).state == "done"
    assert bench.files(waiting.run)["new.txt"] == "inbox/3.txt"


@pytest.mark.parametrize("seed", range(6))
def test_any_history_of_runs_gives_what_changed_since_the_last_done_one(
    bench: Bench, seed: int
) -> None:
    """The oracle is a dict: content by path, as the last done run of the program left it."""
    chance = random.Random(seed)
    known: dict[str, dict[str, str]] = {"a.edv": {}, "b.edv": {}}
    inbox = {f"inbox/{n}.txt": (bench.work / f"inbox/{n}.txt").read_text() for n in range(3)}
    for _ in range(7):
        path = f"inbox/{chance.randrange(5)}.txt"
        inbox[path] = f"word={chance.choice(['ann', 'eva', 'bob'])}\n"
        bench.file(path, inbox[path])
        name = chance.choice(["a.edv", "b.edv"])
        bench.broken = {"bob"} if chance.random() < 0.3 else set()
        wanted = sorted(path for path, text in inbox.items() if known[name].get(path) != text)
        report = bench.run(NEW, name=name)
        failed = any("bob" in inbox[path] for path in wanted) and bench.broken
        assert report.state == ("partial" if failed else "done")
        assert bench.files(report.run)["new.txt"].split("\n") == (wanted or [""])
        if not failed:
            known[name] = dict(inbox)


def test_a_planted_lookup_at_resume_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The property above bites: whoever looks again when the run goes on sees another one."""
    from edvac.machine import machine as module

    read = module.read_history

    def looks_again(store: Any, run: str) -> Any:
        history = read(store, run)
        history.previous = previous.previous_run(store, "a.edv", True).value
        return history

    monkeypatch.setattr(module, "read_history", looks_again)
    with pytest.raises((AssertionError, InternalError)):
        test_a_resumed_run_sees_the_same_though_others_finish_or_go(bench)


def test_what_it_brings_carries_the_sources_it_had(bench: Bench) -> None:
    new(bench)
    with Store(bench.work) as store:
        found = previous.previous_run(store, "a.edv", True).value
    fields = found.fields  # type: ignore[union-attr]
    assert {"file:inbox/0.txt"} <= total_label(fields["written"]).sources
    assert fields["files"].entries["inbox/0.txt"].label.sources == {"file:inbox/0.txt"}
    text = 'x = llm.write(run.previous.written["all.txt"])\n'
    seen: list[event.Event] = []
    report = bench.run(text, Terminal(seen.append), name="a.edv")
    failed = [e.code for e in seen if isinstance(e, event.StepFailed)]
    assert report.state == "partial" and failed == ["untrusted_instruction"]


def test_very_many_sources_become_one_that_is_trusted_no_more(bench: Bench) -> None:
    for number in range(100):
        bench.file(f"inbox/{number}.txt", f"word=w{number}\n")
    new(bench)
    with Store(bench.work) as store:
        run = store.find_run().id
        found = previous.previous_run(store, "a.edv", True).value
    label = found.fields["written"].entries["all.txt"].label  # type: ignore[union-attr]
    assert f"run:{run}" in label.sources and len(label.sources) < 5


def test_what_is_no_text_is_left_out_and_said(bench: Bench, monkeypatch: Any) -> None:
    (bench.work / "inbox" / "bin").write_bytes(b"\xff\x00")
    copy = 'files.copy("inbox/bin", "out.bin")\nd = run.previous.date\n'
    bench.run(copy, name="a.edv")
    seen: list[event.Event] = []
    bench.run(copy, Terminal(seen.append), name="a.edv")
    assert any(isinstance(e, event.Note) and "out.bin" in e.text for e in seen)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = run.previous.seen\n", "field_unknown"),
        ("x = run.last\n", "name_unknown"),
        ("x = run.previous()\n", ""),
        ("run = 3\n", ""),
        ("x = run.previous.files + 1\n", "operand_unfit"),
    ],
)
def test_misuse_is_refused_before_anything_runs(text: str, code: str) -> None:
    with pytest.raises(ProgramError) as wrong:
        parse(text, CATALOGUE)
    assert not code or wrong.value.code == code
