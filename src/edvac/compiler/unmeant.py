"""Lines that are legal and that nobody can mean, whatever the task: a test that is always the same,
numbers put in order as texts, a letter taken for a text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from edvac.compiler.brief import is_amount, read_brief
from edvac.compiler.review import Misdeclared
from edvac.compiler.shapes import refuse_unknown_keys
from edvac.compiler.syntax import assigned
from edvac.compiler.unsaid import is_text, unmeant
from edvac.core.schema import BOOL, Maybe, Type
from edvac.program import Program

_ABOUT_FILES = re.compile(
    r"\b(?:size|bytes?|KB|MB|large|big|small|modified|changed|recent|new|old)", re.IGNORECASE
)
_DECLARE = "Declare it as T | None where it may be missing, or as bool if it is a yes or no."
_ROWS_OF = ("csv.table", "csv.load", "json.load", "group", "join")


def refuse_unmeant(program: Program, task: str) -> None:
    """
    Raises:
        ProgramError: `plan_unmeant`.
    """
    tree = ast.parse(program.text)
    _refuse_sure_tests(program, tree)
    _refuse_texts_in_order(program, tree, task)
    _refuse_written_again(tree)
    _refuse_letters(tree)
    _refuse_lowered(tree)
    _refuse_cells_in_tables(tree)
    _refuse_shapes(tree)
    _refuse_stray_aggregates(tree)
    _refuse_misused_fields(program, tree)
    _refuse_joined_letters(tree)
    _refuse_constant_columns(tree, task)
    _refuse_certain_texts(tree)
    _refuse_writes_for_each(tree)
    _refuse_unanswerable(tree)
    refuse_unknown_keys(tree)
    if "files.stat" in program.text and not _ABOUT_FILES.search(task):
        raise unmeant("the task asks nothing about the files as such", "Read them: doc.text(p).")


def _refuse_sure_tests(program: Program, tree: ast.AST) -> None:
    """A field that is always there, tested for being there."""
    optional: dict[str, bool] = {}
    decided = _always(program, BOOL)
    for record in program.records.values():
        for part in record.fields:
            optional[part.name] = optional.get(part.name, False) or isinstance(part.type, Maybe)
    for node in ast.walk(tree):
        match node:
            case ast.Compare(
                ast.Attribute(_, name), [ast.Is() | ast.IsNot()], [ast.Constant(None)]
            ):
                if optional.get(name) is False:
                    what = "always there, and is tested for None"
                    raise Misdeclared(name, what, _DECLARE, "plan_unmeant")
            case ast.Compare(ast.Attribute(_, name), [_], [ast.Constant(str() as word)]):
                if name in decided:
                    raise unmeant(
                        f"{name} is a bool, and is compared with {word!r}",
                        f"Write `if one.{name}` or `if not one.{name}`.",
                    )


def _always(program: Program, kind: Type) -> set[str]:
    """Fields that are of that type in each record which has them."""
    parts = [part for record in program.records.values() for part in record.fields]
    return {part.name for part in parts} - {part.name for part in parts if part.type != kind}


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
            raise unmeant(
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
            raise unmeant(f"{again[0]} is written already", "Go on with what is still to be done.")
        written |= here


def _refuse_cells_in_tables(tree: ast.AST) -> None:
    """A cell looked for among whole rows: it is never there."""
    tables: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(name)], ast.Call() as made):
                if ast.unparse(made.func) in _ROWS_OF:
                    tables.add(name)
            case ast.Compare(ast.Subscript(), [ast.In() | ast.NotIn()], [ast.Name(name)]):
                if name in tables:
                    raise unmeant(
                        f"a cell is looked for among the rows of {name}",
                        f'Look among cells: [row["..."] for row in {name}].',
                    )


_AGGREGATES = ("sum_of", "mean_of", "min_of", "max_of", "list_of", "first_of")


def _refuse_stray_aggregates(tree: ast.AST) -> None:
    """An aggregate of a group where there is no group, and a group of something else."""
    within = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "group"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(ast.Call(ast.Name("group")), ast.Constant(int())):
                raise unmeant(
                    "the first group is any of them",
                    'Write sort_by(group(...), "...", reverse=True)[0] for the largest.',
                )
            case ast.Call(ast.Name("group"), _, words):
                for word in words:
                    called = word.value.func if isinstance(word.value, ast.Call) else word.value
                    if word.arg != "by" and ast.unparse(called) not in (*_AGGREGATES, "count"):
                        raise unmeant(
                            f"{word.arg} is no aggregate of a group",
                            f'Write {word.arg}=count(), or {word.arg}=sum_of("x").',
                        )
        if isinstance(node, ast.Call) and id(node) not in within:
            name = ast.unparse(node.func)
            if name in _AGGREGATES:
                raise unmeant(
                    f"{name} means something within group(...) alone",
                    f'Write group(rows, by=["..."], x={name}("x")).',
                )


_CALLED_BY = ("number", "id", "code")


def _refuse_misused_fields(program: Program, tree: ast.AST) -> None:
    """What names something compared as an amount, and a yes or no added up."""
    decided = _always(program, BOOL)
    for node in ast.walk(tree):
        match node:
            case ast.Compare(
                ast.Attribute(_, name),
                [ast.Gt() | ast.GtE() | ast.Lt() | ast.LtE()],
                [ast.Constant(int())],
            ) if name in _CALLED_BY:
                raise Misdeclared(
                    name,
                    "what something is called by, and is compared as an amount",
                    "Declare it as str, and compare the amount.",
                    "plan_unmeant",
                )
            case ast.Call(ast.Name("sum"), [ast.Name() | ast.ListComp() as added]):
                name = _added_field(added, tree)
                if name in decided:
                    raise unmeant(
                        f"{name} is a yes or no, and is added up", f"Select by {name}, add amounts."
                    )


def _added_field(added: ast.expr, tree: ast.AST) -> str:
    """The field that a list is made of."""
    lists = [added]
    if isinstance(added, ast.Name):
        lists = [value for name, value in assigned(tree) if name == added.id]
    for one in lists:
        match one:
            case ast.ListComp(ast.Attribute(_, name)):
                return name
    return ""


def _refuse_joined_letters(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Attribute(_, "join"), [ast.Call(ast.Name("str")) | ast.JoinedStr()]):
                raise unmeant(
                    "the letters of one text are put together", "Join a list: [str(x) for x in xs]."
                )


def _refuse_constant_columns(tree: ast.AST, task: str) -> None:
    """A column that is filled with one and the same word, which the task does not say."""
    held: dict[str, set[object]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant):
                    made = value.value if isinstance(value, ast.Constant) else object()
                    held.setdefault(str(key.value), set()).add(made)
    for name, found in held.items():
        one = next(iter(found))
        unsaid = isinstance(one, str) and one.casefold() not in task.casefold()
        if len(found) == 1 and (one is None or unsaid):
            raise unmeant(
                f"{name} is {one!r} in every row",
                f"Find {name} out: a field of a record, a cell of the row, or llm.choose.",
            )


def _refuse_certain_texts(tree: ast.AST) -> None:
    """A text by a model taken for a decision: there always is one."""
    texts = {
        name
        for name, value in assigned(tree)
        if re.match(r"(?:attempt\()?llm\.write\(", ast.unparse(value))
    }
    for node in ast.walk(tree):
        match node:
            case ast.If(
                test=ast.Compare(ast.Name(name), [ast.Is() | ast.IsNot()], [ast.Constant(None)]),
                body=[*_],
                orelse=[_, *_],
            ) if name in texts:
                raise unmeant(
                    f"{name} is a text that a model writes in any case, and decides nothing",
                    "Decide first: a bool field of a record, or llm.choose.",
                )


def _refuse_writes_for_each(tree: ast.AST) -> None:
    """One file written anew in each turn of a loop."""
    for loop in ast.walk(tree):
        if not isinstance(loop, ast.For):
            continue
        for node in (inner for stmt in loop.body for inner in ast.walk(stmt)):
            match node:
                case ast.Call(
                    ast.Attribute(ast.Name("files"), "write"), [ast.Constant(str() as path), *_]
                ):
                    raise unmeant(
                        f"{path} is written anew in each turn of the loop",
                        "Put the rows into a list in the loop, and write them once behind it.",
                    )


def _refuse_unanswerable(tree: ast.AST) -> None:
    """A question for a name or a reason, with yes and no to choose from."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                ast.Attribute(ast.Name("llm"), "choose"),
                [ast.Constant(str() as asked), ast.List([*options]), *_],
            ):
                words = {str(o.value).casefold() for o in options if isinstance(o, ast.Constant)}
                if words == {"yes", "no"} and re.match(r"(?:What|Who|Where|When|Why|How)\b", asked):
                    raise unmeant(
                        f"yes or no is no answer to {asked!r}",
                        "Ask what can be answered so: Is there ...? Does it ...?",
                    )


