"""Compares how texts are cut into tokens with what other programs make of the same vocabulary.

Run by hand: ``python -m tests.engine.compare_tokenizers VOCABULARY.gguf [--texts N] [--seed N]``,
with ``--peer PYTHON`` for llama.cpp's server (of an environment that holds xllamacpp; the file
must be a whole model), or with ``--sentencepiece`` for Google's library, where sentencepiece and
protobuf are installed. None of them is a dependency of edvac. Texts are random mixtures of
scripts, blanks, digits, code and emoji. docs/benchmarks/tokenizers.md keeps what came of it.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edvac.bench import peers
from edvac.engine.gguf import open_gguf
from edvac.engine.tokenizer import from_gguf

Encode = Callable[[str], list[int]]
_WORDS = [
    "the",
    "invoice",
    "Straße",
    "naïve",
    "don't",
    "I'LL",
    "日本語",
    "これは",
    "안녕하세요",
    "привет",
]
_WORDS += ["def f(x):", "}\n\n", "```py\n", "https://a.b/c?d=1", "مرحبا", "नमस्ते", "สวัสดี", "ſ", "ﬀ"]
_WORDS += [
    "🎉",
    "👩‍👩‍👧",
    "é",
    "½",
    "٣٤",
    "Ⅷ",
    "\u00a0",
    "\u3000",
    "\ufeff",
    "\u200b",
    "<table>",
    "▁",
]


def texts(count: int, seed: int) -> Iterator[str]:
    """Mixtures of what tokenisers stumble over, the same for the same seed."""
    chance = random.Random(seed)

    def part() -> str:
        return chance.choice(
            [
                lambda: chance.choice(_WORDS),
                lambda: chance.choice(" \n\t\r") * chance.randint(1, 20),
                lambda: str(chance.randrange(10 ** chance.randint(1, 12))),
                lambda: "".join(chr(chance.randrange(32, 127)) for _ in range(8)),
                lambda: "".join(chr(_assigned(chance)) for _ in range(chance.randint(1, 5))),
                lambda: chance.choice("aA-=_ .,") * chance.randint(1, 40),
            ]
        )()

    for _ in range(count):
        yield "".join(part() + chance.choice(["", " "]) for _ in range(chance.randint(1, 25)))


def _assigned(chance: random.Random) -> int:
    """A code point that is no surrogate and not zero."""
    while True:
        found = chance.choice([0x2FF, 0xFFFF, 0x1FFFF, 0x10FFFF])
        point = chance.randrange(1, found)
        if not 0xD800 <= point < 0xE000:
            return point


@contextmanager
def server(python: str, model: Path) -> Iterator[Encode]:
    script = Path(peers.__file__).with_name("llamacpp_server.py")
    process = subprocess.Popen(
        [python, str(script), str(model), "1", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        address = next(line.strip() for line in process.stdout if line.startswith("http"))

        def encode(text: str) -> list[int]:
            body = json.dumps({"content": text, "add_special": False}).encode()
            wanted = urllib.request.Request(f"{address}/tokenize", body)
            with urllib.request.urlopen(wanted) as reply:
                found: list[int] = json.load(reply)["tokens"]
            return found

        yield encode
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def sentencepiece(path: Path) -> Iterator[Encode]:
    """Google's own processor over the pieces and scores of a GGUF vocabulary."""
    from sentencepiece import SentencePieceProcessor
    from sentencepiece import sentencepiece_model_pb2 as form

    meta = open_gguf(path).metadata
    model = form.ModelProto()
    columns = ("tokens", "scores", "token_type")
    for token, score, kind in zip(
        *(meta[f"tokenizer.ggml.{name}"] for name in columns), strict=True
    ):
        model.pieces.add(piece=token, score=score, type=kind)
    model.trainer_spec.model_type = form.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.add_dummy_prefix = meta.get("tokenizer.ggml.add_space_prefix", True)
    yield SentencePieceProcessor(model_proto=model.SerializeToString()).encode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vocabulary", type=Path)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peer", default="", help="python of an environment with xllamacpp")
    parser.add_argument("--sentencepiece", action="store_true")
    wanted = parser.parse_args()
    codec = from_gguf(open_gguf(wanted.vocabulary).metadata, wanted.vocabulary)
    peer = sentencepiece if wanted.sentencepiece else lambda path: server(wanted.peer, path)
    alike = tokens = 0
    with peer(wanted.vocabulary) as encode:
        for text in texts(wanted.texts, wanted.seed):
            ours, theirs = codec.encode(text, control=False), encode(text)
            tokens += len(ours)
            alike += ours == theirs
            if ours != theirs:
                at = next(
                    (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), -1
                )
                sys.stdout.write(f"{text!r}: from token {at}, {ours[at:]} and {theirs[at:]}\n")
    sys.stdout.write(f"texts alike {alike}/{wanted.texts}, {tokens} tokens\n")
    return 0 if alike == wanted.texts else 1


if __name__ == "__main__":
    sys.exit(main())
