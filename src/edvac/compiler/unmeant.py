"""Lines that are legal and that nobody can mean, whatever the task: a test that is always the same,
numbers put in order as texts, something compared with what neither the task nor a model says.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from edvac.compiler.brief import (
    NUMBER_WORDS,
    choices_in,
    is_amount,
    is_named,
    read_brief,
    words_about,
)
from edvac.core.errors import ProgramError
from edvac.core.schema import BOOL, DATE, STR, Choice, ListOf, Maybe, Record
from edvac.program import Program

_DECLARE = "Declare it as T | None where it may be missing, or as bool if it is a yes or no."
_SMALL = 2  # numbers up to this one come from words such as "twice", "none" or "the others"
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_PLAIN = frozenset({"yes", "no", "true", "false", "none", "other", "x"})
_ABOUT_FILES = re.compile(
    r"\b(?:size|bytes?|KB|MB|large|big|small|modified|changed|recent|new|old)", re.IGNORECASE
)
_TESTS = (".startswith", ".endswith")


def refuse_unmeant(program: Program, task: str) -> None:
    """
    Raises:
        ProgramError: `plan_unmeant`.
    """
    tree = ast.parse(program.text)
    _refuse_sure_tests(program, tree)
    _refuse_texts_in_order(program, tree, task)
    _refuse_strange_numbers(tree, task)
    _refuse_strange_words(program, tree, task)
    _refuse_written_again(tree)
    _refuse_open_choices(program, task)
    _refuse_undecided(program, task)
    _refuse_words_in_texts(tree, task)
    _refuse_letters(tree)
    _refuse_cells_in_tables(tree)
    _refuse_shapes(tree)
    _refuse_undone(program, task)
    if "files.stat" in program.text and not _ABOUT_FILES.search(task):
        raise _unmeant("the task asks nothing about the files as such", "Read them: doc.text(p).")


def _refuse_sure_tests(program: Program, tree: ast.AST) -> None:
    """A field that is always there, tested for being there."""
    optional: dict[str, bool] = {}
    for record in program.records.values():
        for part in record.fields:
            optional[part.name] = optional.get(part.name, False) or isinstance(part.type, Maybe)
    for node in ast.walk(tree):
        match node:
            case ast.Compare(
                ast.Attribute(_, name), [ast.Is() | ast.IsNot()], [ast.Constant(None)]
            ):
                if optional.get(name) is False:
                    raise _unmeant(
                        f"{name} is always there, and is tested for None",
                        "Declare it as T | None where it may be missing, or as bool where it is a"
                        " yes or no.",
                    )


def _refuse_texts_in_order(program: Program, tree: ast.AST, task: str) -> None:
    """Cells of a CSV file are texts: "10" comes before "9"."""
    brief = read_brief(task)
    numbers = {
        name
        for path, columns in brief.columns.items()
        if path.endswith((".csv", ".tsv")) and f'csv.load(files.read("{path}"' in program.text
        for name in columns
        if is_amount(name)
    }
    made = {
        key
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Decimal", "int", "float")
        for key in _keys(node)
    }
    fields = {part.name for record in program.records.values() for part in record.fields}
    named = {
        word.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords
    }
    for name in _ordered_by(tree):
        if name in numbers - made - fields - named:
            raise _unmeant(
                f"{name} is a text in the rows of a CSV file, and is put in order as a number",
                f'Make rows with "{name}": Decimal(row["{name}"]) first.',
            )


def _keys(tree: ast.AST) -> Iterator[str]:
    """Keys that are taken out of rows."""
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(_, ast.Constant(str() as name)):
                yield name


def _ordered_by(tree: ast.AST) -> Iterator[str]:
    """Names of what rows are sorted by, or of which the largest or smallest is taken."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Name("sort_by"), [_, ast.Constant(str() as name), *_]):
                yield name
            case ast.Call(ast.Name("sort_by"), [_, ast.List(names), *_]):
                yield from (str(one.value) for one in names if isinstance(one, ast.Constant))
            case ast.Call(ast.Name("sorted" | "max" | "min" | "sort_by"), _, words):
                for word in words:
                    if word.arg == "key":
                        yield from _keys(word.value)
                if node.args[1:]:
                    yield from _keys(node.args[1])
            case ast.Compare(ast.Subscript(_, ast.Constant(str() as name)), [sign]):
                if isinstance(sign, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
                    yield name


def _refuse_strange_numbers(tree: ast.AST, task: str) -> None:
    """A bound that the task does not give."""
    said = {found.replace(",", "") for found in _NUMBER.findall(task)}
    said |= {part for found in said for part in re.split(r"\D", found)}
    lowered = task.casefold()
    known = {float(one) for one in said if re.fullmatch(r"\d+(?:\.\d+)?", one)}
    known |= {number for word, number in NUMBER_WORDS.items() if re.search(rf"\b{word}\b", lowered)}
    for value in _compared(tree):
        number = _as_number(value)
        if number is None or abs(number) <= _SMALL:
            continue
        if not {number, number - 1, number + 1, number / 100} & known:
            raise _unmeant(
                f"something is compared with {value}, and the task does not speak of that",
                "Compare with what the task says, or leave the test out.",
            )


def _as_number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"-?\d+(?:\.\d+)?", value):
        return float(value)
    return None


