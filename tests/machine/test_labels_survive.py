"""Who is in a value stays with it: through files, from run to run, over `apply`, reuse, compaction
of a worker's context, and kills anywhere."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from interference import Case, Life, program, strangers
from machine_kit import Bench

from edvac.core.errors import EdvacError, ProgramError
from edvac.core.value import Cell, Failed, Operand, children, settle
from edvac.device.roots import fingerprint
from edvac.machine import Job, delivery
from edvac.store.memory import MemoryStore

MAIL = "[rule.mail]\ncalls = 'mail.send'\n"
MINE = "trusted = ['file:out/*']\n" + MAIL
STRANGER = "t = files.read('inbox/0.txt')\n"


def applied(bench: Bench, text: str) -> str:
    report = bench.run(text)
    with bench.open() as machine:
        machine.ledger.call_now(lambda store: delivery.apply(store, report.run, bench.work))
    return report.run


def again(bench: Bench, text: str, **roots: Path) -> str:
    """A later run that may read what the user's directory holds; its state."""
    with bench.open() as machine:
        job = Job(text, roots=dict(roots), seed=1)
        return asyncio.run(machine.run(job)).state


READS = [
    "mail.send(files.read('out/a.txt'))\n",
    "mail.send(doc.text('out/a.txt'))\n",
    "mail.send(f'{files.stat(\"out/a.txt\").size}')\n",
    "files.copy('out/a.txt', 'new.txt')\nmail.send(files.read('new.txt'))\n",
]


@pytest.mark.parametrize("read", READS)
def test_what_was_written_of_a_strangers_words_is_his_in_a_later_run(
    bench: Bench, read: str
) -> None:
    """The policy trusts the directory; the words came into it from elsewhere."""
    bench.file("policy.toml", MINE)
    applied(bench, STRANGER + "files.write('out/a.txt', t)\n")
    assert again(bench, read, out=bench.work / "out") == "waiting" and bench.post.sent == []


@pytest.mark.parametrize("read", READS)
def test_what_the_program_wrote_is_its_own_in_a_later_run(bench: Bench, read: str) -> None:
    bench.file("policy.toml", MINE)
    applied(bench, "files.write('out/a.txt', 'mine')\n")
    assert again(bench, read, out=bench.work / "out") == "done"


def test_what_somebody_else_has_put_there_since_is_the_files_alone(bench: Bench) -> None:
    bench.file("policy.toml", MINE)
    applied(bench, STRANGER + "files.write('out/a.txt', t)\n")
    bench.file("out/a.txt", "written by hand")
    assert again(bench, READS[0], out=bench.work / "out") == "done"


def test_what_was_taken_back_is_no_longer_there(bench: Bench) -> None:
    bench.file("policy.toml", MINE)
    run = applied(bench, STRANGER + "files.write('out/a.txt', t)\n")
    with bench.open() as machine:
        machine.ledger.call_now(lambda store: delivery.undo(store, run))
    bench.file("out/a.txt", (bench.work / "inbox/0.txt").read_text())
    assert again(bench, READS[0], out=bench.work / "out") == "done"


def test_stores_know_whose_content_they_have_put_where(bench: Bench) -> None:
    """The real store and the one in dicts."""
    run = applied(bench, STRANGER + "files.write('out/a.txt', t)\n")
    digest = fingerprint(b"word=ann\n")
    root = str(bench.work.resolve())
    with bench.open() as machine:
        look = machine.ledger.call_now
        assert look(lambda store: store.applied_roots()) == [root]
        (key,) = look(lambda store: store.applied_labels(root, "out/a.txt", digest))
        assert "file:inbox/0.txt" in look(lambda store: store.label(key)).sources
        assert look(lambda store: store.applied_labels(root, "out/a.txt", "")) == [key]
        assert look(lambda store: store.applied_labels(root, "out/b.txt", digest)) == []
        assert look(lambda store: store.applied_labels(root, "out/a.txt", "00" * 20)) == []
    assert run and MemoryStore().applied_roots() == []


def test_an_equal_result_of_another_run_is_no_way_around(bench: Bench) -> None:
    """The first run's text of the file is the program's own; the second has the same bytes from
    outside, and must not take over the first one's label."""
    bench.file("policy.toml", MAIL)
    bench.file("inbox/0.txt", "same")
    report = bench.run("files.write('a.txt', 'same')\nmail.send(doc.text('a.txt'))\n")
    assert report.state == "done"
    assert (
        bench.run(STRANGER + "files.write('a.txt', t)\nmail.send(doc.text('a.txt'))\n").state
        == "waiting"
    )


def test_the_last_run_of_a_program_tells_whose_its_files_are(bench: Bench) -> None:
    bench.file("policy.toml", MAIL)
    text = (
        "old = run.previous.written\n"
        + STRANGER
        + "files.write('a.txt', t)\nfiles.write('b.txt', 'mine')\n"
        + "mail.send(old.get('{}', 'nothing'))\n"
    )
    for name, state in (("b.txt", "waiting"), ("a.txt", "waiting")):
        program_text = text.replace("{}", name)
        bench.run(program_text, name=name)
        assert bench.run(program_text, name=name).state == state, name


# -- a kill at every record


def tree(operand: Operand) -> Any:
    """Every label in a value, and what it belongs to."""
    here = settle(operand)
    if isinstance(here, Cell):
        return "pending"
    parts = tuple(tree(child) for child in children(here))
    return here.code if isinstance(here, Failed) else type(here).__name__, here.label, parts


def labels(life: Life) -> dict[str, Any]:
    evaluator = life.drivers[-1]._unit._evaluator
    store = life.world.store
    files = {one.path: store.label(one.label) for one in store.list_files(life.world.run)}
    return {name: tree(one) for name, one in evaluator.bindings().items()} | {"files": files}


def test_a_kill_changes_no_label(tmp_path: Path) -> None:
    """The naive oracle is the life in which nothing fails."""
    compared = deaths = 0
    for seed in range(40):
        stranger, _ = strangers(random.Random(f"strangers {seed}"))
        lives = []
        for trouble in (0, 2 + seed % 5):
            case = Case(seed, program(seed), "strict", says=True, trouble=trouble)
            life = Life(case, stranger, tmp_path / f"{seed} {trouble}")
            try:
                state = life.live()
            except ProgramError:
                break
            except EdvacError as problem:
                problem.add_note(case.text)
                raise
            lives.append((state, labels(life)))
            deaths += len(life.drivers) - 1
        if len(lives) == 2 and lives[0][0] == lives[1][0] == "done":
            assert lives[0][1] == lives[1][1], f"seed {seed}\n{program(seed)}"
            compared += 1
    assert compared > 15 and deaths > 15, (compared, deaths)
