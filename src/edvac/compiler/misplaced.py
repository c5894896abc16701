"""Programs that look for a fact where it is not: asked of a model though it stands in the names of
files, taken from rows that only chance puts side by side, or compared with days nobody spoke of."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from edvac.compiler.brief import NUMBER_WORDS, read_brief
from edvac.compiler.syntax import assigned
from edvac.compiler.unsaid import unmeant
from edvac.core.schema import STR
from edvac.program import Program

_SCHEME = re.compile(r"\b([A-Z]{3,}(?:[_-][A-Z]{3,})+)\.\w+")  # "named YEAR_KIND.txt"
_ABOUT_NAMES = re.compile(r"\bfiles?\b|\bnames?\b|\bwhich of them\b|\bdocuments?\b", re.IGNORECASE)
_TO_PERSON = re.compile(
    r"\b(?:ask|confirm|approv|check with|decid|show me|let me|tell me|consult|by hand|unsure)",
    re.IGNORECASE,
)
_OF_TODAY = re.compile(
    r"\b(?:today|now|still|expire|past|passed|next|within|ago|current|overdue|late|soon|so far|yet"
    r"|already|this (?:week|month|year)|coming|upcoming|future|(?:ran|run|runs|running) out|old"
    r"|(?:the|in) last \w+ (?:days?|weeks?|months?)|since|valid|date)",
    re.IGNORECASE,
)
_SPANS = {"day": 1, "tomorrow": 1, "yesterday": 1, "week": 7, "fortnight": 14, "month": 30}
_SPANS |= {"quarter": 90, "year": 365}
_TABLES = ("csv.load", "csv.table", "json.load")
_TEXTS = ("doc.text", "files.read", "llm.write")


def refuse_misplaced(program: Program, task: str) -> None:
    """
    Raises:
        ProgramError: `plan_unmeant`.
    """
    tree = ast.parse(program.text)
    _refuse_facts_of_names(program, task)
    _refuse_strange_spans(tree, task)
    _refuse_unasked_names(tree, task)
    _refuse_pairs_by_chance(tree)
    _refuse_letters_of_texts(tree)
    _refuse_facts_of_places(tree, task)
    _refuse_words_in_fields(program, tree, read_brief(task).marks)
    if "human." in program.text and not _TO_PERSON.search(task):
        raise unmeant("the task says nothing of asking a person", "Leave human.ask out.")
    if "run.date" in program.text and not _OF_TODAY.search(task):
        raise unmeant("the task does not speak of today", "Leave run.date out.")


def _refuse_facts_of_names(program: Program, task: str) -> None:
    """A field of a record that the task says stands in the names of the files."""
    scheme = _SCHEME.search(task)
    if scheme is None:
        return
    parts = re.split("[_-]", scheme[1].casefold())
    for record in program.records.values():
        for part in record.fields:
            if part.name in parts:
                sign = "_" if "_" in scheme[1] else "-"
                raise unmeant(
                    f"{part.name} stands in the names of the files, as the task says",
                    f'Write path.stem(p).split("{sign}")[{parts.index(part.name)}].',
                )


def _refuse_strange_spans(tree: ast.AST, task: str) -> None:
    """A number of days that is added to one, and that the task does not give."""
    lowered = task.casefold()
    said = {int(found) for found in re.findall(r"\d{1,6}", task)}
    said |= {n for word, n in NUMBER_WORDS.items() if re.search(rf"\b{word}\b", lowered)}
    known = {*said, *(n for word, n in _SPANS.items() if re.search(rf"\b{word}", lowered))}
    known |= {span * n for span in (7, 30, 31, 365) for n in said} | {29, 31, 364, 366}
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Attribute(ast.Name("date"), "add"), args, words):
                given = [*args[1:], *(word.value for word in words)]
                for one in given:
                    days = _whole(one)
                    if days is not None and abs(days) not in known:
                        raise unmeant(
                            f"{abs(days)} days are reckoned with, and the task does not speak of"
                            " that",
                            "Leave it out, or use what the task says.",
                        )


def _whole(node: ast.expr) -> int | None:
    match node:
        case ast.Constant(int() as number):
            return number
        case ast.UnaryOp(ast.USub(), ast.Constant(int() as number)):
            return -number
    return None


def _refuse_unasked_names(tree: ast.AST, task: str) -> None:
    """Names of files put into rows that are told apart, where nobody asks for them: then no two
    rows are the same."""
    if _ABOUT_NAMES.search(task):
        return
    named = any(
        word.arg == "file"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "row_of"
        for word in node.keywords
    )
    if named and any(
        isinstance(node, ast.Call) and ast.unparse(node.func) == "unique" for node in ast.walk(tree)
    ):
        raise unmeant(
            "rows with the names of their files are never the same, and nobody asks for the names",
            "Write row_of(found) without file=.",
        )


def _refuse_pairs_by_chance(tree: ast.AST) -> None:
    """Rows of two tables put side by side in the order in which they stand."""
    tables = {name for name, value in _given(tree) if _called(value) in _TABLES}
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Name("zip"), [ast.Name(left), ast.Name(right), *_]):
                if left != right and {left, right} <= tables:
                    raise unmeant(
                        f"rows of {left} and {right} that stand at the same place need not belong"
                        " together",
                        f'Write join({left}, {right}, on="..."), or look for a cell in [row["..."]'
                        f" for row in {right}].",
                    )


def _refuse_letters_of_texts(tree: ast.AST) -> None:
    """A loop over a text, or a list filled up with one: each element is a letter."""
    texts = {name for name, value in _given(tree) if _called(value) in _TEXTS}
    again = {name for name, value in _given(tree) if _called(value) not in _TEXTS}
    texts -= again

    def is_text(node: ast.expr) -> bool:
        held = isinstance(node, ast.Name) and node.id in texts
        return held or _called(node) in _TEXTS

    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Attribute(ast.Name(), "extend"), [value]) if is_text(value):
                raise unmeant("a list is filled up with the letters of a text", _LINES)
            case ast.For(iter=value) | ast.comprehension(iter=value) if is_text(value):
                raise unmeant("this goes through the letters of a text", _LINES)


_LINES = "Write text.lines(...) for its lines, or append(...) for the text as a whole."


def _refuse_facts_of_places(tree: ast.AST, task: str) -> None:
    """A fact taken from a line of a document by its place, where the task does not speak of lines:
    documents are not all written alike."""
    if re.search(r"\b(?:line|head|title|begin|subject)", task, re.IGNORECASE):
        return
    texts = {name for name, value in _given(tree) if _called(value) == "doc.text"}
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(
                ast.Call(ast.Attribute(text, "split" | "splitlines")), ast.Constant(int())
            ) | ast.Subscript(
                ast.Call(ast.Attribute(ast.Name("text"), "lines"), [text]), ast.Constant(int())
            ):
                if _called(text) == "doc.text" or (isinstance(text, ast.Name) and text.id in texts):
                    raise unmeant(
                        "a fact need not stand at this place of every document",
                        "Let a model find it: a field of a record for llm.extract.",
                    )


def _refuse_words_in_fields(program: Program, tree: ast.AST, marks: tuple[str, ...]) -> None:
    """A word looked for in what a model wrote into a free text of a record."""
    free = {
        part.name
        for record in program.records.values()
        for part in record.fields
        if part.type == STR
    }
    for node in ast.walk(tree):
        match node:
            case ast.Compare(
                ast.Constant(str() as word),
                [ast.In() | ast.NotIn()],
                [ast.Attribute(ast.Name(), field)],
            ) if field in free and word in marks:
                raise unmeant(
                    f"{word} stands in the text itself, and code sees that",
                    f'Write "{word}" in files.read(p).',
                )
            case ast.Compare(
                ast.Constant(str() as word),
                [ast.In() | ast.NotIn()],
                [ast.Attribute(ast.Name(), field)],
            ) if field in free and re.fullmatch(r"[a-z]{3,}", word):
                raise unmeant(
                    f"{word!r} need not stand in the words that a model finds for {field}",
                    f"Declare a field of type bool, as in {word}: bool.",
                )


def _given(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    yield from assigned(tree)
    for node in ast.walk(tree):
        match node:
            case ast.For(ast.Name(name), iter=value):
                yield name, value


def _called(node: ast.expr) -> str:
    """What is called, be it within attempt(...)."""
    match node:
        case ast.Call(ast.Name("attempt"), [inner, *_]):
            return _called(inner)
        case ast.Call(func):
            return ast.unparse(func)
    return ""