def _compared(tree: ast.AST) -> Iterator[object]:
    """Constants with which something is compared."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                match side:
                    case ast.Constant(value):
                        yield value
                    case ast.Call(ast.Name("Decimal" | "int"), [ast.Constant(value)]):
                        yield value
                    case ast.List(parts) | ast.Tuple(parts):
                        yield from (one.value for one in parts if isinstance(one, ast.Constant))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(_TESTS):
            yield from (one.value for one in node.args if isinstance(one, ast.Constant))


def _refuse_strange_words(program: Program, tree: ast.AST, task: str) -> None:
    """A word that the data would have to hold, and that nobody said."""
    lowered = task.casefold()
    own = {
        node.value.casefold()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call | ast.AnnAssign | ast.Dict | ast.IfExp | ast.Assign | ast.For)
        for node in ast.walk(_options(call))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for value in _compared(tree):
        if not isinstance(value, str) or not re.search(r"[A-Za-z]{3}", value):
            continue
        word = value.strip().casefold()
        if word in _PLAIN or word in own or word.rstrip("s") in lowered:
            continue
        raise _unmeant(
            f"something is compared with {value!r}, and the task does not speak of that",
            "Compare with a word of the task; what a text says is for a model: llm.choose, or a"
            " field of a record.",
        )


def _options(node: ast.AST) -> ast.AST:
    """Where a program itself says which words there are: options of a choice, literals that it
    assigns."""
    match node:
        case ast.Call(ast.Attribute(ast.Name("llm"))):
            return node
        case ast.AnnAssign():
            return node.annotation
        case ast.Dict():
            return ast.Module([ast.Expr(value) for value in node.values if _is_word(value)], [])
        case ast.IfExp():
            parts = [ast.Expr(one) for one in (node.body, node.orelse) if _is_word(one)]
            return ast.Module(list(parts), [])
        case ast.Assign() if _is_word(node.value) or isinstance(node.value, ast.List):
            return node.value
        case ast.For(iter=ast.List() | ast.Tuple()):
            return node.iter
    return ast.Module([], [])


def _is_word(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant | ast.IfExp)


def _refuse_written_again(tree: ast.Module) -> None:
    """Two statements at the margin that write the same file."""
    written: set[str] = set()
    for stmt in tree.body:
        here = {
            str(node.args[0].value)
            for node in ast.walk(stmt)
            if isinstance(node, ast.Call)
            and ast.unparse(node.func) == "files.write"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        }
        again = sorted(here & written)
        if again:
            raise _unmeant(f"{again[0]} is written already", "Go on with what is still to be done.")
        written |= here


_DECIDES = re.compile(
    r"\bwhether\b|\bwhich (?:of the )?\w+ (?:in [\w/]+ )?(?:are|is|have|has|may|can|must|need)\b"
    r"|\b(?:who|that) (?:may|can|must)\b|\bstill (?:open|owe|unpaid)\w*\b|\bnot yet\b|\bunless\b"
    r"|\b(?:is|are) (?:anything|any|there any)\b",
    re.IGNORECASE,
)


def _refuse_undecided(program: Program, task: str) -> None:
    """The task asks of documents what is yes or no, and the record that is filled in from them has
    no field that could say so."""
    brief = read_brief(task)
    records = list(program.records.values())
    if brief.inputs or not brief.folders or len(records) != 1 or "llm.choose" in program.text:
        return
    said = _DECIDES.search(task)
    deciding = [
        p for p in records[0].fields if isinstance(p.type, Maybe | Choice | Record | ListOf)
    ]
    if said and not deciding and not any(p.type in (BOOL, DATE) for p in records[0].fields):
        raise _unmeant(
            f"the task asks {said.group()!r}, and no field of {records[0].name} says so",
            "Add a field of type bool, or Literal of the words.",
        )


def _refuse_words_in_texts(tree: ast.AST, task: str) -> None:
    """A common word looked for in a document: what is urgent does not say so. Words that the task
    quotes, capitals, signs and names do stand there."""
    held: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(name)], ast.Call() as call) if _is_text(call):
                held.add(name)
    for node in ast.walk(tree):
        match node:
            case ast.Compare(ast.Constant(str() as word), [ast.In() | ast.NotIn()], [text]):
                pass
            case ast.Compare(text, [ast.Eq() | ast.NotEq()], [ast.Constant(str() as word)]):
                pass
            case ast.Call(
                ast.Attribute(text, "startswith" | "endswith"), [ast.Constant(str() as word)]
            ):
                pass
            case _:
                continue
        parts = [*ast.walk(text)]
        of_text = any(map(_is_text, parts)) and not any(map(_is_asked, parts))
        if not of_text and not _names_any(_unlowered(text), held):
            continue
        if re.fullmatch(r"[A-Za-z]?[a-z]{2,}", word) and not _is_shown(word, task):
            raise _unmeant(
                f"{word!r} need not stand in a text that is meant",
                "Let a model say it: a bool field of a record, or llm.choose.",
            )


_ROWS_OF = ("csv.table", "csv.load", "json.load", "group", "join")


def _refuse_cells_in_tables(tree: ast.AST) -> None:
    """A cell looked for among whole rows: it is never there."""
    tables: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(name)], ast.Call() as made):
                if ast.unparse(made.func) in (
                    "csv.table",
                    "csv.load",
                    "json.load",
                    "group",
                    "join",
                ):
                    tables.add(name)
            case ast.Compare(ast.Subscript(), [ast.In() | ast.NotIn()], [ast.Name(name)]):
                if name in tables:
                    raise _unmeant(
                        f"a cell is looked for among the rows of {name}",
                        f'Look among cells: [row["..."] for row in {name}].',
                    )


def _refuse_letters(tree: ast.AST) -> None:
    """A single letter of a whole text, and an ending without its point."""
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(text, ast.Constant(int())) if _is_text(text):
                raise _unmeant(
                    "this is a single letter of a text",
                    "What a text says is for a model; its lines are text.lines(...).",
                )
            case ast.Compare(
                ast.Call(ast.Attribute(ast.Name("path"), "suffix")),
                [_],
                [ast.Constant(str() as end)],
            ) if end and not end.startswith("."):
                raise _unmeant(f"no file ends in {end!r}", "An ending has its point, as in .txt.")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("doc.text", "files.read")


def _is_asked(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith("llm.")


def _names_any(node: ast.expr, names: set[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def _unlowered(node: ast.expr) -> ast.expr:
    match node:
        case ast.Call(ast.Attribute(inner, "lower" | "upper")):
            return inner
    return node


def _is_shown(word: str, task: str) -> bool:
    """Does the task show the word as one that stands in the files?"""
    spelled = re.escape(word)
    shown = rf"[\"'“‘`:]{spelled}|{spelled}[\"'”’`:]"
    shown += rf"|\b(?:words?|lines?) (?:with )?{spelled}\b|{spelled} (?:does not |do not )?occur"
    is_name = word[0].isupper() and word in task
    return is_name or re.search(shown, task, re.IGNORECASE) is not None


def _refuse_shapes(tree: ast.AST) -> None:
    """A table in a file of plain lines, and a group whose name is counted over."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                ast.Attribute(ast.Name("files"), "write"),
                [ast.Constant(str() as path), ast.Call(ast.Attribute(ast.Name("csv"), "dump"))],
            ) if path.endswith((".txt", ".md")):
                raise _unmeant(
                    f"{path} is no table, and csv.dump writes its columns' names first",
                    'Write "\\n".join([...]) of one text for each line.',
                )
            case ast.Call(ast.Name("group"), _, words):
                by = next((one.value for one in words if one.arg == "by"), None)
                keys = (
                    [key.value for key in by.elts if isinstance(key, ast.Constant)]
                    if (isinstance(by, ast.List))
                    else []
                )
                over = [one.arg for one in words if one.arg in keys]
                if over:
                    raise _unmeant(
                        f"{over[0]} is what is grouped by, and is counted or summed under its name",
                        "Give the aggregate another name.",
                    )


