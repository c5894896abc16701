"""One engine in this process: the same text however the work is cut, grouped or remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from edvac.core.errors import ConfigError, ModelFileError, OperandError
from edvac.core.seams import SystemClock
from edvac.engine.digest import file_digest
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.grammar import Grammars
from edvac.engine.kv.kept import KeptPrefixes
from edvac.engine.loader import LoadOptions, cache_path, load
from edvac.engine.protocol import Done, Failed, FromEngine, Generate, Segment, Text
from edvac.engine.scheduler import Limits
from edvac.engine.weights import open_weights

from .tiny import write_tiny

SCHEMA = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string", "maxLength": 8},
        "currency": {"enum": ["EUR", "USD"]},
        "paid": {"type": "boolean"},
    },
    "required": ["vendor", "currency", "paid"],
    "additionalProperties": False,
}
LIMITS = Limits(slots=4, context=400, step_tokens=64, kv_tokens=4000)
Make = Callable[..., Engine]


@pytest.fixture(scope="module")
def make(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    cache = tmp_path_factory.mktemp("cache")
    torch.set_num_threads(1)
    loaded = {
        exact: load(LoadOptions(tiny, file_digest(tiny), cache, exact, lambda done, total: None))
        for exact in (True, False)
    }

    def build(exact: bool = True, limits: Limits = LIMITS, **more: object) -> Engine:
        decoder, source = loaded[exact]
        kind = torch.float32 if exact else torch.float16
        options = EngineOptions(
            limits,
            exact,
            kind,
            jump_ahead=bool(more.pop("jump_ahead", True)),
            speculate=bool(more.pop("speculate", True)),
        )
        kept = more.pop("kept", None)
        assert not more
        return Engine(decoder, source.codec, options, SystemClock(), kept)  # type: ignore[arg-type]

    return build


def ask(name: str, text: str = "tell me about the hell", **more: object) -> Generate:
    segments = [Segment("<|user|>", True), Segment(text), Segment("<|assistant|>", True)]
    base = Generate(id=name, segments=segments, max_tokens=12)
    return msgspec.structs.replace(base, **more)


def drain(engine: Engine, *requests: Generate) -> dict[str, Done]:
    messages: list[FromEngine] = []
    for request in requests:
        engine.submit(request)
    while engine.busy:
        messages += engine.step()
    failed = [message for message in messages if isinstance(message, Failed)]
    assert not failed
    return {message.id: message for message in messages if isinstance(message, Done)}


PROMPTS = [f"the invoice number {n} " + "of the vendor " * n for n in range(1, 6)]
SCHEMA_TEXT = json.dumps(SCHEMA)


def together(engine: Engine, schema: str | None = None) -> dict[str, str]:
    requests = [ask(str(n), p, schema=schema, max_tokens=40) for n, p in enumerate(PROMPTS)]
    return {name: done.text for name, done in drain(engine, *requests).items()}


@pytest.mark.parametrize("schema", [None, SCHEMA_TEXT], ids=["free", "schema"])
def test_reference_text_does_not_depend_on_how_work_is_cut(make: Make, schema: str | None) -> None:
    wanted = together(make(), schema)
    assert len(set(wanted.values())) > 1
    for limits in (
        replace(LIMITS, step_tokens=5),
        replace(LIMITS, slots=1, step_tokens=17),
        replace(LIMITS, slots=8, step_tokens=300),
    ):
        assert together(make(limits=limits), schema) == wanted
    alone = {}
    for number, prompt in enumerate(PROMPTS):
        request = ask(str(number), prompt, schema=schema, max_tokens=40)
        alone |= {name: done.text for name, done in drain(make(), request).items()}
    assert alone == wanted
    warm = make()
    together(warm, schema)
    assert together(warm, schema) == wanted
    assert warm.counters.cached_tokens > 0
    assert together(make(jump_ahead=False), schema) == wanted


def test_fast_setting_batches_without_changing_much(make: Make) -> None:
    """int8 sums are exact, so only attention's float rounding may differ between batches."""
    one, other = together(make(False)), together(make(False, replace(LIMITS, slots=1)))
    assert all(one[name][:2] == other[name][:2] for name in one)


def test_answers_fit_their_schema(make: Make) -> None:
    for done in drain(
        make(False),
        *[
            ask(str(n), schema=SCHEMA_TEXT, max_tokens=90, temperature=1.5, seed=n)
            for n in range(6)
        ],
    ).values():
        found = json.loads(done.text)
        assert list(found) == ["vendor", "currency", "paid"]
        assert found["currency"] in ("EUR", "USD")
        assert len(found["vendor"]) <= 8
        assert done.finish_reason == "stop"
        assert done.forced_tokens > 5
        assert done.text == json.dumps(found, ensure_ascii=False), "spaced as models expect it"


def test_lark_grammar_and_truncation(make: Make) -> None:
    done = drain(make(), ask("a", lark='start: "yes" | "no"'))["a"]
    assert done.text in ("yes", "no")
    cut = drain(make(), ask("a", schema=SCHEMA_TEXT, max_tokens=5))["a"]
    assert cut.finish_reason == "length"
    assert cut.completion_tokens == 5


