"""Lines that are legal and that nobody can mean, whatever the task: a test that is always the same,
numbers put in order as texts, something compared with what neither the task nor a model says.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from edvac.compiler.brief import NUMBER_WORDS, choices_in, is_amount, read_brief
from edvac.core.errors import ProgramError
from edvac.core.schema import STR, Maybe
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
        if path.endswith((".csv", ".tsv")) and path in program.touches.reads
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
