"""Adapters: what they add is what merged weights would compute, whoever else is in the step, and no
key or value made under one is read under another."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from edvac.core.errors import ConfigError, ModelFileError
from edvac.core.seams import SystemClock
from edvac.engine._native import kernels
from edvac.engine.adapters import Adapted, Adapter, Adapters, Delta, adapt, read_adapter
from edvac.engine.assembly import attending_kernels
from edvac.engine.attention import CPU, Arena, Span, TensorPlan
from edvac.engine.catalogue import resolve
from edvac.engine.client import EngineSpec, connect_or_start
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.kv.kept import KeptPrefixes
from edvac.engine.linear import Norm, Rows
from edvac.engine.loader import LoadOptions, load
from edvac.engine.model import Decoder
from edvac.engine.protocol import Done, FromEngine, Generate, Segment
from edvac.engine.weights import WeightSource
from edvac.processor import Message, Request
from edvac.processor import Segment as Part
from edvac.processor.embedded import EmbeddedProcessor

from .families import FAMILIES, TOKENS
from .lora import RANK, matrices, merged, turned, write_gguf, write_peft
from .prompts import rendered
from .test_engine import LIMITS, PROMPTS, ask, drain
from .test_process import engine as running
from .test_process import spec  # noqa: F401 (a fixture)
from .tiny import metadata, tensors, write_model, write_tiny

Loaded = tuple[Decoder, WeightSource]
Make = Callable[..., Engine]


def opened(path: Path, reference: bool = True) -> Loaded:
    return load(LoadOptions(path, "b" * 64, path.parent, reference, lambda done, total: None))


def logits(found: Decoder, adapted: list[Adapted], picked: list[int]) -> torch.Tensor:
    arena = Arena(found.config, 1, 64, torch.float32)
    plan = TensorPlan([Span(0, 0, len(TOKENS))], arena, found.config, True)
    with torch.inference_mode():
        return found.forward(TOKENS, plan, picked, adapted)


@pytest.mark.parametrize("form", ["gguf", "peft"])
@pytest.mark.parametrize("name", ["qwen2", "llama", "qwen3, wide heads", "gemma3"])
def test_an_adapter_adds_what_merged_weights_compute(name: str, form: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    found = matrices(5, family.head_dim)
    wide = dict(found)
    if family.architecture == "llama":  # the model's own file has its rows turned, too
        for one in found:
            if one.endswith(("q.weight.lora_b", "k.weight.lora_b")):
                wide[one] = turned(found[one], family.head_dim)
    keys = metadata(family.architecture, family.head_dim) + family.keys
    both = write_model(tmp_path / "both.gguf", keys, merged(family.weights(), wide))
    base, _ = opened(family.write(tmp_path / "base.gguf"))
    if form == "gguf":
        path = write_gguf(tmp_path / "lora.gguf", found, family.architecture, family.head_dim)
    else:
        path = write_peft(tmp_path / "lora", found)
    adapter = read_adapter(path, base.config)
    for picked in (list(range(20)), [3, 17], []):
        wanted = logits(opened(both)[0], [], picked)
        everywhere = [Adapted.on("cpu", adapter, list(range(20)))]
        torch.testing.assert_close(logits(base, everywhere, picked), wanted, atol=2e-4, rtol=1e-4)
    plain = logits(base, [], [19])
    assert (plain - logits(base, everywhere, [19])).abs().max() > 0.5, "it changes something"


def test_settings_of_peft_scale_as_they_say(tmp_path: Path) -> None:
    base, _ = opened(write_tiny(tmp_path / "tiny.gguf"))
    found = matrices(5)
    scales = {}
    for name, more in (("plain", {}), ("root", {"use_rslora": True}), ("half", {"lora_alpha": 3})):
        adapter = read_adapter(write_peft(tmp_path / name, found, **more), base.config)
        scales[name] = adapter.deltas[0, "out"][0].up
    torch.testing.assert_close(scales["plain"], scales["half"] * 2)
    torch.testing.assert_close(scales["root"], scales["plain"] * RANK**0.5)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Engines over one model of quantised blocks, with the adapters `x` and `y` loaded."""
    folder = tmp_path_factory.mktemp("adapters")
    torch.set_num_threads(1)
    model = write_tiny(folder / "tiny.gguf", "qwen2", kinds=("Q8_0",))
    files = {
        name: write_gguf(folder / f"{name}.gguf", matrices(seed, size=0.15), "qwen2")
        for name, seed in (("x", 1), ("y", 2))
    }
    models = {exact: opened(model, exact) for exact in (True, False)}

    def build(exact: bool, kept: KeptPrefixes | None = None, **limits: int) -> Engine:
        decoder, source = models[exact]
        native = None if exact else attending_kernels(CPU, decoder.config, 400)
        kind = torch.float32 if exact or native is None else torch.float16
        options = EngineOptions(replace(LIMITS, **limits), exact, kind, native=native)
        engine = Engine(decoder, source.codec, options, SystemClock(), kept)
        for name, path in files.items():
            engine.adapters.load(name, path)
        return engine

    return build