def test_large_grammars_do_not_stop_in_the_middle(tiny: Path) -> None:
    """Both cost more than the grammar library grants by default."""
    words = "\n".join(
        f"W{n}: /[a-z]{{1,{60 + n}}}/ & ~/.*(ab|c{n % 10}d|e{n}).*/" for n in range(30)
    )
    rules = "\n".join(f'r{n}: "ab" ("c" | "d") | "(" start ")" r{n} | "({n}"' for n in range(400))
    either = " | ".join(f"r{n}" for n in range(400))
    codec = open_weights(tiny).codec
    grammars = Grammars(codec, codec.size)
    for lark, text in (
        (f'start: "x" ({" | ".join(f"W{n}" for n in range(30))})\n{words}', "xqwertzuiopasdfghjk"),
        (f"start: ({either})+\n{rules}", "abcabdabc"),
    ):
        matcher = grammars.from_lark(lark)
        for token in codec.encode(text, False):
            assert bool(matcher.allowed()[token])
            matcher.take(token)


def test_bad_requests_are_typed(make: Make) -> None:
    engine = make()
    for request in (
        ask("a", schema='{"type": "nonsense"}'),
        ask("a", lark="start: ("),
        ask("a", max_tokens=-1),
        ask("a", temperature=-1.0),
        ask("a", schema="{}", lark="start: /a/"),
        ask("a", segments=[Segment("")]),
    ):
        with pytest.raises(ConfigError):
            engine.submit(request)
    with pytest.raises(OperandError) as caught:
        engine.submit(ask("a", "x" * 500))
    assert caught.value.code == "operand_too_large"
    assert not engine.busy


def test_sampling_repeats_by_seed_and_not_by_company(make: Make) -> None:
    request = ask("a", temperature=1.2, top_p=0.95, top_k=50, seed=7, max_tokens=20)
    alone = drain(make(), request)["a"].text
    others = [ask(str(n), PROMPTS[n], temperature=1.0, seed=n) for n in range(3)]
    assert drain(make(), *others, request)["a"].text == alone
    other_seed = msgspec.structs.replace(request, seed=8)
    assert drain(make(), other_seed)["a"].text != alone


def test_stop_strings_are_cut_and_never_streamed(make: Make) -> None:
    plain = drain(make(), ask("a", max_tokens=30))["a"].text
    stop = plain[4:6]
    engine = make()
    engine.submit(ask("a", max_tokens=30, stop=[stop], stream=True))
    messages: list[FromEngine] = []
    while engine.busy:
        messages += engine.step()
    shown = "".join(message.text for message in messages if isinstance(message, Text))
    done = next(message for message in messages if isinstance(message, Done))
    assert shown == done.text == plain[: plain.index(stop)]
    assert done.finish_reason == "stop"


def test_cancelling_frees_the_slot(make: Make) -> None:
    engine = make(limits=replace(LIMITS, slots=1))
    engine.submit(ask("a", max_tokens=300))
    engine.submit(ask("b"))
    for _ in range(3):
        engine.step()
    (ended,) = engine.cancel("a")
    assert isinstance(ended, Done)
    assert ended.finish_reason == "cancelled"
    assert engine.cancel("a") == []
    messages: list[FromEngine] = []
    while engine.busy:
        messages += engine.step()
    assert [message.id for message in messages if isinstance(message, Done)] == ["b"]


def test_kept_prefixes_survive_the_engine(make: Make, tmp_path: Path) -> None:
    kept = KeptPrefixes(tmp_path, "tiny")
    shared = Segment("the planner reads this long text first, always the same " * 2, keep=True)
    first = ask("a", segments=[shared, Segment("one")])
    wanted = drain(make(kept=kept), first)["a"]
    (file,) = tmp_path.glob("*.safetensors")
    again = drain(make(kept=kept), first)["a"]
    assert again.cached_tokens > 50
    assert again.text == wanted.text
    other_reader = msgspec.structs.replace(first, reader_class="other")
    assert drain(make(kept=kept), other_reader)["a"].cached_tokens == 0
    data = bytearray(file.read_bytes())
    data[-40] ^= 1
    file.write_bytes(data)
    damaged = drain(make(kept=kept), first)["a"]
    assert damaged.cached_tokens == 0
    assert damaged.text == wanted.text


def test_the_longest_kept_prefix_is_used(make: Make, tmp_path: Path) -> None:
    kept = KeptPrefixes(tmp_path, "tiny")
    system = Segment("what every program begins with, long enough to be worth it", keep=True)
    one, two = (Segment(f" example number {name}, also kept", keep=True) for name in ("A", "B"))
    drain(make(kept=kept), ask("a", segments=[system, one, Segment(" task")]))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    same = drain(make(kept=kept), ask("a", segments=[system, one, Segment(" more")]))["a"]
    other = drain(make(kept=kept), ask("a", segments=[system, two, Segment(" more")]))["a"]
    assert same.cached_tokens > other.cached_tokens > 40


def test_damaged_cache_is_rebuilt(tiny: Path, tmp_path: Path) -> None:
    options = LoadOptions(tiny, "d" * 64, tmp_path, False, lambda done, total: None)
    load(options)
    path = cache_path(options)
    whole = path.read_bytes()
    for damage in (whole[:-8], whole[:20] + b"x" + whole[21:], b""):
        path.write_bytes(damage)
        load(options)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_other_architectures_run(architecture: str, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture)
    decoder, source = load(LoadOptions(path, "e" * 64, tmp_path, True, lambda done, total: None))
    options = EngineOptions(LIMITS, True, torch.float32)
    engine = Engine(decoder, source.codec, options, SystemClock())
    assert drain(engine, ask("a"))["a"].completion_tokens == 12


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes().replace(b"blk.1.ffn_down", b"blk.1.ffn_dawn"))
    with pytest.raises(ModelFileError, match="ffn_down"):
        load(LoadOptions(path, "f" * 64, tmp_path, True, lambda done, total: None))
