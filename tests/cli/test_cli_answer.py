"""`answer`: one table of what a run asks, answers from any shell, each counted once."""

from __future__ import annotations

import json

import pytest
from cli_kit import Bench

PROGRAM = """\
for p in files.list("inbox/*"):
    kind = human.ask("Keep it?", ["yes", "no"])
    name = human.ask("What is it called?", [], p)
    files.write(f"out/{path.stem(p)}.txt", f"{kind} {name}")
"""


@pytest.fixture
def asking(edvac: Bench) -> Bench:
    edvac.write("q.edv", PROGRAM)
    assert edvac("run", "q.edv", "--yes").code == 4
    return edvac


def questions(edvac: Bench) -> list[dict[str, object]]:
    found = edvac("answer", "--json").document["questions"]
    assert isinstance(found, list)
    return found


def test_a_run_that_waits_says_so_and_equal_questions_are_one(asking: Bench) -> None:
    assert "waiting for you: 4 questions" in asking("ps").out
    table = asking("answer").out
    assert "3 open questions" in table
    assert "Keep it? (yes, no)  [2 steps]" in table and "inbox/a.txt" in table
    found = questions(asking)
    assert [q["number"] for q in found] == [1, 2, 3]
    assert [len(q["steps"]) for q in found] == [2, 1, 1]  # type: ignore[arg-type]


def test_answers_as_numbers_then_resume(asking: Bench) -> None:
    said = asking("answer", "1=no", "2=Ann")
    assert said.code == 0 and "answered for 3 steps; 1 question left" in said.out
    assert [q["number"] for q in questions(asking)] == [3], "numbers stay"
    assert "waiting for you: 1 question " in asking("ps").out
    assert asking("resume").code == 4
    done = asking("answer", "3==bert", "--resume")
    assert done.code == 0 and "is done" in done.err
    run = asking("ps", "--json").document["runs"][0]["id"]
    files = {f["path"] for f in asking("diff", "--json").document["changes"]}
    assert len(files) == 2 and run
    assert asking("answer").code == 0 and "0 open questions" in asking("answer").out


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["1=maybe"], "answer_unfit"),
        (["2="], "answer_unfit"),
        (["9=yes"], "question_unknown"),
        (["1"], "answers_malformed"),
        (["x=1"], "answers_malformed"),
        (["1=yes", "1=no"], "answers_malformed"),
        (["1=yes", "--all", "no"], "answers_twice"),
        (["--all", "yes", "2=" + "x" * 70_000], "answers_twice"),
        (["2=" + "x" * 70_000], "answer_unfit"),
    ],
)
def test_a_wrong_answer_changes_nothing(asking: Bench, args: list[str], code: str) -> None:
    run = asking("ps", "--json").document["runs"][0]["id"]
    done = asking("answer", run, *args)
    assert done.code == 2 and f"[{code}]" in done.err
    assert len(questions(asking)) == 3


def test_an_answer_counts_once(asking: Bench) -> None:
    asking("answer", "1=yes")
    again = asking("answer", "1=no")
    assert again.code == 2 and "[question_answered]" in again.err
    asking("resume")
    again = asking("answer", "1=no")
    assert again.code == 2 and "[question_answered]" in again.err
    asking("answer", "--all", "same", "--resume")
    shown = asking("show", "--json").document["steps"]
    said = [step["value"] for step in shown if step["op"] == "human.ask"]
    assert sorted(said) == ["same", "same", "yes", "yes"]