def mixed(adapters: tuple[str, ...] = ("", "x", "y", "x", "")) -> list[Generate]:
    return [
        ask(str(number), PROMPTS[number], adapter=name, max_tokens=25)
        for number, name in enumerate(adapters)
    ]


def texts(engine: Engine, *requests: Generate) -> dict[str, str]:
    return {name: done.text for name, done in drain(engine, *requests).items()}


@pytest.mark.parametrize("exact", [True, False], ids=["reference", "fast"])
def test_an_answer_under_an_adapter_does_not_depend_on_the_others(make: Make, exact: bool) -> None:
    if not exact and attending_kernels(CPU, make(False).decoder.config, 400) is None:
        pytest.skip("without the compiled kernels only the reference keeps this promise")
    alone = {}
    for request in mixed():
        alone |= texts(make(exact), request)
    for limits in ({}, {"step_tokens": 5}, {"slots": 2, "step_tokens": 17}):
        assert texts(make(exact, **limits), *mixed()) == alone
    same = [ask(name, PROMPTS[0], adapter=name, max_tokens=25) for name in ("x", "y")]
    both = texts(make(exact), *same, ask("none", PROMPTS[0], max_tokens=25))
    assert len(set(both.values())) == 3, "each adapter says something else"


def test_what_a_row_gets_is_the_same_to_the_bit_in_any_company() -> None:
    """At widths of real models, where a product's rounding does depend on its number of rows."""
    torch.manual_seed(0)
    deltas = [Delta(start, torch.randn(8, 1536), torch.randn(512, 8)) for start in (0, 512)]
    adapter = Adapter("d", {(0, "qkv"): deltas})
    values, norm = torch.randn(40, 1536), Norm(torch.rand(1536), 1e-6)

    def gets(rows: list[int]) -> torch.Tensor:
        found = torch.zeros(len(rows), 1024)
        adapted = [Adapted.on("cpu", adapter, list(range(len(rows))))]
        return adapt(found, adapted, 0, "qkv", Rows(values[rows], norm=norm))

    wanted = gets(list(range(40)))
    for rows in ([7], [3, 1], list(range(39, -1, -1)), [5] * 17):
        assert torch.equal(gets(rows), wanted[rows])


def cached(engine: Engine, *requests: Generate) -> list[int]:
    done = drain(engine, *requests)
    return [done[request.id].cached_tokens for request in requests]


def test_nothing_computed_under_one_adapter_is_read_under_another(make: Make) -> None:
    """Of finished sequences, and of one that runs."""
    engine = make(True)
    one, other, none = (ask(f"{name}.", adapter=name) for name in ("x", "y", ""))
    assert cached(engine, one) == cached(engine, other) == cached(engine, none) == [0]
    for request in (one, other, none):
        assert cached(engine, replaced(request, "again"))[0] > 0
    assert cached(engine, replaced(one, "reader", reader_class="other")) == [0]
    assert cached(make(True), one, other, none) == [0, 0, 0]
    twice = cached(make(True), one, replaced(one, "beside"))
    assert twice[0] == 0 and twice[1] > 0


def replaced(request: Generate, name: str, **more: object) -> Generate:
    return ask(name, **{"adapter": request.adapter, **more})


def test_kept_prefixes_are_of_one_adapter(make: Make, tmp_path: Path) -> None:
    kept = KeptPrefixes(tmp_path, "tiny")
    segments = [Segment("the planner reads this long text first, always " * 2, keep=True)]
    for name in ("x", "y", ""):
        request = ask("a", segments=[*segments, Segment("one")], adapter=name)
        assert cached(make(True, kept), request) == [0]
        assert cached(make(True, kept), request)[0] > 50
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_a_reader_class_cannot_pass_for_an_adapter(make: Make) -> None:
    engine = make(True)
    adapter = engine.adapters.find("x")
    assert adapter is not None
    with pytest.raises(ConfigError):
        engine.submit(ask("a", reader_class=f"{adapter.digest}\0"))


def test_a_name_is_let_go_of_while_a_request_runs(make: Make) -> None:
    wanted = texts(make(True), ask("a", adapter="x", max_tokens=30))["a"]
    engine = make(True)
    both = engine.stats(0)
    engine.submit(ask("a", adapter="x", max_tokens=30))
    engine.step()
    engine.adapters.unload("x")
    with pytest.raises(ConfigError, match="no adapter 'x'"):
        engine.submit(ask("b", adapter="x"))
    gc.collect()
    during = engine.stats(0)
    assert (during.adapters, during.adapter_bytes) == (1, both.adapter_bytes)
    messages: list[FromEngine] = []
    while engine.busy:
        messages += engine.step()
    assert [one.text for one in messages if isinstance(one, Done)] == [wanted]
    gc.collect()
    assert 0 < engine.stats(0).adapter_bytes < both.adapter_bytes


