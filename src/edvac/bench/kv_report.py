"""Runs the measurements of stored keys and values, and lays their figures out as tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from edvac.bench import kv_peer, kv_speed, report
from edvac.bench.kv import TOP, Arm, Reader, Score, Text, arms, score, texts
from edvac.bench.report import Document, Figure
from edvac.engine.kv.codecs import KV_TYPES

_SHOWN = "as engines run it"
_PEER_OF = {f"int8 {_SHOWN}": "q8_0", f"int4 {_SHOWN}": "q4_0"}
_METRICS = (  # name, unit, better
    ("divergence", "nats", "lower"),
    ("truncated divergence", "nats", "lower"),
    ("agreement", "share", "higher"),
    ("perplexity", "", "lower"),
    ("memory", "bytes a token", "lower"),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be measured of one model.

    Attributes:
        data: where wikitext-2 lies.
        window, windows: tokens of a window, and how many of each text.
        python: of an environment that holds xllamacpp.
        lengths: of context, where time is measured too.
    """

    model: Path
    cache: Path
    data: Path
    threads: int
    window: int = 512
    windows: int = 2
    python: str | None = None
    lengths: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self.model.name.partition("-q4")[0].partition(".Q4")[0]


def measure(document: Document, wanted: Wanted, say: Callable[[str], None]) -> None:
    """Add the figures of one model; `say` is told what is done."""
    torch.set_num_threads(wanted.threads)
    if wanted.windows:
        _quality(document, wanted, say)
    for name in KV_TYPES if wanted.lengths else ():
        reader, kv = kv_speed.reader_of(wanted.model, wanted.cache, name)
        for speed in kv_speed.speeds(reader, kv, wanted.lengths):
            at = f"{wanted.name} | {name} | {speed.length} tokens"
            document.figures += [
                Figure(f"{at} | prompt", speed.prompt, "ms/token", "lower"),
                Figure(f"{at} | answer", speed.answer, "ms/token", "lower"),
            ]
        held = kv_speed.per_gigabyte(reader, kv)
        document.figures.append(
            Figure(f"{wanted.name} | {name} | held", held, "tokens/GiB", "higher")
        )
        say(f"{wanted.name}: time of {name}")


def _quality(document: Document, wanted: Wanted, say: Callable[[str], None]) -> None:
    """Every arm on every text; weights and activations are float32, so that nothing but what is
    stored makes a difference."""
    reader = Reader(wanted.model, wanted.cache, plain=torch.float32)
    tried = arms(reader.source, reader.native is not None)
    read = list(texts(reader.source, wanted.data, wanted.window, wanted.windows))
    if len(read) < 2:
        document.notes.append(f"{wanted.name}: no wikitext-2 in {wanted.data}: code alone was read")
    theirs: dict[str, dict[str, Score]] = {}
    found = {text.name: score(reader, tried, text, say) for text in read}
    config = reader.decoder.config
    numbers = 2 * config.layers * config.kv_heads * config.head_dim
    del reader
    _rounding(document, wanted, tried[:2], read)
    if wanted.python is not None:
        peer = kv_peer.Peer(wanted.python, wanted.model, wanted.threads)
        for text in read:
            theirs[text.name] = asyncio.run(_asked(peer, text, say))
    for text in read:
        about = f"{wanted.name} | {text.name}"
        ours = theirs.get(text.name, {})
        for arm in tried:
            size = arm.token_bytes(config)
            _figures(document, f"{about} | {arm.name}", found[text.name][arm.name], size)
            _beside(document, f"{about} | {arm.name}", arm, found[text.name], ours)
        for kind, one in ours.items():
            size = int(numbers * kv_peer.BITS[kind] / 8)
            _figures(document, f"{about} | llama.cpp {kind}", one, size)


def _rounding(document: Document, wanted: Wanted, tried: list[Arm], read: list[Text]) -> None:
    """What an engine's 8-bit products make of the difference between float16 and float32: they
    round activations, so the smallest one moves some to another code."""
    reader = Reader(wanted.model, wanted.cache)
    for text in read:
        other = score(reader, tried, text, lambda _: None)[tried[1].name]
        about = f"{wanted.name} | {text.name} | {tried[1].name}, 8-bit products"
        _figures(document, about, other, tried[1].token_bytes(reader.decoder.config))


