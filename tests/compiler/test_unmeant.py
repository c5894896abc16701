"""Legal lines that nobody can mean are refused; what might be meant is not."""

from __future__ import annotations

import pytest

from edvac.compiler.acceptance import accept
from edvac.compiler.undone import refuse_undone
from edvac.compiler.unmeant import refuse_unmeant as refuse_senseless
from edvac.compiler.unsaid import refuse_unsaid
from edvac.core.errors import ProgramError
from edvac.device import CATALOGUE
from edvac.program import Program, parse

TASK = (
    "sales.csv has the columns shop, kind (food, toy or tool), pieces. Those over 40 go to big.txt,"
    " the shops in Rome to rome.txt."
)


def refuse_unmeant(program: Program, task: str) -> None:
    refuse_unsaid(program, task)
    refuse_senseless(program, task)
    refuse_undone(program, task, whole=False)


RECORD = "class Bill:\n    total: Decimal\n    paid: date | None\n    kind: str\n"
BILL = RECORD + 'bill = llm.extract(doc.text("a.txt"), Bill)\n'
EITHER = """\
n = param(1)
if n > 0:
    files.write("a.md", "x")
else:
    files.write("a.md", "y")
"""
LOAD = 'rows = csv.load(files.read("sales.csv"))\n'


@pytest.mark.parametrize(
    ("program", "what"),
    [
        (BILL + "x = bill.total is not None\n", "tested for None"),
        (BILL + "x = bill.paid is not None\n", ""),
        (LOAD + 'x = sort_by(rows, "pieces")\n', "a text"),
        (LOAD + 'x = sorted(rows, key=lambda r: r["pieces"])\n', "a text"),
        (LOAD + 'x = [r for r in rows if r["pieces"] > "40"]\n', "a text"),
        (LOAD + 'x = sort_by([r | {"pieces": int(r["pieces"])} for r in rows], "pieces")\n', ""),
        (LOAD + 'x = sort_by(rows, "shop")\n', ""),
        (LOAD + 'x = sort_by(group(rows, by=["shop"], pieces=count()), "pieces")\n', ""),
        (LOAD + 'x = [r for r in rows if int(r["pieces"]) > 25]\n', "compared with 25"),
        (LOAD + 'x = [r for r in rows if r["pieces"] != "2.5"]\n', "2.5"),
        (LOAD + 'x = [r for r in rows if int(r["pieces"]) >= 41]\n', ""),
        (LOAD + "x = len(rows) > 1\n", ""),
        (LOAD + 'x = [r for r in rows if r["shop"] == "Paris"]\n', "'Paris'"),
        (LOAD + 'x = [r for r in rows if r["shop"].startswith("Paris")]\n', "'Paris'"),
        (LOAD + 'x = [r for r in rows if r["shop"] == "Rome"]\n', ""),
        (LOAD + 'x = [r for r in rows if r["kind"] == "yes"]\n', ""),
        (LOAD + 'k = llm.choose("What?", ["soap", "wax"], rows)\nx = k == "soap"\n', ""),
        (LOAD + 'x = [{"n": sum_of("pieces")} for r in rows]\n', "within group"),
        (LOAD + 'x = group(rows, by=["shop"], n=len("pieces"))\n', "no aggregate"),
        (LOAD + 'x = group(rows, by=["shop"], n=sum_of("pieces"))\n', ""),
        (LOAD + 'x = group(rows, by=["shop"], shop=count())\n', "grouped by"),
        (LOAD + 'x = [r for r in rows if r["shop"] in rows]\n', "among the rows"),
        (LOAD + 'x = [r["shop"] for r in rows if r["shop"] in [q["kind"] for q in rows]]\n', ""),
        ('x = doc.text("a.txt")[0]\n', "single letter"),
        ('x = doc.text("a.txt")[:80]\n', ""),
        ('x = [p for p in files.list("in/*") if path.suffix(p) == "txt"]\n', "ends in"),
        ('x = [p for p in files.list("in/*") if "Rome" in doc.text(p)]\n', ""),
        (LOAD + 'files.write("rome.txt", csv.dump(rows))\n', "is no table"),
        ('files.write("a.md", "x")\nfiles.write("a.md", "y")\n', "written already"),
        ('files.write("a.md", "x")\nfiles.write("b.md", "y")\n', ""),
        (EITHER, ""),
    ],
)
def test_lines(program: str, what: str) -> None:
    made = parse(program, CATALOGUE)
    if not what:
        refuse_unmeant(made, TASK.replace("kind (food, toy or tool), ", ""))
        return
    with pytest.raises(ProgramError) as refused:
        refuse_unmeant(made, TASK.replace("kind (food, toy or tool), ", ""))
    assert refused.value.code == "plan_unmeant"
    assert what in refused.value.what and refused.value.fix