def test_names_belong_to_those_who_hold_them(make: Make, tmp_path: Path) -> None:
    config = make(True).decoder.config
    one = write_gguf(tmp_path / "one.gguf", matrices(1), "qwen2")
    other = write_peft(tmp_path / "other", matrices(2))
    named = Adapters(config)
    first = named.load("a", one, holder=1)
    assert named.load("a", one, holder=2) is first
    with pytest.raises(ConfigError, match="another adapter"):
        named.load("a", other, holder=2)
    with pytest.raises(ConfigError):
        named.unload("a", holder=3)
    named.leave(1)
    assert named.find("a") is first
    named.unload("a", holder=2)
    with pytest.raises(ConfigError):
        named.find("a")
    assert named.load("a", other).digest != first.digest
    assert named.find("") is None
    with pytest.raises(ConfigError):
        named.load("", one)


REFUSED: dict[str, Callable[[dict[str, np.ndarray]], object]] = {
    "one matrix missing": lambda found: found.pop("blk.0.attn_q.weight.lora_b"),
    "another width": lambda found: found.update(
        {"blk.0.attn_q.weight.lora_a": np.zeros((RANK, 32), "<f4")}
    ),
    "another number of outputs": lambda found: found.update(
        {"blk.0.attn_k.weight.lora_b": np.zeros((48, RANK), "<f4")}
    ),
    "other ranks": lambda found: found.update(
        {"blk.1.attn_k.weight.lora_b": np.zeros((32, RANK + 1), "<f4")}
    ),
    "a layer too many": lambda found: found.update(matrices(1, layers=3)),
    "no number": lambda found: found["blk.0.ffn_up.weight.lora_a"].fill(np.nan),
    "nothing": lambda found: found.clear(),
}


@pytest.mark.parametrize("form", ["gguf", "peft"])
@pytest.mark.parametrize("name", REFUSED)
def test_adapters_that_do_not_fit_are_refused(
    name: str, form: str, make: Make, tmp_path: Path
) -> None:
    found = matrices(1)
    REFUSED[name](found)
    write = write_gguf if form == "gguf" else write_peft
    path = write(
        tmp_path / "lora.gguf", found, **({"architecture": "qwen2"} if form == "gguf" else {})
    )
    with pytest.raises(ModelFileError) as caught:
        read_adapter(path, make(True).decoder.config)
    assert caught.value.code in ("adapter_malformed", "adapter_mismatch")


@pytest.mark.parametrize(
    "settings",
    [
        {"peft_type": "IA3"},
        {"use_dora": True},
        {"bias": "all"},
        {"alpha_pattern": {"q_proj": 4}},
        {"modules_to_save": ["lm_head"]},
        {"lora_alpha": "16"},
        {"lora_alpha": float("inf")},
    ],
    ids=str,
)
def test_more_than_lora_is_refused(settings: dict[str, object], make: Make, tmp_path: Path) -> None:
    path = write_peft(tmp_path / "lora", matrices(1), **settings)
    with pytest.raises(ModelFileError):
        read_adapter(path, make(True).decoder.config)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, None], ids=lambda one: str(one)[:12]
)
def test_a_broken_configuration_is_refused(text: bytes | None, make: Make, tmp_path: Path) -> None:
    path = write_peft(tmp_path / "lora", matrices(1))
    if text is None:
        (path / "adapter_config.json").unlink()
    else:
        (path / "adapter_config.json").write_bytes(text)
    with pytest.raises(ModelFileError):
        read_adapter(path, make(True).decoder.config)


def test_tensors_that_are_no_products_are_refused(make: Make, tmp_path: Path) -> None:
    config = make(True).decoder.config
    for name in ("blk.0.attn_norm.weight", "blk.0.attn_norm.weight.lora_a", "token_embd.weight"):
        found = matrices(1) | {name: np.ones((2, 64), "<f4")}
        with pytest.raises(ModelFileError) as caught:
            read_adapter(write_gguf(tmp_path / "a.gguf", found, "qwen2"), config)
        assert caught.value.code == "adapter_unsupported"
    other = write_gguf(tmp_path / "b.gguf", matrices(1), "llama")
    with pytest.raises(ModelFileError, match="'llama'"):
        read_adapter(other, config)
    with pytest.raises(ModelFileError):
        read_adapter(write_tiny(tmp_path / "model.gguf"), config)
    with pytest.raises(ModelFileError):
        read_adapter(tmp_path / "absent.gguf", config)


