"""Random programs of the subset, for the property tests: typed so that most of them are legal."""

from __future__ import annotations

import random

KINDS = ("int", "str", "list", "dict", "bool")


class Generator:
    """Writes one program. With `steps` it calls devices, too."""

    def __init__(self, chance: random.Random, *, steps: bool = False, failing: bool = True) -> None:
        self.chance = chance
        self.steps = steps
        self.failing = failing
        self.names: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self.functions: list[tuple[str, str, str]] = []
        self.count = 0
        self.lines: list[str] = []
        self.loops = 0
        self.local = 0

    def program(self, size: int = 14) -> str:
        for kind in KINDS:
            self.assign(0, kind)
        if self.chance.random() < 0.6:
            self.function()
        while len(self.lines) < size:
            self.statement(0)
        return "\n".join(self.lines) + "\n"

    def put(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def pick(self, *choices: str) -> str:
        return self.chance.choice(choices)

    def fresh(self, kind: str) -> str:
        self.count += 1
        name = f"{kind[0]}{self.count}"
        return name

    def name(self, kind: str) -> str:
        return self.chance.choice(self.names[kind]) if self.names[kind] else self.literal(kind)

    def word(self, kind: str) -> str:
        """A name, or something as plain, for the inside of an f-string."""
        return self.chance.choice(self.names[kind]) if self.names[kind] else "1"

    # -- statements

    def statement(self, depth: int) -> None:
        roll = self.chance.random()
        if roll < 0.35:
            self.assign(depth)
        elif roll < 0.6:
            self.change(depth)
        elif roll < 0.75 and depth < 3:
            self.branch(depth)
        elif roll < 0.9 and depth < 3:
            self.loop(depth)
        elif self.steps:
            self.effect(depth)
        else:
            self.assign(depth)

    def assign(self, depth: int, kind: str | None = None) -> None:
        kind = kind or self.chance.choice(KINDS)
        value = self.expression(kind, 2)
        old = self.names[kind]
        rebind = old and (depth > 0 or self.chance.random() < 0.4)
        name = self.chance.choice(old) if rebind else self.fresh(kind)
        self.put(depth, f"{name} = {value}")
        if name not in old and depth == 0:
            old.append(name)

    def change(self, depth: int) -> None:
        xs, d, i = self.name("list"), self.name("dict"), self.name("int")
        if not xs.isidentifier() or not d.isidentifier() or not i.isidentifier():
            return
        value = self.expression("int", 1)
        key = self.expression("str", 0)
        self.put(
            depth,
            self.pick(
                f"{xs}.append({value})",
                f"{xs}.extend({self.expression('list', 1)})",
                f"{xs}.insert({self.expression('int', 0)}, {value})",
                f"{xs} += {self.expression('list', 1)}",
                f"{xs}.sort()",
                f"{xs}.sort(key=lambda v: -v, reverse=True)",
                f"{xs}.reverse()",
                f"{d}[{key}] = {value}",
                f"{d}[{key}] = {d}.get({key}, 0) + {value}",
                f"{d}.update({self.expression('dict', 1)})",
                f"{d}.setdefault({key}, {value})",
                f"{i} += {value}",
                f"{i} -= {value}",
                f"{xs}[0] = {value}" if self.failing else f"{xs}.append({value})",
                f"{i} = {xs}.pop()" if self.failing else f"{i} += 1",
            ),
        )

    def branch(self, depth: int) -> None:
        self.put(depth, f"if {self.expression('bool', 1)}:")
        self.block(depth + 1)
        if self.chance.random() < 0.6:
            self.put(depth, "else:")
            self.block(depth + 1)

    def loop(self, depth: int) -> None:
        self.loops += 1
        if self.loops > 4:
            return
        target = f"k{self.loops}"
        kind, source = self.chance.choice(
            [
                ("int", f"range({self.chance.randrange(4)})"),
                ("int", f"list({self.name('list')})[:3]"),
                ("int", self.expression("list", 1) + "[:3]"),
                ("str", f"sorted({self.name('dict')})[:3]"),
            ]
        )
        self.put(depth, f"for {target} in {source}:")
        self.names[kind].append(target)
        if self.chance.random() < 0.2:
            self.put(depth + 1, f"if {self.expression('bool', 1)}:")
            self.put(depth + 2, "continue")
        self.block(depth + 1)
        self.names[kind].remove(target)

    def block(self, depth: int) -> None:
        for _ in range(self.chance.randrange(1, 3)):
            before = len(self.lines)
            self.statement(depth)
            if len(self.lines) == before:
                self.put(depth, f"b{0 if not self.names['bool'] else self.name('bool')[1:]} = True")

    def function(self) -> None:
        kind = self.pick("int", "str", "list")
        kept, self.names = self.names, {one: [] for one in KINDS}
        self.names["int"] = ["a"]
        self.names["list"] = ["xs"]
        name = f"f_{kind}"
        self.put(0, f"def {name}(a, xs=None):" if False else f"def {name}(a, xs):")
        if self.chance.random() < 0.5:
            self.put(1, f"if {self.expression('bool', 1)}:")
            self.put(2, f"return {self.expression(kind, 1)}")
        self.put(1, f"t = {self.expression('list', 1)}")
        if self.steps and kind == "str":
            self.put(1, f"u = {self.step('str')}")
            self.names["str"] = ["u"]
        self.put(1, f"return {self.expression(kind, 2)}")
        self.names = kept
        self.functions.append((name, kind, ""))

    def effect(self, depth: int) -> None:
        path = self.pick('"out.txt"', '"log.txt"', f"f'out/{{{self.word('int')}}}.md'")
        self.put(depth, f"files.write({path}, {self.expression('str', 1)})")

    # -- expressions

    def literal(self, kind: str) -> str:
        match kind:
            case "int":
                return str(self.chance.randrange(-3, 7))
            case "str":
                return repr("".join(self.chance.choices("abß ", k=self.chance.randrange(4))))
            case "bool":
                return self.pick("True", "False")
            case "list":
                parts = [self.literal("int") for _ in range(self.chance.randrange(4))]
                return f"[{', '.join(parts)}]"
        pairs = [f"{self.literal('str')}: {self.literal('int')}" for _ in range(2)]
        return "{" + ", ".join(pairs[: self.chance.randrange(3)]) + "}"

    def step(self, kind: str) -> str:
        data = self.expression(self.pick("int", "str", "list"), 0)
        if kind == "str":
            return f'llm.write("goal", {data})'
        return f"llm.extract({data}, {'list[int]' if kind == 'list' else kind})"

    def expression(self, kind: str, depth: int) -> str:
        roll = self.chance.random()
        if self.steps and roll < 0.12 and kind in ("int", "str", "bool", "list"):
            return self.step(kind)
        if depth <= 0 or roll < 0.25:
            return self.name(kind) if self.chance.random() < 0.75 else self.literal(kind)
        if roll > 0.93:
            for name, result, _ in self.functions:
                if result == kind:
                    return f"{name}({self.expression('int', 0)}, {self.expression('list', 0)})"
        return getattr(self, f"_{kind}")(depth - 1)  # type: ignore[no-any-return]

    def _int(self, depth: int) -> str:
        a, b = self.expression("int", depth), self.expression("int", depth)
        xs, s, d = (self.expression(kind, depth) for kind in ("list", "str", "dict"))
        bad = [f"{a} // {b}", f"{xs}[{b}]", f"{d}[{s}]", f"max({xs})", f"int({s})"]
        return self.pick(
            f"({a} + {b})",
            f"({a} * {self.literal('int')})",
            f"({a} - {b})",
            f"len({xs})",
            f"len({s})",
            f"sum({xs})",
            f"sum(v for v in {xs} if v > {b})",
            f"{d}.get({s}, {a})",
            f"({a} if {self.expression('bool', depth)} else {b})",
            f"({a} or {b})",
            f"{s}.count('a')",
            f"abs({a})",
            f"max({xs}, default={a})",
            *(bad if self.failing else []),
        )

    def _str(self, depth: int) -> str:
        s, t, i = (self.expression(kind, depth) for kind in ("str", "str", "int"))
        xs = self.expression("list", depth)
        return self.pick(
            f"({s} + {t})",
            f"{s}.upper()",
            f"{s}.strip()",
            f"{s}.replace('a', {t})",
            f"f'{{{self.word('int')}}}-{{{self.word('str')}!r:>6}}'",
            f"str({i})",
            f"str({xs})",
            f"','.join([str(v) for v in {xs}])",
            f"{s}[:{i}]",
            f"({s} and {t})",
        )

    def _bool(self, depth: int) -> str:
        a, b = self.expression("int", depth), self.expression("int", depth)
        xs, p = self.expression("list", depth), self.expression("bool", depth)
        return self.pick(
            f"({a} < {b})",
            f"({a} <= {b} < {self.literal('int')})",
            f"({a} == {b})",
            f"({a} in {xs})",
            f"(not {p})",
            f"({p} and {self.expression('bool', depth)})",
            f"any(v > 1 for v in {xs})",
            f"all([v > 0 for v in {xs}])",
            f"({self.expression('str', depth)} != {self.expression('str', depth)})",
            f"bool({xs})",
        )

    def _list(self, depth: int) -> str:
        xs, ys = self.expression("list", depth), self.expression("list", depth)
        i, d = self.expression("int", depth), self.expression("dict", depth)
        return self.pick(
            f"({xs} + {ys})",
            f"[v * 2 for v in {xs}]",
            f"[v for v in {xs} if v != {i}]",
            f"[v + w for v in {xs}[:3] for w in {ys}[:2]]",
            f"sorted({xs})",
            f"sorted({xs}, key=lambda v: -v)",
            f"list(reversed({xs}))",
            f"{xs}[{self.literal('int')}:]",
            f"[{i}, *[]]".replace(", *[]", ""),
            f"list({d}.values())",
            f"[n + v for n, v in enumerate({xs})]",
            f"[v - w for v, w in zip({xs}, {ys})]",
            f"({xs} if {self.expression('bool', depth)} else {ys})",
        )

    def _dict(self, depth: int) -> str:
        xs, s, i = (self.expression(kind, depth) for kind in ("list", "str", "int"))
        d = self.expression("dict", depth)
        return self.pick(
            f"{{str(v): v for v in {xs}}}",
            f"{{{s}: {i}}}",
            f"({d} | {{{s}: {i}}})",
            f"{{k: v + 1 for k, v in {d}.items()}}",
        )
