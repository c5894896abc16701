"""`answer`: the open questions of a run as one table, and answers to them from any shell."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.cli.names import RUN
from edvac.cli.ui import open_store
from edvac.core.errors import UsageError

if TYPE_CHECKING:
    from edvac.machine.questions import Question
    from edvac.store import Store

LARGEST = 16 << 20  # bytes of a file with answers
WIDTH = 200  # characters of what a question is about, in the table

EXAMPLES = """\b
Examples:
  edvac answer                       the table of the latest run, then one prompt a question
  edvac answer 3f2a 1=yes 2="Acme Ltd"
  edvac answer 3f2a --all no --resume
  edvac answer 3f2a --csv > q.csv    fill in the last column, then --from q.csv
"""


@click.command(epilog=EXAMPLES)
@RUN
@click.argument("pairs", metavar="[NUMBER=ANSWER]...", nargs=-1)
@click.option("--all", "to_all", metavar="ANSWER", help="The same answer to every open question.")
@click.option(
    "--from",
    "source",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Answers from a CSV file with the columns number and answer, or a JSON file.",
)
@click.option("--resume", "resumes", is_flag=True, help="Then go on with the run, if nobody does.")
@click.option("--detach", is_flag=True, help="The same, in a process of its own.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the open questions as CSV.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def answer(run_id: str | None, pairs: tuple[str, ...], **flags: Any) -> int:
    """Show the open questions of RUN (default: the latest) and take answers to them.

    Equal questions are asked once, with the number of steps that they decide. An answer is kept
    before it takes effect; a run that is going on takes it within a second.
    """
    from edvac.machine.questions import post_answers, questions

    if run_id is not None and "=" in run_id:
        pairs, run_id = (run_id, *pairs), None
    with open_store() as store:
        if flags["as_csv"]:
            _require_alone(pairs, flags)
        info = store.find_run(run_id)
        found = questions(store, info.id)
        if flags["as_csv"]:
            click.echo(_csv(found), nl=False)
            return 0
        given = _given(found, pairs, flags)
        if given is None and not flags["as_json"]:
            _show(store, info.id, found)
            given = _ask(found) if found and ui.is_terminal() else {}
        decided = post_answers(store, info.id, given or {})
        owner = store.run(info.id).owner
        left = questions(store, info.id)
    if flags["as_json"]:
        document = {"run": info.id, "answered": decided, "running": bool(owner)}
        document |= {"questions": [_document(question) for question in left]}
        # A detached start says its own one document on stdout.
        (ui.err if flags["detach"] and not owner else ui.out)(ui.json_text(document, indent=2))
    elif decided or flags["source"] is not None:
        text = f"answered for {ui.counted(decided, 'step')}"
        text += f"; {ui.counted(len(left), 'question')} left"
        ui.out(text + ("; the run takes the answers up by itself" if owner else ""))
    if owner or not (flags["resumes"] or flags["detach"]):
        if decided and not owner and not flags["as_json"]:
            ui.out(f"Go on with `edvac resume {info.id}`.")
        return 0
    return go_on(info.id, flags)


def go_on(run: str, flags: dict[str, Any]) -> int:
    """`edvac resume`, with the flags that an answer or a signal takes."""
    from edvac.cli.run import resume

    given = {"--detach": flags["detach"], "--json": flags["as_json"]}
    args = [run, *(flag for flag, on in given.items() if on)]
    # Without its parent the command would learn, and keep, other names of its help option.
    above = click.get_current_context().parent
    code = resume.main(args=args, prog_name="edvac resume", standalone_mode=False, parent=above)
    return int(code or 0)


def _require_alone(pairs: tuple[str, ...], flags: dict[str, Any]) -> None:
    """The table goes out or comes back: a script that asks for both would lose its answers."""
    others = {
        "NUMBER=ANSWER": bool(pairs),
        "--all": flags["to_all"] is not None,
        "--from": flags["source"] is not None,
        "--resume": flags["resumes"],
        "--detach": flags["detach"],
        "--json": flags["as_json"],
    }
    given = [name for name, is_given in others.items() if is_given]
    if given:
        raise UsageError(
            "answers_as_csv",
            f"--csv does not go with {given[0]}",
            "It prints the open questions, and takes no answers.",
            "Print them first; give the answers with `edvac answer RUN --from FILE`.",
        )


def _given(
    found: list[Question], pairs: tuple[str, ...], flags: dict[str, Any]
) -> dict[int, str] | None:
    """Answers from the command line and from a file; None where none were given."""
    ways = [bool(pairs), flags["to_all"] is not None, flags["source"] is not None]
    if sum(ways) > 1:
        raise UsageError(
            "answers_twice",
            "answers are given in two ways at once",
            "Which of them counts would be a guess.",
            "Use NUMBER=ANSWER, --all or --from, one at a time.",
        )
    if flags["to_all"] is not None:
        return {question.number: flags["to_all"] for question in found}
    if flags["source"] is not None:
        return _from_file(flags["source"])
    return _from_pairs(pairs) if pairs else None


def _from_pairs(pairs: tuple[str, ...]) -> dict[int, str]:
    given: dict[int, str] = {}
    for pair in pairs:
        number, mark, text = pair.partition("=")
        if not mark:
            raise _malformed(f"{pair!r} is not NUMBER=ANSWER")
        _add(given, number, text)
    return given


def _from_file(source: str) -> dict[int, str]:
    """Rows with a number and an answer; rows without an answer leave their question open."""
    text = _read(source)
    given: dict[int, str] = {}
    try:
        for row in _rows(text):
            said = row.get("answer")
            said = {True: "yes", False: "no"}[said] if isinstance(said, bool) else said
            if said not in (None, ""):
                _add(given, str(row["number"]), str(said))
    except (ValueError, KeyError, AttributeError, TypeError, csv.Error, RecursionError) as problem:
        raise _malformed(f"{source!r} holds no answers: {problem}") from problem
    return given


def _rows(text: str) -> list[dict[str, Any]]:
    """Of a JSON document, or of a table as spreadsheets write it in one country or another.

    Raises:
        ValueError: it has neither numbers nor answers.
    """
    if text.lstrip()[:1] in ("{", "["):
        document = json.loads(text)
        rows = document.get("questions", document) if isinstance(document, dict) else document
        if isinstance(rows, dict):
            return [{"number": number, "answer": said} for number, said in rows.items()]
        if rows and not any("answer" in row for row in rows):
            raise ValueError('no question in it has an "answer"')
        return list(rows)
    for delimiter in ",;\t":
        table = csv.DictReader(io.StringIO(text), delimiter=delimiter)
        if {"number", "answer"} <= set(table.fieldnames or ()):
            return list(table)
    raise ValueError("its first line does not name the columns number and answer")


def _read(source: str) -> str:
    try:
        with click.open_file(source, "rb") as file:
            data: bytes = file.read(LARGEST + 1)
    except OSError as problem:
        raise UsageError(
            "answers_unreadable",
            f"the answers in {source!r} cannot be read",
            f"{problem.strerror or problem}.",
            "Name a CSV or JSON file, or - for standard input.",
        ) from problem
    if len(data) > LARGEST:
        raise _malformed(f"{source!r} is larger than {ui.megabytes(LARGEST)}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise UsageError(
            "answers_unreadable",
            f"{source!r} is not UTF-8 text: byte {problem.start} does not fit",
            "Nothing was answered.",
            "Save it as UTF-8; spreadsheets call that `CSV UTF-8`.",
        ) from problem


def _add(given: dict[int, str], number: str, text: str) -> None:
    if not number.strip().isdecimal() or len(number) > 9:
        raise _malformed(f"{number[:40]!r} is no number of a question")
    if given.setdefault(int(number), text) != text:
        raise _malformed(f"question {number} is given two answers")


def _malformed(what: str) -> UsageError:
    return UsageError(
        "answers_malformed",
        what,
        "Nothing was answered.",
        "Such as `edvac answer RUN 1=yes`, or a CSV file with the columns number and answer.",
    )


def _ask(found: list[Question]) -> dict[int, str]:
    """At the terminal; an empty line leaves a question open."""
    from edvac.machine.questions import checked_answer

    given: dict[int, str] = {}
    for question in found:
        while True:
            text = click.prompt(
                f"{question.number}", default="", show_default=False, prompt_suffix=": ", err=True
            )
            if not text.strip():
                break
            try:
                checked_answer(question, text)
            except UsageError as error:
                ui.err(f"  {error.what}: {error.why}")
                continue
            given[question.number] = text
            break
    return given


def _show(store: Store, run: str, found: list[Question]) -> None:
    from edvac.machine.questions import answered

    waiting = answered(store, run)
    note = f"; {ui.counted(waiting, 'answer')} not taken up yet" if waiting else ""
    ui.out(f"run {run}: {ui.counted(len(found), 'open question')}{note}")
    for question in found:
        decides = ui.counted(len(question.steps), "step")
        choice = f" ({', '.join(question.options)})" if question.options else ""
        ui.out(ui.safe_line(f"{question.number:4}  {question.text}{choice}  [{decides}]"))
        ui.out(ui.safe_line(f"      {_addresses(question)}"))
        if question.data:
            ui.out(ui.safe_line(f"      {_shortened(ui.json_text(question.data))}"))


def _addresses(question: Question) -> str:
    few = [step.address for step in question.steps[:5]]
    rest = len(question.steps) - len(few)
    return ", ".join(few) + (f" and {rest} more" if rest else "")


def _shortened(text: str) -> str:
    if len(text) <= WIDTH:
        return text
    return f"{text[:WIDTH]}… (--json shows all {len(text):,} characters)"


def _document(question: Question) -> dict[str, Any]:
    return {
        "number": question.number,
        "question": question.text,
        "options": list(question.options),
        "data": question.data,
        "steps": [step.address for step in question.steps],
    }


def _csv(found: list[Question]) -> str:
    """The open questions; a spreadsheet must not take a document's text for a formula."""
    made = io.StringIO()
    writer = csv.writer(made)
    writer.writerow(["number", "question", "options", "data", "steps", "answer"])
    for question in found:
        data = ui.json_text(question.data) if question.data else ""
        options = "; ".join(question.options)
        row = [question.text, options, data, len(question.steps), ""]
        writer.writerow(
            [question.number, *(ui.no_formula(ui.safe_line(str(cell))) for cell in row)]
        )
    return made.getvalue()
