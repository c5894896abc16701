"""What could influence each device call of a program, and what it could reveal, before any run.

The rules of labels (Denning and Denning 1977, with a label for the program counter) are applied to
the text, with a label for each name instead of values. Both arms of a branch count, a loop goes on
until nothing changes, and a function is entered wherever it is called, so that in any run the label
of an operand is below the one found here. Principals are patterns: ``file:inbox/*`` stands for
whoever wrote any of those files.

Knows nothing of policies, nor of what devices do beyond the paths that they read and write.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from edvac.core.label import PROGRAM, PUBLIC, UNBOUNDED, Label
from edvac.core.signature import WILD, Access, Effect, Role, Signature, overlap
from edvac.program.facts import LISTS, Facts, bind_text
from edvac.program.program import Function, Program
from edvac.program.tree import RETURNED, assigned, children, is_param, mutation, root, targets

Env: TypeAlias = dict[str, Label]
# What a call's result is made of beyond its operands and the paths that it reads.
Source: TypeAlias = Callable[[ast.Call, Signature], Iterable[str]]
PARAM = Label.of(["program", "user"])
EARLIER = Label.of(["earlier run"], bits=UNBOUNDED)


@dataclass(slots=True)
class Influence:
    """One device call.

    Attributes:
        params: who could influence each operand, by what is in it and by what decided on it.
        branch: who could decide whether, and how often, the call happens.
    """

    op: str
    effect: Effect
    line: int
    params: dict[str, Label] = field(default_factory=dict)
    branch: Label = PUBLIC

    @property
    def reveals(self) -> frozenset[str]:
        """Whose data could be in the operands."""
        return frozenset().union(*(label.sources for label in self.params.values()))


def made_by(call: ast.Call, signature: Signature) -> Iterable[str]:
    """The principals of a result, as the devices that come with edvac name them."""
    del call
    if signature.sources:
        return signature.sources
    match signature.device:
        case "files" | "doc" | "wait":
            return ()
        case "llm":
            return ("model",)
        case "human":
            return ("user",)
        case "signal":
            return ("sender",)
    return (signature.device,)


def influences(program: Program, source: Source = made_by) -> list[Influence]:
    """Every device call that the program may make, in source order."""
    found = _Analysis(program, source)
    while True:
        before = found.written, {call: _frozen(one) for call, one in found.calls.items()}
        found.pass_once()
        after = found.written, {call: _frozen(one) for call, one in found.calls.items()}
        if before == after:
            break
    ordered = sorted(found.calls.items(), key=lambda pair: (pair[0].lineno, pair[0].col_offset))
    return [one for _, one in ordered]


def _frozen(one: Influence) -> tuple[object, ...]:
    return (tuple(one.params.items()), one.branch)


class _Analysis:
    def __init__(self, program: Program, source: Source) -> None:
        self._program = program
        self._source = source
        self._facts = Facts(program.catalogue, program.functions, program.patterns)
        self._outside = program.outside
        self.calls: dict[ast.Call, Influence] = {}
        self.written: dict[str, Label] = {}  # who could influence what is written to a path
        self._patterns: list[str] = []  # those of them that are no plain paths
        self._below: dict[str, list[str]] = {}  # plain paths by the directories around them
        self._known: dict[tuple[object, ...], Label] = {}  # results of functions

    def pass_once(self) -> None:
        """The program from its first line to its last."""
        self.written = dict(self.written)
        self._known.clear()
        self._block(self._program.statements, {}, PUBLIC)

    # -- statements

    def _block(self, block: Iterable[ast.stmt], env: Env, pc: Label) -> None:
        for stmt in block:
            self._statement(stmt, env, pc)

    def _statement(self, stmt: ast.stmt, env: Env, pc: Label) -> None:
        match stmt:
            case ast.Assign(value=value):
                for target in stmt.targets:
                    self._bind(target, self._value(value, env, pc), env, pc)
            case ast.AnnAssign(value=ast.expr() as value):
                self._bind(stmt.target, self._value(value, env, pc), env, pc)
            case ast.AugAssign():
                made = self._value(stmt.value, env, pc)
                for name in targets(stmt.target):
                    made = made.join(env.get(name, PUBLIC))
                self._bind(stmt.target, made, env, pc)
            case ast.Expr(value=value):
                self._value(value, env, pc)
            case ast.Return(value=value):
                made = self._value(value, env, pc) if value is not None else PROGRAM
                env[RETURNED] = made.join(env.get(RETURNED, PUBLIC)).steer(pc)
            case ast.If():
                self._if(stmt, env, pc)
            case ast.For():
                self._for(stmt, env, pc)

    def _bind(self, target: ast.expr, made: Label, env: Env, pc: Label) -> None:
        """A name is bound anew; of a container that changes, what it was stays in it."""
        if isinstance(target, ast.Subscript):
            made = made.join(self._value(target.slice, env, pc))
            name = root(target)
            made = made.join(env.get(name or "", PUBLIC))
        for name in targets(target):
            env[name] = made.steer(pc)

    def _if(self, stmt: ast.If, env: Env, pc: Label) -> None:
        decided = self._value(stmt.test, env, pc)
        inside = pc.join(decided)
        arms = [dict(env), dict(env)]
        self._block(stmt.body, arms[0], inside)
        self._block(stmt.orelse, arms[1], inside)
        self._meet(assigned([stmt], self._outside), arms, env, decided)

    def _for(self, stmt: ast.For, env: Env, pc: Label) -> None:
        names = assigned([stmt], self._outside)
        while True:
            before = {name: env.get(name) for name in names}
            over = self._value(stmt.iter, env, pc)
            inside = dict(env)
            self._bind(stmt.target, over, inside, pc)
            self._block(stmt.body, inside, pc.join(over))
            self._meet(names, [dict(env), inside], env, over)
            if before == {name: env.get(name) for name in names}:
                return

    def _meet(self, names: Iterable[str], ways: list[Env], env: Env, decided: Label) -> None:
        """After a piece that may or may not have happened, each name that it may bind tells what
        decided that."""
        for name in names:
            label = PUBLIC
            for way in ways:
                label = label.join(way.get(name, PUBLIC))
            env[name] = label.steer(decided)

    # -- expressions

    def _value(self, node: ast.expr, env: Env, pc: Label) -> Label:
        match node:
            case ast.Constant():
                return PROGRAM
            case ast.Name(id=name):
                return env.get(name, PROGRAM)
            case ast.Attribute(value=ast.Name(id="run"), attr="previous"):
                return EARLIER
            case ast.Call():
                return self._call(node, env, pc)
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node, env, pc)
            case ast.IfExp():
                decided = self._value(node.test, env, pc)
                inside = pc.join(decided)
                arms = (self._value(arm, env, inside) for arm in (node.body, node.orelse))
                return _joined(arms).steer(decided).join(decided)
            case ast.BoolOp():
                made, inside = PUBLIC, pc
                for part in node.values:
                    made = made.join(self._value(part, env, inside))
                    inside = pc.join(made)
                return made
            case ast.Lambda():
                return self._value(node.body, env, pc)
        return _joined(self._part(child, env, pc) for child in children(node)).join(PROGRAM)

    def _part(self, node: ast.AST, env: Env, pc: Label) -> Label:
        if isinstance(node, ast.expr):
            return self._value(node, env, pc)
        return _joined(self._part(child, env, pc) for child in children(node))

    def _comprehension(
        self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp, env: Env, pc: Label
    ) -> Label:
        inside, decided, within = dict(env), PUBLIC, pc
        for one in node.generators:
            over = self._value(one.iter, inside, within)
            for name in targets(one.target):
                inside[name] = over
            decided = decided.join(over)
            within = pc.join(decided)
            for test in one.ifs:
                decided = decided.join(self._value(test, inside, within))
                within = pc.join(decided)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        made = _joined(self._value(part, inside, within) for part in parts)
        return made.steer(decided).join(decided)

    # -- calls

    def _call(self, node: ast.Call, env: Env, pc: Label) -> Label:
        if is_param(node):
            return PARAM
        signature = self._facts.signature(node)
        if signature is not None:
            return self._step(node, signature, env, pc)
        function = self._facts.function(node)
        if function is not None:
            return self._entered(node, function, env, pc)
        made = _joined(self._part(child, env, pc) for child in children(node)).join(PROGRAM)
        changed = mutation(node)
        name = root(changed.value) if changed is not None else None
        if name is not None and name in env:
            env[name] = env[name].join(made).steer(pc)
        return made.steer(pc)

    def _step(self, node: ast.Call, signature: Signature, env: Env, pc: Label) -> Label:
        found = self.calls.setdefault(node, Influence(signature.op, signature.effect, node.lineno))
        found.branch = found.branch.join(pc)
        bound = bind_text(node, signature)
        by_node = {id(given): name for name, given in bound.items()}
        rest = [param.name for param in signature.params if param.variadic]
        made = PROGRAM
        for given in (*node.args, *(word.value for word in node.keywords)):
            name = by_node.get(id(given)) or (rest[0] if rest else "")
            param = signature.param(name)
            if param is None or param.role is Role.TYPE:
                continue  # a type, or an option of the step
            label = self._value(given, env, pc)
            found.params[name] = found.params.get(name, PUBLIC).join(label)
            made = made.join(label)
        access = self._facts.call_access(node, signature)
        for path in access.writes:
            self._note_written(path, made.steer(pc))
        made = made.join(Label.of(self._source(node, signature), bits=UNBOUNDED))
        return made.join(self._read(access, signature)).steer(pc)

    def _read(self, access: Access, signature: Signature) -> Label:
        """Who could have written what is at these paths: outside, and in the run."""
        kind = "name" if signature.op in LISTS else "file"
        made = Label.of((f"{kind}:{path}" for path in access.reads), bits=UNBOUNDED)
        for path in access.reads:
            for written in self._where(path):
                made = made.join(self.written[written])
        return made

    def _where(self, path: str) -> list[str]:
        """The paths and patterns written so far that may be this one: few have to be compared."""
        if not _plain(path):
            return [one for one in self.written if overlap(one, path)]
        above = [path[:at] for at, letter in enumerate(path) if letter == "/"]
        found = [one for one in (path, *above) if one in self.written]
        found += [one for one in self._patterns if overlap(one, path)]
        return found + [one for one in self._below.get(path, ()) if one in self.written]

    def _note_written(self, path: str, label: Label) -> None:
        if path not in self.written:
            if _plain(path):
                for at, letter in enumerate(path):
                    if letter == "/":
                        self._below.setdefault(path[:at], []).append(path)
            else:
                self._patterns.append(path)
        self.written[path] = self.written.get(path, PUBLIC).join(label)

    def _entered(self, node: ast.Call, function: Function, env: Env, pc: Label) -> Label:
        given = dict(zip(function.params, node.args, strict=False))
        given |= {word.arg: word.value for word in node.keywords if word.arg is not None}
        inside = {name: self._value(one, env, pc) for name, one in given.items()}
        for name in function.params:
            inside.setdefault(name, PROGRAM)
        read = {name for stmt in function.body for name in self._facts.names(stmt)}
        outer = {name: env[name] for name in read - set(inside) if name in env}
        key = (function.name, _key(inside), _key(outer), pc)
        if key not in self._known:
            here: Env = outer | inside
            self._block(function.body, here, pc)
            self._known[key] = here.get(RETURNED, PROGRAM)
        return self._known[key]


def _plain(path: str) -> bool:
    return path != WILD and not set(path) & set("*?[")


def _key(env: Mapping[str, Label]) -> tuple[tuple[str, Label], ...]:
    return tuple(sorted(env.items(), key=lambda pair: pair[0]))


def _joined(labels: Iterable[Label]) -> Label:
    made = PUBLIC
    for label in labels:
        made = made.join(label)
    return made
