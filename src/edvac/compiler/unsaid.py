"""Words and numbers in a program that nobody said: what something is compared with comes from the
task, from the program's own options, or from a model."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from edvac.compiler.brief import NUMBER_WORDS, read_brief
from edvac.core.errors import ProgramError
from edvac.program import Program

_SMALL = 2  # numbers up to this one come from words such as "twice", "none" or "the others"
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_PLAIN = frozenset({"yes", "no", "true", "false", "none", "other", "x"})
_TESTS = (".startswith", ".endswith")


def refuse_unsaid(program: Program, task: str) -> None:
    """
    Raises:
        ProgramError: `plan_unmeant`.
    """
    tree = ast.parse(program.text)
    _refuse_strange_numbers(tree, task)
    _refuse_strange_words(tree, task)
    _refuse_words_in_texts(tree, task)
    _refuse_asking_for_marks(tree, read_brief(task).marks)


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
            raise unmeant(
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


def _refuse_strange_words(tree: ast.AST, task: str) -> None:
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
        raise unmeant(
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


def _refuse_words_in_texts(tree: ast.AST, task: str) -> None:
    """A common word looked for in a document: what is urgent does not say so. Words that the task
    quotes, capitals, signs and names do stand there."""
    held: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(name)], ast.Call() as call) if is_text(call):
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
        of_text = any(map(is_text, parts)) and not any(map(_is_asked, parts))
        if not of_text and not _names_any(_unlowered(text), held):
            continue
        if re.fullmatch(r"[A-Za-z]?[a-z]{2,}", word) and not _is_shown(word, task):
            raise unmeant(
                f"{word!r} need not stand in a text that is meant",
                "Let a model say it: a bool field of a record, or llm.choose.",
            )


def _refuse_asking_for_marks(tree: ast.AST, marks: tuple[str, ...]) -> None:
    """A model asked for a word in capitals that stands in the texts: code sees that."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                ast.Attribute(ast.Name("llm"), "choose"), [ast.Constant(str() as asked), *_]
            ):
                found = [mark for mark in marks if re.search(rf"\b{mark}\b", asked)]
                if found:
                    raise unmeant(
                        f"a model is asked for the word {found[0]}",
                        f'Write "{found[0]}" in files.read(p).',
                    )


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


def is_text(node: ast.AST) -> bool:
    """Does the expression read the whole text of a file?"""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("doc.text", "files.read")


def unmeant(what: str, fix: str) -> ProgramError:
    return ProgramError("plan_unmeant", what, "", fix)
