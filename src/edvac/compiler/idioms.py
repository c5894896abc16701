"""Which turns of phrase a program consists of: the calls, loops, tests and shapes of results that
somebody who writes a similar one has to know."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator

_DEVICES = ("files.", "doc.", "llm.", "csv.", "json.", "text.", "path.", "date.", "math.", "re.")
_SHAPING = ("by", "reverse", "columns", "on", "how")
_TABLES = ("group", "sort_by", "join", "csv.dump")


@functools.cache
def idioms(program: str) -> frozenset[str]:
    """The idioms of a legal program, by name."""
    nodes = ast.walk(ast.parse(program))
    return frozenset(found for node in nodes for found in _of_node(node))


def _of_node(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call():
            yield from _of_call(node)
        case ast.ListComp(elt, [first, *_]):
            yield f"list of {_kind(elt)}" + (" if" if first.ifs else "")
        case ast.DictComp(_, value, [first, *_]):
            yield f"dict of {_kind(value)}" + (" if" if first.ifs else "")
        case ast.For():
            yield f"for each of {_called(node.iter) or _kind(node.iter)}"
            inner = (below for stmt in node.body for below in ast.walk(stmt))
            yield from (f"{_kind(b)} in for" for b in inner if isinstance(b, ast.For | ast.If))
        case ast.If():
            yield "if else" if node.orelse else "if"
        case ast.IfExp():
            yield "either"
        case ast.Compare(_, [sign, *_], [right, *_]):
            yield f"{_kind(sign)} {_kind(right)}"
        case ast.Subscript():
            yield f"part {_kind(node.slice)} {_kind(node.ctx)}"
        case ast.AnnAssign():
            made = ast.unparse(node.annotation)
            yield f"field {made.split(' ')[0].partition('[')[0]}" + ("?" if "None" in made else "")
        case ast.BinOp(op=sign) | ast.BoolOp(op=sign) | ast.AugAssign(op=sign):
            yield f"{_kind(node)} {_kind(sign)}"
        case ast.UnaryOp(sign):
            yield _kind(sign)


def _of_call(node: ast.Call) -> Iterator[str]:
    name = _called(node)
    yield f"{name}()"
    for word in node.keywords if name in _TABLES else ():
        yield f"{name} {word.arg if word.arg in _SHAPING else 'aggregate'}"
        if word.arg == "by" and isinstance(word.value, ast.List):
            yield f"group by {len(word.value.elts)}"
    if name == "sort_by" and len(node.args) > 1:
        yield f"sort_by {_kind(node.args[1])}"
    if name == "files.write" and len(node.args) > 1:
        yield f"write to {_kind(node.args[0])}"
        yield f"write {_called(node.args[1]) or _kind(node.args[1])}"


def _called(node: ast.expr) -> str:
    """What a call calls: a function, a method of whatever it is, or a record."""
    if not isinstance(node, ast.Call):
        return ""
    match node.func:
        case ast.Name(name):
            return "Record" if name[0].isupper() and name != "Decimal" else name
        case ast.Attribute(_, name):
            whole = ast.unparse(node.func)
            return whole if whole.startswith(_DEVICES) else f".{name}"
    return ""


def _kind(node: ast.AST) -> str:
    return type(node).__name__
