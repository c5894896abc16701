"""`doctor` finds the models that are on a machine already, and prints lines that can be used."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Bench
from fake_endpoint import Fake, llamacpp, lmstudio, ollama, running, vllm

from edvac.machine.settings import Settings, load
from edvac.processor import abilities, discover


def gguf(path: Path, architecture: str = "qwen2", extra: bytes = b"") -> Path:
    """The beginning of a model file."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    keys = [("general.name", "x"), ("general.architecture", architecture)]
    body = b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in keys)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + body + extra)
    return path


@pytest.fixture
def home(edvac: Bench, tmp_path: Path) -> Path:
    """A machine without anything."""
    for name in ("OLLAMA_MODELS", "OLLAMA_HOST", "HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE"):
        edvac.monkeypatch.delenv(name, raising=False)
    edvac.monkeypatch.setenv("HOME", str(tmp_path / "home"))
    edvac.monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    edvac.monkeypatch.setattr(discover, "PORTS", ())
    return tmp_path / "home"


def found(edvac: Bench, name: str, *flags: str) -> list[dict[str, Any]]:
    done = edvac("doctor", "--json", *flags)
    assert done.code == 0, done.out + done.err
    return [one for one in done.document["findings"] if one["name"] == name]


def test_every_server_is_found_and_told_apart(edvac: Bench, home: Path) -> None:
    makes = {"ollama": ollama, "llama.cpp": llamacpp, "vLLM": vllm, "LM Studio": lmstudio}
    with contextlib.ExitStack() as stack:
        fakes = {name: stack.enter_context(running(make())) for name, make in makes.items()}
        stack.enter_context(running(silent := Fake()))  # a web server of another kind
        ports = [*(fake.port for fake in fakes.values()), silent.port, 9]
        edvac.monkeypatch.setattr(discover, "PORTS", ports)
        servers = found(edvac, "server")
        text = edvac("doctor").out
    assert len(servers) == 4
    for one, (name, fake) in zip(servers, fakes.items(), strict=True):
        assert one["found"].startswith(name), one
        assert "serves 1 model" in one["found"], "an embedding model answers no messages"
        assert f"127.0.0.1:{fake.port}" in one["found"]
        assert not fake.bodies, "nothing is asked of a model"
        assert one["paste"][0] in text
        settings = tomllib.loads("\n".join(one["paste"]))
        assert settings["model"].startswith(f"{fake.url}#")


def test_the_line_works_when_pasted(edvac: Bench, home: Path) -> None:
    with running(ollama()) as fake:
        edvac.monkeypatch.setattr(discover, "PORTS", (fake.port,))
        (server,) = found(edvac, "server")
        edvac.write("edvac.toml", "\n".join(server["paste"]))
        settings, _ = load(edvac.root, {}, {})
        assert settings == Settings(model=f"{fake.url}#llama3.2:latest")
        (endpoint,) = found(edvac, "endpoint")
    assert "ollama; JSON schema, tools, context 4,096" in endpoint["found"]


def test_ollama_at_another_port_of_this_machine(edvac: Bench, home: Path) -> None:
    with running(ollama()) as fake:
        for host in (f"127.0.0.1:{fake.port}", f"http://localhost:{fake.port}/"):
            edvac.monkeypatch.setenv("OLLAMA_HOST", host)
            assert "ollama" in found(edvac, "server")[0]["found"]
    for host in ("192.0.2.7:11434", "nonsense:::", ":", "0.0.0.0"):
        edvac.monkeypatch.setenv("OLLAMA_HOST", host)
        assert "none" in found(edvac, "server")[0]["found"]


def test_an_endpoint_is_probed_once_and_again_when_asked(edvac: Bench, home: Path) -> None:
    with running(llamacpp()) as fake:
        edvac.write("edvac.toml", f'model = "{fake.url}#m"\nescalate_model = "{fake.url}#n"\n')
        first = found(edvac, "endpoint")
        assert (
            len(first) == 2 and "grammar" in first[0]["found"] and "2 at once" in first[0]["found"]
        )
        probes = len(fake.bodies)
        assert probes and found(edvac, "endpoint") == first
        assert len(fake.bodies) == probes
        assert len(found(edvac, "endpoint", "--reprobe")) == 2
        assert len(fake.bodies) == 2 * probes
    (record, _) = abilities.cache_dir().glob("*.json")
    assert json.loads(record.read_bytes())["schema"] is True
    assert found(edvac, "endpoint") == first, "away, but known"
    found(edvac, "endpoint", "--reprobe")
    away = found(edvac, "endpoint")[0]
    assert away["state"] == "note" and "does not answer" in away["found"]


def test_a_setting_that_is_wrong_is_a_finding(edvac: Bench, home: Path) -> None:
    edvac.write("edvac.toml", "modle = 5\n")
    done = edvac("doctor", "--json")
    assert done.code == 1, "the store is not damaged"
    assert [one for one in done.document["findings"] if one["name"] == "settings"]


RUINED = """update record set payload = x'00' where id & 0xffffffff = 5
            and id >> 32 = (select number from run where run.id = ?)"""


