"""The clauses of an outline: what a file of the task is made of, as statements of a program."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from edvac.compiler.brief import placeholder
from edvac.compiler.outline import (
    NAME,
    NUMBER,
    QUOTED,
    Fact,
    Outline,
    illegal,
    statements,
)

_WHERE = re.compile(r" where (?P<test>.+?)(?= having | sorted by | if more than |$)")
_HAVING = re.compile(r" having (?P<test>.+?)(?= sorted by |$)")
_SORTED = re.compile(rf" sorted by (?P<test>{NAME}(?: descending)?)$")
_LEAST = re.compile(r" if more than (?P<test>\d+)$")
_OF_TABLE = re.compile(r" in (?P<test>\S+\.csv)(?= |$)")
_TALLY = re.compile(rf"(?P<how>count|(?:sum|mean|smallest|largest) of (?P<of>{NAME}))")
_COUNTED = re.compile(rf"(?P<tally>{_TALLY.pattern}) (?P<compare>(?:<=|>=|<|>) [\d.]+)")
_GROUPS = re.compile(r"groups by (?P<by>[a-z0-9_, ]+) with (?P<tallies>.+)")
_MOST = re.compile(rf"(?P<name>{NAME}) with (?P<end>most|least) (?P<of>{NAME})")
_WITHOUT = re.compile(rf"list of (?P<name>file|stem) (?:without any|not among (?P<of>{NAME}))")
_AGGREGATES = {"sum": "sum_of", "mean": "mean_of", "smallest": "min_of", "largest": "max_of"}


def result(outline: Outline, path: str, clause: str) -> str:
    """Statements that write one file of the task, or one for each item or name.

    Args:
        path: as the task spells it; ``x/FILE`` is a file for each item, another word in capitals
            stands for each name.

    Raises:
        ProgramError: `outline_illegal`.
    """
    tested = _WHERE.search(clause)
    outline.tested_last = tested["test"] if tested else outline.tested_last
    if path.endswith("/FILE"):
        return _for_each_item(outline, path, clause)
    each = re.fullmatch(rf"for each ({NAME}): (.+)", clause)
    if each is not None:
        return _for_each_name(outline, path, outline.fact(each[1]), each[2])
    if placeholder(path):
        raise illegal(clause, f"{placeholder(path)} in {path} stands for each of something")
    return _Clause.read(outline, path, clause).written()


def _for_each_item(outline: Outline, path: str, clause: str) -> str:
    bare, where = _taken(_WHERE, clause)
    folder, mark = path.removesuffix("FILE"), placeholder(path.removesuffix("FILE"))
    if mark:
        folder = folder.replace(mark, f"{{row['{outline.fact(mark.lower()).name}']}}")
    target = f"{folder}{{row['file']}}"
    if bare in ("copy", "move"):
        source = f"{outline.where.rstrip('/')}/{{row['file']}}"
        act = f'files.{bare}(f"{source}", f"{target}")'
    elif said := re.fullmatch(rf"text ({QUOTED})", bare):
        act = f'files.write(f"{target}", llm.write({said[1]}, {outline.cell("text")}))'
    else:
        raise illegal(clause, "a file for each item is a text, or a copy, or moved")
    if not where:
        return statements(["for row in rows:", f"    {act}"])
    return statements(["for row in rows:", f"    if {outline.tested(where)}:", f"        {act}"])


def _for_each_name(outline: Outline, path: str, fact: Fact, clause: str) -> str:
    bare, where = _taken(_WHERE, clause)
    bare, having = _taken(_HAVING, bare)
    tests = [f"{outline.cell(fact.name)} is not None"] if fact.maybe else []
    tests += [outline.tested(where)] if where else []
    of = "chosen" if tests else "rows"
    lines = [f"chosen = [row for row in rows if {' and '.join(tests)}]"] if tests else []
    lines += [
        f'names = unique([row["{fact.name}"] for row in {of}])',
        *([] if placeholder(path) else ["parts = []"]),
        "for name in names:",
        f'    own = [row for row in {of} if row["{fact.name}"] == name]',
    ]
    inner = "    "
    if having:
        counted = re.fullmatch(r"count ((?:<=|>=|<|>) \d+)", having)
        if counted is None:
            raise illegal(having, "say how count compares with a number")
        outline.tested_last = having
        lines.append(f"    if len(own) {counted[1]}:")
        inner = "        "
    if placeholder(path):
        part = _Clause.read(outline, path.replace(placeholder(path), "{name}"), bare, "own")
        lines += [f"{inner}{line}" for line in part.written().rstrip("\n").split("\n")]
        return statements(lines)
    said = re.fullmatch(rf"text ({QUOTED})", bare)
    if said is None:
        raise illegal(clause, "a part for each name in one file is a text")
    made = f"llm.write({said[1]}, name, {_material(outline, 'own')})"
    lines.append(f'{inner}parts.append(f"## {{name}}\\n\\n" + {made})')
    return statements([*lines, f'files.write("{path}", "\\n\\n".join(parts))'])


def _material(outline: Outline, rows: str) -> str:
    """What a text is written about."""
    for name in ("text", "line"):
        if name in outline.facts:
            return f'[row["{name}"] for row in {rows}]'
    return rows


@dataclass(frozen=True, slots=True)
class _Clause:
    """One clause for one file: of which rows, in which order.

    Attributes:
        bare: the clause without what the other attributes say.
        least: a file is only written of more rows than that.
    """

    outline: Outline
    path: str
    bare: str
    rows: str
    where: str
    having: str
    order: str
    least: int

    @staticmethod
    def read(outline: Outline, path: str, clause: str, rows: str = "rows") -> _Clause:
        bare, order = _taken(_SORTED, clause)
        bare, least = _taken(_LEAST, bare)
        bare, having = _taken(_HAVING, bare)
        bare, where = _taken(_WHERE, bare)
        bare, table = _taken(_OF_TABLE, bare)
        if table:
            known = outline.tables.get(table)
            if known is None:
                raise illegal(clause, f"{table} is not written yet")
            rows = _table_name(table)
            of_table = {name: outline.facts.get(name, Fact(name, NUMBER)) for name in known}
            outline = replace(outline, facts=of_table)
        return _Clause(outline, path, bare, rows, where, having, order, int(least or 0))

    def written(self) -> str:
        """The statements.

        Raises:
            ProgramError: `outline_illegal`.
        """
        bare = self.bare
        if bare.startswith("table "):
            return self._table([name.strip() for name in bare[6:].split(",")])
        if groups := _GROUPS.fullmatch(bare):
            by = [self.outline.fact(name.strip()).name for name in groups["by"].split(",")]
            return self._groups(by, groups["tallies"].split(", "))
        if without := _WITHOUT.fullmatch(bare):
            return self._without(without["name"], without["of"] or without["name"])
        if listed := re.fullmatch(rf"list of (each )?({NAME})", bare):
            return self._list(self.outline.fact(listed[2]), distinct=listed[1] is not None)
        if tally := _TALLY.fullmatch(bare):
            return self._value(tally["how"].partition(" ")[0], tally["of"] or "")
        if most := _MOST.fullmatch(bare):
            return self._most(most)
        if said := re.fullmatch(rf"text ({QUOTED})", bare):
            return self._text(said[1])
        raise illegal(bare, "no file is made like that")

    def _chosen(self) -> str:
        if not self.where:
            return self.rows
        return f"[row for row in {self.rows} if {self.outline.tested(self.where)}]"

    def _sorted(self, rows: str, known: tuple[str, ...]) -> str:
        if not self.order:
            return rows
        key, _, falling = self.order.partition(" ")
        if key not in known:
            raise illegal(self.order, f"the rows have no {key}")
        return f'sort_by({rows}, "{key}"{", reverse=True" if falling else ""})'

    def _target(self) -> str:
        return f'f"{self.path}"' if "{" in self.path else f'"{self.path}"'

    def _table(self, columns: list[str]) -> str:
        said = [name.partition(" as ") for name in columns]
        pairs = [(self.outline.fact(name).name, other or name) for name, _, other in said]
        names = tuple(other for _, other in pairs)
        rows = self._sorted(self._chosen(), tuple(self.outline.facts))
        if all(name == other for name, other in pairs):
            spelled = ", ".join(f'"{name}"' for name in names)
            return self._dumped(rows, names, f", columns=[{spelled}]")
        cells = ", ".join(f'"{other}": row["{name}"]' for name, other in pairs)
        return self._dumped(f"[{{{cells}}} for row in {rows}]", names)

    def _dumped(self, rows: str, names: tuple[str, ...], columns: str = "") -> str:
        self.outline.tables[self.path] = names
        if "{" in self.path:
            return statements([f"files.write({self._target()}, csv.dump({rows}{columns}))"])
        name = _table_name(self.path)
        return statements(
            [f"{name} = {rows}", f"files.write({self._target()}, csv.dump({name}{columns}))"]
        )

    def _groups(self, by: list[str], tallies: list[str]) -> str:
        made: dict[str, str] = {}
        for one in tallies:
            name, _, how = one.strip().partition(" ")
            tally = _TALLY.fullmatch(how)
            if tally is None:
                raise illegal(one, "say NAME count, or NAME sum of FIELD")
            made[name] = self._aggregate(tally)
        rows = self._grouped(by, made)
        if self.having:
            known = {name: self.outline.facts[name] for name in by}
            known |= {name: Fact(name, NUMBER) for name in made}
            test = replace(self.outline, facts=known).tested(self.having, "one")
            rows = f"[one for one in {rows} if {test}]"
        names = (*by, *made)
        return self._dumped(self._sorted(rows, names), names)

    def _aggregate(self, tally: re.Match[str]) -> str:
        if tally["how"] == "count":
            return "count()"
        how = tally["how"].partition(" ")[0]
        return f'{_AGGREGATES[how]}("{self._number(tally["of"])}")'

    def _grouped(self, by: list[str], made: dict[str, str]) -> str:
        keys = ", ".join(f'"{name}"' for name in by)
        tallies = ", ".join(f"{name}={how}" for name, how in made.items())
        return f"group({self._chosen()}, by=[{keys}], {tallies})"

    def _number(self, name: str) -> str:
        fact = self.outline.fact(name)
        if fact.kind != NUMBER:
            raise illegal(name, f"{name} is no number")
        return fact.name

    def _list(self, fact: Fact, *, distinct: bool) -> str:
        name = fact.name
        if self.having:
            counted = _COUNTED.fullmatch(self.having)
            if counted is None:
                raise illegal(self.having, "say count, or sum of FIELD, and a number")
            grouped = self._grouped([name], {"n": self._aggregate(counted)})
            test = f'one["n"] {counted["compare"]}'
            return self._joined(f'[str(one["{name}"]) for one in {grouped} if {test}]')
        rows = self._sorted(self._chosen(), tuple(self.outline.facts))
        there = f' if row["{name}"] is not None' if fact.maybe else ""
        cells = f'[str(row["{name}"]) for row in {rows}{there}]'
        return self._joined(f"unique({cells})" if distinct else cells)

    def _joined(self, texts: str) -> str:
        return statements([f'files.write({self._target()}, "\\n".join({texts}))'])

    def _without(self, name: str, of: str) -> str:
        """Files of which there is no row, or whose name no row has in a field."""
        called = f"path.{'name' if name == 'file' else 'stem'}(p)"
        known = f'known = unique([row["{self.outline.fact(of).name}"] for row in {self._chosen()}])'
        listed = f"[{called} for p in {self.outline.listing()} if {called} not in known]"
        return f"{known}\n{self._joined(listed)}"

    def _value(self, how: str, of: str) -> str:
        if how == "count":
            counted = f"counted = len({self._chosen()})"
            return statements([counted, f'files.write({self._target()}, f"{{counted}}")'])
        name = self._number(of)
        there = f' if row["{name}"] is not None' if self.outline.fact(name).maybe else ""
        made = {
            "sum": "sum(values)",
            "mean": 'math.mean(values) if values else ""',
            "smallest": 'min(values) if values else ""',
            "largest": 'max(values) if values else ""',
        }[how]
        return statements(
            [
                f'values = [row["{name}"] for row in {self._chosen()}{there}]',
                f"found = {made}",
                f'files.write({self._target()}, f"{{found}}")',
            ]
        )

    def _most(self, most: re.Match[str]) -> str:
        name, of = self.outline.fact(most["name"]).name, most["of"]
        how = "count()" if of == "items" else f'sum_of("{self._number(of)}")'
        turned = ", reverse=True" if most["end"] == "most" else ""
        ranked = f'sort_by({self._grouped([name], {"n": how})}, "n"{turned})'
        first = self._joined(f'[str(one["{name}"]) for one in ranked[:1]]')
        return f"ranked = {ranked}\n{first}"

    def _text(self, said: str) -> str:
        if not self.least:
            about = _material(self.outline, self._chosen())
            return statements([f"files.write({self._target()}, llm.write({said}, {about}))"])
        about = _material(self.outline, "chosen")
        return statements(
            [
                f"chosen = {self._chosen()}",
                f"if len(chosen) > {self.least}:",
                f"    files.write({self._target()}, llm.write({said}, {about}))",
            ]
        )


def _table_name(path: str) -> str:
    return re.sub(r"\W", "_", path.rpartition("/")[2].partition(".")[0]).lower() + "_rows"


def _taken(pattern: re.Pattern[str], text: str) -> tuple[str, str]:
    """The text without what the pattern finds, and the test in that."""
    found = pattern.search(text)
    if found is None:
        return text, ""
    return text[: found.start()] + text[found.end() :], found["test"]
