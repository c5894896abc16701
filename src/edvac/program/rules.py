"""Rules of the language about single pieces of syntax, as an executable specification.

Each rule has a name, one sentence, and a function that finds what breaks it. Rules about names,
types and aliases are in `checker` and `alias`. Knows nothing of devices.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from edvac.core.errors import ProgramError
from edvac.program.limits import LITERAL_DIGITS
from edvac.program.tree import walk

Finding: TypeAlias = tuple[str, str, str]  # what, why, fix
Find: TypeAlias = Callable[[ast.AST], Finding | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that a program may not contain; `name` is the error's code, `kinds` are the nodes
    that `find` has to see."""

    name: str
    says: str
    find: Find
    kinds: tuple[type[ast.AST], ...]


NO_CLOCK = "A program is the same whenever and wherever it runs."
VALUES = "Containers are values; names are bound again instead of objects being changed."
FAILURES = "A failed step is a value; what uses it is blocked and the rest goes on."

UNSUPPORTED: dict[type[ast.AST], Finding] = {
    ast.Import: (
        "there are no imports",
        "csv, json, re, text, date, path and math are already there.",
        "Delete the line; call csv.load(...), json.load(...), re.findall(...) directly.",
    ),
    ast.While: (
        "there is no `while`",
        "Every program ends: loops run over collections that are known.",
        "Write `for i in range(n):` or loop over a list.",
    ),
    ast.Break: (
        "there is no `break`",
        "The steps of a loop run at the same time, so none of them can stop the others.",
        "Choose the elements first: `for x in xs[:n]:` or `[x for x in xs if ...]`.",
    ),
    ast.Try: ("there is no `try`", FAILURES, "Write attempt(x, default), or `if ok(x):`."),
    ast.Raise: ("there is no `raise`", FAILURES, "Return a value that says what is wrong."),
    ast.Assert: ("there is no `assert`", FAILURES, "Write an `if`, and a file that says so."),
    ast.With: (
        "there is no `with`",
        "Devices open and close what they use.",
        'Write text = files.read("name") or files.write("name", text).',
    ),
    ast.Delete: ("there is no `del`", VALUES, "Write xs.remove(x), d.pop(key), or a new list."),
    ast.Global: ("there is no `global`", VALUES, "Return the value and assign the result."),
    ast.Nonlocal: ("there is no `nonlocal`", VALUES, "Return the value and assign the result."),
    ast.Match: ("there is no `match`", "", "Write if, elif and else."),
    ast.NamedExpr: ("there is no `:=`", "", "Put the assignment on a line of its own."),
    ast.Set: ("there are no sets", "Their order would not be certain.", "Write unique([...])."),
    ast.SetComp: ("there are no sets", "Their order would not be certain.", "Write unique([...])."),
    ast.Yield: ("there is no `yield`", "", "Build a list and return it."),
    ast.YieldFrom: ("there is no `yield`", "", "Build a list and return it."),
    ast.Await: (
        "there is no `await`",
        "Steps that can run at the same time do so by themselves.",
        "Delete the word.",
    ),
    ast.Starred: ("there is no `*` in calls and lists", "", "Write xs + ys, or name the operands."),
    ast.MatMult: ("there is no `@`", "", "Write a comprehension."),
}
for _same, _kinds in {
    ast.Import: (ast.ImportFrom,),
    ast.Try: (ast.TryStar,),
    ast.With: (ast.AsyncWith,),
    ast.Await: (ast.AsyncFor, ast.AsyncFunctionDef),
}.items():
    for _kind in _kinds:
        UNSUPPORTED[_kind] = UNSUPPORTED[_same]


def _unsupported(node: ast.AST) -> Finding | None:
    return UNSUPPORTED.get(type(node))


def _private(node: ast.AST) -> Finding | None:
    match node:
        case ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name):
            pass
        case ast.Attribute(attr=name) | ast.ClassDef(name=name) | ast.keyword(arg=str(name)):
            pass
        case _:
            return None
    if not name.startswith("_") or (name == "_" and isinstance(node, ast.Name)):
        return None
    return (
        f"the name {name[:60]} begins with `_`",
        "Python's inner names are not part of the language.",
        "Choose a name that begins with a letter.",
    )


def _literal(node: ast.AST) -> Finding | None:
    if not isinstance(node, ast.Constant):
        return None
    data = node.value
    if data is not None and not isinstance(data, bool | int | float | str):
        return (
            f"{ast.unparse(node)[:40]} is not data of the language",
            "",
            "Use texts, numbers, booleans and None.",
        )
    if isinstance(data, int) and data.bit_length() > 4 * LITERAL_DIGITS:
        return "this number is too long", "", f"Write at most {LITERAL_DIGITS} digits."
    return None


def _operator(node: ast.AST) -> Finding | None:
    match node:
        case ast.BinOp(left=ast.Constant(value=str()) | ast.JoinedStr(), op=ast.Mod()):
            return "`%` does not format text here", "", 'Write an f-string: f"{name}: {n}".'
        case ast.Compare() if any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            last = node.comparators[-1]
            if len(node.ops) > 1 or not (isinstance(last, ast.Constant) and last.value is None):
                return "`is` compares only with None", VALUES, "Write `==`."
    return None


