"""Facts are looked for where the task says that they are."""

from __future__ import annotations

import pytest

from edvac.compiler.misplaced import refuse_misplaced
from edvac.core.errors import ProgramError
from edvac.device import CATALOGUE
from edvac.program import parse

SCANS = "The texts in scans/ are named YEAR_KIND.txt. How many from each year? years.csv (year, n)."
BILLS = "Vendors of the bills in bills/, nobody twice, in vendors.csv."
SCAN = "class Scan:\n    year: int\n    about: str\n"
READ = 'rows = []\nfor p in files.list("bills/*"):\n    b = llm.extract(doc.text(p), Scan)\n'
TWO = 'a = csv.table(files.read("a.csv"))\nb = csv.table(files.read("b.csv"))\n'


@pytest.mark.parametrize(
    ("program", "task", "what"),
    [
        (SCAN, SCANS, "stands in the names"),
        ("class Scan:\n    place: str\n", SCANS, ""),
        ('years = [path.stem(p)[0:4] for p in files.list("scans/*")]\n', SCANS, ""),
        (SCAN + READ + "    rows.append(row_of(b, file=p))\nx = unique(rows)\n", BILLS, "never"),
        (SCAN + READ + "    rows.append(row_of(b))\nx = unique(rows)\n", BILLS, ""),
        (
            SCAN + READ + "    rows.append(row_of(b, file=p))\nx = unique(rows)\n",
            BILLS.replace("vendors.csv", "vendors.csv with the file"),
            "",
        ),
        ("x = date.add(run.date, days=90)\n", "What ends in the next 60 days?", "90 days"),
        ("x = date.add(run.date, days=-60)\n", "What ended in the last 60 days?", ""),
        ("x = date.add(run.date, days=14)\n", "What ends in the next two weeks?", ""),
        (TWO + "x = [p for p in zip(a, b)]\n", "a.csv and b.csv", "need not belong together"),
        (TWO + "x = [p for p in enumerate(a)]\n", "a.csv and b.csv", ""),
        ('x = files.read("a.txt")\ny = []\ny.extend(x)\n', "a.txt", "letters"),
        ('x = attempt(llm.write("Go", "a"), "")\ny = [z for z in x]\n', "a.txt", "letters"),
        ('for x in doc.text("a.txt"):\n    y = x\n', "a.txt", "letters"),
        ('for x in text.lines(doc.text("a.txt")):\n    y = x\n', "a.txt", ""),
        ('x = files.read("a.txt")\nx = text.lines(x)\nfor y in x:\n    z = y\n', "a.txt", ""),
        ("x = run.date\n", BILLS, "today"),
        (
            SCAN + READ + '    if "TODO" in b.about:\n        rows.append(p)\n',
            "Bills in bills/ with the word TODO",
            "stands in the text",
        ),
        ("x = run.date\n", "Bills that are overdue", ""),
        ('x = human.ask("Which one?")\n', BILLS, "asking a person"),
        ('x = human.ask("Which one?")\n', "Ask me which one to take.", ""),
        (SCAN + READ + '    if "shed" in b.about:\n        rows.append(p)\n', BILLS, "'shed'"),
        (SCAN + READ + '    if "Rome" in b.about:\n        rows.append(p)\n', BILLS, ""),
    ],
)
def test_what_is_looked_for_where_it_is_not_is_refused(program: str, task: str, what: str) -> None:
    parsed = parse(program, CATALOGUE)
    if not what:
        refuse_misplaced(parsed, task)
        return
    with pytest.raises(ProgramError, match=what) as refused:
        refuse_misplaced(parsed, task)
    assert refused.value.fix
