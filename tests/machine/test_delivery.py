"""From a run's files to the user's: nothing of theirs is lost, nothing outside is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from machine_kit import Bench

from edvac.core.errors import StoreError, UsageError
from edvac.machine import delivery

WRITES = "files.write('a.txt', 'one')\nfiles.write('sub/b.txt', 'two')\n"


def delivered(bench: Bench, name: str, *args: Any, **words: Any) -> Any:
    with bench.open() as machine:
        run = machine.find(None).id
        return machine.ledger.call_now(
            lambda store: getattr(delivery, name)(store, run, *args, **words)
        )


def test_diff_apply_undo(bench: Bench, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "a.txt").write_text("mine")
    bench.run(WRITES)
    found = delivered(bench, "changes", target)
    assert [(c.path, c.kind) for c in found] == [("a.txt", "changed"), ("sub/b.txt", "new")]
    assert "-mine" in found[0].diff and "+one" in found[0].diff
    with pytest.raises(UsageError, match="left alone"):
        delivered(bench, "apply", target)
    assert (target / "a.txt").read_text() == "mine" and not (target / "sub").exists()
    assert delivered(bench, "apply", target, force=True) == ["a.txt", "sub/b.txt"]
    assert (target / "sub" / "b.txt").read_text() == "two"
    assert delivered(bench, "apply", target) == []
    assert delivered(bench, "undo") == ["sub/b.txt", "a.txt"]
    assert (target / "a.txt").read_text() == "mine" and not (target / "sub" / "b.txt").exists()
    with pytest.raises(UsageError, match="not been applied"):
        delivered(bench, "undo")


def test_diff_says_where_a_moved_file_was(bench: Bench) -> None:
    (bench.work / "inbox" / "0.txt").write_text("one")
    (bench.work / "inbox" / "1.txt").write_text("one")
    (bench.work / "inbox" / "2.txt").write_text("two")
    bench.run(
        "files.move('inbox/0.txt', 'b.txt')\nfiles.move('inbox/1.txt', 'a.txt')\n"
        "t = files.read('inbox/2.txt')\nfiles.move('inbox/2.txt', 'c.txt')\n"
        "files.write('c.txt', 'changed')\nfiles.write('d.txt', 'one')\n"
    )
    found = delivered(bench, "changes", bench.work)
    assert [(one.path, one.kind, one.source) for one in found] == [
        ("a.txt", "moved", "inbox/0.txt"),
        ("b.txt", "moved", "inbox/1.txt"),
        ("c.txt", "new", ""),
        ("d.txt", "new", ""),
        ("inbox/2.txt", "removed", ""),
    ]
    delivered(bench, "apply", bench.work)
    kinds = [(one.path, one.kind) for one in delivered(bench, "changes", bench.work)]
    assert kinds == [(f"{name}.txt", "same") for name in "abcd"]


def test_a_file_that_the_run_has_read_is_replaced_if_it_is_still_what_was_read(
    bench: Bench,
) -> None:
    bench.run(
        "p = 'inbox/0.txt'\nfiles.write(p, files.read(p) + 'more')\n"
        "files.move('inbox/1.txt', 'inbox/one.txt')\nfiles.write('inbox/2.txt', 'unread')\n"
    )
    inbox, before = bench.work / "inbox", (bench.work / "inbox" / "0.txt").read_text()
    with pytest.raises(UsageError, match="A different file is already there"):
        delivered(bench, "apply", bench.work)
    (inbox / "2.txt").unlink()
    (inbox / "0.txt").write_text("mine")
    with pytest.raises(UsageError, match="It has changed since the run read it"):
        delivered(bench, "apply", bench.work)
    (inbox / "0.txt").write_text(before)
    assert "inbox/0.txt" in delivered(bench, "apply", bench.work)
    assert (inbox / "0.txt").read_text() == before + "more" and not (inbox / "1.txt").exists()
    delivered(bench, "undo")
    assert (inbox / "0.txt").read_text() == before and (inbox / "1.txt").exists()


def test_undo_leaves_everything_where_one_file_has_changed_since(
    bench: Bench, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    bench.run(WRITES)
    delivered(bench, "apply", target)
    (target / "a.txt").write_text("edited")
    with pytest.raises(UsageError, match="left alone"):
        delivered(bench, "undo")
    assert (target / "sub" / "b.txt").read_text() == "two", "a refusal changes nothing"
    delivered(bench, "undo", force=True)
    assert not (target / "a.txt").exists()


def test_what_a_removed_run_put_there_is_replaced_unless_it_was_edited(
    bench: Bench, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    bench.run(WRITES)
    delivered(bench, "apply", target)
    with bench.open() as machine:
        run = machine.find(None).id
        machine.ledger.call_now(lambda store: store.remove_run(run))
    (target / "sub" / "b.txt").write_text("edited")
    bench.run(WRITES.replace("one", "new").replace("two", "new"))
    with pytest.raises(UsageError, match=r"'sub/b\.txt' was left alone"):
        delivered(bench, "apply", target)
    (target / "sub" / "b.txt").write_text("two")
    assert delivered(bench, "apply", target) == ["a.txt", "sub/b.txt"]
    assert (target / "a.txt").read_text() == "new"


def test_a_link_is_never_followed(bench: Bench, tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    target.mkdir()
    (outside / "b.txt").write_text("theirs")
    (target / "sub").symlink_to(outside)
    bench.run(WRITES)
    for force in (False, True):
        with pytest.raises(UsageError, match="left alone"):
            delivered(bench, "apply", target, force=force)
    (target / "sub").unlink()
    (target / "a.txt").symlink_to(outside / "b.txt")
    with pytest.raises(UsageError, match="left alone"):
        delivered(bench, "apply", target, force=True)
    assert (outside / "b.txt").read_text() == "theirs"
    assert sorted(p.name for p in outside.iterdir()) == ["b.txt"]


def test_a_removed_file_is_not_removed_through_a_link(bench: Bench, tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "out"
    (outside / "x").mkdir(parents=True)
    (outside / "x" / "0.txt").write_text("theirs")
    target.mkdir()
    (target / "inbox").symlink_to(outside / "x")
    bench.run("files.move('inbox/0.txt', 'moved.txt')\n")
    with pytest.raises(UsageError, match="left alone"):
        delivered(bench, "apply", target, force=True)
    assert (outside / "x" / "0.txt").read_text() == "theirs"


def test_removed_files_come_back(bench: Bench) -> None:
    bench.run("files.move('inbox/0.txt', 'moved.txt')\n")
    delivered(bench, "apply", bench.work, force=True)
    assert not (bench.work / "inbox" / "0.txt").exists()
    assert (bench.work / "moved.txt").read_text() == "word=ann\n"
    delivered(bench, "undo")
    assert (bench.work / "inbox" / "0.txt").read_text() == "word=ann\n"
    assert not (bench.work / "moved.txt").exists()


def test_what_a_retry_writes_is_applied_in_a_further_round(bench: Bench, tmp_path: Path) -> None:
    target = tmp_path / "out"
    bench.broken = {"poison"}
    report = bench.run(WRITES + "files.write('c.txt', llm.write('poison'))\n")
    assert delivered(bench, "apply", target) == ["a.txt", "sub/b.txt"]
    bench.broken = set()
    bench.resume(report.run, retry=True)
    assert delivered(bench, "apply", target) == ["c.txt"]
    assert delivered(bench, "undo") == ["c.txt"]
    assert delivered(bench, "undo") == ["sub/b.txt", "a.txt"]


def test_a_half_applied_run_goes_on_only_in_its_own_target(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    bench.run(WRITES)
    put, count = delivery.put, [0]

    def fails(*args: Any) -> None:
        count[0] += 1
        if count[0] == 2:
            raise StoreError("apply_failed", "the disk is full")
        put(*args)

    with monkeypatch.context() as patch:
        patch.setattr(delivery, "put", fails)
        with pytest.raises(StoreError):
            delivered(bench, "apply", target)
    with pytest.raises(UsageError, match="half applied"):
        delivered(bench, "apply", tmp_path / "elsewhere")
    (target / "sub").mkdir(exist_ok=True)
    (target / "sub" / "b.txt").write_text("made meanwhile")
    with pytest.raises(UsageError, match="left alone"):
        delivered(bench, "apply", target)
    (target / "sub" / "b.txt").unlink()
    assert delivered(bench, "apply", target) == ["a.txt", "sub/b.txt"]
