"""Feeds broken model and adapter files to everything that reads them.

Run by hand: ``python -m tests.engine.fuzz [--cases N] [--seed N]`` (`make fuzz`). Small whole files
of every kind are written and then damaged, at random but the same for the same seed: bytes,
counts, metadata, vocabularies, configurations. A case is good if the file is refused with a
`ModelFileError`, or loads, and then encodes, compiles a grammar and answers or says why not. A
child does the work under a bound of memory and an alarm, so that a crash, a hang and a giant
allocation are seen and counted, each with the seed that makes it again. docs/benchmarks/fuzz.md
keeps what came of it.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

SPARE = 1 << 30  # bytes of address space beyond what the child has at its start
SECONDS = 20  # for one case
PLANTED = "EDVAC_FUZZ_PLANTED"
TEXT = "tell me <|user|> ab\n\n  of the 日本 hell </s> 12345 \x00 é"
NUMBERS = [0, 1, 2, 3, 7, 31, 255, 1 << 15, 1 << 24, 1 << 31, 1 << 40, 1 << 63, (1 << 64) - 1]
STRINGS = ["", "a", "gpt2", "llama", "qwen2", "tekken", "linear", "\x00", "é" * 50, "<|end|>", " a"]

Case = tuple[str, Path]


def write_sources(folder: Path) -> list[Case]:
    """A whole file of every kind, and what reads it."""
    from .families import FAMILIES
    from .lora import matrices, write_gguf, write_peft
    from .test_loader import write_safetensors
    from .test_sentencepiece import tiny_spm
    from .tiny import write_tiny

    found = [
        ("model", FAMILIES[name].write(folder / f"{name}.gguf"))
        for name in ("llama", "qwen3", "gemma2", "gemma3")
    ]
    found.append(("model", tiny_spm(folder / "spm.gguf")))
    for number, kinds in enumerate((("Q8_0", "Q4_0"), ("Q5_1", "IQ4_NL", "MXFP4", "F16"))):
        found.append(("model", write_tiny(folder / f"q{number}.gguf", kinds=kinds)))
    (folder / "hf").mkdir()
    found.append(("model", write_safetensors(folder / "hf", write_tiny(folder / "hf.gguf"))))
    found.append(("adapter", write_gguf(folder / "lora.gguf", matrices(1), "qwen2")))
    peft = write_peft(folder / "peft", matrices(1))
    found.append(("adapter", peft / "adapter_model.safetensors"))
    return found


# --- damage ------------------------------------------------------------------------------------


def damage_bytes(data: bytes, chance: random.Random) -> bytes:
    """Anywhere, but mostly near the beginning, where the structure is."""
    whole = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = int(len(whole) * chance.random() ** 4) if whole else 0
        match chance.randrange(7):
            case 0:
                whole[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                whole[at : at + 8] = struct.pack("<Q", chance.choice(NUMBERS))
            case 2:
                whole[at : at + 4] = struct.pack("<I", chance.choice(NUMBERS) & 0xFFFFFFFF)
            case 3:
                del whole[at : at + chance.choice([1, 4, 8, 100])]
            case 4:
                end = at + chance.choice([4, 8, 40])
                whole[at:at] = whole[at:end]
            case 5:
                whole[at : at + 4] = struct.pack("<f", chance.choice([float("nan"), 1e38, -0.0]))
            case 6:
                del whole[chance.randrange(len(whole) + 1) :]
    return bytes(whole)


def damage_gguf(data: bytes, chance: random.Random) -> bytes:
    """One key's value or one tensor's description, the file around it whole."""
    places = [at for at in _finds(data, b"tokenizer.") + _finds(data, b".") if at > 24]
    if not places or chance.random() < 0.3:
        return damage_bytes(data, chance)
    whole = bytearray(data)
    at = chance.choice(places) + chance.choice([0, 8, 12, 16, 20, 24, 28, 32])
    number = chance.choice(NUMBERS)
    form = chance.choice(["<I", "<Q", "<B"])
    size = struct.calcsize(form)
    whole[at : at + size] = struct.pack(form, number & ((1 << 8 * size) - 1))
    return bytes(whole)


def _finds(data: bytes, what: bytes) -> list[int]:
    found, at = [], data.find(what)
    while at >= 0 and len(found) < 400:
        found.append(at)
        at = data.find(what, at + 1)
    return found


def damage_json(data: bytes, chance: random.Random) -> bytes:
    """One value, somewhere in the tree, is another or gone."""
    document = json.loads(data)
    node: Any = document
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            return json.dumps(document).encode()
        key = chance.choice(list(keys))
        if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.8:
            node = node[key]
            continue
        if chance.random() < 0.2:
            del node[key]
        else:
            node[key] = chance.choice(
                [None, True, [], {}, -1, 0.5, 1e999, 2**70, *NUMBERS, *STRINGS, [[]], "x" * 9000]
            )
        return json.dumps(document).encode()


def damaged(case: Case, number: int, folder: Path) -> tuple[str, Path]:
    """A copy of a whole file and of what lies beside it, one of them broken."""
    kind, path = case
    chance = random.Random(number)
    files = [path] if path.suffix == ".gguf" else sorted(path.parent.iterdir())
    broken = chance.choice(files)
    for file in files:
        data = file.read_bytes()
        if file is broken:
            damage = damage_gguf
            if file.suffix == ".json":
                damage = chance.choice([damage_json, damage_json, damage_json, damage_bytes])
            elif file.suffix != ".gguf":
                damage = damage_bytes
            data = damage(data, chance)
        (folder / file.name).write_bytes(data)
    return kind, folder / path.name


# --- what reads it -----------------------------------------------------------------------------


def read_model(path: Path, reference: bool = True) -> str:
    """Load a file and answer once with it; the code of the error, or ``ran``."""
    import torch

    from edvac.core.seams import SystemClock
    from edvac.engine.engine import Engine, EngineOptions
    from edvac.engine.loader import LoadOptions, load
    from edvac.engine.protocol import Failed, Segment
    from edvac.engine.scheduler import Limits

    from .test_engine import SCHEMA_TEXT, ask

    options = LoadOptions(path, "c" * 64, path.parent, reference, lambda done, total: None)
    decoder, source = load(options)
    limits = Limits(
        slots=2, context=min(256, decoder.config.context), step_tokens=64, kv_tokens=512
    )

    engine = Engine(
        decoder, source.codec, EngineOptions(limits, True, torch.float32), SystemClock()
    )
    segments = [Segment("<|user|>", True), Segment(TEXT)]
    engine.submit(ask("a", segments=segments, max_tokens=4))
    engine.submit(ask("b", segments=segments, max_tokens=4, schema=SCHEMA_TEXT))
    messages = []
    while engine.busy:
        messages += engine.step()
    failed = [message.code for message in messages if isinstance(message, Failed)]
    return failed[0] if failed else "ran"


def read_one(kind: str, path: Path) -> str:
    """What came of a file: ``ran``, or the code with which it or a request was refused."""
    from edvac.core.errors import ConfigError, ModelFileError, OperandError
    from edvac.engine.adapters import read_adapter

    try:
        if kind == "model":
            return read_model(path)
        read_adapter(path, _base())
        return "ran"
    except (ModelFileError, OperandError) as error:
        return error.code
    except ConfigError as error:  # a grammar that such a vocabulary cannot spell
        if error.code not in ("grammar_invalid", "request_invalid"):
            raise
        return error.code


_bases: list[Any] = []


def _base() -> Any:
    from edvac.engine.weights import open_weights

    from .tiny import write_tiny

    if not _bases:
        with tempfile.TemporaryDirectory() as folder:
            _bases.append(open_weights(write_tiny(Path(folder) / "base.gguf")).config)
    return _bases[0]


def planted(number: int, kind: str, path: Path) -> str:
    """A reader with faults that the harness is there to see, to show that it does."""
    match number:
        case 0:
            return str(len(bytearray(4 * SPARE)))
        case 1:
            raise IndexError(number)
        case 3:
            while True:
                pass
    return read_one(kind, path)


# --- child and parent --------------------------------------------------------------------------


def child(first: int, count: int, folder: Path) -> None:
    """Read cases, one line of output before and one after each."""
    import torch

    torch.set_num_threads(1)
    faulthandler.enable()
    read = planted if PLANTED in os.environ else lambda number, *case: read_one(*case)
    seconds = 2 if PLANTED in os.environ else SECONDS
    sources = write_sources(folder)
    for kind, path in sources:
        assert read_one(kind, path) == "ran", f"{path} is whole"
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    bound = pages * resource.getpagesize() + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a hang in a library cannot be interrupted
    for number in range(first, first + count):
        sys.stdout.write(f"{number} ")
        sys.stdout.flush()
        signal.alarm(seconds)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            kind, path = damaged(sources[number % len(sources)], number, Path(place))
            try:
                said = read(number, kind, path)
            except BaseException as error:
                said = "FAULT"
                traceback.print_exception(error)
        signal.alarm(0)
        sys.stdout.write(f"{said}\n")
    sys.stdout.flush()


def run(first: int, count: int) -> tuple[Counter[str], list[str]]:
    """What came of so many cases, and which of them were faults."""
    found: Counter[str] = Counter()
    faults: list[str] = []
    at, end = first, first + count
    while at < end:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.engine.fuzz", "--child", str(at), str(end - at)]
            done = subprocess.run(
                [*command, folder], capture_output=True, text=True, check=False, env=_environment()
            )
        lines = [line.split() for line in done.stdout.splitlines()]
        whole = [line for line in lines if len(line) == 2]
        found.update(said for _, said in whole)
        faults += [f"case {number}" for number, said in whole if said == "FAULT"]
        if any(said == "FAULT" for _, said in whole):
            sys.stderr.write(done.stderr[-6000:])
        at += len(whole)
        if done.returncode and len(lines) == len(whole):
            raise RuntimeError(f"the child could not begin:\n{done.stderr[-4000:]}")
        if done.returncode:
            name = signal.Signals(-done.returncode).name if done.returncode < 0 else "exit"
            faults.append(f"case {at} ended the process ({name})")
            found[name] += 1
            sys.stderr.write(done.stderr[-3000:])
            at += 1
    return found, faults


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    wanted = parser.parse_args()
    found, faults = run(wanted.seed, wanted.cases)
    for said, times in found.most_common():
        sys.stdout.write(f"{times:7} {said}\n")
    for fault in faults:
        sys.stdout.write(f"fault: {fault} (--seed, --cases 1)\n")
    sys.stdout.write(f"{wanted.cases} cases, {len(faults)} faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
