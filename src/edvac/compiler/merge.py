"""Several programs put together into one that does what all of them do.

Where two of them begin with the same statements these stand once, and records of one name become
one with the fields of both, so that each document is read once. Other names that two programs have
in common get numbers. Programs that move files come last: the others find them where they were.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Mapping, Sequence

from edvac.compiler.statements import statements
from edvac.compiler.syntax import fields_of_records

_FIELD = re.compile(r"    (\w+): ([^#\n]+?)\s*(?:#.*)?\n")


Headers = Callable[[str], Mapping[str, Sequence[str]]]


def merged(programs: Iterable[str], headers: Headers) -> str:
    """One program; its parts keep their lines, up to names and to fields of records.

    Args:
        headers: the columns of each table that a program writes, by path. A table of records keeps
            them, whatever fields its record gets.
    """
    ordered = sorted(programs, key=lambda text: "files.move(" in text)
    whole = _united([statements(text) for text in ordered], headers)
    done: list[list[str]] = []
    taken: set[str] = set()
    for own in whole:
        shared = max((_shared(own, other) for other in done), key=len, default=[])
        known = {name for piece in shared for name in _bound(piece)}
        clash = {name for piece in own for name in _bound(piece)} & taken - known
        taken |= known
        fresh = {name: _free(name, taken, own) for name in sorted(clash)}
        rest = [_renamed(piece, fresh) for piece in own[len(shared) :]]
        taken |= {name for piece in rest for name in _bound(piece)}
        # What is shared stands in `done` already, under the same names.
        done.append([*shared, *rest])
        own[:] = rest
    return "".join(piece for own in whole for piece in own)


def _shared(own: list[str], other: list[str]) -> list[str]:
    """The statements that both begin with, as far as nothing behind them changes what they make."""
    count = 0
    while count < min(len(own), len(other)) and own[count] == other[count]:
        count += 1
    while count and not _untouched(own, other, count):
        count -= 1
    return own[:count]


def _untouched(own: list[str], other: list[str], count: int) -> bool:
    made = {name for piece in own[:count] for name in _bound(piece)}
    acts = any(re.search(r"\bfiles\.(?:write|move|copy)\(", piece) for piece in own[:count])
    behind = [*own[count:], *other[count:]]
    return not acts and not any(made & (_bound(piece) | _changed(piece)) for piece in behind)


def _bound(piece: str) -> set[str]:
    """Names that a statement gives a meaning; those of comprehensions are their own."""
    tree = ast.parse(piece)
    inside = {
        id(node)
        for part in ast.walk(tree)
        if isinstance(part, ast.comprehension)
        for node in ast.walk(part.target)
    }
    inside |= fields_of_records(tree)
    found = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in inside
    }
    return found | {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _changed(piece: str) -> set[str]:
    """Names of lists and dicts that a statement puts something into."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(piece)):
        match node:
            case ast.Call(ast.Attribute(ast.Name(name), _)):
                found.add(name)
            case ast.Subscript(ast.Name(name), ctx=ast.Store()):
                found.add(name)
    return found


def _free(name: str, taken: set[str], own: list[str]) -> str:
    text = "".join(own)
    number = 2
    while f"{name}_{number}" in taken or f"{name}_{number}" in text:
        number += 1
    return f"{name}_{number}"


def _renamed(piece: str, fresh: Mapping[str, str]) -> str:
    """The statement with other names; texts, attributes, fields and names of operands stay."""
    if not fresh:
        return piece
    record = piece.startswith("class ")
    names = {old: new for old, new in fresh.items() if old[0].isupper() or not record}
    lines = piece.splitlines(keepends=True)
    tokens = [*tokenize.generate_tokens(io.StringIO(piece).readline)]
    depth = 0
    edits: list[tuple[tuple[int, int], tuple[int, int], str]] = []
    for place, token in enumerate(tokens):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
        before = tokens[place - 1].string if place else ""
        behind = tokens[place + 1].string if place + 1 < len(tokens) else ""
        if token.type == tokenize.NAME and token.string in names:
            if before != "." and not (depth and behind == "="):
                edits.append((token.start, token.end, names[token.string]))
        elif token.type == tokenize.STRING and token.string[0] in "fF":  # whole before Python 3.12
            edits.append((token.start, token.end, _in_holes(token.string, names)))
    for (line, begin), (_, end), text in reversed(edits):
        lines[line - 1] = lines[line - 1][:begin] + text + lines[line - 1][end:]
    return "".join(lines)