def _target(node: ast.AST) -> Finding | None:
    match node:
        case ast.Assign():
            found = [part for target in node.targets for part in walk(target)]
        case ast.AugAssign() | ast.AnnAssign() | ast.For() | ast.comprehension():
            found = [node.target]
        case _:
            return None
    if any(isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store) for one in found):
        return (
            "a field is assigned to",
            "Records are values.",
            "Make a new record: Invoice(vendor=old.vendor, total=new_total).",
        )
    if any(
        isinstance(one, ast.Subscript)
        and isinstance(one.slice, ast.Slice)
        and isinstance(one.ctx, ast.Store)
        for one in found
    ):
        return "a slice is assigned to", VALUES, "Write xs = xs[:a] + new + xs[b:]."
    if isinstance(node, ast.For | ast.comprehension) and not _plain_target(node.target):
        return "a loop binds something that is not a name", "", "Write `for a, b in pairs:`."
    if isinstance(node, ast.AnnAssign) and not isinstance(node.target, ast.Name):
        return "only a name can be annotated", "", "Put the annotation where the name is made."
    return None


def _plain_target(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple | ast.List):
        return all(map(_plain_target, node.elts))
    return isinstance(node, ast.Name)


def _loop(node: ast.AST) -> Finding | None:
    if isinstance(node, ast.For) and node.orelse:
        return "a loop has an `else`", "There is no `break`.", "Put the lines after the loop."
    if isinstance(node, ast.comprehension) and node.is_async:
        return UNSUPPORTED[ast.Await]
    return None


def _function(node: ast.AST) -> Finding | None:
    if isinstance(node, ast.ClassDef) and (node.bases or node.keywords or node.decorator_list):
        return (
            "a class has a base or a decorator",
            "A class is a record type.",
            "Write `class Name:` and one `field: type` on each line.",
        )
    if isinstance(node, ast.FunctionDef) and node.decorator_list:
        return "a function has a decorator", "", "Call the function where its result is needed."
    if isinstance(node, ast.arguments) and (node.vararg or node.kwarg or node.posonlyargs):
        return "a function takes `*`, `**` or `/`", "", "Name each parameter; pass a list."
    if isinstance(node, ast.Call) and any(word.arg is None for word in node.keywords):
        return "there is no `**` in calls", "", "Name the operands."
    if isinstance(node, ast.Dict) and None in node.keys:
        return "there is no `**` in dicts", "", "Write a | b."
    return None


def _default(node: ast.AST) -> Finding | None:
    if isinstance(node, ast.FunctionDef):
        given = [*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)]
        if not all(isinstance(one, ast.Constant) for one in map(_unsigned, given)):
            return (
                "a default is not a plain constant",
                "Python would share it between calls.",
                "Write None and decide inside the function.",
            )
    return None


def _unsigned(node: ast.expr) -> ast.expr:
    return node.operand if isinstance(node, ast.UnaryOp) else node


def _nested(node: ast.AST) -> Finding | None:
    inner: list[ast.stmt] = []
    match node:
        case ast.FunctionDef() | ast.For() | ast.ClassDef():
            inner = node.body
        case ast.If():
            inner = [*node.body, *node.orelse]
    if any(isinstance(one, ast.FunctionDef | ast.ClassDef) for one in inner):
        if isinstance(node, ast.ClassDef):
            return (
                "a class has a method",
                "A class is a record: data without behaviour.",
                "Write a function that takes the record.",
            )
        return "a function or class is not at top level", "", "Move it to the left margin."
    if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
        return None
    if isinstance(node, ast.Lambda) and (node.args.defaults or node.args.kwonlyargs):
        return "a lambda has defaults", "", "Write a function."
    return None


_NAMED = (
    ast.Name,
    ast.arg,
    ast.FunctionDef,
    ast.Attribute,
    ast.ClassDef,
    ast.keyword,
)
_BINDING = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For, ast.comprehension)
_CALLABLE = (ast.ClassDef, ast.FunctionDef, ast.arguments, ast.Call, ast.Dict)
_BLOCKS = (ast.FunctionDef, ast.For, ast.ClassDef, ast.If, ast.Lambda)

RULES: tuple[Rule, ...] = (
    Rule(
        "syntax_unsupported",
        "Only the statements and operators of the subset.",
        _unsupported,
        tuple(UNSUPPORTED),
    ),
    Rule("name_private", "No name begins with an underscore.", _private, _NAMED),
    Rule(
        "literal_unfit",
        "Literals are data of the language and of bounded size.",
        _literal,
        (ast.Constant,),
    ),
    Rule(
        "operator_unfit", "`%` is for numbers, `is` for None.", _operator, (ast.BinOp, ast.Compare)
    ),
    Rule("target_unfit", "Only names and elements are assigned to.", _target, _BINDING),
    Rule(
        "loop_unfit", "A loop is `for NAMES in COLLECTION:`.", _loop, (ast.For, ast.comprehension)
    ),
    Rule(
        "function_unfit",
        "Functions have named parameters, records only fields.",
        _function,
        _CALLABLE,
    ),
    Rule("default_unfit", "Defaults are constants.", _default, (ast.FunctionDef,)),
    Rule("definition_nested", "Functions and records stand at top level.", _nested, _BLOCKS),
)
_RULES_OF = {
    kind: [rule for rule in RULES if kind in rule.kinds]
    for kind in {kind for rule in RULES for kind in rule.kinds}
}


def broken(nodes: Iterable[ast.AST]) -> Iterator[ProgramError]:
    """Every place where a rule is broken, in source order."""
    found = []
    where = (1, 1)
    for node in nodes:
        where = (getattr(node, "lineno", where[0]), getattr(node, "col_offset", 0) + 1)
        for rule in _RULES_OF.get(type(node), ()):
            finding = rule.find(node)
            if finding is not None:
                what, why, fix = finding
                found.append(
                    ProgramError(rule.name, what, why, fix, line=where[0], column=where[1])
                )
                break
    yield from sorted(found, key=lambda error: (error.line or 0, error.column or 0))