def _refuse_lowered(tree: ast.AST) -> None:
    """A capital looked for where there are none."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(
                ast.Constant(str() as word), [ast.In() | ast.NotIn() | ast.Eq()], [text]
            ) if word != word.lower() and ".lower()" in ast.unparse(text):
                raise unmeant(
                    f"{word!r} has capitals, and is looked for in small letters",
                    f"Leave .lower() out, or write {word.lower()!r}.",
                )


def _refuse_letters(tree: ast.AST) -> None:
    """A single letter of a whole text, and an ending without its point."""
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(text, ast.Constant(int())) if is_text(text):
                raise unmeant(
                    "this is a single letter of a text",
                    "What a text says is for a model; its lines are text.lines(...).",
                )
            case ast.Compare(
                ast.Call(ast.Attribute(ast.Name("path"), "suffix")),
                [_],
                [ast.Constant(str() as end)],
            ) if end and not end.startswith("."):
                raise unmeant(f"no file ends in {end!r}", "An ending has its point, as in .txt.")


def _refuse_shapes(tree: ast.AST) -> None:
    """A table in a file of plain lines, and a group whose name is counted over."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                ast.Attribute(ast.Name("files"), "write"),
                [ast.Constant(str() as path), ast.Call(ast.Attribute(ast.Name("csv"), "dump"))],
            ) if path.endswith((".txt", ".md")):
                raise unmeant(
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
                    raise unmeant(
                        f"{over[0]} is what is grouped by, and is counted or summed under its name",
                        "Give the aggregate another name.",
                    )
