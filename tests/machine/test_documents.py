"""Large documents in a run: read in parts, done again only where they changed, held in blobs."""

from __future__ import annotations

import mailbox
from email.message import EmailMessage

import pytest
from machine_kit import Bench

from edvac.core.codec import INLINE_LIMIT
from edvac.core.value import LazyText, Scalar, _Recent, lazy_texts
from edvac.machine.history import read_history

MAILS = """
class Item:
    word: str

found = []
for part in doc.parts("inbox/mails.mbox"):
    found.append(llm.extract(doc.text("inbox/mails.mbox", part), Item).word)
files.write("words.txt", "\\n".join(found))
"""


def mails(bench: Bench, words: list[str]) -> None:
    path = bench.work / "inbox" / "mails.mbox"
    path.unlink(missing_ok=True)
    box = mailbox.mbox(path)
    for number, word in enumerate(words):
        made = EmailMessage()
        made["From"], made["Subject"] = "a@b.c", f"mail {number} {word}"
        made.set_content(f"word={word}")
        made.set_unixfrom(f"From a@b.c Mon Jan  5 09:30:{number:02} 2026")
        box.add(made)
    box.close()


def test_a_mailbox_that_grew_runs_only_what_is_new(bench: Bench) -> None:
    mails(bench, ["w0", "w1", "w2", "w3"])
    report = bench.run(MAILS)
    assert bench.files(report.run) == {"words.txt": "w0\nw1\nw2\nw3"}
    assert sum(bench.executed.values()) == 1 + 4 + 4 + 1
    bench.executed.clear()
    mails(bench, ["w0", "w1", "w2", "w3", "w4"])
    report = bench.run(MAILS)
    assert bench.files(report.run) == {"words.txt": "w0\nw1\nw2\nw3\nw4"}
    assert sum(bench.executed.values()) == 1 + 1 + 1 + 1  # list, read, ask, write


def test_a_message_that_moved_is_read_again_and_not_asked_again(bench: Bench) -> None:
    mails(bench, ["w0", "w1", "w2"])
    bench.run(MAILS)
    asked = len(bench.asked)
    path = bench.work / "inbox" / "mails.mbox"
    data = path.read_bytes()
    path.write_bytes(data[data.index(b"From a@b.c", 10) :])  # the first is gone
    report = bench.run(MAILS)
    assert bench.files(report.run) == {"words.txt": "w1\nw2"}
    assert len(bench.asked) == asked


BIG = "files.write('n', str(len(doc.text('inbox/big.txt'))))\n"


def test_what_is_reused_outlives_the_run_that_made_it(bench: Bench) -> None:
    """A blob is kept while any run's value lies in it."""
    bench.file("inbox/big.txt", "words of a large text\n" * 9000)
    first = bench.run(BIG)
    second = bench.run(BIG)
    with bench.open() as machine:
        machine.ledger.call_now(lambda store: store.remove_run(first.run))
        swept = machine.ledger.call_now(lambda store: store.gc(0.0))
    assert swept.blobs == 0
    with bench.open() as machine:
        history = machine.ledger.call_now(lambda store: read_history(store, second.run))
        values = [entry.value for entry in history.entries if entry.value is not None]
        texts = [text.text() for value in values for text in lazy_texts(value)]
    assert texts == ["words of a large text\n" * 9000]


def test_a_damaged_blob_is_not_reused(bench: Bench) -> None:
    bench.file("inbox/big.txt", "words of a large text\n" * 9000)
    bench.run(BIG)
    blobs = [p for p in (bench.work / ".edvac" / "blobs").rglob("*") if p.is_file()]
    assert blobs
    for path in blobs:
        path.unlink()
    report = bench.run(BIG)
    assert report.state == "done"
    assert bench.files(report.run) == {"n": "198000"}


def test_large_texts_do_not_stay_in_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a text in a blob only the reference stays; of those read, the last."""
    seen: list[Scalar] = []
    from edvac.machine.executor import Executor

    original = Executor._laid_down

    async def watched(self: Executor, value: Scalar) -> object:
        made = await original(self, value)
        assert isinstance(made, Scalar)
        seen.append(made)
        return made

    monkeypatch.setattr(Executor, "_laid_down", watched)
    bench.file("inbox/big.txt", "x" * (INLINE_LIMIT + 1))
    bench.file("inbox/small.txt", "x" * INLINE_LIMIT)
    program = "\n".join(
        f"files.write('{n}', str(len(files.read('inbox/{n}.txt'))))" for n in ("big", "small")
    )
    report = bench.run(program)
    assert bench.files(report.run) == {"big": "65537", "small": "65536"}
    assert sorted(isinstance(one.raw, LazyText) for one in seen if len(str(one.data)) > 99) == [
        False,
        True,
    ]


def test_the_texts_read_last_are_kept_up_to_a_size() -> None:
    loaded: list[str] = []

    def load(ref: str) -> str:
        loaded.append(ref)
        return ref * 40

    recent = _Recent(100)
    for ref in ("a", "b", "a", "c", "b", "a"):
        assert recent.get(ref, load) == ref * 40
    assert loaded == ["a", "b", "c", "b", "a"]
    assert recent.get("d" * 10, load) == "d" * 400  # larger than all that is kept
    assert recent.get("d" * 10, load) == "d" * 400
    assert loaded[5:] == ["d" * 10]


def test_lines_of_a_log_are_found_with_their_numbers(bench: Bench) -> None:
    lines = [f"line {n} {'ERROR' if n % 700 == 0 else 'fine'}" for n in range(1, 3001)]
    lines[1000] = ""
    bench.file("inbox/a.log", "\n".join(lines))
    program = """
def errors(part):
    return text.grep(doc.text("inbox/a.log", part), "ERROR", part.first)

found = flatten([errors(part) for part in doc.parts("inbox/a.log", size=5000)])
files.write("found", "\\n".join([f"{number}: {line}" for number, line in found]))
"""
    report = bench.run(program)
    expected = "\n".join(f"{n}: line {n} ERROR" for n in (700, 1400, 2100, 2800))
    assert bench.files(report.run) == {"found": expected}
