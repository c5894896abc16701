"""Every other command: what it prints, its JSON, its refusals; help and start-up."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest
from cli_kit import PROGRAM, Bench

from edvac.cli import ui
from edvac.cli.main import COMMANDS
from edvac.core import errors

HOSTILE = "a\x1b[31m\x1b]52;c;aGk=\x07\u202egpj.exe\u200b\r\nrun ended\x9b2J\ud800"


@pytest.fixture
def done(edvac: Bench) -> Bench:
    assert edvac("run", "p.edv", "--yes", "--output", "result").code == 0
    return edvac


@pytest.mark.parametrize(
    ("args", "keys"),
    [
        (["ps"], {"runs"}),
        (["show"], {"id", "state", "program", "steps"}),
        (["show", "--program"], {"run", "program"}),
        (["log"], {"run", "records"}),
        (["diff"], {"run", "changes"}),
        (["undo"], {"run", "undone"}),
        (["apply", "--output", "again"], {"run", "applied"}),
        (["check", "p.edv"], {"legal", "diagnostics"}),
        (["config"], {"model", "budget"}),
        (["doctor"], {"healthy", "findings"}),
        (["gc"], {"blobs", "bytes"}),
        (["model", "ls"], {"models"}),
    ],
)
def test_json_is_one_document(done: Bench, args: list[str], keys: set[str]) -> None:
    said = done(*args, "--json")
    assert said.code == 0
    assert keys <= set(said.document)


def test_json_of_one_step_and_of_removal(done: Bench) -> None:
    run = done("ps", "--json").document["runs"][0]["id"]
    step = done("show", run, "notes[0]", "--json").document
    assert step["step"] == "notes[0]"
    assert step["value"].startswith("[")
    assert any("alpha" in part for part in step["prompt"])
    assert "file:inbox/a.txt" in str(step["label"])
    assert done("rm", run, "--json").document == {"removed": [run]}
    assert done("ps", "--json").document == {"runs": []}


def test_a_program_with_errors_is_json_too(edvac: Bench) -> None:
    edvac.write("bad.edv", 'x = radio.send("x")\ny = unknown\n')
    said = edvac("check", "bad.edv", "--json")
    assert said.code == 2
    assert said.document["legal"] is False
    assert {"line", "code", "what", "fix"} <= set(said.document["diagnostics"][0])
    assert "bad.edv:1:" in edvac("check", "bad.edv").out


def test_texts_for_people(done: Bench) -> None:
    assert "done" in done("ps").out
    shown = done("show").out
    assert "1 limit = param(3)" in shown
    assert "✓ notes[0]" in shown
    assert "outcome" in done("log").out
    assert "same" in done("diff").out
    assert "default" in done("config").out
    assert "class" in done("stubs").out or "def" in done("stubs").out


def test_check_says_what_a_legal_program_would_touch(edvac: Bench) -> None:
    lines = edvac("check", "p.edv").out.splitlines()
    assert lines[0] == "reads     inbox/*"
    assert lines[1].startswith("writes    out/notes.md, limit.txt")
    assert lines[2] == "steps     llm.write ×1, files.read ×1, files.list ×1, files.write ×2"
    assert lines[-1] == "0 errors, 0 warnings"
    effects = [line for line in lines[3:-1] if line.startswith("effect")]
    assert len(effects) == 2 and "by what inbox/* says, a model" in effects[0]
    document = edvac("check", "p.edv", "--json").document
    assert document["reads"] == ["inbox/*"]
    assert document["steps"]["files.write"] == 2
    assert "file:inbox/*" in document["effects"][0]["operands"]["text"]
    assert {one["policy"] for one in document["effects"]} == {"allow"}


def test_a_step_for_people_says_what_influenced_it(done: Bench) -> None:
    run = done("ps", "--json").document["runs"][0]["id"]
    shown = done("show", run, "notes[0]").out
    assert "influenced by: file:inbox/a.txt, " in shown
    assert "prompt:" not in shown and "label:" not in shown


def test_the_prompt_is_shown_as_it_was_sent(done: Bench) -> None:
    run = done("ps", "--json").document["runs"][0]["id"]
    said = done("show", run, "notes[0]", "--prompt").out
    assert "alpha" in said
    assert "--- received ---\n[" in said
    refused = done("show", run, "limit", "--prompt")
    assert refused.code == 2


def test_an_unknown_step_gets_a_suggestion(done: Bench) -> None:
    run = done("ps", "--json").document["runs"][0]["id"]
    said = done("show", run, "note[0]")
    assert said.code == 2
    assert "Did you mean notes[0]" in said.err


def test_formatting(edvac: Bench) -> None:
    path = edvac.write("f.edv", "x=1\n")
    path.chmod(0o640)
    assert edvac("fmt", "f.edv", "--check").code == 1
    assert path.read_text() == "x=1\n"
    assert edvac("fmt", "f.edv").code == 0
    assert path.read_text() == "x = 1\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert edvac("fmt", "f.edv", "--check").code == 0
    assert edvac("fmt", "-", stdin="y=2\nz=y\n").out == "y = 2\nz = y\n"
    assert sorted(p.name for p in edvac.root.glob("f.edv*")) == ["f.edv"]


@pytest.mark.parametrize(
    "args", [["ps"], ["show"], ["log"], ["diff"], ["apply"], ["undo"], ["kill"], ["gc"], ["resume"]]
)
def test_before_the_first_run_it_says_so(edvac: Bench, args: list[str]) -> None:
    said = edvac(*args)
    assert (said.code, "[no_workspace]" in said.err) == (2, True)
    assert not edvac.stored


@pytest.mark.parametrize(
    "command", ["show", "log", "diff", "apply", "undo", "kill", "rm", "resume"]
)
def test_an_unknown_run_is_a_usage_error(done: Bench, command: str) -> None:
    said = done(command, "nope")
    assert said.code == 2
    assert "nope" in said.err


def test_kill_says_what_it_did(done: Bench) -> None:
    assert done("kill").code == 2
    done.write("q.edv", 'a = human.ask("Which?")\n')
    assert done("run", "q.edv", "--yes").code == 4
    assert "not running" in done("kill").out


def test_a_command_that_does_not_exist(edvac: Bench) -> None:
    said = edvac("rnu")
    assert said.code == 2
    assert "Did you mean 'run'?" in said.err
    assert edvac("--nope").code == 2


def test_exit_codes_are_those_of_the_table() -> None:
    table = {
        errors.StepError: 1, errors.StoreError: 1, errors.InternalError: 1,
        errors.UsageError: 2, errors.ProgramError: 2, errors.ConfigError: 2,
        errors.ModelFileError: 2, errors.TransientError: 3, errors.ProcessorError: 3,
        errors.LeaseError: 3, errors.PolicyError: 4, errors.BudgetError: 5,
        errors.DamageError: 6, errors.Interrupted: 130,
    }  # fmt: skip
    for kind, code in table.items():
        assert ui.report_error(kind("code", "what", "why", "fix")) == code


def test_an_error_is_shown_on_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.ProgramError("c", "what", "why", "fix", line=3)
    assert ui.report_error(error, as_json=True) == 2
    out, err = capsys.readouterr()
    assert err == "error: line 3: what [c]\n  why\n  fix\n"
    assert json.loads(out)["error"]["line"] == 3


# -- hostile text -------------------------------------------------------------------------------


def test_hostile_text_shows_what_it_hides() -> None:
    for shown in (ui.safe(HOSTILE), ui.safe_line(HOSTILE)):
        assert all(char.isprintable() or char == "\n" for char in shown)
        assert "\\x1b[31m" in shown
        assert "\\u202e" in shown
    assert "\n" not in ui.safe_line(HOSTILE)
    assert json.loads(ui.json_text(HOSTILE)) == HOSTILE
    assert all(ord(char) < 127 for char in ui.json_text(HOSTILE))
    assert ui.safe("grüße 日本 🙂\tx\ny") == "grüße 日本 🙂\tx\ny"


def test_nothing_from_a_document_reaches_the_terminal(edvac: Bench) -> None:
    evil = "x\x1b]52;c;aGk=\x07\u202e"
    (edvac.root / "inbox" / evil).write_text("e")
    edvac.answer = lambda request: f"{evil}\nrun ended"
    said = [
        edvac("run", "p.edv", "--yes"),
        *(edvac(*c) for c in (["show"], ["log"], ["diff"], ["apply"], ["ps"], ["log", "--json"])),
        edvac("run", "p.edv", "--yes", "--json", "--fresh"),
    ]
    for one in said:
        assert not {"\x1b", "\x07", "\u202e"} & set(one.out + one.err)
    assert "\\x1b" in said[0].err
    assert not any(line.startswith("run ended") for line in said[0].err.splitlines())


# -- start-up -----------------------------------------------------------------------------------

HEAVY = {"torch", "jinja2", "apsw", "httpx2", "rich", "edvac.engine", "edvac.store"}


def python(code: str) -> tuple[str, float]:
    """Output of a child, and its computing time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, used


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom edvac.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    out, used = python(code)
    assert out.splitlines()[-1] == "[]"
    for name in COMMANDS:
        assert name in out
    print(f"edvac --help: {used * 1e3:.0f} ms of computing")


