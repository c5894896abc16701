"""`run` and `resume`: what goes in, what comes out, and every exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_kit import PROGRAM, Bench

from edvac.compiler.grammar import END
from edvac.core import errors
from edvac.machine import processors
from edvac.machine.settings import Settings
from edvac.processor import FREE, Request
from edvac.processor.scripted import ScriptedProcessor

CHOOSE = processors.choose_processor


PLAN = 'files.write("zebra.txt", "a")'


def plans(request: Request) -> str:
    """A planner that writes one statement, then the end of the program."""
    return END if PLAN in str(request) else PLAN


def fails_on_beta(request: Request) -> str:
    if "beta" in request.messages[-1].text:
        raise errors.DeviceError("broken", "this one cannot be read")
    return "ok"


def test_a_program_runs_to_its_end(edvac: Bench) -> None:
    done = edvac("run", "p.edv", "--yes")
    assert done.code == 0
    assert done.out == ""
    assert "6 steps finished" in done.err or "7 steps finished" in done.err
    assert "edvac apply" in done.err
    assert not (edvac.root / "out").exists()


def test_output_delivers_and_undo_takes_it_back(edvac: Bench) -> None:
    done = edvac("run", "p.edv", "--yes", "--output", "result")
    assert done.code == 0
    assert "edvac undo" in done.err
    assert (edvac.root / "result" / "out" / "notes.md").read_text().count("[") == 2
    run = edvac("ps", "--json").document["runs"][0]["id"]
    again = edvac("run", "p.edv", "--yes", "--output", "result")
    assert "notes.md  " in again.err and "bytes, as it was" in again.err
    assert "edvac apply" not in again.err, "there is nothing left to apply"
    assert edvac("undo", run).code == 0
    assert not (edvac.root / "result" / "out" / "notes.md").exists()


def test_very_many_files_are_not_all_listed_at_the_end(edvac: Bench) -> None:
    program = 'for n in range({}):\n    files.write(f"out/{{n}}.txt", "ab")\n'
    for count, listed in ((40, 40), (41, 20)):
        (edvac.root / "many.edv").write_text(program.format(count))
        done = edvac("run", "many.edv", "--yes")
        assert done.code == 0
        assert len(re.findall(r"  out/\d+\.txt  2 bytes", done.err)) == listed
    assert re.search(r"… 21 files more, 42 bytes: `edvac show \w+ --steps`", done.err)


def test_set_changes_a_parameter(edvac: Bench) -> None:
    edvac("run", "p.edv", "--yes", "--set", "limit=77", "--output", "result")
    assert (edvac.root / "result" / "limit.txt").read_text() == "77"


def test_input_names_the_directory(edvac: Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "inbox"
    elsewhere.mkdir(parents=True)
    (elsewhere / "only.txt").write_text("one")
    edvac("run", "p.edv", "--yes", "--input", str(elsewhere), "--output", "result")
    assert (edvac.root / "result" / "out" / "notes.md").read_text().count("[") == 1
    done = edvac("run", "p.edv", "--yes", "--input", ".", "--output", "again")
    assert done.code == 0
    assert (edvac.root / "again" / "out" / "notes.md").read_text().count("[") == 2


def test_earlier_results_are_reused_unless_fresh(edvac: Bench) -> None:
    edvac("run", "p.edv", "--yes")
    assert "reused" in edvac("run", "p.edv", "--yes").err
    assert edvac.processors[-1].calls == 0
    assert "reused" not in edvac("run", "p.edv", "--yes", "--fresh").err
    assert edvac.processors[-1].calls == 2


def test_a_program_from_standard_input(edvac: Bench) -> None:
    done = edvac("run", "-", "--yes", stdin='files.write("a.txt", "a")\nfiles.write("b.txt", "b")')
    assert done.code == 0
    assert "2 steps finished" in done.err


@pytest.mark.parametrize(
    "text",
    [
        "Read the invoices in the inbox\nand write totals\n",
        "Total the invoices (those of May) per vendor",
        "Do this:\n- read the inbox\n- write totals, vendor = name\n",
        "For each invoice in the inbox:\n  write a line\n",
        "for each invoice in the inbox:\n  write a line\n",
        "Input: inbox\nOutput: totals",
        "Invoice(s) per vendor",
        "Tidy",
        "notes or mails",
        "the price is >= 5 and x == y\n",
    ],
)
def test_words_on_standard_input_are_a_task(edvac: Bench, text: str) -> None:
    edvac.answer = plans
    done = edvac("run", "-", "--plan-only", stdin=text)
    assert (done.code, done.out.rstrip()) == (0, PLAN), done.err
    assert "[syntax]" in edvac("check", "-", stdin=text + "!").out, "check takes programs alone"


@pytest.mark.parametrize(
    "text",
    [
        "x = (\n",
        'a, b = files.read("x" 1)\n',
        'files.write("a.txt" "a"',
        "for p in files.list(:\n    y\n",
        "if x y:\n    z\n",
        "def f(x) -> :  # so\n    z\n",
        "x += 1 1\n",
    ],
)
def test_a_wrong_program_on_standard_input_is_no_task(edvac: Bench, text: str) -> None:
    done = edvac("run", "-", "--yes", stdin=text)
    assert done.code == 2 and "line 1" in done.err and not edvac.processors
    assert edvac("run", "-", "--yes", stdin=" \n").code == 2, "nothing is no task"


def test_plan_only_prints_the_program_and_stores_nothing(edvac: Bench) -> None:
    done = edvac("run", "p.edv", "--plan-only")
    assert (done.code, done.out) == (0, PROGRAM)
    assert edvac("run", "p.edv", "--plan-only", "--json").document == {"program": PROGRAM}
    assert not edvac.stored
    assert not edvac.processors, "no model is needed to print a program"


def test_plan_only_of_a_task_is_one_json_document(edvac: Bench) -> None:
    edvac.answer = plans
    done = edvac("run", "Write a file", "--plan-only", "--json")
    assert done.code == 0, done.err
    assert done.document["program"].rstrip() == PLAN
    assert f"1 {PLAN}" in done.err, "lines of the plan are told beside it"


def test_a_plan_is_tried_on_the_files_that_are_there(edvac: Bench) -> None:
    edvac.write("n.csv", "n\nabc\n5\n")
    wrong = 'files.write("s.txt", f"{sum([int(r[\'n\']) for r in n])}")\n'
    right = 'files.write("s.txt", f"{sum([len(r[\'n\']) for r in n])}")\n'
    prompts: list[str] = []

    def answer(request: Request) -> str:
        prompts.append(f"{request.messages} {request.prefill}")
        return (wrong if len(prompts) == 1 else right) + "x"

    edvac.answer = answer
    done = edvac("run", "Sum up how long the cells of n.csv (n) are in s.txt.", "--plan-only")
    assert done.code == 0 and done.out.endswith(right), done.err
    assert len(prompts) > 1 and not any("abc" in prompt for prompt in prompts)


def test_what_may_not_be_replaced_is_left_and_the_run_is_told_of(edvac: Bench) -> None:
    edvac.write("result/limit.txt", "mine")
    done = edvac("run", "p.edv", "--yes", "--output", "result")
    assert done.code == 1, "it ran"
    assert "is done after" in done.err and "make it real with `edvac apply" in done.err
    assert "as it was" not in done.err and "edvac undo`" not in done.err
    assert "[target_changed]" in done.err and "`edvac apply --force`" in done.err
    assert (edvac.root / "result/limit.txt").read_text() == "mine"
    noted = edvac("diff")
    said = "note: limit.txt: a different file is already there; apply would refuse it"
    assert noted.err.splitlines() == [said]
    assert edvac("diff", "--patch").err.splitlines() == [said]
    as_json = edvac("run", "p.edv", "--yes", "--output", "result", "--json")
    assert as_json.code == 1
    assert json.loads(as_json.out.splitlines()[-1])["error"]["code"] == "target_changed"
    assert edvac("apply", "--force").code == 0
    assert edvac("diff").err == ""


def test_what_came_of_a_run_that_failed_in_part_can_be_taken_back(edvac: Bench) -> None:
    edvac.answer = fails_on_beta
    done = edvac("run", "p.edv", "--yes", "--output", "result")
    assert done.code == 1 and (edvac.root / "result/limit.txt").exists()
    assert "--retry" in done.err and "Take it back with `edvac undo" in done.err


def test_events_as_json_lines(edvac: Bench) -> None:
    done = edvac("run", "p.edv", "--yes", "--json")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert events[0]["event"] == "run_opened"
    assert events[-1]["event"] == "run_closed"
    assert events[-1]["state"] == "done"
    assert done.err == ""


def test_one_bad_item_does_not_end_a_run_and_retry_mends_it(edvac: Bench) -> None:
    edvac.answer = fails_on_beta
    done = edvac("run", "p.edv", "--yes")
    assert done.code == 1
    assert "✗ notes[1]: this one cannot be read (holds up 1 more)" in done.err
    assert "--retry" in done.err
    edvac.answer = lambda request: "mended"
    done = edvac("resume", "--retry")
    assert done.code == 0
    assert edvac.processors[-1].calls == 1
    assert edvac("resume").code == 2


def test_a_spent_budget_is_kept_until_there_is_a_larger_one(edvac: Bench) -> None:
    edvac.monkeypatch.setenv("EDVAC_AT_ONCE", "1")
    done = edvac("run", "p.edv", "--yes", "--budget", "1")
    assert done.code == 5
    assert "its 1 tokens are spent" in done.err
    assert "`edvac resume" in done.err and "--budget AMOUNT`" in done.err
    assert "its budget is spent" in edvac("ps").out
    assert edvac("resume").code == 5, "the budget is the run's, not the command's"
    done = edvac("resume", "--budget", "100000")
    assert done.code == 0 and "failed" not in done.err
    assert edvac.processors[-1].calls == 1, "what was computed is not computed again"


def test_a_model_that_is_away_is_no_result(edvac: Bench) -> None:
    def refused(_: Request) -> str:
        raise errors.ConfigError("endpoint_key", "it refused the key", "", "Set MODEL_KEY.")

    edvac.write("q.edv", 'files.write("a.txt", attempt(llm.write("a"), "nothing"))\n')
    edvac.answer = refused
    done = edvac("run", "q.edv", "--yes")
    assert done.code == 3 and "is waiting" in done.err
    assert "It waits for the model: it refused the key." in done.err and "MODEL_KEY" in done.err
    assert "waiting" in edvac("ps").out and "its model was away (`edvac resume" in edvac("ps").out
    assert edvac("resume").code == 3, "it still is"
    edvac.answer = lambda request: "there"
    assert edvac("resume").code == 0 and edvac("apply", "--output", "out").code == 0
    assert "its model was away" not in edvac("ps").out
    assert (edvac.root / "out/a.txt").read_text() == "there"


def test_a_budget_that_was_raised_stays_raised(edvac: Bench) -> None:
    edvac.write("q.edv", 'x = llm.write("a")\ny = human.ask("b")\nz = llm.write("c", x, y)\n')
    assert edvac("run", "q.edv", "--yes", "--budget", "1").code == 4
    assert edvac("answer", "1=x", "--resume").code == 5
    run = edvac("resume", "--budget", "100000", "--retry")
    assert run.code == 0
    edvac.write("q.edv", 'x = llm.write("a")\ny = human.ask("b", [], x)\nz = llm.write("c", y)\n')
    assert edvac("run", "q.edv", "--yes", "--fresh", "--budget", "1").code == 4
    assert edvac("resume", "--budget", "100000").code == 4
    assert edvac("answer", "1=x", "--resume").code == 0


PRICED = """
[prices."http://127.0.0.1:9/v1#paid"]
input = 4.0
output = 1000000
"""


def test_a_budget_in_money(edvac: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def paid(settings: Settings, emit: object = None) -> ScriptedProcessor:
        made = ScriptedProcessor(lambda request: "1234" * 2, concurrency=1)
        made.price = dict(settings.prices).get(settings.model, FREE)
        return made

    model = "http://127.0.0.1:9/v1#paid"
    monkeypatch.setattr(processors, "choose_processor", paid)
    edvac.write("edvac.toml", PRICED)
    done = edvac("run", "p.edv", "--yes", "--model", model, "--budget", "2.00USD")
    assert done.code == 5, "the first call costs 2 and a little"
    assert "its money is spent (2.00" in done.err
    assert re.search(r"used \d+ tokens, 2.00\d\d USD", done.err)
    assert "2.00" in edvac("ps").out
    run = edvac("ps", "--json").document["runs"][0]
    assert run["cost"].startswith("2.00") and run["currency"] == "USD"
    assert edvac("resume", "--budget", "5.00USD").code == 0
    assert edvac("ps", "--json").document["runs"][0]["cost"].startswith("4.00")
    assert "4.00" in edvac("show").out


def test_money_needs_a_price_and_one_currency(edvac: Bench) -> None:
    edvac.monkeypatch.setattr(processors, "choose_processor", CHOOSE)
    args = ["run", "p.edv", "--yes", "--model", "http://127.0.0.1:9/v1#x", "--budget"]
    assert "[price_unknown]" in edvac(*args, "2.00USD").err
    assert "[budget_malformed]" in edvac(*args, "2.00EUR").err
    assert not edvac.stored


def test_a_run_goes_on_with_the_model_it_was_begun_with(edvac: Bench) -> None:
    edvac.answer = fails_on_beta
    assert edvac("run", "p.edv", "--yes", "--model", "one").code == 1
    done = edvac("resume", "--retry")
    assert done.code == 1
    assert edvac.processors[-1].identity == "one"
    assert "begun with" not in done.err
    edvac.answer = lambda request: "mended"
    done = edvac("resume", "--retry", "--model", "two")
    assert done.code == 0
    assert edvac.processors[-1].identity == "two"
    assert "note: the run was begun with one; it goes on with two" in done.err


def test_what_cannot_go_on_is_said_before_a_model_is_loaded(edvac: Bench) -> None:
    assert edvac("run", "p.edv", "--yes").code == 0
    asked = len(edvac.processors)
    assert "nothing_to_resume" in edvac("resume").err
    assert "parameter_unknown" in edvac("run", "p.edv", "--yes", "--set", "most=5").err
    assert len(edvac.processors) == asked


def test_a_failed_step_says_why(edvac: Bench) -> None:
    (edvac.root / "inbox" / "c.txt").write_bytes(b"caf\xe9")
    done = edvac("run", "p.edv", "--yes")
    said = "✗ notes[2].files.read: 'inbox/c.txt' is not UTF-8 text: byte 3 does not fit"
    assert done.err.count(said) == 2, "when it happened, and in the summary"


def test_a_line_that_fails_says_why(edvac: Bench) -> None:
    edvac.write("q.edv", 'x = [1][2]\nfiles.write("a.md", f"{x}")\nfiles.write("b.md", f"{x}")\n')
    done = edvac("run", "q.edv", "--yes")
    assert done.code == 1
    assert "- files.write@2: not done: line 1: tuple index out of range" in done.err
    assert "✗ line 1: tuple index out of range (holds up 2 more)" in done.err


def test_an_empty_inbox_is_said(edvac: Bench) -> None:
    for path in (edvac.root / "inbox").iterdir():
        path.unlink()
    done = edvac("run", "p.edv", "--yes")
    assert done.code == 0
    assert "no file matches 'inbox/*'" in done.err


def test_a_missing_directory_is_said(edvac: Bench) -> None:
    edvac.write("q.edv", 'x = files.list("inbax/*.txt")\n')
    done = edvac("run", "q.edv", "--yes")
    assert "inbax/" in done.err
    assert "no such directory" in done.err


def test_a_file_that_is_not_utf8_fails_alone(edvac: Bench) -> None:
    (edvac.root / "inbox" / "c.txt").write_bytes(b"caf\xe9")
    done = edvac("run", "p.edv", "--yes")
    assert done.code == 1
    assert "'inbox/c.txt' is not UTF-8 text" in done.err


# -- what cannot be meant: one message with code and remedy, and nothing half written -----------

BAD: dict[str, tuple[list[str], int, str]] = {
    "no task": ([], 2, "task_empty"),
    "an empty task": (["  "], 2, "task_empty"),
    "a program that is not there": (["nope.edv"], 2, "program_unreadable"),
    "an illegal program": (["bad.edv", "--yes"], 2, ""),
    "an unknown device": (["device.edv", "--yes"], 2, ""),
    "an input that is not there": (["p.edv", "--yes", "--input", "nope"], 2, "input_root_missing"),
    "an input that is a file": (["p.edv", "--yes", "--input", "p.edv"], 2, "input_root_missing"),
    "two inputs of one name": (
        ["p.edv", "--yes", "--input", "inbox", "--input", "other/inbox"], 2, "input_root_twice",
    ),
    "an output that is a file": (["p.edv", "--yes", "--output", "p.edv"], 2, "output_unwritable"),
    "an output below a file": (["p.edv", "-y", "--output", "p.edv/x"], 2, "output_unwritable"),
    "a setting without a value": (["p.edv", "--yes", "--set", "limit"], 2, "set_malformed"),
    "nobody to approve": (["p.edv"], 4, "approval_needed"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_message_and_nothing_is_stored(edvac: Bench, what: str) -> None:
    edvac.write("bad.edv", "x = (\n")
    edvac.write("device.edv", 'radio.send("x")\n')
    (edvac.root / "other" / "inbox").mkdir(parents=True)
    args, code, name = BAD[what]
    done = edvac("run", *args)
    assert done.code == code
    assert done.err.count("error: ") == 1
    assert f"[{name}" in done.err
    assert not edvac.stored
    as_json = edvac("run", *args, "--json")
    assert json.loads(as_json.out.splitlines()[-1])["error"]["code"].startswith(name)
    assert as_json.code == code


@pytest.mark.parametrize("pair", ["nope=1", "limit=x"])
def test_a_wrong_parameter(edvac: Bench, pair: str) -> None:
    done = edvac("run", "p.edv", "--yes", "--set", pair)
    assert done.code == 2
    assert "[parameter_" in done.err
    assert not edvac.stored


def test_standard_input_that_is_not_text(edvac: Bench) -> None:
    done = edvac("run", "-", "--yes", stdin=b"\xff\xfe\x00")
    assert (done.code, "program_unreadable" in done.err) == (2, True)


@pytest.mark.parametrize("model", ["no-such-model", "nope/model.gguf", "http://x", "ftp://x#m"])
def test_an_unknown_model(edvac: Bench, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "choose_processor", REAL)
    done = edvac("run", "p.edv", "--yes", "--model", model)
    assert done.code == 2
    assert "error: " in done.err
    assert not edvac.stored


def test_a_model_file_that_is_cut_off(edvac: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "choose_processor", REAL)
    (edvac.root / "m.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    done = edvac("run", "p.edv", "--yes", "--model", "./m.gguf")
    assert done.code in (2, 3)
    assert done.err.count("error: ") == 1


@pytest.mark.usefixtures("hasty")
def test_an_endpoint_that_is_down(edvac: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "choose_processor", REAL)
    edvac.write("q.edv", 'files.write("a.txt", attempt(llm.write("x"), "none"))\n')
    done = edvac("run", "q.edv", "--yes", "--model", "http://127.0.0.1:9/v1#m", "--output", "o")
    assert done.code == 3 and "could not be reached" in done.err
    assert "It waits for the model" in done.err and not (edvac.root / "o").exists()


def test_a_workspace_that_cannot_be_written(edvac: Bench) -> None:
    edvac.write(".edvac", "a file in the way")
    done = edvac("run", "p.edv", "--yes")
    assert done.code == 1
    assert done.err.count("error: ") == 1


def test_a_question_that_nobody_can_answer_waits(edvac: Bench) -> None:
    edvac.write("q.edv", 'a = human.ask("Which?")\nfiles.write("a.txt", a)\n')
    done = edvac("run", "q.edv", "--yes")
    assert done.code == 4
    assert "edvac resume" in done.err


REAL = processors.choose_processor


def fails_on_even(request: Request) -> str:
    found = re.search(r"mail (\d+)", request.messages[-1].text)
    if found and int(found[1]) % 2 == 0:
        raise errors.DeviceError(
            "broken", f"mail {found[1]} is cut off", "It ends early.", "Mend it."
        )
    return "ok"


def test_hundreds_that_fail_for_one_reason_are_one_row_and_a_list(edvac: Bench) -> None:
    for number in range(120):
        edvac.write(f"inbox/m{number}.txt", f"mail {number}")
    edvac.answer = fails_on_even
    edvac.write(
        "q.edv", PROGRAM + 'x = attempt(llm.write("a", "mail 2"), "")\nb = date.parse("?")\n'
    )
    done = edvac("run", "q.edv", "--yes")
    assert done.code == 1
    rows = [line for line in done.err.splitlines() if "is cut off" in line and "holds up" in line]
    assert len(rows) == 1 and " and 59 more: " in rows[0] and "it ends early" in rows[0]
    assert "Mend it." in done.err and "--failed` lists all" in done.err
    assert " and 59 more: " in edvac("show").out
    found = edvac("show", "--failed", "--json").document["failed"]
    assert len([one for one in found if one["code"] == "broken"]) == 60, "attempt accepted one"
    assert ["inbox/m0.txt"] in [one["inputs"] for one in found], "which fails first is open"
    rows = edvac("show", "--failed", "--csv").out.splitlines()
    assert rows[0].startswith("item,inputs,code") and len(rows) == len(found) + 1
    assert any("inbox/m0.txt" in row and "Mend it." in row for row in rows)
    edvac.answer = lambda request: "mended"
    edvac("resume", "--retry")
    found = edvac("show", "--failed", "--json").document["failed"]
    assert all(one["code"] != "broken" for one in found), "what a retry mended has not failed"


def test_show_lists_some_of_very_many_steps(edvac: Bench) -> None:
    for number in range(120):
        edvac.write(f"inbox/m{number}.txt", f"mail {number}")
    edvac("run", "p.edv", "--yes")
    shown = edvac("show").out
    assert shown.count("✓") == 100 and "steps more: `edvac show --steps`" in shown
    assert edvac("show", "--steps").out.count("✓") > 240


@pytest.mark.parametrize(
    ("program", "flags", "code"),
    [
        ('files.write("a", "b")\n', [], 0),
        ('x = files.read("inbox/none")\n', [], 1),
        ('x = attempt(files.read("inbox/none"), "")\n', [], 0),
        ("x = \n", [], 2),
        ('x = human.ask("?")\n', [], 4),
        ('x = llm.write("a")\ny = llm.write("b", x)\n', ["--budget", "1"], 5),
    ],
)
def test_one_rule_for_exit_codes(edvac: Bench, program: str, flags: list[str], code: int) -> None:
    edvac.write("q.edv", program)
    assert edvac("run", "q.edv", "--yes", *flags).code == code
