"""Model files that mean ill: a typed error or an answer, never a crash, a hang or all of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from edvac.core.errors import ModelFileError
from edvac.engine.loader import LoadOptions, load

from .corpus import CORPUS, published
from .fuzz import PLANTED, read_model, run

LATE = {  # loads; what is wrong shows in an answer
    "infinite norms",
    "an expression without end",
}


@pytest.mark.parametrize("name", CORPUS)
def test_a_file_that_means_ill_is_refused(name: str, tmp_path: Path) -> None:
    path = CORPUS[name](tmp_path)
    code = ""
    try:
        code = read_model(path)
    except ModelFileError as error:
        assert name not in LATE or "expression" in name
        code = error.code
        assert error.why and error.fix
    assert code.startswith("model_"), "it was read and answered with"


@pytest.mark.parametrize("name", sorted(CORPUS.keys() - LATE))
def test_the_fast_setting_refuses_it_too(name: str, tmp_path: Path) -> None:
    path = CORPUS[name](tmp_path)
    options = LoadOptions(path, "d" * 64, tmp_path, False, lambda done, total: None)
    with pytest.raises(ModelFileError):
        load(options)[1].codec  # noqa: B018 (read on the way)


def test_ids_that_are_none_are_left_out(tmp_path: Path) -> None:
    """Found by the fuzzer: a grammar's library took them for numbers of tokens."""
    for ids in (1 << 70, -1, True, "2", [1 << 40, 261], None):
        path = published(
            "config.json", lambda one, ids=ids: one.update(eos_token_id=ids, bos_token_id=ids)
        )(tmp_path)
        assert read_model(path) == "ran"


def test_random_damage_is_refused_or_survived() -> None:
    """`make fuzz` does this for longer; `--seed N --cases 1` makes a case again."""
    found, faults = run(first=0, count=150)
    assert not faults
    assert found["ran"] > 20 and found["model_malformed"] > 15, "both ends of the road were seen"


def test_the_harness_sees_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """One case eats memory, one raises what nobody expects, one hangs and is ended."""
    monkeypatch.setenv(PLANTED, "1")
    found, faults = run(first=0, count=4)
    assert len(faults) == 3
    assert (found["FAULT"], found["SIGALRM"]) == (2, 1)
