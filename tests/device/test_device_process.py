"""`python.run` and `shell.run`: exactly what is declared goes in and comes out, with its labels."""

from __future__ import annotations

import datetime as dt
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from device_kit import World, few_files, make_call, wait

from edvac.core.errors import DeviceError, SandboxError
from edvac.core.label import UNBOUNDED, Label
from edvac.core.signature import overlap
from edvac.core.value import Scalar, total_label
from edvac.device import Call, Held
from edvac.device.process import _TAKEN, check_names
from edvac.sandbox import Isolation, bubblewrap

pytestmark = pytest.mark.sandbox


@pytest.fixture
def world(tmp_path: Path) -> World:
    inbox = tmp_path / "inbox"
    (inbox / "sub").mkdir(parents=True)
    (inbox / "a.txt").write_text("alpha\n")
    (inbox / "b [1].txt").write_text("brackets\n")
    (inbox / "sub" / "c.txt").write_text("deep\n")
    (inbox / "csv.py").write_text("raise SystemExit('an input was imported')")
    return World({"inbox": inbox})


def test_python_gets_data_by_name_and_returns_what_it_prints(world: World) -> None:
    data = {"n": 3, "rows": [{"a": Decimal("1.50")}], "day": dt.date(2026, 1, 2), "t": "é\ud83d"}
    code = "print(n + 1, rows, day, t == 'é\\ud83d')"
    assert world.get("python.run", code=code, data=data) == "4 [{'a': '1.50'}] 2026-01-02 True"


def test_shell_gets_data_in_its_environment(world: World) -> None:
    data = {"name": "x; echo $(id)`id`", "n": 3, "items": ["é"]}
    said = world.get("shell.run", code='echo "$name|$n|$items"', data=data)
    assert said == 'x; echo $(id)`id`|3|["é"]'


def test_only_declared_files_appear(world: World) -> None:
    code = "find . -type f | sort; cat inbox/a.txt"
    assert world.get("shell.run", code=code, reads=["inbox/a.txt"]) == "./inbox/a.txt\nalpha"
    assert world.get("shell.run", code="find . -type f") == ""
    deep = world.get("shell.run", code="find . -type f | sort", reads=["inbox/**/c.txt"])
    assert deep == "./inbox/sub/c.txt"


def test_a_directory_declares_what_is_in_it(world: World) -> None:
    assert world.get("shell.run", code="cat inbox/sub/c.txt", reads=["inbox/sub"]) == "deep"


def test_a_name_with_brackets_is_itself(world: World) -> None:
    said = world.get("shell.run", code="cat inbox/*", reads=["inbox/b [1].txt"])
    assert said == "brackets"


def test_reads_of_nothing_are_said(world: World) -> None:
    assert world.do("shell.run", code="true", reads=["inbox/*.pdf"]).notes == (
        "no file matches 'inbox/*.pdf'",
    )


def test_an_input_is_never_imported(world: World) -> None:
    assert world.get("python.run", code="import csv; print('ok')", reads=["inbox/*"]) == "ok"
    code = "import os; os.chdir('inbox'); assert os.path.exists('csv.py'); import csv; print('ok')"
    assert world.get("python.run", code=code, reads=["inbox/*"]) == "ok"


def test_declared_writes_become_versions_and_others_vanish(world: World) -> None:
    code = (
        "mkdir -p out/deep; for f in out/a.txt out/b.csv out/deep/c.txt top; do echo $f >$f; done"
    )
    reply = world.do("shell.run", code=code, writes=["out/*.txt", "out/deep/c.txt"])
    assert {new.path: new.content for new in reply.files} == {
        "out/a.txt": b"out/a.txt\n",
        "out/deep/c.txt": b"out/deep/c.txt\n",
    }
    assert world.get("files.read", path="out/a.txt") == "out/a.txt\n"


