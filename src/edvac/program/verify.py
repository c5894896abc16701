"""Is a program legal? Syntax, then names and types, then aliases, statement by statement.

`parse` raises the first error, `check` collects all errors and warnings, `verify_prefix` serves a
planner that is still writing. Knows nothing of policies.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace

from edvac.core.errors import ProgramError
from edvac.core.signature import WILD, Catalogue, Effect
from edvac.program.annotate import ATOMS, GENERIC
from edvac.program.assemble import assemble
from edvac.program.basics import BASICS
from edvac.program.extending import EXTEND, chained
from edvac.program.library import NAMESPACES
from edvac.program.options import unfit_options
from edvac.program.program import Program
from edvac.program.refusal import fail
from edvac.program.rules import broken
from edvac.program.scope import Scope
from edvac.program.source import Source, read_whole
from edvac.program.statements import Report, Statements
from edvac.program.tree import dotted, targets


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding of `check`."""

    severity: str  # error, warning
    code: str
    what: str
    why: str
    fix: str
    line: int
    column: int


def parse(text: str, catalogue: Catalogue, *, name: str = "program.edv") -> Program:
    """The verified program that a text writes.

    Raises:
        ProgramError: the first thing that is not legal.
    """
    return _verified(text, catalogue, name, _stop)[0]


def check(text: str, catalogue: Catalogue, *, name: str = "program.edv") -> list[Diagnostic]:
    """Every error, and warnings where there are no errors, by line."""
    errors: list[ProgramError] = []
    found: list[Diagnostic] = []
    try:
        program, _ = _verified(text, catalogue, name, errors.append)
        if not errors:
            found.extend(_warnings(program))
    except ProgramError as error:
        told = error.code == "program_refused" or str(error) in map(str, errors)
        if not told:
            errors.append(error)
    found.extend(_diagnostic("error", error) for error in errors)
    return sorted(found, key=lambda one: (one.line, one.column))


def verify_prefix(text: str, catalogue: Catalogue) -> Scope:
    """Names and types after an incomplete program, all of whose lines must be complete.

    Raises:
        ProgramError: a line is not legal.
    """
    return _verified(text, catalogue, "program.edv", _stop)[1]


def _stop(error: ProgramError) -> None:
    raise error


def _verified(text: str, catalogue: Catalogue, name: str, report: Report) -> tuple[Program, Scope]:
    source = read_whole(text)
    broken_lines = False
    for error in broken(source.nodes):
        broken_lines = True
        report(error)
    if broken_lines:
        raise ProgramError("program_refused", "the program has errors")  # each was reported
    _misplaced(source.tree.body)
    made = [node for node in source.nodes if isinstance(node, ast.Call)]
    called = {dotted(call.func) or "" for call in made}
    catalogue = catalogue.called(called)
    _shadows(source, catalogue)
    if EXTEND in called & catalogue.signatures.keys():
        chained(source.tree)
    program = assemble(source, catalogue, name)
    for error in unfit_options(made, catalogue, program.params):
        report(error)
    verifier = Statements(program, source, report)
    verifier.run()
    return replace(program, guarded=frozenset(verifier.aliases.open)), verifier.scope


def _misplaced(block: list[ast.stmt], *, loop: bool = False, function: bool = False) -> None:
    """`return` stands in a function and not in a loop, `continue` in a loop."""
    for stmt in block:
        match stmt:
            case ast.FunctionDef():
                _misplaced(stmt.body, function=True)
            case ast.For():
                _misplaced(stmt.body, loop=True, function=function)
            case ast.If():
                _misplaced([*stmt.body, *stmt.orelse], loop=loop, function=function)
            case ast.Return() if loop and function:
                fail(
                    stmt,
                    "return_in_loop",
                    "`return` stands in a loop",
                    "The iterations of a loop run at the same time.",
                    "Choose the element first, [x for x in xs if ...], and return after the loop.",
                )
            case ast.Return() if not function:
                fail(
                    stmt,
                    "return_outside",
                    "`return` stands outside a function",
                    "",
                    "Use if and else; the program ends after its last line.",
                )
            case ast.Continue() if not loop:
                fail(
                    stmt,
                    "continue_outside",
                    "`continue` stands outside a loop",
                    "",
                    "Use if and else.",
                )


_BINDING = {
    ast.ClassDef,
    ast.FunctionDef,
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.For,
    ast.comprehension,
    ast.Lambda,
}


def _shadows(source: Source, catalogue: Catalogue) -> None:
    """No name may hide a device, a builtin, a namespace or a type."""
    taken = {**dict.fromkeys(BASICS, "a builtin"), **dict.fromkeys(ATOMS, "a type")}
    taken |= dict.fromkeys(GENERIC, "a type") | dict.fromkeys(NAMESPACES, "a part of the library")
    taken |= dict.fromkeys(catalogue.devices, "a device") | {"run": "the run itself"}
    defined: dict[str, str] = {}
    binding = [node for node in source.nodes if type(node) in _BINDING]
    for node in binding:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            kind = "a record" if isinstance(node, ast.ClassDef) else "a function"
            if node.name in taken or node.name in defined:
                _hidden(node, node.name, taken.get(node.name) or defined[node.name])
            defined[node.name] = kind
    taken |= defined
    classes = [node for node in binding if isinstance(node, ast.ClassDef)]
    fields = {id(part) for node in classes for part in node.body}  # attributes hide nothing
    for node in binding:
        for name in _bound_by(node) if id(node) not in fields else ():
            if name in taken:
                _hidden(node, name, taken[name])


def _hidden(node: ast.AST, name: str, kind: str) -> None:
    fail(
        node,
        "name_taken",
        f"{name} is {kind}",
        "A name means one thing in a program.",
        f"Choose another name, for example {name}_1 or my_{name}.",
    )


def _bound_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Assign():
            for target in node.targets:
                yield from _plain(target)
        case ast.AnnAssign() | ast.AugAssign() | ast.For():
            yield from _plain(node.target)
        case ast.comprehension():
            yield from _plain(node.target)
        case ast.FunctionDef():
            yield from (arg.arg for arg in [*node.args.args, *node.args.kwonlyargs])
        case ast.Lambda():
            yield from (arg.arg for arg in node.args.args)


def _plain(target: ast.expr) -> Iterator[str]:
    return targets(target) if not isinstance(target, ast.Subscript) else iter(())


def _warnings(program: Program) -> Iterator[Diagnostic]:
    """Patterns so wide that they put steps in a row."""
    writes = [use for use in program.access if use.access.writes]
    for use in program.access:
        wide = WILD in use.access.writes or (WILD in use.access.reads and writes)
        if wide and use.effect is not Effect.EXTERNAL:
            kind = "writes" if WILD in use.access.writes else "reads"
            yield Diagnostic(
                "warning",
                "pattern_wide",
                f"{use.op} {kind} a path that is not known before the run",
                "Until it is, it may be any path, so steps that touch files wait for each other.",
                'Begin the path with a literal, like f"out/{name}.md", or bind it to a name once.',
                use.line,
                1,
            )


def _diagnostic(severity: str, error: ProgramError) -> Diagnostic:
    return Diagnostic(
        severity, error.code, error.what, error.why, error.fix, error.line or 1, error.column or 1
    )
