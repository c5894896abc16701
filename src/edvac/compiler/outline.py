"""Outlines: programs as templates whose holes are filled.

A small model that writes code freely drifts; it is surer about which facts a task wants and which
file holds what. An outline says just that, a line each, and code makes the program of it: where the
items come from, what is decided about each, and for every file of the task one clause. `Outline`
takes the lines one after another and gives the statements that each adds.

::

    each document in "bills/": vendor text, number text, total number, paid yes/no
    paid.csv: table vendor, number, total where paid
    sum.txt: sum of total where not paid
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from edvac.compiler.brief import Brief
from edvac.core.errors import ProgramError

TEXT, NUMBER, DAY, TRUTH = "text", "number", "day", "yes/no"
_TYPES = {TEXT: "str", NUMBER: "Decimal", DAY: "date", TRUTH: "bool"}
NAME = r"[a-z_][a-z0-9_]*"
QUOTED = r'"[^"\\\n]*"'
_OPTIONS = r"one of \(([^()]*)\)"
_FIELD = re.compile(
    rf"(?P<name>{NAME}) (?P<kind>text|number|day|yes/no|{_OPTIONS}|word (?P<word>\d+))"
    rf"(?P<maybe>\??)(?: \((?P<hint>[^()\n]*)\))?"
)
_SEVERAL = re.compile(
    rf"several (?P<name>{NAME}) (?:\((?P<fields>[^\n]+)\)"
    rf"|between (?P<start>{QUOTED}) and (?P<end>{QUOTED})|after (?P<mark>{QUOTED})|text)$"
)
_SOURCE = re.compile(
    r"each (?P<kind>document|file|row|object|line) (?:in|of) "
    r'"(?P<where>[^"\n]+)"(?:: (?P<fields>.+))?'
)
_TEST = re.compile(
    rf"(?P<has>has|no) (?P<had>{NAME})|(?P<left>{NAME}) (?P<compare><=|>=|<|>) (?P<right>[\d.-]+)"
    rf"|(?P<subject>{NAME}) (?P<verb>is not|is|contains|starts with|ends with) (?P<object>{QUOTED})"
    rf"|(?P<negated>not )?(?P<truth>{NAME})"
)
_JUDGE = re.compile(rf"(?P<name>{NAME}) = {_OPTIONS} from (?P<of>{NAME}): (?P<question>{QUOTED})")
_SPLIT = re.compile(rf"(?P<name>{NAME}) = (?P<yes>{QUOTED}) if (?P<test>.+) else (?P<no>{QUOTED})")


@dataclass(frozen=True, slots=True)
class Fact:
    """A field of the items.

    Attributes:
        kind: text, number, day or yes/no; `options` instead for one of some words.
        maybe: it may be missing.
        word: which word of a line it is, from 1; 0 where it is none.
    """

    name: str
    kind: str = TEXT
    options: tuple[str, ...] = ()
    maybe: bool = False
    hint: str = ""
    word: int = 0

    def declared(self) -> str:
        """As a field of a record."""
        words = ", ".join(f'"{word}"' for word in self.options)
        made = f"Literal[{words}]" if self.options else _TYPES[self.kind]
        optional = " | None" if self.maybe else ""
        return f"    {self.name}: {made}{optional}" + (f"  # {self.hint}" if self.hint else "")


@dataclass(slots=True)
class Outline:
    """What is known after the lines so far.

    Attributes:
        facts: fields of the items, by name.
        tables: fields of the tables written so far, by file.
        source: kind of the items: document, file, row, object or line; empty before the first line.
    """

    brief: Brief
    keeps_text: bool = False  # does a later line need the whole text of an item?
    facts: dict[str, Fact] = field(default_factory=dict)
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = ""
    where: str = ""
    tested_last: str = ""  # the condition of the last clause that had one

    # -- the items --------------------------------------------------------------------------------

    def begin(self, line: str) -> str:
        """Statements of the first line.

        Raises:
            ProgramError: `outline_illegal`.
        """
        found = _SOURCE.fullmatch(line.strip())
        if found is None:
            raise illegal(line, "the first line says what each item is")
        self.source, self.where = found["kind"], found["where"]
        said, _, rest = (found["fields"] or "").partition("several ")
        facts = _facts(said.removesuffix(", "))
        self.facts = {fact.name: fact for fact in facts}
        match self.source:
            case "document":
                return self._documents(facts, f"several {rest}" if rest else "")
            case "file":
                return self._files()
            case "row" | "object":
                return self._table(facts)
        return self._lines(facts)

    def listing(self) -> str:
        return f'files.list("{self.where.rstrip("/")}/*")'

    def _documents(self, facts: list[Fact], several: str) -> str:
        many = _SEVERAL.fullmatch(several)
        if several and many is None:
            raise illegal(several, "several of what?")
        self._know_file()
        if many is not None and not facts and (many["mark"] or many["start"]):
            return self._marked(many)
        inner = _facts(many["fields"]) if many is not None and many["fields"] else []
        lines = ["rows = []", f"for p in {self.listing()}:"]
        body = "body" if self.keeps_text else "doc.text(p)"
        lines += ["    body = doc.text(p)"] if self.keeps_text else []
        lines.append(f"    found = attempt(llm.extract({body}, Item), None)")
        lines.append("    if found is not None:")
        more = self._about_file() + (", text=body" if self.keeps_text else "")
        if many is None:
            return statements(
                [*_record("Item", facts), *lines, f"        rows.append(row_of(found, {more}))"]
            )
        name, kind = many["name"], many["name"].title().replace("_", "")
        whole = Fact(f"{name}s", "list", hint="one for each" if inner else "")
        records = _record(kind, inner) if inner else []
        records += _record("Item", facts, f"    {whole.name}: list[{kind if inner else 'str'}]")
        more += "".join(f", {fact.name}=found.{fact.name}" for fact in facts)
        self.facts |= {fact.name: fact for fact in inner or [Fact(name)]}
        lines.append(f"        for one in found.{whole.name}:")
        pairs = ", ".join(f'"{key}": {value}' for key, value in _pairs(f"{more}, {name}=one"))
        made = f"row_of(one, {more})" if inner else f"{{{pairs}}}"
        return statements([*records, *lines, f"            rows.append({made})"])

    def _marked(self, many: re.Match[str]) -> str:
        """Found by code: what stands between two signs, or behind one."""
        name = many["name"]
        self.facts[name] = Fact(name)
        start = re.escape((many["start"] or many["mark"]).strip('"'))
        end = re.escape(many["end"].strip('"')) if many["end"] else ""
        pattern = f"{start}(.+?){end}" if end else rf"{start}(\w+)"
        more = self._about_file() + (", text=files.read(p)" if self.keeps_text else "")
        pairs = ", ".join(f'"{key}": {value}' for key, value in _pairs(f"{more}, {name}=one"))
        return statements(
            [
                "rows = []",
                f"for p in {self.listing()}:",
                f'    for one in re.findall(r"{pattern}", files.read(p)):',
                f"        rows.append({{{pairs}}})",
            ]
        )

    def _files(self) -> str:
        self._know_file()
        text = ", text=files.read(p)" if self.keeps_text else ""
        row = ", ".join(f'"{name}": {value}' for name, value in _pairs(self._about_file() + text))
        return statements([f"rows = [{{{row}}} for p in {self.listing()}]"])

    def _about_file(self) -> str:
        return "file=path.name(p), stem=path.stem(p)"

    def _know_file(self) -> None:
        for name in ("file", "stem", *(["text"] if self.keeps_text else [])):
            self.facts.setdefault(name, Fact(name))

    def _table(self, facts: list[Fact]) -> str:
        known = {name: Fact(name) for name in self.brief.columns.get(self.where, ())}
        self.facts = known | {fact.name: fact for fact in facts}
        if self.source == "object":
            return statements([f'rows = json.load(files.read("{self.where}"))'])
        numbers = [fact for fact in self.facts.values() if fact.kind in (NUMBER, DAY)]
        load = f'csv.load(files.read("{self.where}"))'
        if not numbers:
            return statements([f"rows = {load}"])
        cells = [f'"{name}": {_read(fact)}' for name, fact in self.facts.items()]
        return statements([f"rows = [{{{', '.join(cells)}}} for row in {load}]"])

    def _lines(self, facts: list[Fact]) -> str:
        told = self.brief.lines.get(self.where)
        mark = told.mark if told is not None else " "
        if told is not None and not facts:
            names = [word.split()[-1].lower() for word in told.words]
            facts = [Fact(name, word=place) for place, name in enumerate(names, 1)]
        last = len(told.words) if told is not None and mark == " " else 0
        cells = ['"line": line']
        for fact in facts:
            place = fact.word - 1
            whole = fact.word == last  # a message is all the rest
            value = f'" ".join(words[{place}:])' if whole else f"words[{place}]"
            cells.append(f'"{fact.name}": {value}')
        lines = ["rows = []", f'for line in text.lines(files.read("{self.where}")):']
        split = "split()" if mark == " " else f'split("{mark}")'
        lines += [f"    words = line.{split}"] if facts else []
        lines.append(f"    rows.append({{{', '.join(cells)}}})")
        self.facts = {"line": Fact("line")} | {fact.name: fact for fact in facts}
        return statements(lines)

    # -- what is decided of each ------------------------------------------------------------------

    def only(self, test: str) -> str:
        """Statements that leave out the other items."""
        return statements([f"rows = [row for row in rows if {self.tested(test)}]"])

    def decide(self, line: str) -> str:
        """Statements for ``NAME = one of (…) from FIELD: "…"`` or ``NAME = "…" if … else "…"``.

        Raises:
            ProgramError: `outline_illegal`.
        """
        if judged := _JUDGE.fullmatch(line):
            words = tuple(_words(judged[2]))
            options = ", ".join(f'"{word}"' for word in words)
            asked = f"llm.choose({judged['question']}, [{options}], {self.cell(judged['of'])})"
            name, made, fact = judged["name"], asked, Fact(judged["name"], options=words)
        elif split := _SPLIT.fullmatch(line):
            yes, no = split["yes"], split["no"]
            name, made = split["name"], f"{yes} if {self.tested(split['test'])} else {no}"
            fact = Fact(name, options=(yes.strip('"'), no.strip('"')))
        else:
            raise illegal(line, "nothing is decided there")
        self.facts[name] = fact
        return statements([f'rows = [row | {{"{name}": {made}}} for row in rows]'])

    # -- conditions -------------------------------------------------------------------------------

    def tested(self, text: str, row: str = "row") -> str:
        """A condition on an item, as an expression.

        Raises:
            ProgramError: `outline_illegal`.
        """
        return " and ".join(self._one_test(part, row) for part in text.split(" and "))

    def _one_test(self, text: str, row: str) -> str:
        found = _TEST.fullmatch(text.strip())
        if found is None:
            raise illegal(text, "this is no condition")
        if found["has"]:
            return self._presence(found["had"], row, there=found["has"] == "has")
        if found["left"]:
            fact = self.fact(found["left"])
            cell, right = self.cell(fact.name, row), found["right"]
            if fact.kind == DAY:
                right = f'date.parse("{right}")'
            elif fact.kind != NUMBER:
                raise illegal(text, f"{fact.name} is no number and no day")
            guard = f"{cell} is not None and " if fact.maybe else ""
            return f"{guard}{cell} {found['compare']} {right}"
        if found["subject"]:
            return self._worded(found["subject"], found["verb"], found["object"], row)
        fact = self.fact(found["truth"])
        if fact.kind != TRUTH:
            if found["negated"]:
                return self._presence(fact.name, row, there=False)
            return self._presence(fact.name, row, there=True)
        return ("not " if found["negated"] else "") + self.cell(fact.name, row)

    def _presence(self, name: str, row: str, *, there: bool) -> str:
        fact, cell = self.fact(name), self.cell(name, row)
        if fact.maybe:
            return f"{cell} is not None" if there else f"{cell} is None"
        if fact.kind == TRUTH:
            return cell if there else f"not {cell}"
        if self.source in ("row", "object", "line") or fact.kind == TEXT:
            return cell if there else f"not {cell}"
        raise illegal(name, f"{name} is always there: give it a ?")

    def _worded(self, name: str, verb: str, word: str, row: str) -> str:
        fact, cell = self.fact(name), self.cell(name, row)
        if verb == "contains":
            return f"{word} in {cell}"
        if verb.endswith(" with"):
            return f"{cell}.{verb.split(maxsplit=1)[0]}with({word})"
        if fact.options and word.strip('"') not in fact.options:
            raise illegal(word, f"{name} is one of {', '.join(fact.options)}")
        return f"{cell} {'!=' if verb == 'is not' else '=='} {word}"

    def fact(self, name: str) -> Fact:
        if name not in self.facts:
            raise illegal(name, f"an item has no {name}; it has {', '.join(self.facts)}")
        return self.facts[name]

    def cell(self, name: str, row: str = "row") -> str:
        return f'{row}["{self.fact(name).name}"]'


def _facts(text: str) -> list[Fact]:
    found: list[Fact] = []
    at = 0
    while at < len(text):
        match = _FIELD.match(text, at)
        if match is None:
            raise illegal(text[at:], "a fact is a name and text, number, day, yes/no or one of (…)")
        words = tuple(_words(match[3])) if match[3] else ()
        kind = match["kind"] if match["kind"] in _TYPES else TEXT
        maybe, hint, word = bool(match["maybe"]), match["hint"] or "", int(match["word"] or 0)
        if len(set(words)) < len(words):
            raise illegal(match[0], "a word stands there twice")
        if match["name"] in {fact.name for fact in found}:
            raise illegal(match["name"], "a fact is declared once")
        found.append(Fact(match["name"], kind, words, maybe, hint, word))
        at = match.end() + (2 if text.startswith(", ", match.end()) else 0)
        if at == match.end() and at < len(text):
            raise illegal(text[at:], "facts are separated by commas")
    return found


def _record(name: str, facts: list[Fact], *more: str) -> list[str]:
    return [f"class {name}:", *(fact.declared() for fact in facts), *more, ""]


def _pairs(keywords: str) -> list[tuple[str, str]]:
    """``a=b, c=d`` in pairs."""
    return [
        (name, value) for name, _, value in (one.partition("=") for one in keywords.split(", "))
    ]


def _words(text: str) -> list[str]:
    return [word.strip().strip('"') for word in text.split(",") if word.strip()]


def _read(fact: Fact) -> str:
    cell = f'row["{fact.name}"]'
    made = {NUMBER: f"Decimal({cell})", DAY: f"date.parse({cell})"}.get(fact.kind, cell)
    return f"{made} if {cell} else None" if fact.maybe and made != cell else made


def negated(test: str) -> str:
    """The opposite of a single condition; empty where it is not one."""
    turned = {" is not ": " is ", " is ": " is not ", " >= ": " < ", " <= ": " > "}
    turned |= {" > ": " <= ", " < ": " >= "}
    if not test or " and " in test or " contains " in test:
        return ""
    for sign, opposite in turned.items():
        if sign in test:
            return test.replace(sign, opposite)
    head, _, rest = test.partition(" ")
    return {"not": rest, "has": f"no {rest}", "no": f"has {rest}"}.get(head, f"not {test}")


def statements(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def illegal(text: str, why: str) -> ProgramError:
    return ProgramError("outline_illegal", f"{why}: {text[:80]!r}" if text else why)
