"""`edvac diff --patch`: what git and patch make of it is what apply makes."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from machine_kit import Bench

from edvac.machine import delivery
from edvac.machine.patch import LARGE, file_patch

Tree = dict[str, bytes]
NAMES = (
    "a.txt", "b c.md", "ä/ö ü.md", 'q"uote.txt', "back\\slash", "deep/er/than/that.csv",
    "-dash", "日本.txt", "tail.md", "with\ttab",
)  # fmt: skip
WORDS = ("one", "two", "", "  ", "ünï", "x" * 300, "\x0c", "\u2028", "-- a", "+++ b", "@@ -1 +1 @@",
         "\\ No newline at end of file", "diff --git a/x b/x")  # fmt: skip


def content(rng: random.Random, *, binary: bool) -> bytes:
    if binary and rng.random() < 0.2:
        return rng.randbytes(rng.randrange(1, 400)) + b"\x00"
    ends = rng.choice(["\n", "\r\n", "\r", "\n"])
    text = "".join(rng.choice(WORDS) + ends for _ in range(rng.randrange(0, 30)))
    if rng.random() < 0.3:
        text = text.removesuffix("\n")  # of CRLF the carriage return is left
    raw = text.encode()
    return raw + b"\xff\xfe latin" if rng.random() < 0.1 else raw


def edited(rng: random.Random, raw: bytes) -> bytes:
    lines = raw.split(b"\n")
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(lines) + 1)
        if rng.random() < 0.5 and place < len(lines):
            del lines[place]
        else:
            lines.insert(place, rng.choice(WORDS).encode())
    return b"\n".join(lines)


def trees(seed: int, *, binary: bool) -> tuple[Tree, Tree]:
    rng = random.Random(seed)
    before = {name: content(rng, binary=binary) for name in NAMES if rng.random() < 0.7}
    after = {}
    for name in NAMES:
        draw = rng.random()
        if name in before and draw < 0.6:
            after[name] = edited(rng, before[name]) if draw < 0.5 else before[name]
        elif draw < 0.85:
            after[name] = content(rng, binary=binary)
    return before, after


def laid(place: Path, tree: Tree) -> Path:
    for name, raw in tree.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(raw)
    return place


def found(place: Path) -> Tree:
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def patched(place: Path, patch: bytes, *command: str) -> Tree:
    done = subprocess.run(command, cwd=place, input=patch, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    return found(place)


@pytest.mark.parametrize("seed", range(60))
def test_git_and_patch_make_the_files_of_random_trees(tmp_path: Path, seed: int) -> None:
    before, after = trees(seed, binary=seed % 3 == 0)
    names = sorted({*before, *after})
    patch = b"".join(file_patch(name, before.get(name), after.get(name)) for name in names)
    place = laid(tmp_path / "git", before)
    place.mkdir(exist_ok=True)
    if before != after:
        assert patched(place, patch, "git", "apply", "--whitespace=nowarn", "-") == after
    if seed % 3 and shutil.which("patch") and before != after:
        place = laid(tmp_path / "patch", before)
        place.mkdir(exist_ok=True)
        assert patched(place, patch, "patch", "-p1", "--silent", "--binary") == after


def test_a_large_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    before = b"".join(b"%d\n" % n for n in range(LARGE))
    after = before.replace(b"77\n", b"seventy-seven\n") + b"end"
    patch = file_patch("a.txt", before, after)
    place = laid(tmp_path, {"a.txt": before})
    assert patched(place, patch, "git", "apply", "-") == {"a.txt": after}


def test_git_refuses_it_where_the_file_is_another(tmp_path: Path) -> None:
    place = laid(tmp_path, {"a.txt": b"something else\n"})
    patch = file_patch("a.txt", b"one\n", b"two\n")
    done = subprocess.run(
        ["git", "apply", "-"], cwd=place, input=patch, capture_output=True, check=False
    )
    assert done.returncode != 0 and (place / "a.txt").read_bytes() == b"something else\n"


def test_the_patch_of_a_run_gives_what_apply_gives(bench: Bench, tmp_path: Path) -> None:
    before = {"inbox/old.md": b"gone\r\n", "inbox/a b.md": "größe\r\nalt".encode(), "same": b"x"}
    laid(bench.work, before)
    report = bench.run(
        "files.move('inbox/old.md', 'inbox/neu/ü.md')\n"
        "files.write('inbox/a b.md', files.read('inbox/a b.md') + '\\nnew')\n"
        "files.write('same', 'x')\n"
        "files.write('empty', '')\n"
    )
    assert report.state == "done", report.failures
    copy = tmp_path.parent / f"{tmp_path.name}-copy"
    shutil.copytree(bench.work, copy, ignore=shutil.ignore_patterns(".edvac"))
    with bench.open() as machine:
        run = machine.find(None).id
        patch = machine.ledger.call_now(lambda store: delivery.patch(store, run, bench.work))
        machine.ledger.call_now(lambda store: delivery.apply(store, run, bench.work, force=True))
    assert b"same" not in patch
    made = {k: v for k, v in found(bench.work).items() if not k.startswith(".edvac")}
    assert patched(copy, patch, "git", "apply", "-") == made
    assert made["inbox/neu/ü.md"] == b"gone\r\n" and made["empty"] == b""
