"""Input directories: their names are themselves, whatever the characters mean elsewhere."""

from __future__ import annotations

import posixpath
from pathlib import Path

import pytest

from edvac.core.errors import ConfigError
from edvac.core.signature import Access
from edvac.device import Roots
from edvac.machine.inputs import derived_roots, given_roots, missing_directories

ODD = ["mail [old]", "[ab]", "a[", "b]", "a=b", "=", "=a", "a=", "x=a=b", "50%", "ä [1]", "a*b?"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*ODD, "a", "b", "mail o"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f [1].txt").write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(roots: dict[str, Path], pattern: str) -> dict[str, bytes]:
    opened = Roots(roots)
    try:
        return {path: opened.read(path) for path, _ in opened.matching(pattern).found}
    finally:
        opened.close()


@pytest.mark.parametrize("name", ODD)
def test_a_directory_is_given_under_its_own_name(here: Path, name: str) -> None:
    roots = given_roots([name])
    assert roots == {name: Path(name)}
    assert found(roots, f"{name}/*") == {f"{name}/f [1].txt": name.encode()}


@pytest.mark.parametrize("name", ODD)
def test_a_directory_is_given_another_name(here: Path, name: str) -> None:
    assert given_roots([f"mail={name}"]) == {"mail": Path(name)}
    assert found(given_roots([f"mail={here / name}"]), "mail/*") == {
        "mail/f [1].txt": name.encode()
    }


def test_what_is_there_goes_before_a_name(here: Path) -> None:
    assert given_roots(["a=b"]) == {"a=b": Path("a=b")}
    assert given_roots(["b=a"]) == {"b": Path("a")}
    assert given_roots(["./a=b", "a=./a=b"]) == {"a=b": Path("a=b"), "a": Path("a=b")}
    with pytest.raises(ConfigError) as refused:
        given_roots(["mail [new]=a"])
    assert "mail [new]=a" in refused.value.what


@pytest.mark.parametrize("name", [name for name in ODD if name != "a*b?"])
def test_a_program_that_names_a_directory_reads_it(here: Path, name: str) -> None:
    for pattern in (f"{name}/f [1].txt", f"{name}/*", f"./{name}/*"):
        roots = derived_roots([pattern], here)
        assert roots == {name: here / name}
        assert found(roots, posixpath.normpath(pattern)) == {f"{name}/f [1].txt": name.encode()}


def test_what_is_not_known_before_the_run_grants_nothing(here: Path) -> None:
    assert derived_roots(["*/x", "a*b?/x", "[xy]/x", "mail ?/x"], here) == {}
    reads = ("[xy]/x", "mail [new]/x", "nope/x", "a[/x")
    assert missing_directories(Access(reads), here) == ["nope"]
