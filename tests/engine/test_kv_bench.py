"""How far predictions differ is measured right, and arms differ by what they store alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.bench import kv, kv_peer, kv_report, report
from edvac.bench.kv import Emulated, Reader, Score, arms, compare, texts, truncated
from edvac.engine.kv.codecs import Cast

from .tiny import write_tiny


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(33, 90))
def test_scores_are_the_textbook_s(seed: int, vocabulary: int) -> None:
    true, other = noise(seed, 70, vocabulary).double(), noise(seed + 1, 70, vocabulary).double()
    window = [(seed + 7 * at) % vocabulary for at in range(70)]
    score = Score()
    compare(true, other, window, score)
    first, second = true.log_softmax(-1), other.log_softmax(-1)
    wanted = (first.exp() * (first - second)).sum(-1)
    assert score.divergence == pytest.approx(wanted.tolist(), rel=1e-4, abs=1e-5)
    assert all(
        less <= whole + 1e-5 for less, whole in zip(score.truncated, score.divergence, strict=True)
    ), "fewer outcomes tell less"
    assert score.agreed == (true.argmax(-1) == other.argmax(-1)).tolist()
    following = second[torch.arange(69), torch.tensor(window[1:])]
    assert score.perplexity == pytest.approx(float((-following).mean().exp()), rel=1e-4)
    every = truncated(first, second)
    torch.testing.assert_close(every, wanted, rtol=1e-3, atol=1e-4)


def test_what_a_server_tells_gives_the_same_truncated_score() -> None:
    true, other = noise(1, 9, 50), noise(2, 9, 50)
    window = list(range(9))
    ours, theirs = Score(), Score()
    compare(true, other, window, ours)
    told = [
        [dict(enumerate(row)) for row in logits.log_softmax(-1).tolist()]
        for logits in (true, other)
    ]
    kv_peer.compare(told[0], told[1], window, theirs)
    assert theirs.truncated == pytest.approx(ours.truncated, rel=1e-3, abs=1e-6)
    assert theirs.agreed == ours.agreed
    assert theirs.perplexity == pytest.approx(ours.perplexity, rel=1e-4)
    assert theirs.mean is None
    for one in told[1]:  # of the least likely ones the server says nothing
        for token in sorted(one, key=lambda token: one[token])[:20]:
            del one[token]
    flattered = Score()
    kv_peer.compare(told[0], told[1], window, flattered)
    assert flattered.perplexity <= theirs.perplexity


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_arms_differ_by_what_they_store(tmp_path: Path, architecture: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture)
    reader = Reader(path, tmp_path, plain=torch.float32)
    tried = {arm.name: arm for arm in arms(reader.source, reader.native is not None)}
    (text,) = texts(reader.source, tmp_path, 96, 1)
    found = kv.score(reader, list(tried.values()), text, lambda _: None)
    names = [name for name in tried if name.startswith("int8")]
    best, worst = found[names[-1]].mean, found["int4"].mean
    assert found["f16"].mean == 0
    assert best is not None and worst is not None
    assert 0 < best < worst
    if reader.native is not None:
        for name in ("int8", "k8v4", "int4"):
            run = found[f"{name} as engines run it"].mean
            plain = next(one for at, one in found.items() if at.startswith(name)).mean
            assert run is not None and plain is not None
            assert run < 1.5 * plain + 1e-4
    exact = Emulated(reader.decoder, kv.plain("float32", Cast(torch.float32)), 96)
    assert len(exact.positions) == 96


def test_a_page_has_a_table_for_each_text() -> None:
    document = report.start("kv", "edvac bench kv")
    score = Score([0.25], [0.125], [True], [0.0])
    for text in ("code", "prose"):
        for arm in ("f16", "int4"):
            kv_report._figures(document, f"m | {text} | {arm}", score, 1234)
    for what, value in (("prompt", 1.25), ("answer", 9.0)):
        at = f"m | int4 | 64 tokens | {what}"
        document.figures.append(report.Figure(at, value, "ms/token", "lower"))
    document.figures.append(report.Figure("m | int4 | held", 4321, "tokens/GiB", "higher"))
    lines = kv_report.lines(document)
    assert lines.count("## m, code") == lines.count("## m, prose") == 1
    assert lines.count("| int4 | 1,234 | 0.25000 | 0.12500 | 100.0% | 1 |") == 2
    assert "| m | int4 | 4,321 | 64 tokens | 1.25 | 9.0 |" in lines