async def _asked(peer: kv_peer.Peer, text: Text, say: Callable[[str], None]) -> dict[str, Score]:
    found = {kind: Score() for kind in kv_peer.TYPES}
    for window in text.windows:
        reference = await peer.predictions(kv_peer.TYPES[0], window)
        for kind in kv_peer.TYPES:
            same = kind == kv_peer.TYPES[0]
            other = reference if same else await peer.predictions(kind, window)
            kv_peer.compare(reference, other, window, found[kind])
            say(f"{text.name}: llama.cpp {kind}")
    return found


def _figures(document: Document, about: str, one: Score, size: int) -> None:
    values = {
        "divergence": one.mean,
        "truncated divergence": one.mean_truncated,
        "agreement": one.agreement,
        "perplexity": one.perplexity,
        "memory": float(size),
    }
    for metric, unit, better in _METRICS:
        value = values[metric]
        if value is not None:
            document.figures.append(Figure(f"{about} | {metric}", value, unit, better))


def _beside(
    document: Document, about: str, arm: Arm, ours: dict[str, Score], theirs: dict[str, Score]
) -> None:
    kind = _PEER_OF.get(arm.name)
    if kind is None or kind not in theirs:
        return
    value, other = ours[arm.name].mean_truncated, theirs[kind].mean_truncated
    document.figures.append(
        Figure(
            f"{about} | beside",
            *(value, "nats", "lower"),
            target=other,
            peer=f"llama.cpp {kind}",
            peer_value=other,
        )
    )


def lines(document: Document) -> list[str]:
    """The document as Markdown: a table for each model and text, and one of times."""
    found = [*report.table(document)[:5], "", *_METHOD]
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for figure in document.figures:
        *at, metric = figure.id.split(" | ")
        rows.setdefault(tuple(at), {})[metric] = figure.value
    tables: dict[str, list[str]] = {}
    for (model, *more), values in rows.items():
        if "agreement" in values:
            text, arm = more
            shown = (_shown(values.get(metric), form) for metric, form in _FORMS)
            tables.setdefault(f"{model}, {text}", []).append(_row(arm, *shown))
    for head, table in tables.items():
        found += ["", f"## {head}", "", _row("keys and values", *_HEADS), "|---|" + "---:|" * 5]
        found += table
    found += _times(rows)
    return [*found, "", *(f"* {note}" for note in document.notes)]


_METHOD = (
    "Every arm of a model reads the same windows with the same weights, and is compared with",
    "float16 keys and values: KL(f16 || arm) in nats a token, the share of tokens whose most",
    "likely successor is the same, and perplexity. Weights and activations of edvac's arms are",
    "float32, so that nothing but what is stored makes a difference. As engines compute, with",
    "8-bit products, any difference moves some activations to another code: what float32 keys and",
    "values differ by from float16 ones then is in the row *8-bit products*. llama.cpp computes as",
    "its server does, with 8-bit activations too, and is compared with its own float16; it names",
    f"its 1,000 most likely tokens, so KL over {TOP} and the rest as one is given for all, and",
    "a token beyond the thousand counts as likely as the last, which lowers its perplexity.",
    "*Bias apart*: keys are stored without the model's bias. *Hadamard n*: keys in 4 bits behind",
    "matrices of this order, values in 4 bits as they are.",
)
_HEADS = ("bytes a token", "KL", f"KL of {TOP} and rest", "same token", "perplexity")
_FORMS = (
    ("memory", "{:,.0f}"),
    ("divergence", "{:.5f}"),
    ("truncated divergence", "{:.5f}"),
    ("agreement", "{:.1%}"),
    ("perplexity", "{:,.4g}"),
)


def _times(rows: dict[tuple[str, ...], dict[str, float]]) -> list[str]:
    found: list[str] = []
    for (model, name, *more), values in rows.items():
        if "answer" in values:
            held = rows.get((model, name), {}).get("held")
            times = (f"{values['prompt']:.2f}", f"{values['answer']:.1f}")
            found.append(_row(model, name, _shown(held, "{:,.0f}"), *more, *times))
    heads = ("model", "type", "tokens a GiB", "context", "prompt ms/token", "answer ms/token")
    return (
        ["", "## Time", "", _row(*heads), "|---|---|---:|---|---:|---:|", *found] if found else []
    )


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
