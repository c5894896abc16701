"""Random programs with steps, regions, hazards and failures, for the simulation.

``a`` and ``b`` never hold a failure: what may fail is accepted where it is made. ``c`` and ``d``
may, and nothing accepts it later; so the oracle, which goes line by line, knows at each external
effect which failures nobody will handle.
"""

from __future__ import annotations

import random

SAFE, RISKY = ("a", "b"), ("c", "d")


class Writer:
    """Writes one program; every name exists from the first line on, so that any line may use it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._lines: list[str] = []
        self._loops = 0

    def program(self) -> str:
        for name in SAFE:
            self._put(0, f'{name} = attempt(llm.write("{name}"), "{name}")')
        for name in RISKY:
            self._put(0, f'{name} = "{name}"')
        self._put(0, "xs = []")
        for _ in range(self._chance.randint(4, 10)):
            self._statement(0, safe=self._chance.random() < 0.7)
        return "\n".join(self._lines) + "\n"

    def _put(self, depth: int, line: str) -> None:
        self._lines.append("    " * depth + line)

    def _number(self) -> int:
        return self._chance.randrange(9)

    def _name(self, safe: bool) -> str:
        return self._chance.choice(SAFE if safe else SAFE + RISKY)

    def _path(self, safe: bool) -> str:
        fixed = f'"{self._chance.choice(["", "./"])}f{self._chance.randrange(3)}"'
        return fixed if self._chance.random() < 0.6 else f'f"f{{len({self._name(safe)}) % 3}}"'

    def _call(self, safe: bool) -> str:
        a, b = self._name(safe), self._name(safe)
        return self._chance.choice(
            [
                f'llm.write("g{self._number()}", {a}, {b})',
                f"files.read({self._path(safe)})",
                f'net.get({a} + "{self._number()}")',
                f'llm.write("sum{self._number()}", xs)',
                f"net.get(json.load('[1, \"u\"]')[len({a}) % 2])",  # `any`: a text or a misfit
            ]
        )

    def _assign(self, depth: int, safe: bool) -> None:
        if not safe:
            self._put(depth, f"{self._chance.choice(RISKY)} = {self._call(False)}")
        elif self._chance.random() < 0.3:
            self._put(depth, f'{self._name(True)} = {self._name(True)}[:3] + "-"')
        else:
            self._put(depth, f'{self._name(True)} = attempt({self._call(True)}, "d")')

    def _statement(self, depth: int, *, safe: bool) -> None:
        roll = self._chance.random()
        if roll < 0.3:
            self._assign(depth, safe)
        elif roll < 0.45:
            self._effect(depth, f'files.write({self._path(safe)}, {self._name(safe)} + "w")', safe)
        elif roll < 0.52:
            self._effect(depth, f"files.copy({self._path(safe)}, {self._path(safe)})", safe)
        elif roll < 0.66:
            self._effect(depth, f'mail.send("x{self._number()}", {self._name(safe)})', safe)
        elif roll < 0.71 and safe:
            self._put(depth, f"xs.append({self._name(True)})")
        elif depth < 2 and roll < 0.86:
            self._branch(depth, safe)
        elif depth < 2:
            self._loop(depth, safe)
        else:
            self._assign(depth, safe)

    def _effect(self, depth: int, call: str, safe: bool) -> None:
        self._put(depth, f'{self._name(True)} = attempt({call}, "no")' if safe else call)

    def _branch(self, depth: int, safe: bool) -> None:
        name = self._name(safe)
        call = f'llm.choose("q{self._number()}", ["y", "n"], {name})'
        if safe:
            call = f'attempt({call}, "n")'
        test = f'{call} == "y"' if self._chance.random() < 0.6 else f"len({name}) % 2 == 0"
        self._put(depth, f"if {test}:")
        self._block(depth + 1, safe)
        if self._chance.random() < 0.5:
            self._put(depth, "else:")
            self._block(depth + 1, safe)

    def _loop(self, depth: int, safe: bool) -> None:
        self._loops += 1
        files = 'attempt(files.list("f*"), [])' if safe else 'files.list("f*")'
        name = self._name(safe)
        sources = ["range(3)", files, f'["p", {name}, "p"]', f"list({name}[:3])"]
        k = f"k{self._loops}"
        self._put(depth, f"for {k} in {self._chance.choice(sources)}:")
        call = f'llm.write("l{self._loops}", {k})'
        self._put(depth + 1, f'b = attempt({call}, "e")' if safe else f"d = {call}")
        self._block(depth + 1, safe)

    def _block(self, depth: int, safe: bool) -> None:
        for _ in range(self._chance.randint(1, 3)):
            self._statement(depth, safe=safe and self._chance.random() < 0.7)
