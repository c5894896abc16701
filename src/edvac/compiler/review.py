"""What the verifier cannot see: does a legal program do what the task names?

Structural checks on text alone, each with a complaint that can be shown to the model.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections import Counter
from decimal import Decimal, InvalidOperation

from edvac.compiler.brief import Bound, Brief, is_named, placeholder, read_brief
from edvac.compiler.syntax import fields_of_records
from edvac.core.errors import ProgramError
from edvac.core.schema import STR, Maybe
from edvac.core.signature import Effect, overlap
from edvac.program import Program
from edvac.program.extending import EXTEND


class Misdeclared(ProgramError):
    """A line that cannot be mended, since a field of a record was declared as what it is not."""

    def __init__(self, field: str, what: str, fix: str, code: str = "plan_astray") -> None:
        super().__init__(code, f"{field} is {what}", "", fix)
        self.field = field


def review(program: Program, task: str, *, part: bool = False, running: str = "") -> None:
    """Refuse a program that leaves out a file the task names, or computes what nobody uses.

    Args:
        part: need it not read every file that the task starts from?
        running: its first lines, which are there whatever they are for.

    Raises:
        ProgramError: `plan_incomplete`.
    """
    brief = read_brief(task)
    missing = unwritten(program, task)
    if part:
        missing = [name for name in missing if name not in brief.inputs]
    if missing:
        raise _incomplete(f"the task names {', '.join(missing)}, which the program does not touch")
    missed = [bound.value for bound in brief.bounds if not _compares(program, bound)]
    if missed:
        raise _incomplete(f"the task speaks of {missed[0]}, and nothing is compared with it")
    sources = [*brief.inputs, *(f"{name}/**" for name in brief.folders)]
    if sources and not any(
        overlap(name, path) for name in sources for path in program.touches.reads
    ):
        raise _incomplete(f"the program reads nothing of {', '.join(sources)}")
    ordered = _FALLING.search(task) or _RISING.search(task)
    if ordered and not _SORTING.search(program.text):
        raise _incomplete(f"the task says {ordered.group()!r}, and nothing is sorted")
    if any(use.op == EXTEND for use in program.access):
        return  # what uses the rest is still to come
    unused = unused_names(program.text) or _dead_names(program.text)
    if running:
        unused = sorted(set(unused) - {*unused_names(running), *_dead_names(running)})
    if unused:
        raise _incomplete(f"{', '.join(unused)} is computed and never used")
    if not any(use.effect in (Effect.WRITE, Effect.EXTERNAL) for use in program.access):
        raise _incomplete("the program writes no result")


def unwritten(program: Program, task: str) -> list[str]:
    """Files and folders that the task names and the program neither reads nor writes."""
    brief, touched = read_brief(task), program.touches
    known = [path for path in touched.reads + touched.writes if path != "**"]
    files = [name for name in brief.files if not any(overlap(name, path) for path in known)]
    return files + [
        f"{name}/"
        for name in brief.folders
        if not any(overlap(f"{name}/**", path) for path in known)
    ]


def refuse_astray(program: Program, task: str) -> None:
    """Refuse a line that goes where the task does not: it reads what the task does not speak of (a
    model made the name up, or took it from an example), writes over what the task starts from, or
    compares a free text that a model fills in with one fixed word.

    Raises:
        ProgramError: `plan_astray`.
    """
    brief, touched = read_brief(task), program.touches
    for path in touched.reads:
        own = any(overlap(path, written) for written in touched.writes)
        if not own and not _is_spoken_of(path, task, brief):
            named = ", ".join((*(f"{name}/" for name in brief.folders), *brief.files))
            raise _astray(f"the task does not speak of {path}, which is read", f"Read {named}.")
    _refuse_unasked(program, task, brief)
    _refuse_by_hand(program, brief)
    # What nothing reads, though much else is read, may have been taken for a source wrongly.
    spoiled = [
        name
        for name in brief.inputs
        if name in touched.writes and (name in touched.reads or not touched.reads)
    ]
    if spoiled:
        raise _astray(f"{spoiled[0]} is what the task starts from", "Write to another file.")
    replaced = _replaced(program.text)
    if replaced:
        raise _astray(
            f"{replaced} gets another value, and nothing has read the one before",
            f"Make it of {replaced}, or leave one of the two out.",
        )
    for bound in brief.bounds:
        if bound.file in touched.writes and not _compares(program, bound):
            raise _astray(
                f"the task speaks of {bound.value} for {bound.file}, and nothing is compared",
                f"Select the rows first: [r for r in rows if … {bound.value}].",
            )
    _refuse_strange_calls(program.text)
    misfilled = _misfilled(program)
    if misfilled:
        raise _astray(
            f"{misfilled} is a field of a record, and a part of a path is put in its place",
            f"Write found.{misfilled}.",
        )
    tested = _tested_texts(program, task)
    if tested:
        raise Misdeclared(
            tested[0],
            "free text: it is always there, and never quite a given word",
            'Declare it as bool or as Literal["one", "other"].',
        )
    _refuse_turned(program, task)


def _refuse_unasked(program: Program, task: str, brief: Brief) -> None:
    """Refuse a file that nobody asked for, where the task names its results, and a placeholder of
    the task taken for a name."""
    results = brief.results
    for path in program.touches.writes if results else ():
        asked = any(is_named(name, path) or overlap(name, path) for name in results)
        loose = "/" not in path and set(path) & set("*?[")  # a name that is put together
        if not asked and (loose or not _is_spoken_of(path, task, brief)):
            named = ", ".join((*results, *(f"{name}/" for name in brief.folders)))
            raise _astray(f"nobody asked for {path}, which is written", f"Write {named}.")
        if _BELOW_A_FILE.search(path):
            raise _astray(f"{path} lies below a file", "Write the file itself, or a folder.")
        word = placeholder(path)
        if word and path in results:
            raise _astray(
                f"{word} in {path} stands for each of them",
                f"Write an f-string with a name in the place of {word}, in a loop.",
            )


_BELOW_A_FILE = re.compile(r"\.(?:csv|tsv|md|txt|jsonl|json|html|log)/")


def _refuse_by_hand(program: Program, brief: Brief) -> None:
    """Refuse a table that is taken apart line by line: its cells would be letters."""
    tables = [name for name in brief.inputs if name.endswith((".csv", ".tsv"))]
    held: dict[str, str] = {}  # variables that hold the text of a table
    for node in ast.walk(ast.parse(program.text)):
        match node:
            case ast.Assign([ast.Name(name)], value) if table := _table_read(value, tables):
                held[name] = table
            case ast.Call(ast.Attribute(ast.Name("text"), "lines"), [value]) | ast.Call(
                ast.Attribute(value, "split" | "splitlines")
            ):
                own = held.get(value.id) if isinstance(value, ast.Name) else None
                if table := own or _table_read(value, tables):
                    raise _astray(
                        f"{table} is a table, and is taken apart line by line",
                        f'Write csv.load(files.read("{table}")), which gives a dict for each row.',
                    )


def _table_read(node: ast.expr, tables: list[str]) -> str:
    """The table whose text the expression is."""
    match node:
        case ast.Call(ast.Attribute(ast.Name("files" | "doc")), [ast.Constant(str() as path)]):
            return path if path in tables else ""
    return ""


def _is_spoken_of(path: str, task: str, brief: Brief) -> bool:
    head, _, rest = path.partition("/")
    if set(head) & set("*?[") or not (brief.files or brief.folders):
        return True
    if not rest:
        return path in brief.files
    word = re.escape(head)
    spelled = rf"\b{word}/|(?:folder|directory) (?:called |named )?{word}\b|\b{word} (?:folder|dir)"
    if re.search(spelled, task, re.IGNORECASE):
        return True
    vague = not brief.folders and not brief.inputs
    return vague and head.casefold() in task.casefold()


def _tested_texts(program: Program, task: str) -> list[str]:
    """Fields of records, declared as plain text, that are compared with a literal, unless that is a
    name in the task."""
    free = {
        part.name: part.type
        for record in program.records.values()
        for part in record.fields
        if part.type in (STR, Maybe(STR))
    }
    found = []
    for node in ast.walk(ast.parse(program.text)):
        match node:
            case ast.Compare(left, [ast.Eq() | ast.NotEq()], [ast.Constant(str() as word)]) if word:
                name, is_name = _field_name(left), word[0].isupper() and word in task
                found += [name] if name in free and not is_name else []
            case ast.Compare(
                ast.Attribute(_, name), [ast.Eq() | ast.NotEq() | ast.Is()], [ast.Constant(bool())]
            ):
                found += [name] if name in free else []
            case ast.If(test=ast.Attribute(_, name)) | ast.IfExp(test=ast.Attribute(_, name)):
                found += [name] if free.get(name) == STR else []
    return found


_SORTING = re.compile(r"\b(?:sort_by|sorted|sort|tally|max|min)\(")
_RISING = re.compile(
    r"\b(?:quick|earli|low|small|short|cheap|young|few|soon|near|light)est first|alphabetical", re.I
)
_FALLING = re.compile(
    r"\b(?:high|larg|bigg|strong|heavi|thick|busi)est (?:\w+ )?(?:first|on top)"
    r"|\b(?:most|best)\b[\w ]{0,24}? (?:first|on top)|with (?:the )?most \w+ (?:first|on top)",
    re.I,
)
_ORDER = re.compile(
    r"est (?:\w+ ){0,2}(?:first|last|on top)|\b(?:most|least|best)\b[\w ]{0,24}? (?:first|on top)"
    r"|alphabetical|\bin (?:the )?order of\b|\btop \w+|\bon top\b",
    re.I,
)


def _refuse_turned(program: Program, task: str) -> None:
    """Refuse an order that is the other way round, where the task speaks of a single one."""
    rising, falling = _RISING.search(task), _FALLING.search(task)
    if bool(rising) == bool(falling) or len(_ORDER.findall(task)) > 1:
        return
    for turned in _sorts(program.text):
        if turned is not bool(falling):
            said = (falling or rising).group()  # type: ignore[union-attr]
            raise _astray(
                f"the task says {said!r}, and this sorts the other way",
                f"Write reverse={bool(falling)}.",
            )


def _sorts(text: str) -> list[bool]:
    """Of each call that sorts, whether it does so from the largest down; a key that turns the order
    itself is left out."""
    found = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(ast.Name("sort_by" | "sorted") | ast.Attribute(_, "sort")):
                words = {word.arg: word.value for word in node.keywords}
                if not any(isinstance(part, ast.USub | ast.Lambda) for part in ast.walk(node)):
                    turned = words.get("reverse")
                    found.append(isinstance(turned, ast.Constant) and bool(turned.value))
    return found


def _refuse_strange_calls(text: str) -> None:
    """Refuse a choice that is none, and a loop over the letters of a text."""
    texts: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Assign([ast.Name(name)], ast.Call(ast.Attribute() as made)):
                if ast.unparse(made) in _TEXTS:
                    texts.add(name)
            case ast.Call(ast.Attribute(ast.Name("llm"), "choose"), [_, ast.List(options), *data]):
                _refuse_no_choice(options, data)
            case ast.For(iter=ast.Call() as made) | ast.comprehension(iter=ast.Call() as made):
                if ast.unparse(made.func) in _TEXTS:
                    raise _astray(
                        f"{ast.unparse(made)} is one text, and this goes through its letters",
                        "Write csv.load(text) for the rows of a table, text.lines(text) for lines.",
                    )
            case ast.For(iter=ast.Name(name)) | ast.comprehension(iter=ast.Name(name)):
                if name in texts:
                    raise _astray(
                        f"{name} is one text, and this goes through its letters",
                        f"Write text.lines({name}), or extract a record that holds a list.",
                    )


def _refuse_no_choice(options: list[ast.expr], data: list[ast.expr]) -> None:
    words = [str(o.value).strip() for o in options if isinstance(o, ast.Constant)]
    counted = len(words) > 1 and len({word.rstrip("0123456789") for word in words}) == 1
    if (
        counted
        or len(set(words)) < len(words)
        or not all(any(map(str.isalnum, word)) for word in words)
    ):
        raise _astray(
            "the options of llm.choose are no different words",
            "Facts that a text holds are filled into a record by llm.extract.",
        )
    for one in data:
        match one:
            case ast.Subscript(
                ast.Call(ast.Attribute(_, "split"), [] | [ast.Constant(" ")]), ast.Constant(int())
            ):
                raise _astray(
                    "a single word is given to a model to choose by", "Give it the whole line."
                )


_TEXTS = ("llm.choose", "llm.write", "doc.text", "files.read")


def _compares(program: Program, bound: Bound) -> bool:
    """Does the number or day occur in the program? "More than 8" may be written as ``>= 9``."""
    if "-" in bound.value:
        day = [str(int(part)) for part in bound.value.split("-")]
        return bound.value in program.text or ", ".join(day) in program.text
    wanted = Decimal(bound.value)
    found = set[Decimal]()
    for node in ast.walk(ast.parse(program.text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
            with contextlib.suppress(InvalidOperation):
                found.add(Decimal(str(node.value)))
    return bool({wanted, wanted - 1, wanted + 1} & found)


def _misfilled(program: Program) -> str:
    """The key of a row that is called as a field of a record and holds a part of a path."""
    fields = {part.name for record in program.records.values() for part in record.fields}
    for node in ast.walk(ast.parse(program.text)):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                match key, value:
                    case ast.Constant(str() as name), ast.Call(ast.Attribute(ast.Name("path"))):
                        if name in fields:
                            return name
        match node:
            case ast.Call(ast.Name("row_of"), keywords=[*words]):
                for word in words:
                    if word.arg in fields and ast.unparse(word.value).startswith("path."):
                        return str(word.arg)
    return ""


def _replaced(text: str) -> str:
    """A name at the margin that gets another value before anything has read the one it has; what is
    put into a container is not read by that."""
    unread: set[str] = set()
    for stmt in ast.parse(text).body:
        appended = _only_appended(stmt)
        read = Counter(
            node.id
            for node in ast.walk(stmt)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        )
        unread -= {name for name, count in read.items() if count > appended[name]}
        match stmt:
            case ast.Assign([ast.Name(name)]):
                if name in unread:
                    return name
                unread.add(name)
    return ""


def _field_name(node: ast.expr) -> str:
    match node:
        case ast.Attribute(_, name) | ast.Subscript(_, ast.Constant(str() as name)):
            return name
        case ast.Call(ast.Attribute(inner, "lower" | "strip" | "upper")):
            return _field_name(inner)
    return ""


def _astray(what: str, fix: str) -> ProgramError:
    return ProgramError("plan_astray", what, "", fix)


def unused_names(text: str) -> list[str]:
    """Variables and records that nothing reads, in the order of the text; what a loop counts with
    need not be read."""
    tree = ast.parse(text)
    bound: list[str] = []
    read: Counter[str] = Counter()
    counted = {
        id(node)
        for loop in ast.walk(tree)
        if isinstance(loop, ast.For | ast.comprehension)
        for node in ast.walk(loop.target)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                read[node.id] += 1
            elif id(node) not in counted:
                bound.append(node.id)
        elif isinstance(node, ast.ClassDef):
            bound.append(node.name)
    fields = fields_of_records(tree)
    inside = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) in fields
    }
    appended = _only_appended(tree)
    return [
        name
        for name in dict.fromkeys(bound)
        if name not in inside and (not read[name] or read[name] == appended[name])
    ]


def _dead_names(text: str) -> list[str]:
    """Variables at the margin whose last value nothing reads."""
    stored: dict[str, int] = {}
    loaded: dict[str, int] = {}
    for place, stmt in enumerate(ast.parse(text).body):
        for node in ast.walk(stmt):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                loaded[node.id] = place
        match stmt:
            case ast.Assign([ast.Name(name)]):
                stored[name] = place
    return [name for name, place in stored.items() if loaded.get(name, -1) <= place]


def _only_appended(tree: ast.AST) -> Counter[str]:
    """How often a name is read only to put something into it."""
    found: Counter[str] = Counter()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(ast.Call(ast.Attribute(ast.Name(name), "append" | "extend"))):
                found[name] += 1
            case ast.Assign([ast.Subscript(ast.Name(name))]):
                found[name] += 1
    return found


def _incomplete(why: str) -> ProgramError:
    return ProgramError("plan_incomplete", why, "", "Finish the program.")
