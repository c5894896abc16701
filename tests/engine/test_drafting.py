"""Who guesses, when, and that it changes nothing but time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edvac.core.errors import ConfigError
from edvac.core.seams import SystemClock
from edvac.engine import _native, assembly, draft
from edvac.engine.assembly import Assembly, assemble
from edvac.engine.digest import file_digest
from edvac.engine.draft import same_vocabulary
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.job import Job
from edvac.engine.loader import LoadOptions, load
from edvac.engine.model import Decoder
from edvac.engine.speculation import Corpus, Experience, Memory

from .test_engine import LIMITS, SCHEMA_TEXT, ask, drain
from .tiny import write_tiny

KINDS = ("Q8_0", "Q5_0", "Q4_1")


def decoder(path: Path) -> Decoder:
    nothing = LoadOptions(path, file_digest(path), path.parent, False, lambda done, total: None)
    return load(nothing)[0]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A model and another one of the same vocabulary."""
    return (
        write_tiny(tmp_path / "large.gguf", "qwen2", kinds=KINDS),
        write_tiny(tmp_path / "small.gguf", "qwen2", kinds=KINDS, seed=7),
    )


@pytest.fixture(params=["itself", "another"])
def drafted(
    request: pytest.FixtureRequest, files: tuple[Path, Path]
) -> Iterator[tuple[Engine, Engine]]:
    """An engine without and one with a draft model, which is right always or almost never."""
    native = _native.kernels()
    if native is None:
        pytest.skip("the compiled kernels are not installed (`make setup`)")
    torch.set_num_threads(1)
    large, small = files
    nothing = LoadOptions(large, file_digest(large), large.parent, False, lambda done, total: None)
    main, source = load(nothing)
    plain = EngineOptions(LIMITS, native=native)
    other = decoder(large if request.param == "itself" else small)
    yield (
        Engine(main, source.codec, plain, SystemClock()),
        Engine(main, source.codec, replace(plain, draft=other), SystemClock()),
    )


ASKED = [
    ask("a", "one two three", max_tokens=60),
    ask("b", "a schema", schema=SCHEMA_TEXT, max_tokens=60),
    ask("c", "warm", temperature=0.9, seed=5, max_tokens=60),
]


def test_a_draft_model_changes_no_text(drafted: tuple[Engine, Engine]) -> None:
    plain, engine = drafted
    for request in ASKED:
        wanted = drain(plain, request)[request.id].text
        assert drain(engine, request)[request.id].text == wanted
    together = {name: done.text for name, done in drain(engine, *ASKED[:2]).items()}
    assert together == {one.id: drain(plain, one)[one.id].text for one in ASKED[:2]}


def test_a_draft_model_that_is_right_saves_steps(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft, "_moved", lambda before, seconds: before)
    native = _native.kernels()
    if native is None:
        pytest.skip("the compiled kernels are not installed (`make setup`)")
    large, _ = files
    nothing = LoadOptions(large, file_digest(large), large.parent, False, lambda done, total: None)
    main, source = load(nothing)
    options = EngineOptions(LIMITS, native=native, draft=decoder(large))
    engine = Engine(main, source.codec, options, SystemClock())
    model = engine._drafting._model
    assert model is not None
    model.token_seconds = model.step_seconds = 1e-9  # as if it cost nothing
    request = ask("a", "q w e r t y", max_tokens=80)
    done = drain(engine, request)["a"]
    assert done.accepted_tokens > done.completion_tokens // 2
    assert engine.counters.steps < done.completion_tokens
    assert model.chance > 0.75, "it has learnt that it is right"
    assert not model._held, "nothing is left of an answer that is over"
    model.step_seconds = 1e9
    asked: list[int] = []
    real = draft.DraftModel.draft

    def counted(self: draft.DraftModel, job: Job, count: int) -> list[int]:
        asked.append(count)
        return real(self, job, count)

    monkeypatch.setattr(draft.DraftModel, "draft", counted)
    drain(engine, request)
    assert asked == [1], "too dear, and asked once in fifty times"