def test_a_table_goes_out_as_csv_and_comes_back(asking: Bench) -> None:
    text = asking("answer", "--csv").out
    assert text.splitlines()[0] == "number,question,options,data,steps,answer"
    rows = text.splitlines()
    rows[1] += "yes"
    rows[2] += "Zoë"
    asking.write("a.csv", "\r\n".join(rows))
    assert asking("answer", "--from", "a.csv").code == 0
    assert [q["number"] for q in questions(asking)] == [3]
    asking.write("a.json", json.dumps({"3": "Bert"}))
    assert asking("answer", "--from", "a.json", "--resume").code == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the columns number and answer"),
        ("\0\0", ""),
        ("number\n1\n", "the columns number and answer"),
        ("1=yes\n", "the columns number and answer"),
        ("Nummer;Antwort\n1;yes\n", "the columns number and answer"),
        ("{", ""),
        ("[1]", ""),
        ("[[]]", ""),
        ('{"questions": 3}', ""),
        ('[{"number": 1, "said": "yes"}]', 'no question in it has an "answer"'),
        ('[{"answer": "yes"}]', ""),
        ("number,answer\nx,yes\n", "'x' is no number"),
        ("number,answer\n1,yes\n1,no\n", "two answers"),
    ],
)
def test_a_file_that_holds_no_answers(asking: Bench, text: str, why: str) -> None:
    asking.write("a.csv", text)
    done = asking("answer", "--from", "a.csv")
    assert done.code == 2 and "[answers_malformed]" in done.err and why in done.err
    assert len(questions(asking)) == 3


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_as_a_spreadsheet_writes_it(asking: Bench, mark: str) -> None:
    rows = [["number", "question", "answer"], ["1", "Keep it, or not?", "no"], ["2", "", ""]]
    text = "\r\n".join(mark.join(f'"{cell}"' for cell in row) for row in rows)
    (asking.root / "a.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert "answered for 2 steps; 2 questions left" in asking("answer", "--from", "a.csv").out


def test_a_table_without_answers_yet_says_so(asking: Bench) -> None:
    asking.write("a.csv", asking("answer", "--csv").out)
    assert "answered for 0 steps; 3 questions left" in asking("answer", "--from", "a.csv").out


def test_a_file_that_cannot_be_read(asking: Bench) -> None:
    done = asking("answer", "--from", "gone.csv")
    assert done.code == 2 and "[answers_unreadable]" in done.err
    assert "No such file" in done.err and "CSV or JSON" in done.err
    (asking.root / "a.csv").write_bytes("number,answer\n2,Zoë\n".encode("cp1252"))
    done = asking("answer", "--from", "a.csv")
    assert done.code == 2 and "[answers_unreadable]" in done.err and "Save it as UTF-8" in done.err


@pytest.mark.parametrize(
    "flags", [["1=yes"], ["--all", "yes"], ["--from", "a.csv"], ["--resume"], ["--json"]]
)
def test_questions_as_csv_take_no_answers(asking: Bench, flags: list[str]) -> None:
    run = asking("ps", "--json").document["runs"][0]["id"]
    done = asking("answer", run, *flags, "--csv")
    assert done.code == 2 and "[answers_as_csv]" in done.err and "number,question" not in done.out
    assert len(questions(asking)) == 3


def test_a_cell_is_no_formula(edvac: Bench) -> None:
    edvac.write("q.edv", 'x = human.ask("=cmd()|calc", ["-yes", "+no"])\n')
    edvac("run", "q.edv", "--yes")
    assert "1,'=cmd()|calc,'-yes; +no," in edvac("answer", "--csv").out


def test_the_command_that_is_notified_learns_the_run_and_the_number_alone(edvac: Bench) -> None:
    edvac.write("q.edv", PROGRAM)
    edvac.write("note.sh", '#!/bin/sh\necho "$0 $1 $2 $3|$EDVAC_RUN|$EDVAC_QUESTIONS" > told\n')
    (edvac.root / "note.sh").chmod(0o755)
    edvac.write("edvac.toml", 'notify = ["./note.sh", "hey"]\n')
    assert edvac("run", "q.edv", "--yes").code == 4
    run = edvac("ps", "--json").document["runs"][0]["id"]
    assert (edvac.root / "told").read_text() == f"./note.sh hey {run} 4|{run}|4\n"


@pytest.mark.parametrize(
    ("command", "why"),
    [('["./missing"]', "could not be started"), ('["false"]', "exit status 1")],
)
def test_a_command_that_fails_is_said_and_harms_nothing(
    edvac: Bench, command: str, why: str
) -> None:
    edvac.write("q.edv", PROGRAM)
    edvac.write("edvac.toml", f"notify = {command}\n")
    done = edvac("run", "q.edv", "--yes")
    assert done.code == 4 and why in done.err
    assert len(questions(edvac)) == 3


def test_a_run_that_waits_can_be_given_up(asking: Bench) -> None:
    assert "it is cancelled" in asking("kill").out
    assert "waiting" not in asking("ps").out and "cancelled" in asking("ps").out
    assert asking("kill").code == 2
    assert asking("resume").code == 4, "and taken up again"


def test_answers_from_json_may_be_truths(edvac: Bench) -> None:
    edvac.write("q.edv", 'x = human.ask("Sure?", ["yes", "no"])\nfiles.write("x", x)\n')
    assert edvac("run", "q.edv", "--yes").code == 4
    edvac.write("a.json", '{"questions": [{"number": 1, "answer": true}]}')
    assert edvac("answer", "--from", "a.json", "--resume").code == 0


def test_going_on_keeps_the_short_name_of_help(
    asking: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edvac.cli.run import resume

    monkeypatch.setattr(resume, "_help_option", None)  # as in a process that just began
    assert asking("answer", "--all", "yes", "--resume").code == 0
    assert "-h, --help" in asking("resume", "--help").out