def _in_holes(text: str, names: Mapping[str, str]) -> str:
    """An f-string with other names where its values stand."""
    either = "|".join(map(re.escape, names))
    name = re.compile(rf"(?<![\w.\"'])(?:{either})\b(?![\"'])(?!\s*=[^=])")
    return re.sub(
        r"\{[^{}]*\}", lambda hole: name.sub(lambda found: names[found[0]], hole[0]), text
    )


def _united(programs: list[list[str]], headers: Headers) -> list[list[str]]:
    """The programs with one record in place of several of one name, where these agree in the fields
    that they share; not where a program makes one itself, or writes a table whose columns would
    change with it and are not known."""
    found: dict[str, list[tuple[int, int]]] = {}
    for number, own in enumerate(programs):
        for place, piece in enumerate(own):
            if piece.startswith("class "):
                name = piece[len("class ") : piece.index(":")]
                found.setdefault(name, []).append((number, place))
    made = [[*own] for own in programs]
    for name, places in found.items():
        one = _one_record(name, [*found], [programs[number][place] for number, place in places])
        made_by_hand = any(re.search(rf"\b{name}\(", piece) for own in programs for piece in own)
        if one is None or made_by_hand or len(places) < 2:
            continue
        for number, place in places:
            if made[number][place] != one:
                told = _with_columns(made[number], headers("".join(programs[number])))
                if told is None:
                    return programs
                made[number] = [*told]
                made[number][place] = one
    return made


def _one_record(name: str, known: list[str], records: list[str]) -> str | None:
    """The record with all fields; None where they do not agree, or hold other records, which have
    to be declared before it."""
    if len(set(records)) == 1:
        return records[0]
    fields: dict[str, tuple[str, str]] = {}
    others = re.compile(rf"\b(?:{'|'.join(known)})\b")
    for text in records:
        for line in text.splitlines(keepends=True)[1:]:
            part = _FIELD.fullmatch(line)
            if part is None or others.search(part[2]):
                return None
            if fields.setdefault(part[1], (part[2], line))[0] != part[2]:
                return None
    return f"class {name}:\n" + "".join(line for _, line in fields.values())


def _with_columns(pieces: list[str], headers: Mapping[str, Sequence[str]]) -> list[str] | None:
    """The program with the columns of each table spelt out; None where they are not known."""
    made = []
    for piece in pieces:
        ends: list[tuple[int, int, str]] = []
        for node in ast.walk(ast.parse(piece)):
            match node:
                case ast.Call(
                    ast.Attribute(ast.Name("files"), "write"),
                    [ast.Constant(str() as path), ast.Call(args=[_], keywords=[]) as dump],
                ) if ast.unparse(dump.func) == "csv.dump" and path in headers:
                    spelled = ", ".join(f'"{name}"' for name in headers[path])
                    line, end = dump.end_lineno or 1, dump.end_col_offset or 1
                    ends.append((line - 1, end - 1, f", columns=[{spelled}]"))
        lines = piece.splitlines(keepends=True)
        for line, end, text in sorted(ends, reverse=True):
            raw = lines[line].encode()  # places in a syntax tree count bytes
            lines[line] = (raw[:end] + text.encode() + raw[end:]).decode()
        told = "".join(lines)
        if len(re.findall(r"\bcsv\.dump\(", told)) > told.count("columns=["):
            return None
        made.append(told)
    return made
