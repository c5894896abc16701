"""`python.check`: a verdict on code that nothing in that code can bend, and that costs no step."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from device_kit import World, make_call, wait

from edvac.core.errors import ConfigError, DeviceError
from edvac.core.label import PROGRAM
from edvac.core.value import plain, total_label
from edvac.device import Held, checking, process

pytestmark = pytest.mark.sandbox

GOOD = "import json\n\n\ndef add(a, b):\n    return a + b\n"
TESTS = "from lib.add import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    given = tmp_path / "tests"
    given.mkdir()
    (given / "test_given.py").write_text(TESTS)
    made = World({"tests": given})
    write(made, "lib/add.py", GOOD)
    return made


def write(world: World, path: str, text: str) -> None:
    world.held.kept[path] = Held(text.encode(), PROGRAM)


def check(world: World, *paths: str, **more: Any) -> dict[str, Any]:
    reply = wait(world.call("python.check", paths=list(paths) or ["lib/add.py"], **more))
    assert not reply.files
    return plain(reply.value)  # type: ignore[no-any-return]


def test_good_code_passes(world: World) -> None:
    found = check(world, tests=["tests/test_given.py"])
    assert found == {"ok": True, "passed": 1, "failed": 0, "said": ""}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def add(a, b)\n    return a", "lib/add.py:1:14"),
        ("def add(a, b):\n    return a + c\n", "lib/add.py:2: undefined name 'c'"),
        ("return 1\n", "'return' outside function"),
        ("\n", "this file is empty"),
        ("def add(a, b):\n    x = 1\n    return a + b\n", ""),  # untidy is not wrong
    ],
)
def test_what_can_be_seen_without_running(world: World, text: str, says: str) -> None:
    write(world, "lib/add.py", text)
    found = check(world)
    assert found["ok"] == (not says) and says in found["said"]


def test_a_file_that_is_not_there(world: World) -> None:
    assert "lib/no.py: this file is not there" in check(world, "lib/no.py")["said"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def add(a, b):\n    return 0\n", "assert 0 == 3"),
        ("def add(a, b):\n    raise KeyError(a)\n", "KeyError"),
        ("def add(a, b):\n    while True:\n        pass\n", "did not end within 2 s"),
        ("import os\n\n\ndef add(a, b):\n    os._exit(0)\n", "without a report"),
        ("raise SystemExit(0)\n", "SystemExit"),
        ("import sys\n\n\ndef add(a, b):\n    sys.exit(0)\n", "SystemExit"),
        ("def add(a, b):\n    return len(' ' * 4 * 10**9)\n", "MemoryError"),
        ('print(\'{"passed": 9, "failed": 0, "said": ""}\')\n', "cannot import name 'add'"),
    ],
)
def test_code_that_does_not_hold_or_pretends_to(world: World, text: str, says: str) -> None:
    write(world, "lib/add.py", text)
    found = check(world, tests=["tests/test_given.py"], seconds=2)
    assert not found["ok"] and says in found["said"]
    assert found["passed"] == 0


def test_no_test_is_no_pass(world: World, tmp_path: Path) -> None:
    (tmp_path / "tests" / "test_given.py").write_text("x = 1\n")
    assert "no test" in check(world, tests=["tests/test_given.py"])["said"]
    skips = "import pytest\n\n\n@pytest.mark.skip\ndef test_add():\n    pass\n"
    (tmp_path / "tests" / "test_given.py").write_text(skips)
    assert "no test" in check(world, tests=["tests/test_given.py"])["said"]


def test_tests_of_its_own_are_run_and_may_be_changed(world: World) -> None:
    write(world, "lib/test_add.py", TESTS.replace("== 3", "== 4"))
    found = check(world, "lib/add.py", "lib/test_add.py")
    assert (found["passed"], found["failed"]) == (0, 1)
    write(world, "lib/test_add.py", TESTS)
    assert check(world, "lib/*.py")["passed"] == 1


def test_a_run_that_wrote_its_acceptance_tests_is_refused(world: World) -> None:
    write(world, "tests/test_given.py", "def test_add():\n    pass\n")
    with pytest.raises(DeviceError, match="nobody may change") as caught:
        check(world, tests=["tests/test_given.py"])
    assert caught.value.code == "test_changed"


def test_only_what_is_declared_is_there_and_nothing_can_be_written(world: World) -> None:
    write(world, "lib/secret.py", "KEY = 1\n")
    write(world, "lib/add.py", "from lib.secret import KEY\n\n\ndef add(a, b):\n    return a + b\n")
    assert "No module named" in check(world, tests=["tests/test_given.py"])["said"]
    assert check(world, reads=["lib/secret.py"], tests=["tests/test_given.py"])["ok"]
    place = f"{process.inside()}/lib/add.py"
    spoils = f"open({place!r}, 'w')\n\n\ndef add(a, b):\n    return a + b\n"
    write(world, "lib/add.py", spoils)
    assert "Read-only file system" in check(world, tests=["tests/test_given.py"])["said"]


def test_much_is_shortened_in_the_middle(world: World) -> None:
    write(world, "lib/add.py", "".join(f"undefined_{n}\n" for n in range(2_000)))
    said = check(world)["said"]
    assert len(said) < checking.SAID_CHARS + 100
    assert "undefined_0'" in said and "undefined_1999'" in said and "left out" in said


def test_a_verdict_can_be_reused_as_long_as_the_files_are_the_same(world: World) -> None:
    call = make_call("python.check", paths=["lib/*.py"], tests=["tests/test_given.py"])

    def version() -> str | None:
        return wait(world.processes.read_version(call))

    first = version()
    assert first == version()
    write(world, "lib/add.py", GOOD + "\n")
    assert version() != first


def test_the_verdict_says_who_may_have_decided_it(world: World) -> None:
    reply = wait(world.call("python.check", paths=["lib/add.py"], tests=["tests/test_given.py"]))
    assert "file:tests/test_given.py" in total_label(reply.value).sources


def test_without_its_libraries_it_says_what_to_install(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking.libraries.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="edvac\\[check\\]"):
        check(world)
    checking.libraries.cache_clear()
