"""A task for several results is taken apart, and the programs for its parts are put together."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable

import pytest

from edvac.bench.planning import Documents
from edvac.bench.planset import Task, tasks
from edvac.compiler import Planner
from edvac.compiler.brief import NOTHING_SAID
from edvac.compiler.merge import merged
from edvac.compiler.parts import smaller
from edvac.compiler.planner import SAMPLES
from edvac.compiler.trial import outcome
from edvac.core import event
from edvac.core.errors import ProgramError
from edvac.device import CATALOGUE
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor
from edvac.program import parse

DOGS = "dogs.csv has the columns name, owner and weight. "


@pytest.mark.parametrize(
    ("task", "parts"),
    [
        (
            "List the cats in pets/ in cats.txt. Write the owners of all dogs to dogs.txt.",
            [
                "List the cats in pets/ in cats.txt.",
                "Look at the cats in pets/. Write the owners of all dogs to dogs.txt.",
            ],
        ),
        (  # what the task starts from, and what is said of it, belongs to both
            DOGS + "Leave out puppies. Write the heaviest to top.csv; owners go to who.txt.",
            [
                DOGS + "Leave out puppies. Write the heaviest to top.csv.",
                DOGS + "Leave out puppies. Owners go to who.txt.",
            ],
        ),
        (  # what is said behind a result belongs to it
            DOGS + "top.csv: name and weight. Round the weight. who.txt: the owners.",
            [DOGS + "top.csv: name and weight. Round the weight.", DOGS + "who.txt: the owners."],
        ),
        (
            DOGS + "Write the small dogs to small.csv. Put the others into large.csv.",
            [DOGS + "Write the small dogs to small.csv. Put the others into large.csv."],
        ),
        (  # a column that is worked out for one table is wanted in another
            DOGS + "food.csv: name and food, per dog. Sum of food: food.txt. Owners: who.txt.",
            [
                DOGS + "food.csv: name and food, per dog. Sum of food: food.txt.",
                DOGS + "Owners: who.txt.",
            ],
        ),
        (
            "Sort the letters in post/ by tone (kind or rude) into tones.csv, and the number of"
            " letters per tone to count.txt.",
            [
                "Sort the letters in post/ by tone (kind or rude) into tones.csv.",
                "Look at the letters in post/. The tone is kind or rude. Write the number of"
                " letters per tone to count.txt.",
            ],
        ),
        (
            "From the letters in post/ copy the rude ones to rude/, and write the kind ones' dates"
            " to kind.txt.",
            [
                "From the letters in post/ copy the rude letters to rude/.",
                "Look at the letters in post/. Write the kind letters' dates to kind.txt.",
            ],
        ),
        (
            DOGS + "Wanted: 1. fat.txt, the names of dogs over 30 2. who.txt, the owners",
            [DOGS + "fat.txt, the names of dogs over 30.", DOGS + "who.txt, the owners."],
        ),
        ("Write the sum of a.csv to sum.txt.", ["Write the sum of a.csv to sum.txt."]),
    ],
)
def test_the_sentences_go_to_the_results_that_they_speak_of(task: str, parts: list[str]) -> None:
    assert [one.alone for one in smaller(task)] == parts


def test_a_part_may_also_go_on_with_what_came_before() -> None:
    task = "List the cats in pets/ in cats.txt. Write all owners to who.txt. The dogs: dogs.txt."
    whole = [one.so_far for one in smaller(task)]
    assert whole == [task[:35], task[:64], task]


@pytest.mark.parametrize(
    "task",
    [
        "Write a to a.txt. " * 400,
        "".join(f"Write {n} to {n}.csv, and the ones of it to x{n}.csv. " for n in range(150)),
        "where a is " * 700 + "x.csv. y.csv",
        "a, and the " * 700 + "x.csv. The y.csv",
        "(" * 4000 + "x.csv. y.csv: a",
        "x.csv: 2. " * 800,
    ],
)
def test_a_long_task_is_taken_apart_in_no_time(task: str) -> None:
    begun = time.process_time()
    smaller(task)
    assert time.process_time() - begun < 20  # it takes a second at most; one that explodes does not


def test_a_folder_that_holds_something_is_not_to_be_made() -> None:
    task = "Sort letters into open/ and done/. List the oldest letter of done/ in old.txt."
    assert len(smaller(task, lambda found: found.startswith("done/"))) == 2
    assert len(smaller(task, lambda found: True)) == 1


def _worlds() -> list[tuple[str, list[Task]]]:
    known = [task for name in ("tasks", "tuning") for task in tasks(name)]
    known.sort(key=lambda task: task.world.name)
    return [(w, [*own]) for w, own in itertools.groupby(known, lambda task: task.world.name)]


@pytest.mark.parametrize(("world", "own"), _worlds(), ids=lambda one: one if one else "")
def test_programs_put_together_do_what_each_of_them_does(world: str, own: list[Task]) -> None:
    """Right programs over the same documents: they share records, lists and names."""
    sight = Documents(own[0].world.documents)

    def does(text: str) -> dict[str, str]:
        return outcome(parse(text, CATALOGUE), NOTHING_SAID, sight)

    tried = 0
    for left, right in itertools.combinations(own, 2):
        one, other = does(left.solution), does(right.solution)
        if set(one) & set(other):
            continue
        text = merged([left.solution, right.solution], lambda text: _headers(does(text)))
        assert does(text) == one | other, (world, left.id, right.id, text)
        tried += 1
    assert tried


def _headers(written: dict[str, str]) -> dict[str, list[str]]:
    tables = {path: text for path, text in written.items() if path.endswith(".csv")}
    return {path: text.partition("\n")[0].split(",") for path, text in tables.items()}


BILL = "class Bill:\n    {}\n\n"
LOOP = """\
rows = []
for p in files.list("bills/*"):
    found = attempt(llm.extract(doc.text(p), Bill), None)
    if found is not None:
        rows.append(found)
