"""Which keys the rows have that a program makes itself, followed through its lists: a key that no
row has is the program's fault, whatever the data are."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from edvac.compiler.unsaid import unmeant

_KEEP = ("sort_by", "sorted", "unique", "reversed", "list")  # lists of the same rows


def refuse_unknown_keys(tree: ast.Module) -> None:
    """
    Raises:
        ProgramError: `plan_unmeant`.
    """
    shapes = _shapes(tree)
    for node in ast.walk(tree):
        for name, rows in _runs_over(node):
            keys = shapes.get(rows)
            if keys is None:
                continue
            for key in _taken(node, name):
                if key not in keys:
                    raise unmeant(
                        f"the rows of {rows} have no {key!r}; they have {', '.join(sorted(keys))}",
                        "Take one of these, or put it into the rows where they are made.",
                    )
        match node:
            case ast.Subscript(ast.Name(rows), ast.Constant(str() as key)) if rows in shapes:
                raise unmeant(f"{rows} is a list of rows, and is asked for {key!r}", _EACH)
            case ast.Subscript(ast.Name(rows), ast.Subscript() | ast.JoinedStr()) if rows in shapes:
                raise unmeant(f"{rows} is a list of rows, and is asked for one by name", _EACH)


_EACH = 'Write [row for row in rows if row["..."] == name].'


def _shapes(tree: ast.Module) -> dict[str, frozenset[str]]:
    """Keys of the rows of each list that is made in one way only."""
    made: dict[str, list[frozenset[str] | None]] = {}
    for node in _in_order(tree):
        match node:
            case ast.Assign([ast.Name(name)], ast.List([])):
                made.setdefault(name, [])
            case ast.Assign([ast.Name(name)], value):
                known = {one: _same(keys) for one, keys in made.items()}
                made.setdefault(name, []).append(_keys(value, known))
            case ast.Expr(ast.Call(ast.Attribute(ast.Name(name), "append"), [value])):
                made.setdefault(name, []).append(_literal(value))
            case ast.Expr(ast.Call(ast.Attribute(ast.Name(name)))) | ast.AugAssign(ast.Name(name)):
                made.setdefault(name, []).append(None)
            case ast.For(ast.Name(name)):
                made.setdefault(name, []).append(None)
    return {name: keys for name, ways in made.items() if (keys := _same(ways)) is not None}


def _in_order(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes in the order of the text."""
    for child in ast.iter_child_nodes(tree):
        yield child
        yield from _in_order(child)


def _same(ways: list[frozenset[str] | None]) -> frozenset[str] | None:
    return ways[0] if ways and all(way == ways[0] for way in ways) else None


def _keys(value: ast.expr, known: dict[str, frozenset[str] | None]) -> frozenset[str] | None:
    """Keys of the rows of a list that an expression makes; None where they are not certain."""
    match value:
        case ast.ListComp(ast.Dict() as row):
            return _literal(row)
        case ast.ListComp(ast.Name(name), [ast.comprehension(ast.Name(target), ast.Name(rows))]):
            return known.get(rows) if name == target else None
        case ast.Call(ast.Name("group"), [_], words):
            by = next((word.value for word in words if word.arg == "by"), None)
            if isinstance(by, ast.List) and all(isinstance(one, ast.Constant) for one in by.elts):
                fields = [str(one.value) for one in by.elts if isinstance(one, ast.Constant)]
                return frozenset([*fields, *(str(w.arg) for w in words if w.arg != "by")])
        case ast.Call(ast.Name(called), [ast.Name(rows), *_]) if called in _KEEP:
            return known.get(rows)
        case ast.Call(ast.Name(called), [ast.expr() as inner, *_]) if called in _KEEP:
            return _keys(inner, known)
        case ast.Subscript(ast.Name(rows), ast.Slice()):
            return known.get(rows)
    return None


def _literal(row: ast.expr) -> frozenset[str] | None:
    if not isinstance(row, ast.Dict):
        return None
    keys = [key.value for key in row.keys if isinstance(key, ast.Constant)]
    return frozenset(map(str, keys)) if len(keys) == len(row.keys) else None


def _runs_over(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Loop variables and the lists that they run over."""
    match node:
        case ast.For(ast.Name(name), ast.Name(rows)):
            yield name, rows
        case ast.ListComp(_, parts) | ast.DictComp(_, _, parts) | ast.GeneratorExp(_, parts):
            for part in parts:
                if isinstance(part.target, ast.Name) and isinstance(part.iter, ast.Name):
                    yield part.target.id, part.iter.id


def _taken(tree: ast.AST, name: str) -> Iterator[str]:
    """Keys that are read from a row, unless the loop puts some into it."""
    keys: list[str] = []
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(ast.Name(row), ast.Constant(str() as key), ctx) if row == name:
                if isinstance(ctx, ast.Store):
                    return
                keys.append(key)
    yield from keys