# What the task says of a file, what has to be in the program then, and how it is written.
_WORK = [
    (
        re.compile(
            r"\bhow (?:many|often) (\w+)|\b(?:the|and) number of (\w+)|\bcount the (\w+)", re.I
        ),
        re.compile(r"count\(|len\(|tally\(|sum|\+=|: int|: Decimal|Decimal\(|int\("),
        "counted",
        "Write group(rows, by=[...], n=count()), or len(rows).",
    ),
    (
        re.compile(r"\badd(?:s|ed)? (?:them |it )?up\b|\bsums? of\b|\baltogether\b", re.I),
        re.compile(r"sum\(|sum_of\(|total\(|\+=|count\(|len\("),
        "added up",
        'Write sum([...]), or group(rows, by=[...], total=sum_of("x")).',
    ),
    (
        re.compile(r"\b(?:each|every)(?: \w+)? once\b|\bnobody twice\b|\bno duplicates\b", re.I),
        re.compile(r"unique\(|group\(|tally\(|not in "),
        "kept once",
        "Write unique([...]).",
    ),
    (
        re.compile(r"\baverage\b|\bmean\b|\bmeans\b", re.I),
        re.compile(r"mean|/ ?len\("),
        "averaged",
        'Write math.mean([...]), or group(rows, by=[...], x=mean_of("x")).',
    ),
    (
        re.compile(r"\bsummari[sz]e|\btranslat|\bapolog|\binvitation\b", re.I),
        re.compile(r"llm\.write"),
        "written by a model",
        'Write llm.write("Instruction", text).',
    ),
]