@pytest.mark.parametrize("args", [["ps"], ["check", "p.edv"], ["config"], ["fmt", "p.edv"]])
def test_light_commands_import_no_torch(edvac: Bench, args: list[str]) -> None:
    code = (
        "import sys\nfrom edvac.cli.main import main\n"
        f"try: main({args!r})\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'jinja2'} & set(sys.modules)))"
    )
    assert python(code)[0].splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "bench"])
def test_every_command_has_help(edvac: Bench, command: str) -> None:
    said = edvac(command, "--help")
    assert said.code == 0
    for line in said.out.splitlines():
        assert len(line) <= 100
    assert COMMANDS[command][2].rstrip(".").split()[0] in said.out
    assert PROGRAM


def test_diff_shows_rows_of_databases_and_prints_patches(edvac: Bench) -> None:
    rows = "[{'id': n, 'x': 'a\\x1bb'} for n in range(12)]"
    edvac.write("p.edv", f"sql.insert('t.db', 't', {rows})\nfiles.write('n ü.md', 'new')\n")
    assert edvac("run", "p.edv", "--yes").code == 0
    first = edvac("diff").out
    assert "t.db: table t: new; rows 12 added" in first and "and 2 more (--all shows all)" in first
    assert first.count("\n  + ") == 10 and "\x1b" not in first
    assert edvac("diff", "--all").out.count("\n  + ") == 12
    document = edvac("diff", "--json").document
    [table] = next(one["tables"] for one in document["changes"] if one["path"] == "t.db")
    assert table["added"] == 12 and table["rows"][0]["after"]["x"] == "a\x1bb"
    patch = edvac("diff", "--patch").out
    assert "GIT binary patch" in patch and 'b/n \\303\\274.md"' in patch
    assert edvac("diff", "--patch", "--all").code == 2
