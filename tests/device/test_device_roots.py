"""Roots: the walk against a naive oracle on real trees, and that no path leads out of a root."""

from __future__ import annotations

import fnmatch
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from device_kit import few_files
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.core.errors import ConfigError, DeviceError
from edvac.core.signature import overlap
from edvac.device import Roots
from edvac.device.glob import Glob, covers

NAMES = ["a", "b", "ab", ".h", "a b", "é", "x\ny", "[a]", "a.txt", ".git", "日"]
PARTS = [*NAMES, "*", "**", "?", "*.txt", ".*", "[ab]", "a*", "**", "[!a]*", "[a", ".", ""]


def naive(parts: list[str], names: list[str]) -> bool:
    """The meaning of a pattern, written down as plainly as can be."""
    parts = [part for part in parts if part not in ("", ".")]
    if not parts:
        return not names
    if parts[0] == "**":
        if len(parts) == 1:
            return bool(names) and not any(name.startswith(".") for name in names)
        rest = any(
            naive(parts[1:], names[skip:])
            and not any(name.startswith(".") for name in names[:skip])
            for skip in range(len(names) + 1)
        )
        return rest
    if not names:
        return False
    shown = not names[0].startswith(".") or parts[0].startswith(".")
    named = names[0] == parts[0] or fnmatch.fnmatchcase(names[0], parts[0])
    return shown and named and naive(parts[1:], names[1:])


paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)
patterns = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("/".join)


def plant(root: Path, files: list[list[str]]) -> set[str]:
    """A tree with as many of the files as fit; returns their paths."""
    made: set[str] = set()
    for names in files:
        path = root.joinpath(*names)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        except OSError:
            continue  # a file of an earlier one is in the way
        made.add("/".join(names))
    return made


@settings(max_examples=150, deadline=None)
@given(st.lists(paths, max_size=12), patterns, st.booleans())
def test_a_walk_finds_what_the_oracle_finds(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], pattern: str, split: bool
) -> None:
    root = tmp_path_factory.mktemp("tree")
    made = plant(root, files)
    tops = {p.name: p for p in root.iterdir() if p.is_dir()} if split else {"": root}
    if split:
        made = {path for path in made if "/" in path}
    if pattern.startswith("/"):
        pattern = "a" + pattern
    roots = Roots(tops)
    try:
        found = [path for path, _ in roots.matching(pattern).found]
    finally:
        roots.close()
    wanted = {path for path in made if naive(pattern.split("/"), path.split("/"))}
    assert found == sorted(wanted)


@settings(max_examples=300, deadline=None)
@given(patterns, paths)
def test_a_pattern_matches_as_the_oracle_says(pattern: str, names: list[str]) -> None:
    assert Glob.of(pattern).matches("/".join(names)) == naive(pattern.split("/"), names)


def test_many_double_stars_are_no_explosion(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a"] * 20)
    deep.mkdir(parents=True)
    (deep / "b").write_text("x")
    found = Roots({"": tmp_path}).matching("/".join(["**", "a"] * 8) + "/**/b").found
    assert len(found) == 1


def test_listings_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:04}").write_text("")
    roots = Roots({"": tmp_path})
    with ThreadPoolExecutor(4) as pool:
        counts = set(pool.map(lambda _: len(roots.matching("*").found), range(40)))
    assert counts == {300}


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("x")
    (tmp_path / "link").symlink_to("good")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"\xff\xfe")).write_text("x")
    listing = Roots({"": tmp_path}).matching("*")
    assert [path for path, _ in listing.found] == ["good"]
    text = " ".join(listing.notes())
    assert "symbolic link" in text
    assert "not a regular file" in text
    assert "not UTF-8" in text


