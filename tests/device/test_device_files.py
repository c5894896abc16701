"""`files`: what is read, what a run's own versions hide, and every label."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from device_kit import World, make_call, wait

from edvac.core.label import PROGRAM, UNBOUNDED, Label, combine
from edvac.core.value import Instance, Scalar, Sequence, lift, plain, total_label
from edvac.device import Call, Held
from edvac.device.files import clean


@pytest.fixture
def world(tmp_path: Path) -> World:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.txt").write_text("alpha")
    (inbox / "b.txt").write_bytes(b"\xef\xbb\xbfbeta")
    (inbox / "latin.txt").write_bytes(b"caf\xe9")
    (inbox / ".hidden").write_text("h")
    return World({"inbox": inbox})


FILE_A = Label.of(["file:inbox/a.txt"], readers=["user"], bits=UNBOUNDED)


def test_reading_is_labelled_with_the_file(world: World) -> None:
    value = world.do("files.read", path="inbox/a.txt").value
    assert isinstance(value, Scalar)
    assert (value.data, value.label) == ("alpha", FILE_A)


def test_a_byte_order_mark_is_no_text(world: World) -> None:
    assert world.get("files.read", path="inbox/b.txt") == "beta"


def test_text_that_is_not_utf8_is_refused_with_the_remedy(world: World) -> None:
    error = world.refused("files.read", path="inbox/latin.txt")
    assert error.code == "not_utf8"
    assert "Byte 3" in error.why
    assert "doc.text" in error.fix


def test_a_listing_labels_names_and_shape_apart(world: World) -> None:
    value = world.do("files.list", pattern="inbox/*").value
    assert isinstance(value, Sequence)
    assert plain(value) == ["inbox/a.txt", "inbox/b.txt", "inbox/latin.txt"]
    assert value.label.sources == {"shape:inbox"}
    assert [item.label.sources for item in value.items] == [
        {"name:inbox/a.txt"}, {"name:inbox/b.txt"}, {"name:inbox/latin.txt"}
    ]  # fmt: skip
    assert all(item.label.readers == {"user"} for item in value.items)


def test_a_listing_of_nothing_says_so_and_what_helps(world: World) -> None:
    reply = world.do("files.list", pattern="inbox/*.pdf")
    assert plain(reply.value) == []
    assert reply.notes == ("no file matches 'inbox/*.pdf'",)
    assert "say 'inbox/*'" in world.do("files.list", pattern="inbox").notes[0]


@pytest.mark.parametrize("pattern", [".", "", "/", "..", "inbox/..", "/etc/*", "a\nb", "a/../../b"])
def test_no_pattern_is_strange_enough_to_break_it(world: World, pattern: str) -> None:
    assert world.refused("files.list", pattern=pattern).code == "path_illegal"


def test_what_the_run_wrote_lies_over_the_input(world: World) -> None:
    world.do("files.write", path="inbox/a.txt", text="mine")
    world.do("files.write", path="inbox/new.txt", text="new")
    assert world.get("files.read", path="inbox/a.txt") == "mine"
    names = world.get("files.list", pattern="inbox/*.txt")
    assert names == ["inbox/a.txt", "inbox/b.txt", "inbox/latin.txt", "inbox/new.txt"]


def test_a_moved_file_is_gone_for_every_function(world: World) -> None:
    world.do("files.move", source="inbox/a.txt", target="done/a.txt")
    assert world.get("files.read", path="done/a.txt") == "alpha"
    for op in ("files.read", "files.stat"):
        assert "moved" in world.refused(op, path="inbox/a.txt").why
    assert world.refused("files.copy", source="inbox/a.txt", target="x").code == "file_unreadable"
    assert "inbox/a.txt" not in world.get("files.list", pattern="inbox/*")


def test_a_copy_keeps_the_label_of_what_it_copies(world: World) -> None:
    world.do("files.copy", source="inbox/a.txt", target="out/c.txt")
    held = world.held.kept["out/c.txt"]
    assert held is not None
    assert (held.content, held.label) == (b"alpha", FILE_A)


def test_moving_onto_itself_loses_nothing(world: World) -> None:
    world.do("files.move", source="inbox/a.txt", target="./inbox//a.txt")
    assert world.get("files.read", path="inbox/a.txt") == "alpha"


def test_two_files_of_one_name_do_not_become_one(world: World) -> None:
    """Renamed by content, two scans may get the same name; the first must not be lost."""
    world.do("files.move", source="inbox/a.txt", target="named.txt")
    for op in ("files.move", "files.copy"):
        assert world.refused(op, source="inbox/b.txt", target="named.txt").code == "target_taken"
    assert world.get("files.read", path="named.txt") == "alpha"
    assert world.get("files.read", path="inbox/b.txt")
    world.do("files.move", source="named.txt", target="elsewhere.txt")
    world.do("files.move", source="inbox/b.txt", target="named.txt")


def test_what_is_written_is_labelled_with_all_of_its_text(world: World) -> None:
    secret = Label.of(["file:x"], ["file:y"], ["user"], 7.0)
    call = make_call("files.write", path="out/t.txt", text="t")
    call = Call(call.signature, call.operands | {"text": Scalar("t", secret)}, "slot", "here", 1.0)
    world.keep(wait(world.files.call(call)).files)
    value = world.do("files.read", path="out/t.txt").value
    assert total_label(value) is secret
    stat = world.do("files.stat", path="out/t.txt").value
    assert total_label(stat).integrity == {"file:x", "file:y"}


def test_a_listing_depends_on_what_made_the_run_write(world: World) -> None:
    label = Label.of(["file:inbox/a.txt"], readers=["user"], bits=UNBOUNDED)
    world.held.kept["out/1"] = Held(b"", label)
    value = world.do("files.list", pattern="out/*").value
    assert "file:inbox/a.txt" in value.label.sources


def test_a_listing_asks_the_run_once_however_many_files_it_has(world: World) -> None:
    paths = [f"out/{number}.txt" for number in range(2_000)]
    for path in paths:
        world.held.kept[path] = Held(b"", PROGRAM)
    world.held.asked = 0
    assert len(world.get("files.list", pattern="out/*")) == 2_000
    assert world.held.asked == 1
    found = wait(world.files.named([*paths, "inbox/*", "out/*.txt", "nothing/*"]))
    assert len(found.labels) == 2_003 and world.held.asked == 2


def test_what_the_run_wrote_is_found_by_the_rules_of_the_roots(world: World) -> None:
    for path in ("inbox/.mine", "inbox/d/e/f/g.txt"):
        world.do("files.write", path=path, text="x")
    assert "inbox/.mine" not in world.get("files.list", pattern="inbox/*")
    assert world.get("files.list", pattern="inbox/.*") == ["inbox/.hidden", "inbox/.mine"]
    assert world.get("files.list", pattern="inbox/**/e/**/*.txt") == ["inbox/d/e/f/g.txt"]


def test_stat_gives_size_and_date(world: World, tmp_path: Path) -> None:
    os.utime(tmp_path / "inbox" / "a.txt", (86400.0 * 365, 86400.0 * 365))
    value = world.do("files.stat", path="inbox/a.txt").value
    assert isinstance(value, Instance)
    found = plain(value)
    assert (found["size"], found["modified"].isoformat()) == (5, "1971-01-01")
    assert total_label(value).sources == {"file:inbox/a.txt"}
    assert total_label(value).bits < UNBOUNDED


def test_stat_survives_a_date_that_no_calendar_has(world: World, tmp_path: Path) -> None:
    strange = Path("/dev/shm") / f"edvac-{os.getpid()}"  # a file system with such dates
    strange.mkdir()
    try:
        (strange / "f").write_text("x")
        os.utime(strange / "f", (1e15, 1e15))
        if (strange / "f").stat().st_mtime < 1e12:
            pytest.skip("this file system keeps no such dates")
        assert World({"s": strange}).get("files.stat", path="s/f")["modified"] is None
    finally:
        (strange / "f").unlink()
        strange.rmdir()


def test_stat_of_a_directory_is_refused(world: World) -> None:
    assert "directory" in world.refused("files.stat", path="inbox").why


@pytest.mark.parametrize(
    "path", ["../x", "/x", "", ".", "a\x00b", "a\x1bb", "a\x9bb", "a/../b", "\ud800", "x" * 300]
)
def test_an_illegal_path_writes_nothing(world: World, path: str) -> None:
    for op, more in (("files.write", {"text": "x"}), ("files.stat", {})):
        assert world.refused(op, path=path, **more).code == "path_illegal"
    for op in ("files.copy", "files.move"):
        assert world.refused(op, source="inbox/a.txt", target=path).code == "path_illegal"
    assert not world.held.kept


@pytest.mark.parametrize("path", [".edvac/store.db", ".git/hooks/pre-commit", "a/.GIT/config"])
def test_what_steers_other_programs_is_not_written(world: World, path: str) -> None:
    assert world.refused("files.write", path=path, text="x").code == "path_reserved"
    assert world.refused("files.copy", source="inbox/a.txt", target=path).code == "path_reserved"


def test_half_of_a_surrogate_pair_is_a_typed_error(world: World) -> None:
    assert world.refused("files.write", path="x", text="a\ud83d").code == "text_not_unicode"


def test_versions_change_with_content_only(world: World, tmp_path: Path) -> None:
    call = make_call("files.read", path="inbox/a.txt")
    first = wait(world.files.read_version(call))
    os.utime(tmp_path / "inbox" / "a.txt", (1, 1))
    assert wait(world.files.read_version(call)) == first
    (tmp_path / "inbox" / "a.txt").write_text("other")
    assert wait(world.files.read_version(call)) != first
    assert wait(world.files.read_version(make_call("files.list", pattern="*"))) is None


def test_clean_paths_stay_as_they_are() -> None:
    for path in ("a", "a/b c/é.txt", "[a].txt", "日/x", ".hidden"):
        assert clean(path) == path
    assert clean("./a//b/") == "a/b"


def test_labels_of_names_that_a_process_declares(world: World) -> None:
    found = wait(world.files.named(["inbox/*.txt", "inbox/a.txt"]))
    assert set(found.labels) == {"inbox/a.txt", "inbox/b.txt", "inbox/latin.txt"}
    total = combine([found.shape, *found.labels.values()])
    assert {"shape:inbox", "name:inbox/a.txt"} <= total.sources
    assert lift("x", PROGRAM).label is PROGRAM


def test_a_write_that_compares_replaces_only_what_was_seen(world: World) -> None:
    seen = world.get("files.hash", path="inbox/a.txt")
    world.do("files.write", path="inbox/a.txt", text="first", was=seen)
    refused = world.refused("files.write", path="inbox/a.txt", text="second", was=seen)
    assert refused.code == "file_changed"
    assert world.get("files.read", path="inbox/a.txt") == "first", "nothing was written"
    now = world.get("files.hash", path="inbox/a.txt")
    world.do("files.write", path="inbox/a.txt", text="second", was=now)
    assert world.get("files.read", path="inbox/a.txt") == "second"
    assert world.refused("files.write", path="out/none.txt", text="x", was=now).code
