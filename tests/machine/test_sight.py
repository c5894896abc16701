"""What a plan is tried on: the beginnings of files below the input directories, and no others."""

from __future__ import annotations

from pathlib import Path

from edvac.machine.sight import MAX_JSON, MAX_TEXT, FileSight


def test_files_are_seen_below_their_root_and_without_following_links(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (inside / "a.txt").write_text("ä\n")
    (inside / "link.txt").symlink_to(tmp_path / "secret.txt")
    sight = FileSight({"in": inside})
    assert sight.names("in/*") == ["in/a.txt"]
    assert sight.text("in/a.txt") == "ä\n"
    for path in (
        "in/link.txt",
        "in/../secret.txt",
        "secret.txt",
        "in/none.txt",
        "in",
        "/etc/hosts",
    ):
        assert sight.text(path) is None, path
    assert sight.names("../*") == []


def test_of_a_long_text_its_first_whole_lines_are_seen(tmp_path: Path) -> None:
    line = "0123456789ö\n"
    (tmp_path / "long.log").write_text(line * MAX_TEXT)
    seen = FileSight({"": tmp_path}).text("long.log")
    assert seen is not None and set(seen.split("\n")) == {line.strip(), ""}
    assert MAX_TEXT - 20 < len(seen.encode()) <= MAX_TEXT


def test_what_cannot_be_cut_or_is_no_text_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "long.json").write_text(f"[{'1,' * MAX_JSON}1]")
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00")
    sight = FileSight({"": tmp_path})
    assert [sight.text(path) for path in ("long.json", "a.json", "b.bin")] == [None, "[1]", None]
