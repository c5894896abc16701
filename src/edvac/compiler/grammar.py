"""A grammar for the next statement of a program, from what is in scope.

Text of a Lark grammar as llguidance reads it. The first statement follows the grammar strictly:
device functions that exist, records that are declared, instructions that are literals, nesting of
at most four brackets. What comes after it is free but for beginning at the margin, because only
that tells where a block ends; the planner stops reading there.
"""

from __future__ import annotations

import keyword
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from edvac.compiler.brief import Brief, placeholder
from edvac.core.signature import REQUIRED, Catalogue, Effect, Param, Role, Signature
from edvac.program import library

DEPTH = 5  # brackets within brackets
BLOCKS = 3  # blocks within blocks
END = "```"  # what follows the last statement

_TERMINALS = r"""
ADD: ".append(" | ".extend("
STRING: /"([^"\\\n{}]|\\[nt"\\]){0,200}"/
FSTRING: "f\"" (TEXT_PART | "{" HOLE "}"){1,12} "\""
TEXT_PART: /([^"\\\n{}]|\\[nt]){1,80}/
HOLE: PLACE PART? /(:[0-9,.a-z]{1,5})?/
PLACE: /[a-z_][a-z0-9_.]*/
PART: /\[(-?[0-9]{1,3}|'[A-Za-z0-9_ ]{1,30}')\]|\([a-z_][a-z0-9_.]*(, [0-9])?\)/
NUMBER: /-?[0-9]{1,9}(\.[0-9]{1,4})?/
FIELD: /[a-z_][a-z0-9_]{0,30}/
COMMENT: /  # [^\n]{1,80}/
PATTERN: /[A-Za-z0-9_-]{0,12}\*([A-Za-z0-9_-]{1,12}\*)?(\.[a-z]{1,5})?/
TAIL: /(\n*[^ \n](.|\n)*)?/
"""

_METHODS = (
    "strip",
    "lower",
    "upper",
    "split",
    "splitlines",
    "replace",
    "startswith",
    "endswith",
    "join",
    "items",
    "keys",
    "values",
    "get",
    "count",
    "title",
    "removeprefix",
    "removesuffix",
    "rsplit",
    "partition",
    "isdigit",
)


@dataclass(frozen=True, slots=True)
class Places:
    """What a task names: the paths that its program may spell. Where there are none of a kind, any
    may be spelt.

    Attributes:
        folders: that may be listed.
        files: that may be read.
        results: that may be written.
        tables: does it start from tables or lines alone, so that no document is read?
        asks: may a model be asked about something?
        some: may some of a folder be listed, rather than all that is in it?
    """

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    tables: bool = False
    asks: bool = True
    some: bool = True

    @staticmethod
    def of(brief: Brief, kinds: Collection[str]) -> Places:
        """
        Args:
            kinds: of work that the task's words speak of.
        """
        files = tuple(name for name in brief.files if not placeholder(name))
        results = tuple(name for name in files if name not in brief.inputs)
        readable = tuple(name for name in files if name not in brief.made)
        tables = bool(brief.inputs) and not brief.folders
        asks = not tables or bool(_ASKING & {*kinds})
        return Places(brief.folders, readable, results, tables, asks, brief.some)


ANYWHERE = Places()
_ASKING = frozenset({"words", "text", "language"})


def statement_grammar(
    catalogue: Catalogue,
    functions: Iterable[str],
    records: Iterable[str],
    reserved: Iterable[str],
    *,
    places: Places = ANYWHERE,
    may_end: bool = True,
    may_declare: bool = True,
) -> str:
    """The grammar.

    Args:
        functions: names of the pure library, dotted where they are.
        records: record types declared so far.
        reserved: names that may not be assigned: devices, library, builtins.
        places: paths that may be spelt.
        may_end, may_declare: may the program end here, may a record be declared?
    """
    may_declare = may_declare and not places.tables
    records = tuple(records)
    kinds = ["simple", *_block_names(0), *(["class_def"] if may_declare else [])]
    lines = [
        "start: statement TAIL" + (f' | "{END}" TAIL' if may_end else ""),
        "statement: " + " | ".join(kinds),
        *_names(reserved),
        *(_classes() if may_declare else ()),
        *_simple(),
        *_blocks(),
        *_expressions(_steps(catalogue, places), tuple(functions), records),
        *_paths(places),
    ]
    return "\n".join(lines) + _TERMINALS