"""


def _none(text: str) -> dict[str, list[str]]:
    del text
    return {}


def test_documents_are_read_once_where_two_programs_read_them_alike() -> None:
    one = BILL.format("vendor: str") + LOOP + 'files.write("a.csv", csv.dump(rows))\n'
    other = BILL.format("total: Decimal") + LOOP
    other += 'files.write("b.txt", f"{sum([r.total for r in rows])}")\n'
    text = merged([one, other], lambda text: {"a.csv": ["vendor"]} if "a.csv" in text else {})
    assert text.count("llm.extract") == 1
    assert "    vendor: str\n    total: Decimal\n" in text
    assert 'csv.dump(rows, columns=["vendor"])' in text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("total: Decimal", "total: str"),  # they do not agree
        ("vendor: str", "lines: list[Line]"),  # would have to be declared before it
    ],
)
def test_records_that_do_not_agree_stay_apart(one: str, other: str) -> None:
    line = "class Line:\n    text: str\n\n" if "Line" in other else ""
    use = 'files.write("{}", f"{{len(rows)}}")\n'
    left = BILL.format(one) + LOOP + use.format("a.txt")
    right = line + BILL.format(other) + LOOP + use.format("b.txt")
    text = merged([left, right], _none)
    assert f"class Bill_2:\n    {other}\n" in text
    parse(text, CATALOGUE)


def test_a_table_whose_columns_would_change_keeps_its_record() -> None:
    one = BILL.format("vendor: str") + LOOP
    one += 'for r in rows:\n    files.write(f"v/{r.vendor}.csv", csv.dump([r]))\n'
    other = BILL.format("total: Decimal") + LOOP + 'files.write("b.txt", f"{len(rows)}")\n'
    assert "class Bill_2:" in merged([one, other], _none)


def test_what_is_filled_up_later_is_not_shared() -> None:
    one = 'rows = []\nrows.append("a")\nfiles.write("a.txt", rows[0])\n'
    other = 'rows = []\nrows.append("b")\nfiles.write("b.txt", rows[0])\n'
    text = merged([one, other], _none)
    assert outcome(parse(text, CATALOGUE)) == {"a.txt": "a", "b.txt": "b"}


def test_names_change_only_where_they_are_names() -> None:
    first = 'total = "1"\nfiles.write("a.txt", total)\n'
    second = (
        "class Sum:\n    total: int\n\n"
        'total = "total"\n'
        'rows = [{"total": total, "n": 2}]\n'
        'made = group(rows, by=["total"], total_n=sum_of("n"))\n'
        "got = f\"total {total} {rows[0]['total']} {Sum(total=1).total}\"\n"
        'files.write("b.txt", f"{got} {len(made)}")\n'
    )
    text = merged([first, second], _none)
    assert outcome(parse(text, CATALOGUE))["b.txt"] == outcome(parse(second, CATALOGUE))["b.txt"]
    assert text.count("total_2") == 3


def test_files_are_moved_when_all_else_is_done() -> None:
    moving = 'for p in files.list("a/*"):\n    files.move(p, f"b/{path.name(p)}")\n'
    reading = 'files.write("n.txt", f"{len(files.list(\'a/*\'))}")\n'
    assert merged([moving, reading], _none) == reading + moving


TASK = "Write the number of files in notes/ to n.txt. Copy notes/a.txt to b.txt."
COUNT = 'files.write("n.txt", f"{len(files.list(\'notes/*\'))}")\n'
COPY = 'files.copy("notes/a.txt", "b.txt")\n'


def test_a_plan_is_made_of_the_programs_for_the_parts() -> None:
    asked: list[str] = []

    def script(request: Request) -> str:
        task = re.findall(r"Task: ([^\n]*)", request.messages[-1].text)[-1]
        asked.append(task)
        return (COPY if COUNT in request.prefill else COUNT) + "x = 1\n"

    text, shown, _ = planned(script)
    assert text == COUNT + COPY == shown
    assert asked == ["Write the number of files in notes/ to n.txt.", TASK]


def test_a_part_that_cannot_go_on_gets_a_program_of_its_own() -> None:
    def script(request: Request) -> str:
        task = re.findall(r"Task: ([^\n]*)", request.messages[-1].text)[-1]
        if task == TASK:
            return "x = unknown\n"  # it cannot go on with the program for the first part
        return (COUNT if "n.txt" in task else COPY) + "x = 1\n"

    text, shown, notes = planned(script)
    assert text == COUNT + COPY == shown
    assert not notes


def planned(script: Callable[[Request], str]) -> tuple[str, str, list[str]]:
    """The plan, the lines that were shown last, and the notes."""
    seen: list[event.Event] = []
    found = Planner(ScriptedProcessor(script), CATALOGUE, seen.append)
    text = asyncio.run(found.plan(TASK))
    lines = "".join(f"{one.text}\n" for one in seen if isinstance(one, event.PlanLine))
    notes = [one.text for one in seen if isinstance(one, event.Note)]
    return text, lines[-len(text) :], notes


def test_a_task_one_of_whose_parts_has_no_program_is_planned_as_a_whole() -> None:
    def script(request: Request) -> str:
        task = re.findall(r"Task: ([^\n]*)", request.messages[-1].text)[-1]
        written = request.prefill.removeprefix("```python\n")
        if "b.txt" not in task:
            return COUNT + "x = 1\n"
        if task == TASK and not written.startswith(COUNT):
            return (COUNT if written.startswith(COPY) else COPY) + "x = 1\n"
        return "x = unknown\n"  # neither behind the first part nor alone

    text, shown, notes = planned(script)
    assert text == COPY + COUNT == shown
    assert any("planned as a whole" in note for note in notes)


def test_a_planner_gives_up_after_so_many_samples() -> None:
    """It says what was wrong with the last line, not that it was tired."""
    tried: list[Request] = []
    names = "abcdefghijklmnopqrst"
    task = " ".join(f"Write the number of files in notes/ to {one}.txt." for one in names)

    def script(request: Request) -> str:
        tried.append(request)
        asked = re.findall(r"(\w)\.txt", re.findall(r"Task: ([^\n]*)", _told(request))[-1])
        if len(asked) > 1:
            return "x = unknown\n"  # each part has a program alone, and none goes on
        return f"files.write('{asked[0]}.txt', str(len(files.list('notes/*'))))\ny = 1\n"

    found = Planner(ScriptedProcessor(script), CATALOGUE, lambda _: None)
    with pytest.raises(ProgramError) as refused:
        asyncio.run(found.plan(task))
    assert refused.value.code == "plan_failed" and "unknown" in str(refused.value)
    assert SAMPLES - 3 <= len(tried) <= SAMPLES


def _told(request: Request) -> str:
    return request.messages[-1].text


def test_what_runs_while_it_is_written_is_planned_as_a_whole() -> None:
    asked: list[str] = []

    def script(request: Request) -> str:
        asked.append(re.findall(r"Task: ([^\n]*)", _told(request))[-1])
        return (COPY if COUNT in request.prefill else COUNT) + "x = 1\n"

    drafts: list[str] = []
    found = Planner(ScriptedProcessor(script), CATALOGUE, lambda _: None)
    assert asyncio.run(found.plan(TASK, drafts.append)) == COUNT + COPY == drafts[-1]
    assert set(asked) == {TASK}
