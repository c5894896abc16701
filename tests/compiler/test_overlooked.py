"""What a task says in passing is not read over; lines that look right and are not are refused."""

from __future__ import annotations

import pytest

from edvac.bench.planning import Documents
from edvac.compiler.acceptance import accept
from edvac.core.errors import ProgramError
from edvac.device import CATALOGUE
from edvac.program import parse

READ = 'rows = []\nfor p in files.list("bills/*"):\n    b = llm.extract(doc.text(p), Bill)\n'
ADD = "    rows.append(b)\n"
BILL = "class Bill:\n    vendor: str\n    total: Decimal\n    paid: bool\n"
SUMS = 'files.write("sums.csv", csv.dump(rows, columns=["vendor", "total"]))\n'
OPEN = "Vendors and totals of the bills in bills/ to sums.csv with the columns vendor and total."
HOURS = "hours.csv has the columns date, person, hours. "
TABLE = 'hours = csv.table(files.read("hours.csv"))\n'
LOG = "Each line of app.log holds date, time, level and a message, separated by spaces. "
LINES = 'rows = [line for line in text.lines(files.read("app.log")) if {}]\n'
MAIL = 'files.write("m.txt", llm.choose("{}", {}, doc.text("a.eml")))\n'
PAGE = 'x = doc.text("bills/a.txt")\n'


@pytest.mark.parametrize(
    ("program", "task", "what"),
    [
        # several of something in one text
        (
            BILL + READ + ADD,
            "One row per vendor of the bills in bills/ to sums.csv (vendor, total).",
            "several vendors",
        ),
        (
            BILL + READ.replace(", Bill", ", list[Bill]") + "    rows.extend(b)\n",
            "One row per vendor of the bills in bills/ to sums.csv (vendor, total).",
            "",
        ),
        # the most of something that stands in several rows
        (
            TABLE + 'x = max(hours, key=lambda r: r["hours"])\n',
            HOURS + "Write the person with the most hours to most.txt.",
            "not added up",
        ),
        (
            TABLE + 'sums = group(hours, by=["person"], hours=sum_of("hours"))\n'
            'x = max(sums, key=lambda r: r["hours"])\n',
            HOURS + "Write the person with the most hours to most.txt.",
            "",
        ),
        (
            TABLE + 'x = group(hours, by=["person"], n=count())[0]\n',
            HOURS + "Who works most often? who.txt",
            "any of them",
        ),
        # what is to be listed has no place
        (BILL, "From the bills in bills/ list the buyers who still owe in who.txt.", "buyers"),
        (BILL, "From the bills in bills/ list the vendors who still owe in who.txt.", ""),
        # only some of the documents
        (BILL + READ + ADD + SUMS, OPEN.replace("the bills", "the open bills"), "the task says"),
        (
            BILL + READ + "    if not b.paid:\n    " + ADD + SUMS,
            OPEN.replace("the bills", "the open bills"),
            "",
        ),
        (BILL + READ + ADD + SUMS, "For every bill in bills/ that has a total: sums.csv", "all"),
        # a bound for a sum
        (
            TABLE + 'long = [r for r in hours if r["hours"] > 8]\n',
            HOURS + "Who worked more than eight hours altogether? who.txt",
            "each row",
        ),
        (
            TABLE + 'sums = group(hours, by=["person"], hours=sum_of("hours"))\n'
            'long = [r for r in sums if r["hours"] > 8]\n',
            HOURS + "Who worked more than eight hours altogether? who.txt",
            "",
        ),
        # fields used as what they are not
        (
            "class Bill:\n    number: int\n" + READ + "    if b.number > 100:\n    " + ADD,
            OPEN + " Only those above 100.",
            "compared as an amount",
        ),
        (BILL + READ + '    if b.paid == "yes":\n    ' + ADD, OPEN, "is a bool"),
        (BILL + READ + ADD + "x = sum([b.paid for b in rows])\n", OPEN, "yes or no"),
        (BILL + READ + ADD + "x = sum([b.total for b in rows])\n", OPEN, ""),
        ("class Bill:\n    number: int\n", "The numbers of all bills in bills/: n.txt", "str"),
        ("class Bill:\n    number: str\n", "The numbers of all bills in bills/: n.txt", ""),
        (BILL, "The numbers of all bills in bills/: n.txt", "no field of Bill"),
        (BILL + READ + "    rows.append(row_of(b, vendor=path.name(p)))\n", OPEN, "part of a path"),
        (BILL + READ + "    rows.append(row_of(b, file=path.name(p)))\n", OPEN, ""),
        (
            "class Note:\n    words: int\n",
            "Count the words of each note in notes/: n.csv",
            "code does",
        ),
        ("class Note:\n    words: int\n", "The words that each note in notes/ defines: n.csv", ""),
        ('x = "TODO" in files.read("a.md").lower()\n', "Is TODO in a.md? n.txt", "has capitals"),
        ('x = "TODO" in files.read("a.md")\n', "Is TODO in a.md? n.txt", ""),
        # lines that nobody can mean
        ('x = files.list("bills/*")\ny = "\\n".join(str(x))\n', OPEN, "letters"),
        (
            READ.replace("llm.extract(doc.text(p), Bill)", "p")
            + '    rows.append({"vendor": "unknown", "total": b})\n',
            OPEN,
            "'unknown' in every row",
        ),
        ('x = files.list("bills/*")\ny = [{"n": x, "kind": "odd"} for z in x]\n', OPEN, "'odd' in"),
        ('x = files.list("bills/*")\ny = [{"n": x, "kind": "bills"} for z in x]\n', OPEN, ""),
        (
            MAIL.format("What is wrong?", ["yes", "no"]),
            "Is something wrong in a.eml? m.txt",
            "no an",
        ),
        (MAIL.format("Is it wrong?", ["yes", "no"]), "Is something wrong in a.eml? m.txt", ""),
        (MAIL.format("Who?", ["sender1", "sender2"]), "Who wrote a.eml? m.txt", "no different"),
        (
            'x = files.read("a.log").split()[2]\ny = llm.choose("Bad?", ["yes", "no"], '
            'files.read("a.log").split()[2])\n',
            "Is a.log bad? m.txt",
            "single word",
        ),
        (PAGE + 'y = x.split("\\n")[0]\n', OPEN, "this place"),
        (PAGE + 'y = x.split("\\n")[0]\n', OPEN + " The vendor stands in the first line.", ""),
    ],
)
def test_a_program_that_reads_over_something_is_refused(program: str, task: str, what: str) -> None:
    parsed = parse(program, CATALOGUE)
    whole = program.endswith(SUMS)
    if not what:
        accept(parsed, task, whole=whole)
        return
    with pytest.raises(ProgramError, match=what) as refused:
        accept(parsed, task, whole=whole)
    assert refused.value.fix