def test_names_with_wildcards_are_not_taken_for_declared(world: World) -> None:
    code = "mkdir -p out; echo x > 'out/*'; echo x > '[evil'; echo x > out/a.csv; echo x > outx"
    reply = world.do("shell.run", code=code, writes=["out/*.txt", "out/b"])
    assert reply.files == ()
    assert overlap("[evil", "out/*.txt"), "the hazard test is wider, which is why it is not used"


def test_a_directory_may_be_declared(world: World) -> None:
    code = "mkdir -p site/x; echo 1 >site/a; echo 2 >site/x/b; echo 3 >site/.h"
    reply = world.do("shell.run", code=code, writes=["site"])
    assert [new.path for new in reply.files] == ["site/a", "site/x/b"]


def test_a_changed_input_is_a_new_version_an_untouched_one_is_not(world: World) -> None:
    code = "echo more >> inbox/a.txt"
    files = world.do("shell.run", code=code, reads=["inbox/*"], writes=["inbox/*"]).files
    assert {new.path: new.content for new in files} == {"inbox/a.txt": b"alpha\nmore\n"}


def test_deleting_a_declared_input_deletes_it(world: World) -> None:
    arguments = {"reads": ["inbox/*.txt"], "writes": ["inbox/*.txt"]}
    files = world.do("shell.run", code="rm inbox/a.txt", **arguments).files
    assert [(new.path, new.content) for new in files] == [("inbox/a.txt", None)]
    assert world.refused("files.read", path="inbox/a.txt").code == "file_unreadable"


def test_what_is_only_read_cannot_change(world: World, tmp_path: Path) -> None:
    code = "rm -f inbox/a.txt; echo x >inbox/a.txt"
    assert world.do("shell.run", code=code, reads=["inbox/a.txt"], writes=["out"]).files == ()
    assert (tmp_path / "inbox" / "a.txt").read_text() == "alpha\n"
    assert world.get("files.read", path="inbox/a.txt") == "alpha\n"


def test_links_that_are_left_behind_lead_nowhere(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    code = (
        f"mkdir out; ln -s {tmp_path}/secret out/s; ln -s /etc out/d; ln -s /etc d2; mkfifo out/p"
    )
    reply = world.do("shell.run", code=code, writes=["out/**", "d2/passwd"])
    assert reply.files == ()
    assert any("symbolic link" in note for note in reply.notes)


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a\nb", ".git/hooks/post-commit", ".edvac/store.db"]
)
def test_illegal_writes_are_refused_before_anything_runs(world: World, path: str) -> None:
    assert world.refused("shell.run", code="false", writes=[path]).code.startswith("path_")


def test_a_strange_name_in_a_declared_directory_fails_the_call(world: World) -> None:
    error = world.refused(
        "shell.run", code="mkdir out; echo >out/$(printf 'a\\033b')", writes=["out"]
    )
    assert error.code == "path_illegal"


def label(*sources: str) -> Label:
    return Label.of(sources, readers=["user"], bits=UNBOUNDED)


def test_everything_the_call_read_is_in_the_label(world: World) -> None:
    world.held.kept["own"] = Held(b"x", label("file:origin"))
    call = make_call("shell.run", code="echo 1 >out", reads=["inbox/*.txt", "own"], writes=["out"])
    data = Scalar("v", label("model:m"))
    values = call.operands | {"data": type(call.operands["data"])({"v": data}, label("user"))}
    reply = wait(world.processes.call(Call(call.signature, values, "s", "here", 30.0)))
    wanted = {"file:inbox/a.txt", "name:inbox/a.txt", "shape:inbox", "file:origin", "model:m"}
    assert wanted <= total_label(reply.value).sources
    assert reply.files[0].label is reply.value.label
    assert reply.value.label.readers == {"user"}
    assert "file:inbox/sub/c.txt" not in reply.value.label.sources


def test_a_failure_gives_line_and_reason(world: World) -> None:
    error = world.refused("python.run", code="x = 1\n\nprint(nope)")
    assert error.code == "process_failed"
    assert "line 3" in error.why
    assert "NameError" in error.why
    error = world.refused("shell.run", code="exit 7")
    assert "status 7" in error.what
    error = world.refused("shell.run", code="kill -9 $$")
    assert "SIGKILL" in error.what


