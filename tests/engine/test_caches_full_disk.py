"""Caches of the engine where they cannot be written: slower next time, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

from small_disk import PAGE, SmallDisk, mounted

from edvac.core.seams import SystemClock
from edvac.engine.digest import file_digest
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.kv.kept import KeptPrefixes
from edvac.engine.loader import LoadOptions, cache_path, load
from edvac.engine.protocol import Done, Segment

from .test_engine import LIMITS, ask, drain

PROMPT = "hello the hell " * 12


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with mounted(4 << 20) as made:
        yield made
    torch.set_num_threads(threads)


def options(path: Path, cache: Path) -> LoadOptions:
    return LoadOptions(path, file_digest(path), cache, False, lambda done, total: None)


def said(asked: LoadOptions) -> tuple[str, list[int]]:
    """What the model that is loaded in this way answers."""
    decoder, source = load(asked)
    kind = EngineOptions(LIMITS, False, torch.float16)
    done = drain(Engine(decoder, source.codec, kind, SystemClock()), ask("a", max_tokens=30))["a"]
    assert done.text
    return done.text, [done.prompt_tokens, done.completion_tokens]


def files(place: Path) -> list[str]:
    return sorted(p.name for p in place.rglob("*") if p.is_file() and p.name != ".ballast")


def test_weights_that_cannot_be_kept_are_used_from_memory(
    tiny: Path, tmp_path: Path, disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = said(options(tiny, tmp_path))
    needed = cache_path(options(tiny, tmp_path)).stat().st_size // PAGE + 2
    kept = 0
    for pages in (0, 1, needed // 2, needed - 1, needed, needed + 3):
        disk.clear()
        disk.leave(pages * PAGE)
        caplog.clear()
        asked = options(tiny, disk.root / "cache")
        assert said(asked) == wanted, f"{pages} pages"
        found = files(disk.root)
        whole = len(found) == 2
        assert whole or found == [], "half a cache is left behind"
        assert whole or "cannot be kept" in caplog.text
        kept += whole
        disk.make_room()
        assert said(asked) == wanted
        assert cache_path(asked).exists(), "the next start keeps them"
    assert 0 < kept < 6


def test_weights_whose_cache_directory_cannot_be_made(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert said(options(tiny, tmp_path / "file" / "cache")) == said(options(tiny, tmp_path))


def test_a_prefix_that_cannot_be_kept_fails_no_request(tiny: Path, disk: SmallDisk) -> None:
    asked = options(tiny, disk.root / "cache")
    decoder, source = load(asked)
    made = {}
    for pages in (0, 1, 3, 200):
        for file in disk.root.glob("kept/*"):
            file.unlink()
        disk.leave(pages * PAGE)
        keeps = KeptPrefixes(disk.root / "kept", "m")
        engine = Engine(
            decoder,
            source.codec,
            EngineOptions(LIMITS, False, torch.float16),
            SystemClock(),
            keeps,
        )
        segments = [Segment(PROMPT, keep=True), Segment("tail")]
        request = ask("a", segments=segments, max_tokens=8)
        done = drain(engine, request)["a"]
        assert isinstance(done, Done), done
        made[pages] = (done.text, len(files(disk.root / "kept")))
        disk.make_room()
    assert len({text for text, _ in made.values()}) == 1
    assert made[0][1] == 0 and made[200][1] == 1, made
    assert all(count in (0, 1) for _, count in made.values()), "temporary files are left behind"


def test_a_kept_prefix_on_a_disk_without_room_is_still_read(tiny: Path, disk: SmallDisk) -> None:
    keeps = KeptPrefixes(disk.root / "kept", "m")
    block, tokens = torch.randn(2, 2, 2, 40, 16), list(range(40))
    keeps.save_prefix("r", tokens, block)
    disk.leave(0)
    found = keeps.load_prefix("r", tokens)
    assert found is not None and torch.equal(found, block)
    keeps.save_prefix("r", tokens[:30], block[:, :, :, :30])
    assert keeps.load_prefix("r", tokens[:30]) is None
    assert len(files(disk.root / "kept")) == 1