def test_depth_is_bounded_and_said(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(600):  # by descriptor: a path this long could not be named
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    listing = Roots({"": tmp_path}).matching("**")
    assert not listing.found
    assert "directories" in listing.notes()[0]


# -- nothing outside a root is ever opened ------------------------------------------------------

SECRET = b"the secret outside"


@pytest.fixture
def jail(tmp_path: Path) -> Path:
    return build_jail(tmp_path)


def build_jail(tmp_path: Path) -> Path:
    """A root with every way out that a file system offers."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret").write_bytes(SECRET)
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "inside").write_bytes(b"inside")
    (root / "sub" / "inside").write_bytes(b"inside")
    (root / "file_link").symlink_to("../secret")
    (root / "directory_link").symlink_to("../other")
    (root / "sub" / "up").symlink_to("../..")
    (root / "absolute").symlink_to(tmp_path / "secret")
    (root / "proc").symlink_to("/proc/self/root")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    return root


PIECES = [
    "..", ".", "", "sub", "inside", "file_link", "directory_link", "up", "absolute", "proc", "loop",
    "fifo", "secret", "etc", "passwd", "root", "self", "fd", "\x00", "inside\x00.txt", "\ud800",
    "…", "sub/..", "%2e%2e", "..\\", "/", "//", "~", "C:\\", "é", " ", "\n",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=6))
def test_no_path_leads_out(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]) -> None:
    base = tmp_path_factory.getbasetemp() / "jail"
    if not base.exists():
        base.mkdir()
        build_jail(base)
    roots = Roots({"": base / "root", "root": base / "root"})
    try:
        content = roots.read("/".join(pieces))
    except DeviceError as refused:
        assert refused.why
    else:
        assert content == b"inside"
    finally:
        roots.close()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("file_link", "symbolic link"),
        ("absolute", "symbolic link"),
        ("directory_link/secret", "symbolic link"),
        ("sub/up/secret", "symbolic link"),
        ("proc/etc/passwd", "symbolic link"),
        ("loop", "symbolic link"),
        ("../secret", "never goes up"),
        ("sub/../../secret", "never goes up"),
        ("/etc/passwd", "relative"),
        ("inside\x00", "NUL"),
        ("fifo", "not a regular file"),
        ("sub", "a directory"),
        ("nothing", "No such file"),
        ("inside/below", "Not a directory"),
        ("x" * 300, "too long"),
    ],
)
def test_a_refusal_says_why(jail: Path, path: str, why: str) -> None:
    for look in (Roots({"": jail}).read, Roots({"": jail}).stat):
        with pytest.raises(DeviceError) as refused:
            look(path)
        assert why.lower() in refused.value.why.lower()
        assert refused.value.code == "file_unreadable"
    assert (jail / "file_link").read_bytes() == SECRET  # the way out is there for others


def test_swapping_a_directory_for_a_link_gains_nothing(jail: Path) -> None:
    """Somebody exchanges a directory and a link as fast as he can while it is read."""
    hot, cold = jail / "hot", jail / "cold"
    (jail / "real").mkdir()
    (jail / "real" / "secret").write_bytes(b"inside")
    hot.symlink_to("../other")
    os.rename(jail / "real", cold)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for old, new in ((hot, "t"), (cold, "hot"), (jail / "t", "cold")):
                os.rename(old, jail / new)

    thread = threading.Thread(target=swap)
    thread.start()
    roots, seen, outside = Roots({"": jail}), set(), 0
    try:
        for _ in range(3000):
            try:
                seen.add(roots.read("hot/secret"))
            except DeviceError:
                pass
            try:
                outside += (hot / "secret").read_bytes() == SECRET
            except OSError:
                pass
            names = [path for path, _ in roots.matching("*/secret").found]
            assert all(name in ("hot/secret", "cold/secret", "t/secret") for name in names)
    finally:
        stop.set()
        thread.join()
    assert seen == {b"inside"}
    assert outside, "the race was never won by one who follows links: this proves nothing"


def test_size_is_limited_though_the_file_lies(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 100)
    roots = Roots({"": tmp_path, "proc": Path("/proc/self")})
    assert roots.read("big", limit=100) == b"x" * 100
    with pytest.raises(DeviceError, match="100 bytes"):
        roots.read("big", limit=99)
    with pytest.raises(DeviceError, match="more than 10 bytes"):
        roots.read("proc/maps", limit=10)  # its size is said to be 0


def test_a_missing_root_names_itself_and_leaks_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError) as refused:
        Roots({"a": tmp_path, "b": tmp_path / "none"})
    assert refused.value.code == "input_root_missing"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_with_too_many_open_files_is_told_so_and_never_told_less(tmp_path: Path) -> None:
    """Whatever cannot be opened: no list is shorter, no file is thought to be absent."""
    (tmp_path / "sub" / "below").mkdir(parents=True)
    for name in ("a", "sub/a", "sub/below/a"):
        (tmp_path / name).write_text("x")
    roots = Roots({"": tmp_path})
    looks = {
        "read": (lambda: roots.read("sub/below/a"), b"x"),
        "stat": (lambda: roots.stat("sub/below/a").size, 1),
        "exists": (lambda: roots.exists("sub/below/a"), True),
        "matching": (
            lambda: [path for path, _ in roots.matching("**").found],
            ["a", "sub/a", "sub/below/a"],
        ),
    }
    ends: Counter[tuple[str, bool]] = Counter()
    for spare in range(8):
        for name, (look, wanted) in looks.items():
            before = len(os.listdir("/proc/self/fd"))
            with few_files(spare):
                try:
                    found: object = look()
                except DeviceError as refused:
                    found = None
                    assert "too many open files" in refused.why
            assert found in (None, wanted)
            assert len(os.listdir("/proc/self/fd")) == before
            ends[name, found is None] += 1
    assert set(ends) == {(name, failed) for name in looks for failed in (True, False)}


def test_an_ungranted_path_says_what_is_granted(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as refused:
        Roots({"inbox": tmp_path}).read("outbox/a")
    assert refused.value.code == "path_not_granted"
    assert "inbox/" in refused.value.why


def test_what_is_covered_is_a_hazard_too() -> None:
    """Whatever a declared pattern covers must count as an overlap, or steps would not wait."""
    for pattern, path in [("out/*", "out/a"), ("out", "out/a/b"), ("a[1]", "a[1]"), ("**", "x/y")]:
        assert covers(pattern, path)
        assert overlap(pattern, path)
    assert not covers("out/*.txt", "out/a/b.txt")
    assert not covers("out/a.txt", "out")
    assert not covers("out/*.txt", "[evil")