def test_clients_load_and_let_go(spec: EngineSpec, tmp_path: Path) -> None:  # noqa: F811
    write_gguf(tmp_path / "x.gguf", matrices(1), "qwen2")
    write_peft(tmp_path / "y", matrices(2))
    at_start = write_gguf(tmp_path / "z.gguf", matrices(3), "qwen2")
    spec = replace(spec, extra=("--adapter", f"z={at_start}"))
    base = Generate(id="a", segments=[Segment("tell me ")], max_tokens=10)

    async def scene() -> None:
        async with running(spec) as client:
            digest = await client.load_adapter("x", tmp_path / "x.gguf")
            assert len(digest) == 64
            await client.load_adapter("y", tmp_path / "y")
            said = {}
            for name in ("", "x", "y", "z"):
                done = await client.generate(msgspec.structs.replace(base, adapter=name))
                said[done.text] = name
            assert len(said) == 4
            other = await connect_or_start(spec)
            assert await other.load_adapter("x", tmp_path / "x.gguf") == digest
            with pytest.raises(ModelFileError):
                await other.load_adapter("bad", tmp_path / "absent")
            await client.unload_adapter("x")
            await client.generate(msgspec.structs.replace(base, adapter="x"))
            await other.close()
            for _ in range(100):
                stats = await client.stats()
                if stats.adapters == 2:
                    break
                await asyncio.sleep(0.05)
            assert stats.adapters == 2 and stats.adapter_bytes > 0
            with pytest.raises(ConfigError, match="y, z"):
                await client.generate(msgspec.structs.replace(base, adapter="x"))
            with pytest.raises(ConfigError):
                await client.unload_adapter("z")
            assert (await client.generate(base)).text

    asyncio.run(scene())


def test_a_processor_answers_under_its_adapter(spec: EngineSpec, tmp_path: Path) -> None:  # noqa: F811
    file = write_gguf(tmp_path / "x.gguf", matrices(1), "qwen2")
    keys = [one for one in metadata("qwen2") if b"chat_template" not in one]
    model = write_model(tmp_path / "model.gguf", keys, tensors("qwen2", 1))
    spec = replace(spec, model=model)
    request = Request("run", "", (Message("user", (Part("tell me"),)),), max_tokens=10)

    async def scene() -> None:
        async with running(spec):
            said = {}
            for adapter in (None, file):
                processor = EmbeddedProcessor(spec, adapter=adapter)
                try:
                    await processor.open()
                    said[processor.identity] = (await processor.complete(request)).text
                finally:
                    await processor.close()
            assert len(said) == len(set(said.values())) == 2

    asyncio.run(scene())


@pytest.mark.model
def test_a_real_model_under_adapters(tmp_path: Path) -> None:
    """Two adapters of SmolLM2 in one step say what each says alone, and the base what it says; the
    fast setting promises that where it has its kernels."""
    path = resolve("smollm2:135m")
    if path is None:
        pytest.skip("smollm2:135m is not installed: edvac model pull smollm2:135m")
    random = np.random.default_rng(1)
    files = {}
    for name in ("x", "y"):
        found = {}
        for layer in range(30):
            for member, outputs in (("attn_q", 576), ("attn_v", 192)):
                at = f"blk.{layer}.{member}.weight.lora_"
                found[f"{at}a"] = random.standard_normal((8, 576)).astype("<f4") * 0.2
                found[f"{at}b"] = random.standard_normal((outputs, 8)).astype("<f4") * 0.2
        files[name] = write_gguf(tmp_path / f"{name}.gguf", found, "llama", 64)
    extra = tuple(part for name, file in files.items() for part in ("--adapter", f"{name}={file}"))
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    wanted = EngineSpec(
        path,
        setting="reference" if kernels() is None else "fast",
        runtime=runtime,
        cache=tmp_path,
        idle_seconds=0.5,
        kv_mb=256,
        extra=extra,
    )
    prompt = [Segment(rendered("What is the capital of France?"), control=True)]

    async def scene() -> None:
        async with await connect_or_start(wanted) as client:

            async def said(name: str, number: int) -> str:
                request = Generate(id=f"{name}{number}", segments=prompt, adapter=name)
                return (await client.generate(msgspec.structs.replace(request, max_tokens=12))).text

            alone = [await said(name, 0) for name in ("", "x", "y")]
            assert "Paris" in alone[0] and len(set(alone)) == 3
            together = await asyncio.gather(*(said(name, 1) for name in ("", "x", "y")))
            assert list(together) == alone

    asyncio.run(scene())


def test_a_small_note_is_no_adapter(make: Make, tmp_path: Path) -> None:
    """A directory with a configuration and nothing to read beside it."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ModelFileError):
        read_adapter(tmp_path, make(True).decoder.config)
