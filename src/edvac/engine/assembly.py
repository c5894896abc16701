"""Puts an engine together from a model file and a memory budget.

The one place that knows loader, engine and machine at once; everything below gets what it needs
handed to it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, TypeAlias

import torch

from edvac.core.errors import ConfigError
from edvac.core.seams import SystemClock
from edvac.engine._native import HEAD_STEP, kernels
from edvac.engine.attention import CPU
from edvac.engine.config import ModelConfig
from edvac.engine.digest import file_digest
from edvac.engine.draft import same_vocabulary
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.kv.codecs import F16, KVType, kv_type_named
from edvac.engine.kv.disk import SAME, BlockCodec, KeyBiases, disk_type_named
from edvac.engine.kv.kept import KeptPrefixes
from edvac.engine.kv.pages import block_bytes, block_shape, can_map, token_bytes
from edvac.engine.kv.spill import Keeping, SpillFile
from edvac.engine.loader import LoadOptions, key_biases, load
from edvac.engine.model import Decoder
from edvac.engine.protocol import VERSION, Ready, Setting
from edvac.engine.scheduler import Limits
from edvac.engine.tokenizer import TextCodec
from edvac.engine.weights import WeightSource

_log = logging.getLogger("edvac.engine")
_KV_SHARE: Final = 4  # KV memory is at most this fraction (1/n) of what the machine has
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1  # names of mallopt's knobs in malloc.h
_KV_MOST: Final = 4 << 30
_SPILL_MOST: Final = 4 << 30
_SPILL_SHARE: Final = 4  # of what is free on the disk (1/n)
KvDisk: TypeAlias = Literal["keep", "session", "none"]  # beyond the engine's end, until it, never
_PARKED_SHARE: Final = 3  # and this fraction of it holds finished prefixes


@dataclass(frozen=True, slots=True)
class Assembly:
    """What to assemble; zero bytes of KV mean a quarter of the machine's memory, 4 GiB at most.

    Attributes:
        draft: a smaller model of the same vocabulary, which guesses.
        handover: a directory through which engines give each other the prompts they have read.
    """

    model: Path
    cache: Path
    setting: Setting
    threads: int
    context: int
    kv_bytes: int
    slots: int
    step_tokens: int
    speculate: bool = True
    kv_disk: KvDisk = "keep"
    handover: Path | None = None
    draft: Path | None = None
    retention: str = "told"
    kv_type: str = F16.name
    kv_disk_type: str = SAME
    adapters: tuple[tuple[str, Path], ...] = ()


def assemble(
    wanted: Assembly,
    on_progress: Callable[[int, int], None],
    save: Callable[[Callable[[], None]], None],
) -> tuple[Engine, Ready]:
    """A loaded engine and what it says of itself."""
    keep_freed_memory()
    torch.set_num_threads(wanted.threads)
    torch.set_grad_enabled(False)
    reference = wanted.setting == "reference"
    digest = file_digest(wanted.model)
    device = CPU if reference else fastest_device()
    lossy = not kv_type_named(wanted.kv_type, 1).exact
    options = LoadOptions(
        *(wanted.model, digest, wanted.cache, reference, on_progress),
        device=device,
        split_key_bias=lossy,
    )
    decoder, source = load(options)
    native = None if reference else attending_kernels(device, source.config, wanted.context)
    biased = any(layer.key_bias is not None for layer in decoder.layers)
    kv = kv_type_named(wanted.kv_type, source.config.head_dim, biased=biased)
    if native is None and lossy:
        raise _without_kernels(wanted)
    dtype = torch.float32 if reference else kv_dtype(device, native is not None)
    kv_bytes = wanted.kv_bytes or min(_KV_MOST, machine_bytes() // _KV_SHARE)
    if native is None:
        limits = _limits_of_rows(wanted, source.config, kv_bytes, dtype, device)
    else:  # running and finished sequences share one pool
        rows = max(kv_bytes // 2, kv_bytes - wanted.slots * block_bytes(source.config, kv))
        limits = _limits(wanted, source.config, rows, token_bytes(source.config, kv))
    layout = "rows" if native is None else f"blocks {kv}"
    identity = f"{digest} {wanted.setting} {dtype} {device.type} {layout}"
    codec = _disk_codec(wanted, source, decoder, native)
    spill = None if native is None else open_spill(wanted, source.config, identity, kv, codec)
    engine = Engine(
        decoder,
        source.codec,
        EngineOptions(
            limits,
            reference,
            dtype,
            kv_bytes // _PARKED_SHARE,
            device,
            native,
            kv,
            spill,
            speculate=wanted.speculate,
            retention=wanted.retention,
            draft=_draft(wanted, source, native),
        ),
        SystemClock(),
        _kept(wanted, identity),
        save=save,
    )
    for name, path in wanted.adapters:
        engine.adapters.load(name, path)
    return engine, _ready(source, wanted, digest, limits.context)


def _limits_of_rows(
    wanted: Assembly, config: ModelConfig, kv_bytes: int, dtype: torch.dtype, device: torch.device
) -> Limits:
    """Where rows and what is left of finished ones have memory of their own."""
    rows = kv_bytes - kv_bytes // _PARKED_SHARE
    if device != CPU:
        rows = max(rows, torch.cuda.mem_get_info(device)[0] // 2)
    token = token_bytes(config, F16) // F16.dtype.itemsize * dtype.itemsize
    limits = _limits(wanted, config, rows, token)
    return limits if device == CPU else held_from_the_start(limits)


def _draft(wanted: Assembly, source: WeightSource, native: ModuleType | None) -> Decoder | None:
    """The model that guesses.

    Raises:
        ConfigError: it cannot guess for this one, or not on this machine.
    """
    if wanted.draft is None:
        return None
    if native is None:
        raise ConfigError(
            "draft_unusable",
            "a draft model needs the compiled kernels and the fast setting",
            "",
            "Leave draft_model empty.",
        )
    digest = file_digest(wanted.draft)
    options = LoadOptions(wanted.draft, digest, wanted.cache, False, lambda done, total: None)
    decoder, small = load(options)
    if not same_vocabulary(source.codec.pieces, small.codec.pieces):
        raise ConfigError(
            "draft_unlike",
            f"{small.name} has another vocabulary than {source.name}",
            "A draft model guesses in the tokens of the model that it guesses for.",
            "Choose a smaller model of the same family.",
        )
    return decoder


def _kept(wanted: Assembly, identity: str) -> KeptPrefixes | None:
    """Where prefixes lie that other engines read too."""
    if wanted.handover is not None:
        return KeptPrefixes(wanted.handover, identity)
    return KeptPrefixes(wanted.cache, identity) if wanted.kv_disk == "keep" else None


def _disk_codec(
    wanted: Assembly, source: WeightSource, decoder: Decoder, native: ModuleType | None
) -> BlockCodec | None:
    codec = disk_codec(wanted.kv_disk_type, source, decoder)
    if codec is not None and (native is None or wanted.kv_type != F16.name):
        raise _disk_type_unsupported(wanted)
    return codec


def disk_codec(name: str, source: WeightSource, decoder: Decoder) -> BlockCodec | None:
    """How this model's blocks are stored on disk; None as they are.

    Raises:
        ConfigError: there is no such type.
    """
    config = source.config
    kv = disk_type_named(name, config.head_dim)
    if kv is None:
        return None
    found = key_biases(source)
    biases = None
    if any(one is not None for one in found):
        none = torch.zeros(config.kv_heads * config.head_dim)
        layers = torch.stack([none if one is None else one.float() for one in found])
        heads = layers.view(config.layers, config.kv_heads, config.head_dim)
        biases = KeyBiases(heads, decoder.frequencies)
    return BlockCodec(kv, config.head_dim, biases)


def open_spill(
    wanted: Assembly,
    config: ModelConfig,
    identity: str,
    kv: KVType = F16,
    codec: BlockCodec | None = None,
) -> SpillFile | None:
    """Where keys and values go when memory for them is full; None where that is not wanted, the
    disk has no room for them, or its file system no files without a name."""
    if wanted.kv_disk == "none":
        return None
    directory = wanted.cache
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        budget = min(_SPILL_MOST, shutil.disk_usage(directory).free // _SPILL_SHARE)
        stored = identity if codec is None else f"{identity} on disk {codec.name}"
        kept = Keeping(stored, SystemClock().wall()) if wanted.kv_disk == "keep" else None
        return SpillFile(directory, block_shape(config, kv), budget, kv.dtype, kept, codec=codec)
    except OSError as error:
        _log.warning("no room for keys and values in %s (%s)", directory, error.strerror)
        return None


def _without_kernels(wanted: Assembly) -> ConfigError:
    why = "The reference setting stores float32." if wanted.setting == "reference" else ""
    return ConfigError(
        "kv_type_unsupported",
        f"keys and values cannot be stored as {wanted.kv_type} here",
        why or "It needs the compiled kernels (edvac-native), for a model whose heads they take.",
        'Say kv_type = "f16", or install the kernels (`make native`).',
    )


def _disk_type_unsupported(wanted: Assembly) -> ConfigError:
    why = "It needs the compiled kernels (edvac-native), for a model whose heads they take."
    fix = 'Say kv_disk_type = "same", or install the kernels (`make native`).'
    if wanted.setting == "reference":
        why = "The reference setting is exact."
        fix = 'Say kv_disk_type = "same", or precision = "fast".'
    elif wanted.kv_type != F16.name:
        why = f"In memory they are {wanted.kv_type} already, and go to disk as that."
        fix = 'Say kv_disk_type = "same", or kv_type = "f16".'
    what = f"keys and values cannot lie on disk as {wanted.kv_disk_type} here"
    return ConfigError("kv_disk_type_unsupported", what, why, fix)


def _limits(wanted: Assembly, config: ModelConfig, kv_bytes: int, token: int) -> Limits:
    tokens = kv_bytes // token
    if tokens < 64:
        raise ConfigError(
            "kv_too_small",
            "the memory for keys and values is too small",
            f"It holds {tokens} tokens of this model.",
            f"Allow at least {token * 2048 >> 20} MiB.",
        )
    context = min(wanted.context, config.context)
    return Limits(wanted.slots, context, wanted.step_tokens, tokens)


def held_from_the_start(limits: Limits) -> Limits:
    """The same for a device where every row holds its memory whether it is written or not."""
    context = min(limits.context, limits.kv_tokens)
    slots = max(1, min(limits.slots, limits.kv_tokens // context))
    return replace(limits, context=context, slots=slots)


def _ready(source: WeightSource, wanted: Assembly, digest: str, context: int) -> Ready:
    return Ready(
        version=VERSION,
        model=source.name,
        sha256=digest,
        architecture=source.config.architecture,
        context_length=context,
        chat_template=source.template,
        special_tokens=special_names(source.codec),
        control_tokens=sorted(source.codec.control),
        setting=wanted.setting,
        pid=os.getpid(),
        threads=wanted.threads,
    )


def special_names(codec: TextCodec) -> dict[str, str]:
    """The spelling of the tokens that chat templates refer to."""
    names = {index: name for name, index in codec.control.items()}
    roles = {"bos_token": codec.specials.bos, "eos_token": codec.specials.eos}
    found = {role: names[at] for role, at in roles.items() if at is not None and at in names}
    return found | {f"end_{index}": names[index] for index in codec.specials.ends if index in names}


def keep_freed_memory() -> None:
    """Stop the C library from giving activations back to the kernel between two layers.

    Faulting the same pages in again costs more than the arithmetic on them. One heap, never
    trimmed, nothing mapped apart; a C library without these knobs is left as it is.
    """
    if not sys.platform.startswith("linux"):
        return
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        for knob, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
            tune(knob, value)


def fastest_device() -> torch.device:
    """The GPU where torch finds one, else the processor."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else CPU


def attending_kernels(device: torch.device, config: ModelConfig, context: int) -> ModuleType | None:
    """The compiled kernels, where they can attend in this model and sequences of this length."""
    plainly = config.attends_plainly(min(context, config.context))
    can = device == CPU and config.head_dim % HEAD_STEP == 0 and plainly and can_map()
    if not plainly:
        _log.warning("%s attends in ways of its own; torch computes them", config.architecture)
    return kernels() if can else None


def kv_dtype(device: torch.device = CPU, kernels: bool = False) -> torch.dtype:
    """Half precision where the device or the kernels take it, else float32.

    Not bfloat16: Qwen2's keys carry biases of several hundred, and eight bits of mantissa lose
    what is beside them.
    """
    if device != CPU or kernels:
        return torch.float16
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return torch.float32
    return torch.float16 if "avx512_fp16" in flags or "asimdhp" in flags else torch.float32


def machine_bytes() -> int:
    """Memory of the machine, or of the control group where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(text)) if text.isdigit() else total