def test_a_field_whose_words_the_task_says_is_no_free_text() -> None:
    with pytest.raises(ProgramError, match="food, toy, tool") as refused:
        refuse_unmeant(parse(BILL, CATALOGUE), TASK)
    assert 'Literal["food", "toy", "tool"]' in refused.value.fix
    closed = BILL.replace("kind: str", 'kind: Literal["food", "toy", "tool"]')
    refuse_unmeant(parse(closed, CATALOGUE), TASK)


def test_sizes_may_be_asked_for() -> None:
    program = parse('x = files.stat("a.txt").size\n', CATALOGUE)
    refuse_unmeant(program, "How large is a.txt?")
    with pytest.raises(ProgramError, match="files as such"):
        refuse_unmeant(program, "What does a.txt say?")


EACH = 'for row in csv.load(files.read("sales.csv")):\n'


@pytest.mark.parametrize(
    ("program", "what"),
    [
        (EACH + '    files.write(f"{row[\'kind\']}.txt", row["pieces"])\n', "for each row"),
        (EACH + '    files.write(f"{row[\'shop\']}.txt", row["pieces"])\n', ""),
        (EACH + '    files.write(f"{row}.txt", row["shop"])\n', "no name of a file"),
        (
            'for p in files.list("in/*"):\n    files.write(f"{path.name(p)}", '
            'llm.choose("Which?", ["a", "b"], p))\n',
            "name of a file alone",
        ),
    ],
)
def test_a_rehearsal_looks_at_names_of_files(program: str, what: str) -> None:
    task = "sales.csv has the columns shop, kind and pieces; in/ has texts."
    if not what:
        accept(parse(program, CATALOGUE), task, whole=False)
        return
    with pytest.raises(ProgramError, match=what):
        accept(parse(program, CATALOGUE), task, whole=False)


NOTE = "class Mail:\n    sender: str\n"
OPEN = NOTE + "    open: bool\n"


LISTS = 'found = files.list("mails/*")\n'
WRITES = LISTS + 'files.write("a.txt", "\\n".join(found))\n'
COUNTS = LISTS + 'files.write("a.txt", str(len(found)))\n'
COPIES = 'for p in files.list("mails/*"):\n    files.copy(p, f"ann/{path.name(p)}")\n'
SEEKS = 'x = [p for p in files.list("mails/*") if "urgent" in doc.text(p)]\n'
LISTS = 'files.write("a.txt", "\\n".join(files.list("mails/*")))\n'
ASKS = (
    'x = [p for p in files.list("notes/*")'
    ' if llm.choose("Is the word TODO in it?", ["yes", "no"], doc.text(p)) == "yes"]\n'
)


@pytest.mark.parametrize(
    ("task", "program", "what"),
    [
        ("Which mails in mails/ are still open? Name them in a.txt.", NOTE, "no field of Mail"),
        ("Which mails in mails/ are still open? Name them in a.txt.", OPEN, ""),
        ("Which notes in notes/ have the word TODO? Name them in a.txt.", ASKS, "word TODO"),
        ("Which mail in mails/ is urgent? Name it in a.txt.", SEEKS, "need not stand"),
        ('Name the mails in mails/ with the word "urgent" in a.txt.', SEEKS, ""),
        ("Copy the mails in mails/ of Ann to ann/.", "x = 1\n", "nothing is copied"),
        ("Copy the mails in mails/ of Ann to ann/.", COPIES, ""),
        ("Summarise mails/ in a.md.", 'files.write("a.md", "x")\n', "written by a model"),
        ("Write how many mails are in mails/ to a.txt.", WRITES, "counted"),
        ("Write how many mails are in mails/ to a.txt.", COUNTS, ""),
        ("Name the senders of mails/, each once, in a.txt.", WRITES, "kept once"),
        ("Count the mails of mails/ by sender in a.csv.", WRITES, "counted"),
        ("Which mails in mails/ ask for money? Subjects to a.txt.", LISTS, "is looked at"),
        ("Write the names of the files in mails/ to a.txt.", LISTS, ""),
    ],
)
def test_what_a_task_asks_for_is_done(task: str, program: str, what: str) -> None:
    made = parse(program, CATALOGUE)
    if not what:
        refuse_unmeant(made, task)
        refuse_undone(made, task, whole=True)
        return
    with pytest.raises(ProgramError, match=what):
        refuse_unmeant(made, task)
        refuse_undone(made, task, whole=True)