def _paths(places: Places) -> list[str]:
    """What a path may be that a program spells as a whole, by what is done with it."""
    files = "PATTERN" if places.some else '"*"'
    listed = " | ".join(f'"\\"{folder}/" {files} "\\""' for folder in places.folders)
    # Where there are folders alone, what is read has been listed.
    read = " | ".join(f'"\\"{name}\\""' for name in places.files)
    read = read or ("named" if places.folders else "")
    written = " | ".join(f'"\\"{name}\\""' for name in places.results)
    return [
        f"listed: {listed or 'STRING'}",
        f"read: {read or 'STRING'}",
        f"written: {written or 'STRING'}",
        'named: NEW ("." FIELD | "[" (STRING | NUMBER) "]"){0,3} | FSTRING',
    ]


def _names(reserved: Iterable[str]) -> list[str]:
    taken = "|".join(sorted(set(reserved) | _KEYWORDS))
    return [
        rf"NEW: /[a-z][a-z0-9_]{{0,30}}/ & ~/({taken})/",
        r"TYPE_NAME: /[A-Z][A-Za-z0-9]{1,30}/ & ~/(Decimal|Literal|Quoted|None|True|False)/",
    ]


_OF_DOCUMENTS = ("files.list", "doc.parts")
_KEYWORDS = frozenset(keyword.kwlist) - {"None", "True", "False"}


def _classes() -> list[str]:
    return [
        r'class_def: "class " TYPE_NAME ":\n" field+',
        r'field: "    " FACT ": " type COMMENT? "\n"',
        # A text does not say what file it lies in; a model that is asked for that makes it up.
        r"FACT: /[a-z_][a-z0-9_]{0,30}/ & ~/(file|path)[a-z0-9_]*/",
        'type: base | base " | None"',
        'base: "str" | "int" | "Decimal" | "bool" | "date" | "float" | choice | "list[" item "]"',
        'item: "str" | "int" | "Decimal" | "date" | choice | TYPE_NAME',
        'choice: "Literal[" STRING (", " STRING){0,11} "]"',
    ]


def _simple() -> list[str]:
    return [
        r'simple: NEW " = " right "\n" | NEW ADD expr0 ")\n" | effect "\n"'
        r' | NEW "[" expr1 "] = " right "\n" | NEW " += " expr0 "\n"',
        'right: expr0 | "param(" (NUMBER | STRING) ")"',
    ]


def _block_names(level: int) -> list[str]:
    return [f"for{level}", f"if{level}"] if level < BLOCKS else []


def _blocks() -> list[str]:
    lines = []
    for level in range(BLOCKS):
        indent = "    " * level
        inner = "    " * (level + 1)
        below = " | ".join(["simple", *_block_names(level + 1)])
        lines.append(f'body{level}: ("{inner}" ({below}))+')
        lines.append(f'for{level}: "for " NEW (", " NEW)? " in " expr0 ":\\n" body{level}')
        lines.append(
            f'if{level}: "if " expr0 ":\\n" body{level}'
            f' ("{indent}elif " expr0 ":\\n" body{level}){{0,4}}'
            f' ("{indent}else:\\n" body{level})?'
        )
    return lines


def _expressions(
    steps: list[Signature], functions: tuple[str, ...], records: tuple[str, ...]
) -> list[str]:
    lines = []
    for depth in range(DEPTH):
        lines += _expression_level(depth)
        lines += _calls(depth, steps, functions, records)
    writing = [s for s in steps if s.effect in (Effect.WRITE, Effect.EXTERNAL)]
    lines.append("effect: " + " | ".join(_rule(s, 0) for s in writing))
    return lines


def _expression_level(depth: int) -> list[str]:
    d, e = depth, f"expr{depth + 1}"
    last = depth == DEPTH - 1
    inner = (
        []
        if last
        else [
            f'"[" ({e} (", " {e}){{0,20}})? "]"',
            f'"{{" (pair{d} (", " pair{d}){{0,20}})? "}}"',
            f'"[" {e} " for " NEW (", " NEW)? " in " {e} (" if " {e})? "]"',
            f'"{{" pair{d} " for " NEW (", " NEW)? " in " {e} (" if " {e})? "}}"',
            f'"(" {e} ")"',
        ]
    )
    index = "" if last else f' | "[" {e} "]" | "[" NUMBER? ":" NUMBER? "]"'
    method = "|".join(_METHODS)
    arguments = "" if last else f'({e} (", " {e}){{0,2}})?'
    primary = " | ".join(
        ["NEW", "NUMBER", "STRING", "FSTRING", '"None"', '"True"', '"False"', f"call{d}", *inner]
    )
    lines = [
        f'expr{d}: either{d} (" if " either{d} " else " either{d})?',
        f'either{d}: both{d} (" or " both{d}){{0,3}}',
        f'both{d}: test{d} (" and " test{d}){{0,3}}',
        f'test{d}: "not "? sum{d} (COMPARE sum{d} | " is None" | " is not None")?',
        f"sum{d}: part{d} (OPERATOR part{d}){{0,4}}",
        f"part{d}: primary{d} trailer{d}{{0,4}}",
        f'trailer{d}: "." FIELD | "." METHOD{d} "(" {arguments} ")"{index}',
        f"METHOD{d}: /{method}/",
        f"primary{d}: {primary}",
    ]
    if not last:
        lines.append(f'pair{d}: {e} ": " {e}')
    if depth == 0:
        lines.append(
            'COMPARE: " == " | " != " | " <= " | " >= " | " < " | " > " | " in " | " not in "'
        )
        lines.append('OPERATOR: " + " | " - " | " * " | " / " | " // " | " % "')
    return lines


