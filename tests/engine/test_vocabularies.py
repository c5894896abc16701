"""Our tokens are llama.cpp's on the texts that it publishes with its vocabularies.

``EDVAC_LLAMACPP_VOCABS`` names a directory with its ``ggml-vocab-*.gguf`` and the ``.inp`` and
``.out`` files beside them (`models/` of its sources, which the sdist of llama_cpp_python holds).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edvac.engine.gguf import open_gguf
from edvac.engine.tokenizer import from_gguf

SETTING = "EDVAC_LLAMACPP_VOCABS"
PAIRS = (
    *("command-r", "deepseek-coder", "deepseek-llm", "falcon", "gpt-2", "llama-bpe", "llama-spm"),
    *("mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder"),
)


@pytest.mark.parametrize("name", PAIRS)
def test_tokens_are_those_that_llama_cpp_publishes(name: str) -> None:
    folder = os.environ.get(SETTING)
    if not folder:
        pytest.skip(f"{SETTING} names no directory of llama.cpp's vocabularies")
    path = Path(folder) / f"ggml-vocab-{name}.gguf"
    wanted = [
        [int(token) for token in line.split()]
        for line in path.with_suffix(".gguf.out").read_text(encoding="ascii").splitlines()
    ]
    whole = path.with_suffix(".gguf.inp").read_bytes().decode("utf-8")
    texts = whole.split("\n__ggml_vocab_test__\n")[: len(wanted)]
    codec = from_gguf(open_gguf(path).metadata, path)
    assert len(texts) == len(wanted) > 40
    for text, tokens in zip(texts, wanted, strict=True):
        assert codec.encode(text, control=False) == tokens, repr(text)