def test_a_draft_model_begins_when_the_answer_has_gone_on(
    drafted: tuple[Engine, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, engine = drafted
    model = engine._drafting._model
    assert model is not None
    model.token_seconds = 1e9
    drain(engine, ASKED[0])
    assert not engine.counters.accepted_tokens or not model._held
    assert model._asked == 0


def wanted_of(files: tuple[Path, Path], **more: object) -> Assembly:
    large, small = files
    base = Assembly(large, large.parent, "fast", 1, 512, 64 << 20, 4, 64, draft=small)
    return replace(base, **more)  # type: ignore[arg-type]


def build(wanted: Assembly) -> Engine:
    return assemble(wanted, lambda done, total: None, lambda work: work())[0]


def test_a_draft_model_is_checked(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if _native.kernels() is None:
        pytest.skip("the compiled kernels are not installed (`make setup`)")
    engine = build(wanted_of(files))
    assert drain(engine, ASKED[0])["a"].completion_tokens > 0
    with pytest.raises(ConfigError, match="kernels"):
        build(wanted_of(files, setting="reference"))
    monkeypatch.setattr(assembly, "same_vocabulary", lambda one, other: False)
    with pytest.raises(ConfigError, match="vocabulary"):
        build(wanted_of(files))


def test_vocabularies_are_compared() -> None:
    assert same_vocabulary([b"a", b"b"], [b"a", b"b", b"unused"])
    assert not same_vocabulary([b"a", b"b"], [b"b", b"a"])
    assert not same_vocabulary([], [b"a"])


# --- what other answers said ------------------------------------------------------------------


def test_answers_of_one_program_are_looked_up_in_one_another() -> None:
    corpus = Corpus()
    corpus.add([1, 2, 3, 4, 5])
    corpus.add([1, 2, 3, 9])
    memory = Memory(Experience(), corpus)
    guess = memory.guess([7, 1, 2, 3], 5, None)
    assert guess is not None and guess.tokens == [9], "the last one first, and not beyond its end"
    guess = memory.guess([7, 2, 3, 4], 5, None)
    assert guess is not None and guess.tokens == [5]
    own = Memory(Experience(), corpus).guess([1, 2, 3, 8, 1, 2, 3], 5, None)
    assert own is not None and own.tokens[:1] == [8], "of equal agreement its own"
    assert Memory(Experience()).guess([7, 1, 2, 3], 5, None) is None


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), max_size=12), st.data())
def test_guesses_were_said_by_some_answer(answers: list[list[int]], data: st.DataObject) -> None:
    corpus = Corpus()
    for one in answers:
        corpus.add(one)
    tokens = data.draw(st.lists(st.integers(0, 3), min_size=2, max_size=20))
    guess = Memory(Experience(), corpus).guess(tokens, 6, None)
    runs = [*answers, tokens]
    seen = any(one[at : at + 2] == tokens[-2:] for one in runs for at in range(len(one) - 2))
    assert (guess is not None) == seen
    if guess is not None:
        run = tokens[-2:] + guess.tokens
        assert any(one[at : at + len(run)] == run for one in runs for at in range(len(one)))


def test_a_corpus_has_a_bound() -> None:
    corpus = Corpus()
    for number in range(2000):
        corpus.add([number % 50] * 40)
    assert len(corpus.tokens) <= 32_768 + 41
    found = corpus.places.after([49, 49, 49], corpus.tokens)
    assert found and corpus.tokens[found[0][1] - 1] == 49


def test_programs_and_reader_classes_have_corpora_of_their_own(files: tuple[Path, Path]) -> None:
    large, _ = files
    nothing = LoadOptions(large, file_digest(large), large.parent, True, lambda done, total: None)
    main, source = load(nothing)
    options = EngineOptions(LIMITS, True, torch.float32)
    engine = Engine(main, source.codec, options, SystemClock())
    drain(engine, ask("a", "one two", program="p", reader_class="x", max_tokens=30))
    drafting = engine._drafting
    assert drafting.memory("p", "x").corpus is not None
    for program, reader in (("p", "y"), ("q", "x"), ("", "x")):
        assert drafting.memory(program, reader).corpus is None
    drain(engine, ask("b", "one two", program="r", reader_class="y", max_tokens=30))
    assert drafting.memory("r", "x").corpus is None
    assert drafting.memory("r", "y").corpus is not None
    engine.forget()
    assert drafting.memory("p", "x").corpus is None
