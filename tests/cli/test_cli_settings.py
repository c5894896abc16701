"""Settings: layers and origins; input directories; which processor a model name means."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_kit import Bench

from edvac.core.errors import ConfigError
from edvac.core.signature import Access
from edvac.machine import processors
from edvac.machine.inputs import derived_roots, given_roots, missing_directories
from edvac.machine.settings import INTERNAL, Settings, load


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's file and the project's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    user = tmp_path / "config" / "edvac" / "config.toml"
    user.parent.mkdir(parents=True)
    (tmp_path / "work").mkdir()
    return user, tmp_path / "work" / "edvac.toml"


def test_each_layer_wins_over_the_one_below(layers: tuple[Path, Path]) -> None:
    user, project = layers

    def value(flag: int | None = None, **environment: str) -> tuple[int, str]:
        settings, origins = load(project.parent, {"threads": flag}, environment)
        origin = next(one for one in origins if one.name == "threads")
        assert origin.value == settings.threads
        return settings.threads, origin.origin

    assert value() == (0, "default")
    user.write_text("threads = 1")
    assert value() == (1, str(user))
    project.write_text("threads = 2")
    assert value() == (2, str(project))
    assert value(EDVAC_THREADS="3") == (3, "environment")
    assert value(4, EDVAC_THREADS="3") == (4, "flag")


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("thread = 1", "setting_unknown", "Did you mean 'threads'?"),
        ("zzz = 1", "setting_unknown", "Settings: "),
        ('threads = "many"', "setting_type", "default is 0"),
        ("threads = 1.5", "setting_type", "default is 0"),
        ("threads = true", "setting_type", "default is 0"),
        ("model = 5", "setting_type", "default is"),
        ("threads = -1", "setting_range", "default is 0"),
        ('precision = "slow"', "setting_range", "fast or reference"),
        ('kernels = "sse9"', "setting_range", "avx2, none"),
        ('kv_type = "q4_0"', "setting_range", "f16, int8, k8v4 or int4"),
        ('kv_disk_type = "f16"', "setting_range", "same, int8 or int4"),
        ("threads = ", "settings_unreadable", ""),
        ("[threads]\nx = 1", "setting_type", ""),
    ],
)
def test_a_wrong_file(layers: tuple[Path, Path], text: str, code: str, hint: str) -> None:
    layers[1].write_text(text)
    with pytest.raises(ConfigError) as wrong:
        load(layers[1].parent, {}, {})
    assert wrong.value.code == code
    assert hint in wrong.value.fix
    assert str(layers[1]) in wrong.value.what
    assert wrong.value.fix


def test_a_file_that_is_not_text(layers: tuple[Path, Path]) -> None:
    layers[1].write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as wrong:
        load(layers[1].parent, {}, {})
    assert wrong.value.code == "settings_unreadable"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("EDVAC_MODLE", "x", "setting_unknown"),
        ("EDVAC_", "x", "setting_unknown"),
        ("EDVAC_THREADS", "many", "setting_type"),
        ("EDVAC_THREADS", "", "setting_type"),
        ("EDVAC_THREADS", "--3", "setting_type"),
        ("EDVAC_THREADS", "²", "setting_type"),
        ("EDVAC_THREADS", "-3", "setting_range"),
    ],
)
def test_a_wrong_variable(layers: tuple[Path, Path], name: str, value: str, code: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        load(layers[1].parent, {}, {name: value})
    assert wrong.value.code == code
    assert name in str(wrong.value)


def test_variables_of_edvacs_own_are_no_settings(layers: tuple[Path, Path]) -> None:
    settings, _ = load(layers[1].parent, {}, dict.fromkeys(INTERNAL, "x") | {"OTHER": "y"})
    assert settings == Settings()


def test_config_shows_values_and_origins(edvac: Bench) -> None:
    edvac.write("edvac.toml", 'model = "m"\n')
    edvac.monkeypatch.setenv("EDVAC_THREADS", "9")
    found = edvac("config", "--json").document
    assert found["model"] == {"value": "m", "origin": str(edvac.root / "edvac.toml")}
    assert found["threads"] == {"value": 9, "origin": "environment"}
    assert found["kv_mb"]["origin"] == "default"
    edvac.monkeypatch.setenv("EDVAC_THREAD", "9")
    said = edvac("config")
    assert said.code == 2
    assert "Did you mean" in said.err


def test_directories_from_a_programs_patterns(tmp_path: Path) -> None:
    for name in ("inbox", "a b", "deep"):
        (tmp_path / name).mkdir()
    patterns = ["inbox/*", "./deep/**/x", "a b/x", "nope/x", "../up/x", "/etc/x", "*/x", "**"]
    assert derived_roots(patterns, tmp_path) == {
        name: tmp_path / name for name in ("inbox", "deep", "a b")
    }
    assert derived_roots(["notes.txt"], tmp_path) == {"": tmp_path}
    assert derived_roots(["*.txt"], tmp_path) == {"": tmp_path}


def test_directories_that_are_missing(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    touches = Access(("inbox/*", "nope/x", "made/x", "**", "x.txt"), ("made/x",))
    assert missing_directories(touches, tmp_path) == ["nope"]


def test_directories_that_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "inbox").mkdir(parents=True)
    (tmp_path / "b" / "inbox").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert given_roots(["a/inbox", "a/inbox/"]) == {"inbox": Path("a/inbox")}
    assert given_roots(["."]) == {"": Path(".")}
    assert given_roots(["a/inbox", "old=b/inbox"]) == {
        "inbox": Path("a/inbox"),
        "old": Path("b/inbox"),
    }
    (tmp_path / "x=y").mkdir()
    assert given_roots(["x=y"]) == {"x=y": Path("x=y")}
    for wrong, code in (
        (["a/inbox", "b/inbox"], "input_root_twice"),
        (["old=nowhere"], "input_root_missing"),
        (["a/b=b/inbox"], "input_root_missing"),
    ):
        with pytest.raises(ConfigError) as refused:
            given_roots(wrong)
        assert refused.value.code == code


def test_which_processor_a_name_means(tmp_path: Path) -> None:
    settings = Settings(model="http://127.0.0.1:1/v1#m", at_once=3)
    made = processors.choose_processor(settings)
    assert (made.endpoint, made.concurrency) == ("http://127.0.0.1:1", 3)
    for model, code in (
        ("http://127.0.0.1:1/v1", "endpoint_url"),
        (str(tmp_path / "no.gguf"), "model_missing"),
        ("no-such-model", ""),
    ):
        with pytest.raises(ConfigError) as wrong:
            processors.choose_processor(Settings(model=model))
        assert wrong.value.code.startswith(code)
        assert wrong.value.fix


def test_without_the_engine_an_endpoint_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "ENGINE_NEEDS", ("no_such_module",))
    with pytest.raises(ConfigError) as wrong:
        processors.choose_processor(Settings())
    assert wrong.value.code == "engine_missing"
    assert "edvac[engine]" in wrong.value.fix
    assert processors.choose_processor(Settings(model="http://127.0.0.1:1/v1#m"))
