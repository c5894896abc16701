"""The planner against a scripted model: what it accepts, refuses, takes back and gives up on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edvac.compiler import Planner
from edvac.compiler.brief import read_brief
from edvac.compiler.rehearsal import rehearse
from edvac.compiler.review import refuse_astray, review, unused_names
from edvac.compiler.statements import first_statement
from edvac.compiler.trial import outcome
from edvac.compiler.writer import unfenced
from edvac.core import event
from edvac.core.errors import ProgramError
from edvac.device import CATALOGUE
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor
from edvac.program import parse

TASK = "Shorten the notes in notes/ and write them to short.md."
LOOP = 'for p in files.list("notes/*"):\n    parts.append(llm.write("Shorten this", doc.text(p)))\n'
GOOD = ["parts = []\n", LOOP, 'files.write("short.md", "\\n".join(parts))\n', "```"]


def planner(script: Callable[[Request], str], events: list[event.Event] | None = None) -> Planner:
    seen = events if events is not None else []
    return Planner(ScriptedProcessor(script), CATALOGUE, seen.append, plans=1)


def by_place(pieces: list[str], wrong: dict[int, list[str]]) -> Callable[[Request], str]:
    """Answers the statement that the draft lacks; `wrong` ones first, each once."""

    def script(request: Request) -> str:
        written = request.prefill.removeprefix("```python\n")
        place = 0
        while place < len(pieces) and written.startswith("".join(pieces[: place + 1])):
            place += 1
        if wrong.get(place):
            return wrong[place].pop(0)
        return pieces[place] + "next = 1\n"

    return script


def test_a_plan_is_written_statement_by_statement() -> None:
    events: list[event.Event] = []
    text = asyncio.run(planner(by_place(GOOD, {}), events).plan(TASK))
    assert text == "".join(GOOD[:-1])
    lines = [one.text for one in events if isinstance(one, event.PlanLine)]
    assert "\n".join(lines) + "\n" == text


def test_a_plan_ends_where_all_that_is_named_is_done() -> None:
    """The model is not asked whether it has more to say: a small one always has."""
    pieces = ['x = files.read("in.txt")\n', 'files.write("out.txt", x)\n', "more = x\n"]
    text = asyncio.run(planner(by_place(pieces, {})).plan("Put what in.txt says into out.txt."))
    assert text == "".join(pieces[:2])


@pytest.mark.parametrize(
    "wrong",
    [
        'files = files.list("notes/*")\n',  # hides a device
        "parts = unknown\n",
        "parts = [1, 2\n",
        'x = parse_it("a")\n',
    ],
)
def test_a_refused_statement_is_written_again(wrong: str) -> None:
    text = asyncio.run(planner(by_place(GOOD, {0: [wrong]})).plan(TASK))
    assert text == "".join(GOOD[:-1])


def test_an_early_end_is_refused_while_a_named_file_is_missing() -> None:
    text = asyncio.run(planner(by_place(GOOD, {2: ["```"]})).plan(TASK))
    assert 'files.write("short.md"' in text


def test_a_statement_is_taken_back_when_nothing_legal_follows() -> None:
    bad = "total = nothing_here\n"
    text = asyncio.run(planner(by_place(GOOD, {1: [bad] * 4})).plan(TASK))
    assert text == "".join(GOOD[:-1])


def test_a_record_that_nobody_uses_is_refused() -> None:
    idle = "class Other:\n    a: str\n"
    used = "class Note:\n    a: str\n"
    pieces = [
        used,
        'notes = [llm.extract(doc.text(p), Note) for p in files.list("notes/*")]\n',
        'files.write("short.md", "\\n".join([note.a for note in notes]))\n',
        "```",
    ]
    text = asyncio.run(planner(by_place(pieces, {1: [idle]})).plan(TASK))
    assert "Other" not in text


def test_what_a_record_lacks_is_mended_where_it_is_declared() -> None:
    """No line behind it can be right as long as the field is a text."""
    task = "Names of the notes in notes/ that are urgent, in u.txt."
    text = "class Note:\n    urgent: str\n"
    truth = "class Note:\n    urgent: bool\n"
    loop = (
        'names = []\nfor p in files.list("notes/*"):\n    note = llm.extract(doc.text(p), Note)\n'
        "    if note.urgent{}:\n        names.append(path.name(p))\n"
    )
    start, test = loop.split("\n", 1)
    last = 'files.write("u.txt", "\\n".join(names))\n'
    declared = [text, truth]

    def script(request: Request) -> str:
        written = request.prefill.removeprefix("```python\n")
        if "class" not in written:
            return declared.pop(0) + "x"
        if start not in written:
            return start + "\nx"
        if "for p" not in written:
            return test.format("" if "bool" in written else ' == "yes"') + "x"
        return last + "x"

    made = asyncio.run(planner(script).plan(task))
    assert made == truth + start + "\n" + test.format("") + last
    assert not declared


def test_it_gives_up_with_the_last_refusal() -> None:
    with pytest.raises(ProgramError) as caught:
        asyncio.run(planner(lambda _: "a = missing\n").plan(TASK))
    assert caught.value.code == "plan_failed"
    assert "missing" in str(caught.value)


def test_what_is_prepared_is_how_every_plan_begins() -> None:
    asked: list[Request] = []
    written = by_place(GOOD, {})

    def script(request: Request) -> str:
        asked.append(request)
        return written(request)

    made = planner(script)
    asyncio.run(made.prepare())
    (prepared,) = asked
    asyncio.run(made.plan(TASK))
    assert prepared.messages == asked[1].messages[: len(prepared.messages)]
    assert all(part.keep for message in prepared.messages for part in message.segments)


def test_without_a_grammar_a_whole_program_is_validated_and_repaired() -> None:
    asked: list[Request] = []

    def script(request: Request) -> str:
        asked.append(request)
        body = "".join(GOOD[:-1]) if len(asked) > 1 else "import os\n"
        return f"Here it is:\n```python\n{body}```\n"

    processor = ScriptedProcessor(script)
    processor.has_grammar = False
    text = asyncio.run(Planner(processor, CATALOGUE, lambda _: None, plans=1).plan(TASK))
    assert text == "".join(GOOD[:-1])
    assert "import" in asked[1].messages[-1].text, "the complaint is shown to the model"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a = 1", None),
        ("a = 1\nb", "a = 1\n"),
        ("for x in y:\n    a = 1\n", None),
        ("for x in y:\n    a = 1\n\nb", "for x in y:\n    a = 1\n"),
        ("if x:\n    a = 1\ne", None),
        ("if x:\n    a = 1\nelse:\n    a = 2\nb", "if x:\n    a = 1\nelse:\n    a = 2\n"),
        ("if x:\n    a = 1\nend = 2\n", "if x:\n    a = 1\n"),
        ("```\n", "```"),
    ],
)
def test_where_a_statement_ends(text: str, first: str | None) -> None:
    assert first_statement(text) == first


def test_a_fence_is_taken_off() -> None:
    assert unfenced("Sure!\n```python\na = 1\n```\nBye") == "a = 1\n"
    assert unfenced("a = 1") == "a = 1\n"


def test_unused_names_are_found() -> None:
    last = 'rows = [1]\nfiles.write("a.md", str(rows))\nrows = sorted(rows)\n'
    with pytest.raises(ProgramError) as refused:
        review(parse(last, CATALOGUE), "Write a.md.")
    assert "rows is computed and never used" in refused.value.what
    assert unused_names("a = 1\nb = a\n") == ["b"]
    assert unused_names("rows = []\nrows.append(1)\n") == ["rows"]
    assert (
        unused_names("rows = []\nrows.append(1)\nx = len(rows)\nfiles.write('a', str(x))\n") == []
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('files.write("a.csv", "x")\n', "b.csv"),
        ('x = files.read("b.csv")\ny = x\n', "a.csv"),
    ],
)
def test_a_program_that_leaves_out_a_named_file_is_incomplete(text: str, why: str) -> None:
    with pytest.raises(ProgramError, match=why):
        review(parse(text, CATALOGUE), "Read b.csv and write a.csv.")


RECORD = "class A:\n    n: Decimal | None\n\n"
FOUND = 'found = [llm.extract(doc.text(p), A) for p in files.list("in/*")]\n'


@pytest.mark.parametrize(
    ("line", "fails"),
    [
        ("big = [a for a in found if a.n > 3]\n", True),
        ("big = [a for a in found if a.n is not None and a.n > 3]\n", False),
        ('big = group(found, by=["nothing"], n=count())\n', True),
        ('big = [a["n"] for a in found]\n', True),
        ("big = [attempt(a.n + 1, 0) for a in found]\n", False),
    ],
)
def test_a_rehearsal_finds_what_types_do_not_show(line: str, fails: bool) -> None:
    try:
        program = parse(RECORD + FOUND + line, CATALOGUE)
        rehearse(program)
    except ProgramError:
        assert fails
    else:
        assert not fails


@pytest.mark.parametrize(
    "line",
    [
        'x = json.load(files.read("a.json"))["total"]\n',
        'x = [row["Payee"] for row in csv.load(files.read("a.csv"))]\n',
        'x = int(llm.write("A number"))\n',
        'x = [line for line in files.read("a.log").splitlines() if "ERROR" in line][0]\n',
    ],
)
def test_what_a_made_up_text_leads_to_proves_nothing(line: str) -> None:
    program = RECORD + FOUND + line + "y = llm.write('Say it', x)\n"
    rehearse(parse(program, CATALOGUE))
    with pytest.raises(ProgramError, match="None"):
        rehearse(parse(program + "big = [a for a in found if a.n > 3]\n", CATALOGUE))


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ('files.write("a.md", "x")\nfiles.write("a.md", "y")\n', "a.md"),
        ('for p in files.list("in/*"):\n    files.write("a.md", files.read(p))\n', "a.md"),
        ('for p in files.list("in/*"):\n    files.write(f"{path.name(p)}.md", "x")\n', ""),
        ('for a in found:\n    files.write(f"{a.n}.md", "x")\n', ""),
        (
            'files.write("a.md", "x")\nfiles.write("b.md", files.read("a.md"))\n'
            'files.write("a.md", "y")\n',
            "",
        ),
        (
            'if found:\n    files.write("a.md", "x")\nelse:\n    files.write("a.md", "")\n',
            "",
        ),
    ],
)
def test_a_rehearsal_finds_writes_that_are_lost(text: str, lost: str) -> None:
    program = parse(RECORD + FOUND + text, CATALOGUE)
    if not lost:
        return rehearse(program)
    with pytest.raises(ProgramError, match="again, and what stood in it is lost") as refused:
        rehearse(program)
    assert lost in refused.value.what


COUNTED = FOUND + 'rows = group(found, by=["n"], count=count())\n'


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        (
            'files.write("a", rows[0]["count"])\n',
            "text of files.write is a str, not a int",
            'f"{x}"',
        ),
        (
            'for r in rows:\n    files.write("a", r["n"])\n',
            "text of files.write is a str, not None",
            "is not None",
        ),
        ('x = json.load("[1]")\nfiles.write("a", x)\n', "is a str, not a list", "csv.dump"),
        ('x = json.load("[1]")\ny = llm.choose("Which?", x)\n', "options[0]", 'f"{x}"'),
        (
            'files.write("a", f"{rows[0][\'count\']}")\n'
            'x = llm.write("Sum up", rows, rows[0]["count"])\n',
            "",
            "",
        ),
    ],
)
def test_a_rehearsal_finds_operands_that_do_not_fit(line: str, what: str, fix: str) -> None:
    text = RECORD + COUNTED + line
    program = parse(text, CATALOGUE)
    if not what:
        return rehearse(program)
    with pytest.raises(ProgramError) as refused:
        rehearse(program)
    assert refused.value.code == "plan_fails"
    assert what in refused.value.what and fix in refused.value.fix
    assert refused.value.line == len(text.splitlines())


FILES = "Shorten the files in notes/ and write them to short.md."


def several(*programs: str, task: str = FILES) -> tuple[str, list[event.Event]]:
    """What comes out when these are written side by side."""
    seen: list[event.Event] = []
    rest = iter(programs)
    processor = ScriptedProcessor(lambda request: f"```python\n{next(rest)}```")
    processor.has_grammar = False
    planner = Planner(processor, CATALOGUE, seen.append, plans=len(programs))
    return asyncio.run(planner.plan(task)), seen


SHORT = 'llm.write("Shorten", doc.text(p))'
AT_ONCE = (
    f'parts = [{SHORT} for p in files.list("notes/*")]\n'
    'files.write("short.md", "\\n".join(parts))\n'
)
ONE_BY_ONE = (
    f'parts = []\nfor p in files.list("notes/*"):\n    parts.append({SHORT})\n'
    'files.write("short.md", "\\n".join(parts))\n'
)
ODD = 'found = files.list("notes/*")\nfiles.write("short.md", f"{len(found)}")\n'
TABLE = (
    'rows = [{{"a": {}, "b": p}} for p in files.list("notes/*")]\n'
    'files.write("short.md", f"{{len(rows)}}")\n'
    'files.write("t.csv", csv.dump(rows, columns={}))\n'
)


def test_of_several_plans_the_one_is_taken_that_others_agree_with() -> None:
    text, seen = several(ODD, ONE_BY_ONE, AT_ONCE)
    assert text == ONE_BY_ONE, (
        "the surest of those that do the same, though they are written otherwise"
    )
    assert [e.text for e in seen if isinstance(e, event.Note)]
    lines = [e.text for e in seen if isinstance(e, event.PlanLine)]
    assert lines == [*ODD.splitlines(), *ONE_BY_ONE.splitlines()]
    assert several(ODD, ONE_BY_ONE, "import os\n")[0] == ODD, "where none agree, the surest"
    assert several("import os\n", "x = y\n", AT_ONCE)[0] == AT_ONCE


def test_an_outcome_depends_on_the_data_alone() -> None:
    """A step more or less before it gives no other answers."""
    body = (
        'notes = [llm.extract(doc.text(p), A) for p in files.list("notes/*")]\n'
        'files.write("a.csv", csv.dump(notes))\n'
    )
    record = "class A:\n    n: int | None\n    kind: str\n\n"
    plain = outcome(parse(record + body, CATALOGUE))
    more = outcome(parse(record + 'x = files.read("b.txt")\n' + body, CATALOGUE))
    assert plain == more and plain["a.csv"]


def test_tables_agree_whatever_the_order_of_their_columns() -> None:
    left, right = TABLE.format(1, '["a", "b"]'), TABLE.format(1, '["b", "a"]')
    task = f"{FILES[:-1]} and t.csv."
    odd = ODD + 'files.write("t.csv", f"{len(found)}")\n'
    assert several(odd, left, right, task=task)[0] == left
    assert several(odd, left, TABLE.format(2, '["a", "b"]'), task=task)[0] == odd


HOURS = "hours.csv has the columns day, person and hours."


@pytest.mark.parametrize(
    ("task", "program", "what"),
    [
        (
            f"{HOURS} Sum them in sums.csv with the columns person and hours.",
            'rows = csv.load(files.read("hours.csv"))\n'
            'files.write("sums.csv", csv.dump(rows, columns=["person"]))\n',
            "lacks the column hours",
        ),
        (
            f"{HOURS} Sum them in sums.txt.",
            'rows = csv.load(files.read("hours.csv"))\n'
            'files.write("sums.txt", f"{sum([int(r[\'hours\']) for r in rows])}")\n',
            "2.5",
        ),
        (
            f"{HOURS} Name the projects in a.txt.",
            'rows = csv.load(files.read("hours.csv"))\n'
            'files.write("a.txt", "".join([r["project"] for r in rows]))\n',
            "no key 'project'",
        ),
        (
            f"{HOURS} Sum them in sums.txt.",
            "class Hours:\n    hours: Decimal\n\n"
            'files.write("sums.txt", f"{llm.extract(files.read(\'hours.csv\'), Hours).hours}")\n',
            "read by code",
        ),
        (
            f"{HOURS} List the people in people.csv.",
            'rows = csv.load(files.read("hours.csv"))\n'
            'files.write("people.csv", csv.dump([r["person"] for r in rows]))\n',
            "a row of a CSV file",
        ),
        (
            "Which notes in notes/ are good? Write their file names to good.txt.",
            'found = [p for p in files.list("notes/*") if path.stem(p)]\n'
            'files.write("good.txt", "".join(found))\n',
            "whole paths",
        ),
        (
            "Shorten the notes in notes/ in short.md.",
            'files.write("short.md", f"{[files.read(p) for p in files.list(\'notes/*\')]}")\n',
            "as Python writes it",
        ),
        (
            "Choose the best note in notes/ for best.md.",
            'x = [files.read(p) for p in files.list("notes/*")]\n'
            'files.write("best.md", llm.choose("Which?", ["a", "b"], "a, b"))\n',
            "nothing that was read",
        ),
    ],
)
def test_a_rehearsal_holds_a_plan_against_the_task(task: str, program: str, what: str) -> None:
    with pytest.raises(ProgramError) as refused:
        rehearse(parse(program, CATALOGUE), read_brief(task))
    assert what in refused.value.what and refused.value.fix


SHORTER = 'for p in files.list("notes/*"):\n    files.write(f"short/{path.name(p)}", doc.text(p))\n'
PEOPLE = (
    'for row in csv.load(files.read("hours.csv")):\n'
    '    files.write(f"people/{row[\'person\']}.csv", "x")\n'
)
FILLED = 'xs = []\nfor p in files.list("notes/*"):\n    xs.append(p)\n'
NAMED = "class Note:\n    kind: str\n    good: bool\n\n"
READS = 'notes = [llm.extract(files.read(p), Note) for p in files.list("notes/*")]\n'


@pytest.mark.parametrize(
    ("task", "program", "what"),
    [
        ("Shorten notes/ in a.md.", 'x = files.read("letters/1")\n', "does not speak of letters/1"),
        ("Shorten a.txt in a.md.", 'x = files.list("a/*")\n', ""),
        (f"{HOURS} Sum up in a.md.", 'x = files.list("hours/*")\n', "does not speak of hours/*"),
        ("Shorten the folder notes in a.md.", 'x = files.list("notes/*")\n', ""),
        (f"{HOURS} Sum up in a.md.", 'files.write("hours.csv", "x")\n', "starts from"),
        ("Shorten notes/ in a.md.", 'files.write("b.md", "x")\n', "nobody asked for b.md"),
        ("Shorten notes/ in a.md.", 'files.write("a.md", "x")\n', ""),
        ("Shorten notes/.", 'files.write("b.md", "x")\n', ""),
        ("Put each of notes/ into short/ and an index into a.md.", SHORTER, ""),
        (
            f"{HOURS} Write people/NAME.csv.",
            'files.write("people/NAME.csv", "x")\n',
            "each of them",
        ),
        (f"{HOURS} Write people/NAME.csv.", PEOPLE, ""),
        (f"{HOURS} Write a.md.", 'x = text.lines(files.read("hours.csv"))\n', "line by line"),
        (f"{HOURS} Write a.md.", 't = doc.text("hours.csv")\nx = t.splitlines()\n', "line by line"),
        ("a.log has lines. Count them in a.md.", 'x = text.lines(files.read("a.log"))\n', ""),
        (
            "Read notes/.",
            NAMED + READS + 'x = [n for n in notes if n.kind == "a"]\n',
            "kind is free",
        ),
        ("Read notes/.", NAMED + READS + "x = [n for n in notes if n.good]\n", ""),
        (
            "Read notes/.",
            NAMED + READS + "x = [n for n in notes if n.kind == True]\n",
            "kind is free",
        ),
        ("Read notes/.", NAMED + READS + "x = [n for n in notes if n.good == True]\n", ""),
        ("Read notes/.", FILLED + "xs = []\n", "xs gets another value"),
        ("Read notes/.", "x = [1]\nx = [2]\n", "x gets another value"),
        ("Read notes/.", "x = [1]\nx = sorted(x)\n", ""),
        ("Read notes/.", 'x = llm.choose("Which?", ["a", " "], "b")\n', "no different words"),
        ("Read notes/.", 'x = llm.choose("Which?", ["a", "a"], "b")\n', "no different words"),
        ("Read notes/.", 'x = llm.choose("Which?", ["a", "b"], "b")\n', ""),
        ("Read notes/.", 'x = files.read("notes/a")\ny = [c for c in x]\n', "its letters"),
        ("Read notes/.", 'x = files.list("notes/*")\ny = [c for c in x]\n', ""),
        (
            f"{HOURS} Write those above 8 hours to a.md.",
            'files.write("a.md", "x")\n',
            "speaks of 8",
        ),
        (
            f"{HOURS} Write those above 8 hours to a.md.",
            'xs = [r for r in csv.load(files.read("hours.csv")) if Decimal(r["hours"]) > 8]\n'
            'files.write("a.md", csv.dump(xs))\n',
            "",
        ),
        (f"{HOURS} Write all to b.csv. Note above two in a.md.", 'files.write("b.csv", "x")\n', ""),
        ("Read notes/.", NAMED + READS + 'x = {"kind": path.name("notes/a")}\n', "kind is a field"),
        ("Read notes/.", NAMED + READS + 'x = {"file": path.name("notes/a")}\n', ""),
        ("Read notes/.", FILLED + 'files.write("a", f"{len(xs)}")\nxs = []\n', ""),
        (
            "Read notes/.",
            NAMED + READS + "for n in notes:\n    if n.kind:\n        x = 1\n",
            "kind is free",
        ),
        (
            "List notes/, the largest first.",
            NAMED + READS + 'x = sort_by(notes, "kind")\n',
            "other way",
        ),
        (
            "List notes/, the largest first.",
            NAMED + READS + 'x = sort_by(notes, "kind", reverse=True)\n',
            "",
        ),
        ("List notes/, the shortest first.", NAMED + READS + 'x = sort_by(notes, "kind")\n', ""),
        (
            "List notes/, the largest first.",
            NAMED + READS + "x = sort_by(notes, lambda n: n.kind)\n",
            "",
        ),
    ],
)
def test_a_plan_that_goes_astray_is_refused(task: str, program: str, what: str) -> None:
    parsed = parse(program, CATALOGUE)
    if not what:
        return refuse_astray(parsed, task)
    with pytest.raises(ProgramError) as refused:
        refuse_astray(parsed, task)
    assert refused.value.code == "plan_astray" and what in refused.value.what and refused.value.fix


def test_an_order_that_is_asked_for_is_not_forgotten() -> None:
    text = 'notes = files.list("notes/*")\nfiles.write("a.md", f"{notes[0]}")\n'
    program = parse(text, CATALOGUE)
    review(program, "Write the notes in notes/ to a.md.")
    with pytest.raises(ProgramError, match="nothing is sorted"):
        review(program, "Write the notes in notes/ to a.md, the largest first.")


def test_a_remark_and_the_program_that_it_is_about_are_shown_to_the_model() -> None:
    asked: list[str] = []

    def script(request: Request) -> str:
        asked.append(request.messages[-1].text)
        return by_place(GOOD, {})(request)

    text = asyncio.run(planner(script).revise(TASK, "x = 1\n", "It shortens nothing"))
    assert text == "".join(GOOD[:-1])
    assert all("x = 1" in one and "It shortens nothing" in one for one in asked)