@pytest.mark.parametrize("harm", ["gone", "no store", "one record"])
def test_a_damaged_store_is_a_finding_among_the_others(edvac: Bench, home: Path, harm: str) -> None:
    for limit in ("1", "2"):
        assert edvac("run", "p.edv", "--yes", "--fresh", "--set", f"limit={limit}").code == 0
    store = edvac.root / ".edvac" / "store.db"
    bad, whole = [run["id"] for run in edvac("ps", "--json").document["runs"]]
    if harm == "gone":
        store.unlink()
    elif harm == "no store":
        store.write_bytes(b"this is no store at all" * 500)
    else:
        with sqlite3.connect(store) as db:
            db.execute(RUINED, (bad,))
        db.close()
    done = edvac("doctor", "--json")
    assert done.code == 6
    findings = {one["name"]: one for one in done.document["findings"]}
    assert {"processor", "memory", "workspace"} <= set(findings)
    assert findings["workspace"]["state"] == "bad"
    assert "Copy .edvac away first; see docs/how-to/recover.md." in findings["workspace"]["fix"]
    if harm == "one record":  # what docs/how-to/recover.md promises
        assert bad in findings["workspace"]["found"]
        assert edvac("ps").code == 0 and edvac("show", whole).code == 0
        assert edvac("apply", whole, "--output", "o").code == 0
        assert edvac("show", bad).code == 6


def test_files_in_every_cache(edvac: Bench, home: Path) -> None:
    digest = "ab" * 32
    models = home / ".ollama" / "models"
    manifest = models / "manifests" / "registry.ollama.ai" / "library" / "qwen2.5" / "7b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [{"mediaType": "other"}, layer]}))
    blob = gguf(models / "blobs" / f"sha256-{digest}")
    studio = gguf(home / ".lmstudio" / "models" / "pub" / "repo" / "m.gguf", "rwkv")
    blobs = home / ".cache" / "huggingface" / "hub" / "models--Org--Repo"
    real = gguf(blobs / "blobs" / "0123")
    snapshot = blobs / "snapshots" / "abc" / "q4" / "model.gguf"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(real)
    gguf(home / ".cache" / "llama.cpp" / "big-00001-of-00002.gguf")
    gguf(home / ".cache" / "llama.cpp" / "gemma.gguf", "gemma3")
    gguf(home / ".cache" / "llama.cpp" / "big-00002-of-00002.gguf")
    gguf(home / ".cache" / "llama.cpp" / "mmproj-x.gguf", "clip")
    files = {one["found"].split(",")[0]: one for one in found(edvac, "file")}
    assert set(files) == {
        "ollama: qwen2.5:7b",
        "LM Studio: pub/repo/m.gguf",
        "hub cache: Org/Repo/model.gguf",
        "llama.cpp: big-00001-of-00002.gguf",
        "llama.cpp: gemma.gguf",
    }
    assert files["ollama: qwen2.5:7b"]["paste"] == [f'model = "{blob}"']
    assert files["hub cache: Org/Repo/model.gguf"]["paste"] == [f'model = "{snapshot}"']
    for name in ("LM Studio: pub/repo/m.gguf", "llama.cpp: big-00001-of-00002.gguf"):
        assert files[name]["state"] == "note" and not files[name]["paste"]
    assert "rwkv" in files["LM Studio: pub/repo/m.gguf"]["found"]
    assert studio.exists()
    assert "by torch" in files["llama.cpp: gemma.gguf"]["fix"]
    assert files["llama.cpp: gemma.gguf"]["paste"] and not files["ollama: qwen2.5:7b"]["fix"]


def test_caches_that_are_broken_are_passed_over(edvac: Bench, home: Path) -> None:
    root = home / ".ollama" / "models"
    manifests = root / "manifests" / "h" / "s"
    for number, content in enumerate(
        [
            "",
            "[",
            "[]",
            "[" * 100_000,
            '{"layers": []}',
            '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": 5}]}',
            '{"layers": [{"mediaType": "application/vnd.ollama.image.model",'
            ' "digest": "sha256:../../../../etc/passwd"}]}',
        ]
    ):
        (manifests / f"m{number}").mkdir(parents=True)
        (manifests / f"m{number}" / "latest").write_text(content)
    cache = home / ".cache" / "llama.cpp"
    cache.mkdir(parents=True)
    (cache / "empty.gguf").write_bytes(b"")
    (cache / "other.gguf").write_bytes(b"no model" * 10)
    (cache / "claims.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**40, 2**40))
    long = struct.pack("<Q", 2**60)
    (cache / "long.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + long)
    (cache / "gone.gguf").symlink_to(cache / "nowhere")
    os.mkfifo(cache / "pipe.gguf")
    (cache / "directory.gguf").mkdir()
    assert found(edvac, "file") == []


def test_the_browser_is_there_or_how_to_get_it(edvac: Bench, home: Path) -> None:
    edvac.monkeypatch.setenv("PATH", str(home / "empty"))
    (without,) = found(edvac, "browser")
    assert without["state"] == "note" and "chromium" in without["fix"]
    programs = home / "programs"
    programs.mkdir(parents=True)
    (programs / "chromium").write_text("#!/bin/sh\n")
    (programs / "chromium").chmod(0o755)
    edvac.monkeypatch.setenv("PATH", str(programs))
    (here,) = found(edvac, "browser")
    assert str(programs) in here["found"] or "playwright" in here["found"]
