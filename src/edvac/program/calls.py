"""Calls: does the function exist, do the operands fit, what is the result's type?

Knows nothing of other expressions; it asks the checker for the types of operands.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NoReturn

from edvac.core.errors import OperandError
from edvac.core.schema import (
    ANY,
    STR,
    Choice,
    DictOf,
    ListOf,
    Maybe,
    Plain,
    Record,
    TupleOf,
    Type,
    show,
)
from edvac.core.signature import REQUIRED, Param, Role, Signature
from edvac.program.annotate import read_type
from edvac.program.basics import item_type
from edvac.program.facts import Facts, bind_text
from edvac.program.infer import clashes, widened
from edvac.program.library import CHANGES, FUNCTIONS, METHODS, NAMESPACES
from edvac.program.native import Native
from edvac.program.options import is_option
from edvac.program.refusal import fail
from edvac.program.regex import REGEX, compiled
from edvac.program.scope import Scope, nearest
from edvac.program.stepping import literal_choice
from edvac.program.tree import MUTATORS, dotted, root

if TYPE_CHECKING:
    from edvac.program.checker import Checker

ELSEWHERE = {
    "open": 'Write files.read("name") or files.write("name", text).',
    "print": 'Write files.write("out.txt", text); names are shown when the run ends.',
    "input": "Write human.ask(question), or a parameter: name = param(default).",
    "set": "Write unique(xs); sets have no certain order.",
    "frozenset": "Write unique(xs).",
    "next": "Write xs[0].",
    "iter": "Loop over the collection itself.",
    "isinstance": "Declare the type: a record field, a parameter, or llm.extract(x, T).",
    "type": "Declare the type instead of asking for it.",
    "eval": "Compute the value directly.",
    "exec": "Write the statements themselves.",
    "getattr": "Write value.field.",
    "hash": "Values are compared with ==.",
    "id": "Values are compared with ==.",
    "format": 'Write an f-string: f"{x:.2f}".',
    "slice": "Write xs[a:b].",
    "pow": "Write a ** b.",
}
TAKES_NUMBERS = frozenset({"min", "max", "dict", "enumerate", "sum", "map", "filter"})
METHODS_ELSEWHERE = {
    "format": 'Write an f-string: f"{x:.2f}".',
    "encode": "Texts are texts here; files.write encodes them.",
    "popitem": "Write d.pop(key).",
    "translate": "Write text.replace(old, new).",
}


class CallChecker:
    """Checks calls for the checker that it belongs to."""

    def __init__(self, checker: Checker) -> None:
        self._on = checker

    def iterator(self, node: ast.Call, scope: Scope) -> str:
        """Does Python give an iterator here, and of which kind?"""
        name = dotted(node.func) or ""
        found = FUNCTIONS.get(name)
        if found is not None and name.partition(".")[0] not in scope.names:
            return found.iterator
        if isinstance(node.func, ast.Attribute) and not node.args:
            method = METHODS.get(f"dict.{node.func.attr}")
            return method.iterator if method is not None else ""
        return ""

    def type(self, node: ast.Call, scope: Scope) -> Type:
        """The type of a call's result."""
        name = dotted(node.func)
        if isinstance(node.func, ast.Name):
            return self._named(node, node.func.id, scope)
        if not isinstance(node.func, ast.Attribute):
            fail(node, "call_unfit", "only functions and methods are called")
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        if owner and owner not in scope.names:
            if owner in scope.catalogue.devices:
                return self._device(node, str(name), scope)
            if name in FUNCTIONS:
                return self._native(node, FUNCTIONS[str(name)], None, scope)
            if owner in NAMESPACES:
                known = [one for one in FUNCTIONS if one.startswith(f"{owner}.")]
                fail(node, "function_unknown", f"there is no {name}", "", nearest(str(name), known))
            if owner != "run" and not scope.mentions(owner):
                given = [op for op in scope.catalogue.left_out if op.startswith(f"{owner}.")]
                if given:
                    fail(
                        node,
                        "function_unknown",
                        f"there is no {name}",
                        "",
                        nearest(str(name), given),
                    )
                known = [*scope.catalogue.devices, *sorted(NAMESPACES), *scope.names]
                what = f"there is no device or value named {owner}"
                fail(node, "name_unknown", what, "", nearest(owner, known))
        return self._method(node, node.func, scope)

    def _named(self, node: ast.Call, name: str, scope: Scope) -> Type:
        if name in scope.names:
            fail(
                node,
                "call_unfit",
                f"{name} is a value, not a function",
                "It was assigned above.",
                f"Give the value another name than {name}.",
            )
        if name in scope.functions:
            return self._user(node, name, scope)
        if name in scope.records:
            return self._record(node, scope.records[name], scope)
        if name == "param":
            fail(
                node,
                "param_place",
                "a parameter stands alone at top level",
                "",
                "Write `name = param(default)` at the left margin.",
            )
        if name in FUNCTIONS:
            return self._native(node, FUNCTIONS[name], None, scope)
        if name in ELSEWHERE:
            fail(node, "function_unknown", f"there is no {name}()", "", ELSEWHERE[name])
        if name in scope.catalogue.devices or name in NAMESPACES:
            fail(node, "call_unfit", f"{name} is not a function", "", f"Write {name}.NAME(...).")
        ops = [op for op in scope.catalogue.signatures if op.endswith(f".{name}")]
        if ops:
            fail(node, "function_unknown", f"there is no {name}()", "", f"Did you mean {ops[0]}?")
        known = [*scope.functions, *scope.records, *FUNCTIONS]
        why = "A function is defined above its first use and does not call itself."
        fail(node, "function_unknown", f"there is no {name}()", why, nearest(name, known))

    # -- devices

    def _device(self, node: ast.Call, op: str, scope: Scope) -> Type:
        signature = scope.catalogue.signatures.get(op)
        if signature is None:
            device = op.partition(".")[0]
            known = [one.op for one in scope.catalogue.functions(device)]
            fail(node, "function_unknown", f"there is no {op}", "", nearest(op, known))
        if self._on.in_lambda:
            fail(
                node,
                "step_in_lambda",
                f"{op} is called in a lambda",
                "A lambda is pure: the library decides how often it runs.",
                'Write a comprehension: [llm.write("...", x) for x in xs].',
            )
        self._places(node, signature)
        types: dict[str, Type] = {}
        for at, arg in enumerate(node.args):
            self._operand(arg, self._param_at(signature, at), signature, scope, types)
        for word in node.keywords:
            param = signature.param(str(word.arg))
            if not is_option(word.arg, signature):
                self._operand(word.value, param, signature, scope, types)
        if signature.result is None:
            return next(iter(types.values()), ANY)
        return literal_choice(bind_text(node, signature), signature) or signature.result

    def _param_at(self, signature: Signature, at: int) -> Param | None:
        places = [param for param in signature.params if not param.keyword_only]
        if at < len(places) and not any(param.variadic for param in places[:at]):
            return places[at]
        return next((param for param in places if param.variadic), None)

    def _places(self, node: ast.Call, signature: Signature) -> None:
        op = signature.op
        usage = f"{op}({', '.join(_written(param) for param in signature.params)})"
        places = [param for param in signature.params if not param.keyword_only]
        many = any(param.variadic for param in places)
        if len(node.args) > len(places) and not many:
            fail(
                node,
                "operand_count",
                f"{op} takes at most {len(places)} operands",
                "",
                f"Write {usage}.",
            )
        given = {param.name for param in places[: len(node.args)] if not param.variadic}
        for word in node.keywords:
            param = signature.param(str(word.arg))
            if is_option(word.arg, signature):
                continue
            if param is None or param.variadic:
                known = [one.name for one in signature.params if not one.variadic]
                fail(
                    word.value,
                    "operand_unknown",
                    f"{op} has no operand {word.arg}",
                    "",
                    f"{nearest(str(word.arg), known)} Write {usage}.",
                )
            if word.arg in given:
                fail(
                    word.value, "operand_twice", f"{word.arg} is given twice", "", f"Write {usage}."
                )
            given.add(str(word.arg))
        for param in signature.params:
            if param.default is REQUIRED and not param.variadic and param.name not in given:
                fail(node, "operand_missing", f"{op} needs {param.name}", "", f"Write {usage}.")

    def _operand(
        self,
        node: ast.expr,
        param: Param | None,
        signature: Signature,
        scope: Scope,
        types: dict[str, Type],
    ) -> None:
        if param is not None and param.role is Role.TYPE:
            found = read_type(node, scope.records)
            if found == STR and signature.op == "llm.extract":
                fail(
                    node,
                    "operand_unfit",
                    "llm.extract needs a shape, and str has none",
                    "",
                    'Write llm.write("what to say", text), llm.choose("question", ["a", "b"], '
                    "text), or a record type.",
                )
            types[param.name] = found
            return
        code = param is not None and param.role is Role.CODE
        if code and not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            fail(
                node,
                "code_unfit",
                f"an operand of {signature.op} is not a literal text",
                "Code is written in the program, so that it can be read before it runs.",
                "Write the code as a text here; hand data in by name.",
            )
        kind = self._on.type(node, scope)
        if param is not None and clashes(kind, param.type):
            self._clash(node, kind, param, signature)
        if param is not None and param.wrong and isinstance(node, ast.Constant):
            why = param.wrong(node.value)
            if why:
                fail(node, "operand_unfit", f"{param.name} of {signature.op}: {why}", "", param.doc)

    def _clash(self, node: ast.expr, kind: Type, param: Param, signature: Signature) -> NoReturn:
        fix = ""
        if param.type == STR:
            inner = ast.unparse(node)[:40]
            fix = f'Write f"{{{inner}}}".'
            if isinstance(kind, ListOf):
                fix = f'Write "\\n".join({inner}), csv.dump({inner}), or loop over it.'
            elif isinstance(kind, DictOf | Record):
                fix = f"Write json.dump({inner}), or one field of it."
        elif isinstance(param.type, ListOf) and widened(kind) == STR:
            fix = f"Write [{ast.unparse(node)[:40]}]."
        what = (
            f"{param.name} of {signature.op} is a {show(param.type)}, not a {show(widened(kind))}"
        )
        fail(node, "operand_unfit", what, "", fix)

    # -- functions of the program

    def pure(self, node: ast.AST, name: str, scope: Scope) -> None:
        """Refuse a function with steps where only a pure one can stand."""
        facts = Facts(scope.catalogue, scope.functions, {})
        if any(facts.steps(stmt) for stmt in scope.functions[name].body):
            fail(
                node,
                "step_in_lambda",
                f"{name} makes steps and is used as a pure function",
                "",
                f"Write a comprehension: [{name}(x) for x in xs].",
            )

    def _user(self, node: ast.Call, name: str, scope: Scope) -> Type:
        function = scope.functions[name]
        if self._on.in_lambda:
            self.pure(node, name, scope)
        usage = f"{name}({', '.join(function.params)})"
        if len(node.args) > len(function.params):
            what = f"{name} takes {len(function.params)} operands, got {len(node.args)}"
            fail(node, "operand_count", what, "", f"Write {usage}.")
        given = dict(zip(function.params, node.args, strict=False))
        for word in node.keywords:
            if word.arg not in function.params or word.arg in given:
                fix = nearest(str(word.arg), function.params)
                fail(node, "operand_unknown", f"{name} has no free operand {word.arg}", "", fix)
            given[word.arg] = word.value
        for param in function.params:
            if param not in given and param not in function.defaults:
                fail(node, "operand_missing", f"{name} needs {param}", "", f"Write {usage}.")
        for param, value in given.items():
            kind, wanted = self._on.type(value, scope), function.types.get(param, ANY)
            if clashes(kind, wanted):
                what = f"{param} of {name} is a {show(wanted)}, not a {show(widened(kind))}"
                fail(value, "operand_unfit", what)
        return scope.results.get(name, ANY)

    def _record(self, node: ast.Call, record: Record, scope: Scope) -> Type:
        order = [part.name for part in record.fields]
        usage = f"{record.name}({', '.join(f'{name}=...' for name in order)})"
        if len(node.args) > len(order):
            fail(node, "operand_count", f"{record.name} has {len(order)} fields", "", usage)
        given = dict(zip(order, node.args, strict=False))
        for word in node.keywords:
            if word.arg not in order or word.arg in given:
                what = f"{record.name} has no free field {word.arg}"
                fail(node, "field_unknown", what, "", nearest(str(word.arg), order))
            given[str(word.arg)] = word.value
        for part in record.fields:
            if part.name not in given:
                what = f"{record.name} needs {part.name}"
                fail(node, "operand_missing", what, "", f"Write {usage}.")
            kind = self._on.type(given[part.name], scope)
            if clashes(kind, part.type):
                what = (
                    f"{record.name}.{part.name} is a {show(part.type)}, not a {show(widened(kind))}"
                )
                fail(given[part.name], "operand_unfit", what)
        return record

    # -- library

    def _native(self, node: ast.Call, found: Native, self_type: Type | None, scope: Scope) -> Type:
        given = [] if self_type is None else [self_type]
        kinds = [*given]
        params = list(found.shape.parameters.values())
        try:
            empty = [None] * (len(given) + len(node.args))
            found.shape.bind(*empty, **{str(word.arg): None for word in node.keywords})
        except TypeError as problem:
            fail(
                node, "operand_count", f"{found.name}: {problem}", found.doc, f"Write {found.text}."
            )
        item: Type = ANY
        for at, arg in enumerate(node.args, len(given)):
            name = params[min(at, len(params) - 1)].name
            if name in found.calls:
                rest = node.args[at + 1 - len(given) :]
                inner = (
                    item_type(self._on.type(rest[0], scope, consumed="stream")) if rest else item
                )
                kinds.append(self._on.callback(arg, scope, inner))
            else:
                kinds.append(self._argument(arg, found, scope))
            item = item_type(kinds[0]) if kinds else ANY
            if name == "pattern":
                _usable(arg, kinds[-1], found)
        for word in node.keywords:
            if word.arg in found.calls:
                self._on.callback(word.value, scope, item)
            else:
                kind = self._on.type(word.value, scope)
                if word.arg == "pattern":
                    _usable(word.value, kind, found)
        return found.result_type([widened(kind) for kind in kinds])

    def _argument(self, node: ast.expr, found: Native, scope: Scope) -> Type:
        consumed = (
            "stream" if found.consumes else "view" if found.name in {"len", "reversed"} else ""
        )
        kind = self._on.type(node, scope, consumed=consumed)
        loops = found.consumes and found.name not in TAKES_NUMBERS
        if loops and widened(kind) in (Plain("int"), Plain("float"), Plain("Decimal")):
            what = f"{found.name} needs a list, not a {show(widened(kind))}"
            fail(node, "operand_unfit", what)
        return kind

    def _method(self, node: ast.Call, func: ast.Attribute, scope: Scope) -> Type:
        owner = widened(self._on.type(func.value, scope))
        name = func.attr
        if isinstance(owner, Maybe):
            owner = ANY
        kind = type_name(owner)
        found = METHODS.get(f"{kind}.{name}")
        if found is not None:
            return self._native(node, found, owner, scope)
        changes = kind == "any" or f"{kind}.{name}" in CHANGES
        if name in MUTATORS and changes and root(func.value) is not None:
            fail(
                node,
                "change_inside",
                f"{name} changes a container in the middle of an expression",
                "Statements change names, expressions do not.",
                f"Put it on a line of its own: {ast.unparse(func)[:40]}(...), or v = xs.pop().",
            )
        if kind == "any":
            known = {one.partition(".")[2] for one in METHODS}
            if name not in known:
                fail(
                    node,
                    "method_unknown",
                    f"no value has a method {name}",
                    "",
                    METHODS_ELSEWHERE.get(name) or nearest(name, sorted(known)),
                )
            for arg in [*node.args, *(word.value for word in node.keywords)]:
                self._on.type(arg, scope, consumed="stream" if name == "join" else "")
            return ANY
        known = {one.partition(".")[2] for one in METHODS if one.startswith(f"{kind}.")}
        fail(
            node,
            "method_unknown",
            f"a {show(owner)} has no method {name}",
            "",
            METHODS_ELSEWHERE.get(name) or nearest(name, sorted(known)),
        )


def _usable(node: ast.expr, kind: Type, found: Native) -> None:
    """Refuse a regular expression that stands in the program and cannot be used."""
    if found.name not in REGEX or not isinstance(kind, Choice):
        return
    for pattern in kind.options:
        if isinstance(pattern, str):
            try:
                compiled(pattern)
            except OperandError as problem:
                fail(node, "pattern_unfit", problem.what, problem.why, problem.fix)


def type_name(kind: Type) -> str:
    """The name under which a type's methods are registered."""
    match kind:
        case Plain():
            return kind.name
        case ListOf():
            return "list"
        case DictOf():
            return "dict"
        case TupleOf():
            return "tuple"
        case Record():
            return kind.name
    return "any"


def _written(param: Param) -> str:
    if param.variadic:
        return f"*{param.name}"
    return param.name if param.default is REQUIRED else f"{param.name}={param.default!r}"