def _calls(
    depth: int, steps: list[Signature], functions: tuple[str, ...], records: tuple[str, ...]
) -> list[str]:
    d = depth
    if depth == DEPTH - 1:
        return [f'call{d}: "len(" NEW ")" | "str(" NEW ")"']
    e = f"expr{d + 1}"
    named = " | ".join(f'"{name}("' for name in functions)
    lines = [
        f"call{d}: " + " | ".join([f"step{d}", f"pure{d}", *([f"made{d}"] if records else [])]),
        f"step{d}: " + " | ".join(_rule(s, d) for s in steps if _is_callable(s, records)),
        f'pure{d}: ({named}) (arg{d} (", " arg{d}){{0,4}})? ")"',
        f'arg{d}: FIELD "=" value{d} | value{d}',
        f'value{d}: {e} | "lambda " NEW ": " {e}',
    ]
    for signature in steps:
        if _is_callable(signature, records):
            lines.append(f"{_rule(signature, d)}: {_step(signature, d, records)}")
    if records:
        made = " | ".join(f'"{name}("' for name in records)
        lines.append(f'made{d}: ({made}) FIELD "=" {e} (", " FIELD "=" {e}){{0,20}} ")"')
    return lines


def reserved(catalogue: Catalogue) -> frozenset[str]:
    """Names that mean something: devices, libraries, builtins."""
    names = (doc.name for doc in library() if "self" not in doc.signature)
    devices = catalogue.called(one.op for one in callable_steps(catalogue)).devices
    return frozenset({name.partition(".")[0] for name in names} | set(devices))


def callable_steps(catalogue: Catalogue) -> list[Signature]:
    """What a plan may call; code in a program is written by people, not by a small model."""
    found = catalogue.signatures.values()
    return [s for s in found if s.planned and not any(p.role is Role.CODE for p in s.params)]


def _steps(catalogue: Catalogue, places: Places) -> list[Signature]:
    return [
        s
        for s in callable_steps(catalogue)
        if not (places.tables and s.op in _OF_DOCUMENTS) and (places.asks or s.device != "llm")
    ]


def _is_callable(signature: Signature, records: tuple[str, ...]) -> bool:
    return bool(records) or not any(p.role is Role.TYPE for p in signature.params)


def _rule(signature: Signature, depth: int) -> str:
    return f"{signature.device}_{signature.function}{depth}"


def _step(signature: Signature, depth: int, records: tuple[str, ...]) -> str:
    parts = []
    for place, param in enumerate(signature.params):
        if param.keyword_only:
            continue
        mark = '", " ' if place else ""
        text = f"{mark}{_operand(signature, param, depth, records)}"
        if param.variadic:
            parts.append(f"({text}){{0,4}}")
        elif param.default is REQUIRED:
            parts.append(text)
        else:
            parts.append(f"({text})?")
    return f'"{signature.op}(" ' + " ".join(parts) + ' ")"'


def _operand(signature: Signature, param: Param, depth: int, records: tuple[str, ...]) -> str:
    match param.role:
        case Role.TYPE:
            names = " | ".join(f'"{name}" | "list[{name}]"' for name in records)
            return f"({names})"
        case Role.INSTRUCTION if param.name == "options":
            return '"[" STRING (", " STRING){1,11} "]"'
        case Role.INSTRUCTION:
            return "STRING"
        case Role.ADDRESS if signature.op == "files.list":
            return "(listed | FSTRING)"
        case Role.ADDRESS:
            return f"({'written' if param.name in signature.writes else 'read'} | named)"
    return f"expr{depth + 1}"
