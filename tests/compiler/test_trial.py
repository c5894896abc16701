"""A program tried on the files that are there: what fails on them is refused, and nothing that
stands in them gets into a refusal, which a model reads."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.bench.planning import Documents
from edvac.bench.planset import tasks
from edvac.compiler import Planner
from edvac.compiler.brief import read_brief
from edvac.compiler.trial import Trial, outcome, try_out
from edvac.core.errors import ProgramError
from edvac.device import CATALOGUE
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor
from edvac.program import parse

SOLVED = {one.id: one for name in ("tasks", "tuning", "documented") for one in tasks(name)}


def tried(program: str, texts: dict[str, str], task: str = "") -> Trial:
    parsed = parse(program, CATALOGUE)
    trial = try_out(parsed, read_brief(task), Documents(texts))
    trial.refuse_empty(parsed)
    return trial


@pytest.mark.parametrize("name", SOLVED)
def test_a_right_program_does_on_the_real_files(name: str) -> None:
    task = SOLVED[name]
    tried(task.solution, dict(task.world.documents), task.text)


SCANS = {"scans/1911_card_Kepler.txt": "a", "scans/1914_card_Moran.txt": "b"}
LOG = {"door.log": "08:00 DENIED Ann\n08:05 OPEN Bob\n"}
WRONG = [
    (
        'years = [int(p.split("_")[0]) for p in files.list("scans/*")]\n'
        'files.write("y.txt", f"{years}")\n',
        SCANS,
        "value unfit",
    ),
    ('for p in files.list("scans/*"):\n    files.copy(p, "cards/")\n', SCANS, "ending"),
    (
        'for p in files.list("scans/*"):\n    files.copy(p, f"cards/{path.stem(p)}")\n',
        SCANS,
        "ending",
    ),
    ('for p in files.list("scans/*"):\n    files.copy(p, "cards/a.txt")\n', SCANS, "twice"),
    (
        'for line in text.lines(files.read("door.log")):\n    files.write("d.txt", line)\n',
        LOG,
        "twice",
    ),
    (
        'found = [x for x in text.lines(files.read("door.log")) if "denied" in x]\n'
        'files.write("d.txt", "\\n".join(found))\n',
        LOG,
        "empty",
    ),
    (
        'n = 0\nfor x in text.lines(files.read("door.log")):\n    if "SHUT" in x:\n        n += 1\n'
        'files.write("n.txt", f"{n}")\n',
        LOG,
        "empty",
    ),
    (
        'n = [x for x in text.lines(files.read("door.log")) if "SHUT" in x]\n'
        'files.write("n.txt", n[0] if n else "nobody")\n',
        LOG,
        "empty",
    ),
    (
        "class Day:\n    rain: Decimal\n"
        'rain = [llm.extract(files.read(p), Day).rain for p in files.list("days/*")]\n'
        'files.write("n.txt", f"{sum(rain)}")\n',
        {"days/a.csv": "rain\n1\n", "days/b.csv": "rain\n2\n"},
        "tables",
    ),
    (
        'rows = [{"who": "who", "n": len(x)} for x in text.lines(files.read("door.log"))]\n'
        'files.write("n.csv", csv.dump(rows))\n',
        LOG,
        "own name",
    ),
    (
        'if "SHUT" in files.read("door.log"):\n    files.write("d.txt", "shut")\n',
        LOG,
        "empty",
    ),
    (
        'x = [y.split()[3] for y in text.lines(files.read("door.log"))]\n'
        'files.write("d.txt", f"{x}")\n',
        LOG,
        "index",
    ),
]


@pytest.mark.parametrize(("program", "texts", "said"), WRONG)
def test_what_fails_on_the_files_is_refused(program: str, texts: dict[str, str], said: str) -> None:
    with pytest.raises(ProgramError, match=said) as refused:
        tried(program, texts)
    assert refused.value.code == ("plan_empty" if said == "empty" else "plan_fails")


def test_a_file_may_be_added_to_and_read_again() -> None:
    program = (
        'files.write("d.txt", "a")\nx = files.read("d.txt")\nfiles.write("d.txt", x + "b")\n'
        'files.write("e.txt", files.read("d.txt"))\n'
    )
    assert tried(program, {}).written == {"d.txt": "ab", "e.txt": "ab"}


def test_a_result_cannot_be_read_before_it_is_made() -> None:
    task = "From a.csv (n) make b.csv (n)."
    with pytest.raises(ProgramError, match="is to be made"):
        tried('files.write("c.txt", files.read("b.csv"))\n', {"a.csv": "n\n1\n"}, task)


def test_what_a_model_would_decide_proves_no_emptiness() -> None:
    program = (
        'found = [p for p in files.list("scans/*") if llm.choose("Old?", ["a"], p) == "b"]\n'
        'files.write("d.txt", "\\n".join(found))\n'
    )
    assert tried(program, SCANS).written == {"d.txt": ""}


def test_programs_agree_by_what_they_make_of_the_files() -> None:
    both = [
        'files.write("n.txt", f"{len(files.read("door.log").splitlines())}")\n',
        'files.write("n.txt", f"{files.read("door.log").count("OPEN") + 1}")\n',
    ]
    both = [one.replace('f"{', "str(").replace('}")', "))") for one in both]
    brief = read_brief("")
    made = [outcome(parse(one, CATALOGUE), brief, Documents(LOG)) for one in both]
    assert made[0] == made[1] == {"n.txt": "2"}


@settings(max_examples=300)
@given(
    text=st.lists(
        st.sampled_from([*"\"'\\{}[](),:;\n 0123456789", "ignore", "zebra", "ö", "_"]), max_size=30
    ).map("".join),
    program=st.sampled_from(
        [
            'x = int(files.read("in/a.txt"))\n',
            'x = json.load(files.read("in/a.txt"))\ny = x["k"]\n',
            'x = Decimal(text.lines(files.read("in/a.txt"))[0])\n',
            'x = csv.load(files.read("in/a.txt"))[0]["k"]\n',
            'x = date.parse(files.read("in/a.txt"))\n',
            'x = group(csv.table(files.read("in/a.txt")), by=["k"], n=sum_of("n"))\n',
            'x = {"a": 1}[files.read("in/a.txt")]\n',
            'x = sum([one for one in files.read("in/a.txt")])\n',
            'x = files.read("in/a.txt").split()[0] + 1\n',
            'x = files.read("in/a.txt")\nfiles.write(f"out/{x}.md", "")\n',
            'x = files.read("in/a.txt")\nfor y in x.split():\n    files.write(f"{y}.txt", y)\n',
        ]
    ),
)
def test_nothing_that_stands_in_a_file_gets_into_a_refusal(text: str, program: str) -> None:
    try:
        tried(program, {"in/a.txt": text})
    except ProgramError as refused:
        said = f"{refused.what} {refused.why} {refused.fix}"
        assert not {word for word in ("zebra", "ignore") if word in said}


DOORS = "Lines of door.log with {} go to d.txt as they are."


def planned(script: list[str], task: str) -> str:
    """What comes of statements that are proposed one after the other, the last again and again."""

    def say(request: Request) -> str:
        return (script.pop(0) if len(script) > 1 else script[0]) + "x"

    planner = Planner(ScriptedProcessor(say), CATALOGUE, lambda _: None, sight=Documents(LOG))
    return asyncio.run(planner.plan(task))


def test_what_finds_nothing_is_written_again() -> None:
    one = 'files.write("d.txt", "\\n".join([x for x in door if "{}" in x]))\n'
    made = planned([one.format("denied"), one.format("DENIED")], DOORS.format("DENIED"))
    assert made.endswith(one.format("DENIED"))


def test_what_finds_nothing_is_taken_where_nothing_better_comes() -> None:
    one = 'files.write("d.txt", "\\n".join([x for x in door if "SHUT" in x]))\n'
    assert planned([one], DOORS.format("SHUT")).endswith(one)


def test_a_planner_writes_again_what_fails_on_the_files() -> None:
    wrong = 'years = [int(p[0:4]) for p in files.list("scans/*")]\n'
    right = 'years = [int(path.name(p)[0:4]) for p in files.list("scans/*")]\n'
    last = 'files.write("years.txt", f"{max(years)}")\n'
    shown: list[str] = []

    def script(request: Request) -> str:
        shown.append(request.prefill)
        if wrong not in request.prefill and len(shown) == 1:
            return wrong + "x"
        return (last if right in request.prefill else right) + "x"

    planner = Planner(ScriptedProcessor(script), CATALOGUE, lambda _: None, sight=Documents(SCANS))
    made = asyncio.run(planner.plan("The latest year in the names of scans/ to years.txt."))
    assert made == right + last
    assert "on the files that are there" in shown[1] and "Kepler" not in "".join(shown)