SEEN = {"app.log": "2026-01-02 10:00 ERROR disk\n2026-01-02 10:05 INFO ok\n", "in/a.txt": "a"}


@pytest.mark.parametrize(
    ("program", "task", "what"),
    [
        (LINES.format('line.split()[1] == "ERROR"'), LOG + "Count ERROR in n.txt.", "never word 1"),
        (
            'for line in text.lines(files.read("app.log")):\n    parts = line.split(" ", 3)\n'
            '    if parts[0] == "ERROR":\n        x = parts\n',
            LOG + "Count ERROR in n.txt.",
            "never word 0",
        ),
        (LINES.format('line.split()[2] == "ERROR"'), LOG + "Count ERROR in n.txt.", ""),
        (LINES.format('line.split()[1] == "FATAL"'), LOG + "Count FATAL in n.txt.", ""),
        ('x = files.list("in/*.agree")\n', "Files of in/ to x.txt", "called like in/"),
        ('x = files.list("in/*.txt")\n', "Files of in/ to x.txt", ""),
        ('x = files.list("out/*.agree")\n', "Files of out/ to x.txt", ""),  # nothing is there yet
    ],
)
def test_what_is_there_shows_where_a_word_and_a_name_are_not(
    program: str, task: str, what: str
) -> None:
    parsed = parse(program, CATALOGUE)
    if not what:
        accept(parsed, task, whole=False, sight=Documents(SEEN), may_be_empty=False)
        return
    with pytest.raises(ProgramError, match=what):
        accept(parsed, task, whole=False, sight=Documents(SEEN), may_be_empty=False)


def test_a_list_in_a_cell_is_refused() -> None:
    program = "class Bill:\n    lines: list[str]\n" + READ + ADD
    program += 'files.write("sums.csv", csv.dump(rows))\n'
    with pytest.raises(ProgramError, match="would hold a list"):
        accept(parse(program, CATALOGUE), "Lines of bills/ to sums.csv", whole=False)


def test_a_field_that_a_record_lacks_is_refused_whoever_fills_it() -> None:
    program = BILL + READ + ADD + 'x = sort_by(rows, "price")\nfiles.write("s.txt", f"{x}")\n'
    with pytest.raises(ProgramError, match="no field 'price'"):
        accept(parse(program, CATALOGUE), "Bills of bills/, sorted: s.txt", whole=False)
    program = BILL + READ + ADD + 'files.write("s.csv", csv.dump(rows, columns=["price"]))\n'
    with pytest.raises(ProgramError, match="no row has the column 'price'"):
        accept(parse(program, CATALOGUE), "Bills of bills/ to s.csv", whole=False)


def test_a_word_that_tells_lines_apart_is_looked_for() -> None:
    program = 'rows = text.lines(files.read("app.log"))\nfiles.write("n.txt", f"{len(rows)}")\n'
    with pytest.raises(ProgramError, match="nothing looks for it"):
        accept(parse(program, CATALOGUE), LOG + "Count lines with ERROR in n.txt.", whole=True)
    right = program.replace("rows = text", "rows = [r for r in text").replace(
        '"app.log"))\n', '"app.log")) if "ERROR" in r]\n'
    )
    accept(parse(right, CATALOGUE), LOG + "Count lines with ERROR in n.txt.", whole=True)
