"""What the planner tells the model: the machine in short, example programs, the task.

Laid out so that what never changes comes first: its keys and values are computed once and kept on
disk.
"""

from __future__ import annotations

from edvac.compiler.brief import read_brief
from edvac.compiler.examples import Example
from edvac.compiler.grammar import callable_steps, reserved
from edvac.compiler.head import headed
from edvac.core.errors import ProgramError
from edvac.core.schema import show
from edvac.core.signature import REQUIRED, Catalogue, Signature
from edvac.processor import Message, Segment

_HEAD = """\
You write programs for a machine. A program is short Python: assignments, for, if, comprehensions, \
f-strings, and class bodies with annotated fields (records). There is no import, open, print, try, \
while or def.

Steps (the only calls that read files, ask a model or write files):
"""
_TAIL = """
Pure functions: csv.table(text), csv.dump(rows), json.loads(text), json.dumps(data),
text.lines(text), path.name(p), path.stem(p), path.suffix(p), date.parse(text),
row_of(record, file=path.name(p)), group(rows, by=["a"], total=sum_of("b"), n=count()),
sort_by(rows, "a", reverse=True), unique(xs), attempt(x, default), ok(x), param(default), len, sum,
min, max, sorted, round, str, int, Decimal.

"""
_RULES = """\
Rules:
- Never name a variable like a device or a library: files, doc, llm, csv, json, text, date, path.
- One bad document must not end the run: attempt(llm.extract(doc.text(p), Record), None).
- Declare one record that holds all facts wanted from one text; no record that is not used.
- For one of a few answers use llm.choose; for free text llm.write.
- Never ask the model for a file's name or path: row_of(found, file=path.name(p)) adds it.
- Comment a field only where its name does not say what it is.
- A field that may be missing has the type "T | None". Money is Decimal, days are date, and numbers
  that name something (of an invoice, a contract, a phone) are str.
- In a result a file goes by its name, path.name(p), never by its whole path.
- Read a table with csv.table (its numbers are Decimal) or json.load; only a text of a row goes to a
  model.
- Take the columns that the task names as names of fields and keys, spelt as they are there.
- Every file that the task names is written with files.write; tables with csv.dump(rows).
- Instructions to the model are literal strings; data is passed as further arguments.
"""


def constant(catalogue: Catalogue, *, rules: bool = True) -> tuple[Message, ...]:
    """What every planner's prompt begins with."""
    lines = [_line(found) for found in callable_steps(catalogue)]
    text = _HEAD + "\n".join(lines) + "\n" + _TAIL + (_RULES if rules else "")
    return (Message("system", (Segment(text, keep=True),)),)


def _line(signature: Signature) -> str:
    parts = []
    for param in signature.params:
        if param.keyword_only:  # for who writes programs by hand
            continue
        name = f"*{param.name}" if param.variadic else param.name
        parts.append(name if param.default is REQUIRED or param.variadic else f"{name}=…")
    result = show(signature.result) if signature.result is not None else "T"
    return f"- {signature.op}({', '.join(parts)}) -> {result}: {signature.doc}"


def messages(
    task: str,
    examples: tuple[Example, ...],
    catalogue: Catalogue,
    complaint: str = "",
    *,
    begun: bool = False,
    rules: bool = True,
) -> tuple[Message, ...]:
    """The planner's prompt.

    Args:
        begun: do the examples begin as `head` lets a program begin?
        rules: with rules, or with the examples alone?
    """
    made = [*constant(catalogue, rules=rules)]
    for example in examples:
        told = f"Task: {example.task}\n{read_brief(example.task).line()}".rstrip()
        made.append(Message("user", (Segment(told),)))
        brief = read_brief(example.task)
        program = headed(example.program, brief, reserved(catalogue)) if begun else example.program
        made.append(Message("assistant", (_shown(program),)))
    parts = [Segment(f"Task: {task}\n{read_brief(task).line()}".rstrip())]
    if complaint:
        parts.append(Segment(f"\n\n{complaint}"))
    made.append(Message("user", tuple(parts)))
    return tuple(made)


def below(running: str) -> str:
    """For a model that cannot be made to begin with the lines that are there."""
    shown = f"```python\n{running.strip()}\n```"
    return f"The program runs already, with these lines:\n{shown}\nWrite only what follows them."


def repair(text: str, refused: ProgramError) -> tuple[Message, ...]:
    """What follows a program that was refused."""
    said = f"That program was refused.\n{refused}\nWrite the whole program again, corrected."
    return (
        Message("assistant", (Segment(f"```python\n{text.strip()}\n```"),)),
        Message("user", (Segment(said),)),
    )


def _shown(program: str) -> Segment:
    # Each task has others: they are not worth a place on disk, as what comes before them is.
    return Segment(f"```python\n{program.strip()}\n```")
