"""`over=`: steps whose data does not fit, run for real against a model with a small context."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edvac.core.errors import OperandError
from edvac.machine import Job, Machine, Report
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor

CONTEXT = 4_000  # tokens; a token is four characters here
LINES = [f"entry {n}: nothing of note happened on this day at all" for n in range(2_000)]
LINES[700] = "entry 700: the boiler was replaced for 4,200 euros"
LINES[1_500] = "entry 1500: the roof was mended for 900 euros"
BOOK = "\n".join(LINES)


class Small(ScriptedProcessor):
    """A model that sees so much and no more; keeps what it was asked."""

    def __init__(self, script: Callable[[str], str], context: int = CONTEXT) -> None:
        self.asked: list[str] = []

        def answer(request: Request) -> str:
            text = request.messages[-1].text
            if len(text) // 4 + request.max_tokens > context:
                raise OperandError("operand_too_large", "it does not fit")
            self.asked.append(text)
            return script(text)

        super().__init__(answer, delay_s=0.001, concurrency=2)
        self.context_tokens = context


def entries(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"entry (\d+):", text)]


def run(place: Path, program: str, model: Small, **more: object) -> tuple[Report, dict[str, str]]:
    inbox = place / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    (inbox / "book.txt").write_text(BOOK)
    with Machine(place, model) as machine:
        job = Job(program, roots={"inbox": inbox}, **more)  # type: ignore[arg-type]
        report = asyncio.run(machine.run(job))
        files = machine.ledger.call_now(
            lambda s: {
                f.path: s.read_file(report.run, f.path).decode() for f in s.list_files(report.run)
            }
        )
    return report, files


def notes(place: Path, run: str) -> list[str]:
    with Machine(place, ScriptedProcessor(str)) as machine:
        entries = machine.history(run).entries
    return [note for entry in entries for note in entry.body.get("notes", [])]


READ = 'book = files.read("inbox/book.txt")\n'
WRITE = READ + 'files.write("out.txt", llm.write("What was repaired?", "the house", book{over}))\n'


def repairs(text: str) -> str:
    found = [line for line in text.split("\n") if "euros" in line]
    return "; ".join(dict.fromkeys(found)) or "nothing"


def test_without_a_rule_it_is_refused(tmp_path: Path) -> None:
    report, _ = run(tmp_path, WRITE.format(over=""), Small(repairs))
    codes = [step.failure.code for step in report.failures if step.failure]
    assert "operand_too_large" in codes


def test_split_sees_everything_once_and_merges(tmp_path: Path) -> None:
    model = Small(repairs)
    report, files = run(tmp_path, WRITE.format(over=', over="split"'), model)
    assert report.state == "done"
    assert files["out.txt"] == f"{LINES[700]}; {LINES[1500]}"
    pieces = [text for text in model.asked if text.startswith("What was repaired?")]
    assert sorted(n for text in pieces for n in entries(text)) == list(range(2_000))
    assert all("the house" in text for text in pieces), "what fits is seen with each piece"
    [note] = notes(tmp_path, report.run)
    assert f"cut into {len(pieces)} pieces" in note and f"edvac show {report.run}." in note


def test_retrieve_sees_what_is_near_the_goal(tmp_path: Path) -> None:
    model = Small(repairs)
    goal = "What did the boiler and the roof cost?"
    program = WRITE.replace("What was repaired?", goal).format(over=', over="retrieve"')
    report, files = run(tmp_path, program, model)
    assert files["out.txt"] == f"{LINES[700]}; {LINES[1500]}"
    assert len(model.asked) == 1
    [note] = notes(tmp_path, report.run)
    assert re.search(r"(\d+) of \d+ pieces of it were seen", note)


def test_summarise_notes_with_the_words_that_they_stand_on(tmp_path: Path) -> None:
    def script(text: str) -> str:
        if "Note each fact" not in text:
            return repairs(text)
        facts = [line for line in text.split("\n") if "euros" in line]
        points = [{"point": {"quote": fact, "value": fact[-12:]}} for fact in facts]
        return json.dumps({"points": points})

    _, files = run(tmp_path, WRITE.format(over=', over="summarise"'), Small(script))
    assert LINES[700] in files["out.txt"] and LINES[1500] in files["out.txt"]


def test_a_note_without_its_words_is_no_note(tmp_path: Path) -> None:
    def script(text: str) -> str:
        if "Note each fact" not in text:
            return repairs(text)
        return json.dumps({"points": [{"point": {"quote": "never said", "value": "x"}}]})

    report, _ = run(tmp_path, WRITE.format(over=', over="summarise"'), Small(script))
    assert report.state == "partial"


RECORD = (
    "class Repair:\n    what: str\n    euros: int | None\n\n"
    f'{READ}made = llm.extract(book, {{kind}}, over="split")\n'
    'files.write("out.json", json.dump(made))\n'
)


def test_a_list_is_put_end_to_end(tmp_path: Path) -> None:
    def script(text: str) -> str:
        found = re.findall(r"the (\w+) was \w+ for ([\d,]+) euros", text)
        made = [{"what": what, "euros": int(n.replace(",", ""))} for what, n in found]
        return json.dumps({"answer": made})

    _, files = run(tmp_path, RECORD.format(kind="list[Repair]"), Small(script))
    made = json.loads(files["out.json"])
    assert [(one["what"], one["euros"]) for one in made] == [("boiler", 4200), ("roof", 900)]


@pytest.mark.parametrize("stated", [True, False])
def test_a_record_takes_each_field_from_the_first_piece_that_states_it(
    tmp_path: Path, stated: bool
) -> None:
    def script(text: str) -> str:
        what = "boiler" if "boiler" in text and stated else None
        return json.dumps({"what": what, "euros": 900 if "roof" in text else None})

    report, files = run(tmp_path, RECORD.format(kind="Repair"), Small(script))
    if stated:
        assert json.loads(files["out.json"]) == {"what": "boiler", "euros": 900}
    else:
        assert "not_stated" in [s.failure.code for s in report.failures if s.failure]


def test_what_two_pieces_state_is_taken_from_the_first(tmp_path: Path) -> None:
    def script(text: str) -> str:
        prices = {"boiler": 4200, "roof": 900}
        found = [what for what in prices if f"the {what} was" in text]
        return json.dumps(
            {"what": found[0], "euros": prices[found[0]]}
            if found
            else {"what": None, "euros": None}
        )

    _, files = run(tmp_path, RECORD.format(kind="Repair"), Small(script))
    assert json.loads(files["out.json"]) == {"what": "boiler", "euros": 4200}


def test_a_choice_is_made_over_what_each_piece_has_to_say(tmp_path: Path) -> None:
    program = READ + (
        'files.write("out.txt", llm.choose("Was the roof mended?", ["yes", "no"], book, '
        'over="split"))\n'
    )

    def script(text: str) -> str:
        if text.startswith("Was the roof"):
            return json.dumps({"answer": "yes" if "the roof was mended" in text else "no"})
        return repairs(text)

    _, files = run(tmp_path, program, Small(script))
    assert files["out.txt"] == "yes"


def test_pieces_that_do_not_fit_are_made_smaller(tmp_path: Path) -> None:
    """A tokenizer may need more tokens for a text than is usual."""
    wide = Small(repairs)
    script = wide._script

    def wider(request: Request) -> str:
        if len(request.messages[-1].text) > 3_000:
            raise OperandError("operand_too_large", "it does not fit")
        return script(request)

    wide._script = wider
    report, files = run(tmp_path, WRITE.format(over=', over="split"'), wide)
    assert report.state == "done" and "boiler" in files["out.txt"]


def test_what_fits_is_asked_as_ever(tmp_path: Path) -> None:
    model = Small(repairs, context=1_000_000)
    report, _ = run(tmp_path, WRITE.format(over=', over="split"'), model)
    assert len(model.asked) == 1 and notes(tmp_path, report.run) == []


def test_pieces_are_reused_when_the_run_is_repeated_or_goes_on(tmp_path: Path) -> None:
    model = Small(repairs)
    program = WRITE.format(over=', over="split"')
    run(tmp_path, program, model)
    asked = len(model.asked)
    again = Small(repairs)
    run(tmp_path, program, again)
    assert asked > 10 and not again.asked

    calls = iter(range(10_000))

    class Killed(BaseException):
        pass

    def dying(text: str) -> str:
        if next(calls) == 7:
            raise Killed
        return repairs(text)

    place = tmp_path / "killed"
    inbox = place / "inbox"
    inbox.mkdir(parents=True)
    (inbox / "book.txt").write_text(BOOK)
    first, rest = Small(dying), Small(repairs)
    with Machine(place, first) as machine:
        with pytest.raises(Killed):
            asyncio.run(machine.run(Job(program, roots={"inbox": inbox})))
        name = machine.find(None).id
    with Machine(place, rest) as machine:
        report = asyncio.run(machine.resume(name))
    assert report.state == "done"
    assert len(first.asked) > 1 and len(rest.asked) < asked
