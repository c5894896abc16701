"""GGUF files that other programs keep on this machine: ollama, LM Studio, the hub, llama.cpp.

Only looks: nothing is copied, loaded or changed. What a manifest says is not believed further than
the file of a digest inside its own directory.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edvac.core.errors import ModelFileError
from edvac.engine.catalogue import ARCHITECTURES
from edvac.engine.gguf import read_architecture

MOST = 200  # files looked at in one cache
MAX_MANIFEST = 256 * 1024  # bytes
_MODEL_LAYER = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True, slots=True)
class Kept:
    """A model file in another program's cache.

    Attributes:
        keeper: the program.
        name: what that program calls the model.
        size: bytes.
    """

    keeper: str
    name: str
    path: Path
    size: int
    architecture: str

    @property
    def runs_here(self) -> bool:
        """Does the embedded engine compute this architecture, from this one file?"""
        return self.architecture in ARCHITECTURES and _PART.search(self.path.name) is None


def find_kept() -> list[Kept]:
    """Every model file found, by program and name."""
    found: dict[Path, Kept] = {}
    for keeper, candidates in (
        ("ollama", _ollama()),
        ("LM Studio", _lmstudio()),
        ("hub cache", _hub()),
        ("llama.cpp", _llamacpp()),
    ):
        for number, (name, path) in enumerate(candidates):
            if number >= MOST:
                break
            kept = _look(keeper, name, path)
            if kept is not None:
                found.setdefault(path.resolve(), kept)
    return sorted(found.values(), key=lambda kept: (kept.keeper, kept.name))


def _look(keeper: str, name: str, path: Path) -> Kept | None:
    part = _PART.search(path.name)
    if (part is not None and part.group(1) != "00001") or "mmproj" in path.name:
        return None
    try:
        size = path.stat().st_size
        architecture = read_architecture(path)
    except (OSError, ModelFileError):
        return None
    return Kept(keeper, name, path, size, architecture)


def _ollama() -> Iterator[tuple[str, Path]]:
    """Names come from the manifests, which name the blob of the weights by its digest."""
    chosen = os.environ.get("OLLAMA_MODELS")
    roots = [Path(chosen)] if chosen else []
    roots += [Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]
    for root in roots:
        for manifest in _files(root / "manifests", "*/*/*/*"):
            digest = _model_digest(manifest)
            if digest:
                _, space, name, tag = manifest.relative_to(root / "manifests").parts
                shown = name if space == "library" else f"{space}/{name}"
                yield f"{shown}:{tag}", root / "blobs" / f"sha256-{digest}"


def _model_digest(manifest: Path) -> str:
    try:
        with manifest.open("rb") as file:
            found = json.loads(file.read(MAX_MANIFEST))
        layers = [layer for layer in found["layers"] if layer["mediaType"] == _MODEL_LAYER]
        digest = _DIGEST.fullmatch(layers[0]["digest"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    return digest.group(1) if digest is not None else ""


def _lmstudio() -> Iterator[tuple[str, Path]]:
    for root in (Path.home() / ".lmstudio" / "models", Path.home() / ".cache/lm-studio/models"):
        for path in _files(root, "*/*/*.gguf"):
            yield str(path.relative_to(root)), path


def _hub() -> Iterator[tuple[str, Path]]:
    home = os.environ.get("HF_HOME")
    place = Path(home) if home else Path.home() / ".cache" / "huggingface"
    chosen = os.environ.get("HF_HUB_CACHE")
    root = Path(chosen) if chosen else place / "hub"
    for path in _files(root, "models--*/snapshots/*/**/*.gguf"):
        repository = path.relative_to(root).parts[0].removeprefix("models--").replace("--", "/")
        yield f"{repository}/{path.name}", path


def _llamacpp() -> Iterator[tuple[str, Path]]:
    chosen = os.environ.get("LLAMA_CACHE")
    root = Path(chosen) if chosen else Path.home() / ".cache" / "llama.cpp"
    for path in _files(root, "*.gguf"):
        yield path.name, path


def _files(root: Path, pattern: str) -> Iterator[Path]:
    try:
        for path in sorted(root.glob(pattern)):
            if path.is_file():
                yield path
    except OSError:
        return