def test_python_of_any_shape_runs(world: World) -> None:
    code = "from __future__ import annotations\nimport sys\nif __name__ == '__main__':\n print(1)"
    assert world.get("python.run", code=code) == "1"
    assert "SyntaxError" in world.refused("python.run", code="x = = 1").why


def test_a_failed_call_leaves_no_files(world: World) -> None:
    world.refused("shell.run", code="mkdir out; echo x >out/a; exit 1", writes=["out"])
    assert not world.held.kept


def test_time_and_output_end_a_call(world: World) -> None:
    error = world.refused("shell.run", code="sleep 30", timeout_s=1.3)
    assert error.code == "sandbox_timeout"
    error = world.refused("shell.run", code="yes")
    assert error.code == "sandbox_output"


@pytest.mark.parametrize(
    "name", ["PATH", "LD_PRELOAD", "IFS", "BASH_ENV", "a b", "", "1", "__name__"]
)
def test_names_of_data_cannot_change_the_process(world: World, name: str) -> None:
    assert _TAKEN.fullmatch(name) or not name.isidentifier()
    assert world.refused("shell.run", code="true", data={name: "x"}).code == "data_name_illegal"
    check_names(["rows", "_x1", "Path"])


@pytest.mark.parametrize("value", ["a\0b", "x" * 100_001, "\ud83d"])
def test_what_no_environment_can_hold_is_refused(world: World, value: str) -> None:
    assert world.refused("shell.run", code="true", data={"v": value}).code == "data_too_large"


def test_data_does_not_show_in_the_list_of_processes(world: World) -> None:
    said = world.get(
        "shell.run", code="cat /proc/[0-9]*/cmdline | tr '\\0' ' '", data={"v": "canary"}
    )
    assert "prlimit" in said or "sh" in said
    assert "canary" not in said


def test_the_calls_directory_goes_whatever_happened(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "calls"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    world.get("shell.run", code="mkdir -p a/b; touch a/b/c; chmod 000 a/b a")
    deep = "import os\nfor _ in range(1500):\n os.mkdir('d')\n os.chdir('d')"
    world.get("python.run", code=deep)
    world.refused("shell.run", code="exit 1")
    assert list(place.iterdir()) == []


def test_a_file_that_is_also_a_directory_is_a_typed_error(world: World) -> None:
    world.held.kept["inbox/a.txt/b"] = Held(b"x", label("user"))
    error = world.refused("shell.run", code="true", reads=["inbox/a.txt", "inbox/a.txt/b"])
    assert error.code == "staging_failed"


def test_versions_of_a_call_follow_what_it_reads(world: World, tmp_path: Path) -> None:
    def version(**more: Any) -> str | None:
        call = make_call("shell.run", code="true", reads=["inbox/*.txt"], **more)
        return wait(world.processes.read_version(call))

    first = version()
    assert first == version()
    (tmp_path / "inbox" / "new.txt").write_text("x")
    assert version() != first
    assert version(writes=["out"]) is None


def test_without_isolation_nothing_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "probe", lambda: Isolation(False, "no namespaces", "allow"))
    for op in ("python.run", "shell.run"):
        error = world.refused(op, code="echo ran")
        assert isinstance(error, SandboxError)
        assert (error.code, error.why, error.fix) == ("no_isolation", "no namespaces", "allow")


@pytest.mark.parametrize("spare", [0, 3, 6])
def test_a_call_that_may_open_few_files_fails_with_its_reason(world: World, spare: int) -> None:
    bubblewrap.probe()

    async def call() -> str:
        with few_files(spare):
            try:
                await world.call("shell.run", code="true", reads=["inbox/*.txt"])
            except (DeviceError, SandboxError) as refused:
                return refused.why.lower()
        return ""

    assert "too many open files" in wait(call())


def test_a_call_without_a_place_for_its_files_is_a_failed_step(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    error = world.refused("shell.run", code="true")
    assert error.code == "staging_failed"
    assert "No such file" in error.why