def _refuse_undone(program: Program, task: str) -> None:
    """A file is written, and what the task says of it is not done by then."""
    brief = read_brief(task)
    columns = {name for own in brief.columns.values() for name in own}
    for name in brief.results:
        if not any(is_named(name, path) or path == name for path in program.touches.writes):
            continue
        said = words_about(task, name)
        if any(other in said for other in brief.results if other != name):
            continue  # of which of them it speaks is not certain
        for cue, done, what, fix in _WORK:
            found = cue.search(said)
            if found is None or done.search(program.text) or columns & {*found.groups()}:
                continue
            raise _unmeant(
                f"the task says {found.group()!r} for {name}, and nothing is {what}", fix
            )


def _refuse_open_choices(program: Program, task: str) -> None:
    """A field of which the task says the words, declared as free text."""
    for name, words in choices_in(task):
        for record in program.records.values():
            for part in record.fields:
                if part.name == name and part.type in (STR, Maybe(STR)):
                    spelled = ", ".join(f'"{word}"' for word in words)
                    raise _unmeant(
                        f"{name} is one of {', '.join(words)}", f"Write {name}: Literal[{spelled}]."
                    )


def _unmeant(what: str, fix: str) -> ProgramError:
    return ProgramError("plan_unmeant", what, "", fix)
