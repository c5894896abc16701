"""Grammars for the lines of an outline (text of Lark grammars as llguidance reads them).

Each line has its own, from what the task says plainly (`wanted`) and what the lines before it have
declared, so that a model chooses only where there is something to choose.
"""

from __future__ import annotations

import re

from edvac.compiler.brief import NAMES_SOMETHING, is_amount, is_day, placeholder
from edvac.compiler.outline import DAY, NUMBER, TEXT, TRUTH, Outline, negated
from edvac.compiler.wanted import ABOUT_FILES, Reading, Wanted

RESULTS = "results"  # the line after the last decision

_TERMINALS = r"""
WORD: /[A-Za-z0-9][A-Za-z0-9 _\/-]{0,30}/
HINT: /[a-z][A-Za-z0-9 ,'-]{2,60}/
SAID: /"[A-Za-z0-9][^"\\\n{}]{0,160}"/
SIGNS: /"[^"\\\n{}A-Za-z0-9]{1,6}"/
COMPARE: " > " | " < " | " >= " | " <= "
"""


def automatic(reading: Reading) -> str:
    """The first line where the task says all of it: rows, objects or lines of the one file there
    is; empty where a model has to say it."""
    if reading.folders or len(reading.inputs) != 1:
        return ""
    path = reading.inputs[0]
    kind = {"csv": "row", "tsv": "row", "json": "object"}.get(path.rpartition(".")[2], "line")
    facts = [f"{name} word {place}" for name, place in reading.places] if kind == "line" else []
    if kind != "line":
        columns = reading.brief.columns.get(path, ())
        facts = [f"{name} number" for name in columns if is_amount(name)]
    return f'each {kind} of "{path}"' + (f": {', '.join(facts)}" if facts else "")


def first_line(reading: Reading) -> str:
    """What each item is."""
    sources = []
    for folder in reading.folders:
        if reading.by_sign and not reading.required():
            sources.append(f'"each file in \\"{folder}/\\""')
            continue
        if reading.required() or not reading.kinds & {"move", "language"}:
            sources.append(f'"each document in \\"{folder}/\\": " facts')
        if not reading.required() and reading.kinds & {"move", "language", "text"}:
            sources.append(f'"each file in \\"{folder}/\\""')
    required = reading.required() if "marks" not in reading.kinds else ()
    lines = [
        'start: source "\\n"',
        f"source: {_any(sources)}",
        f"facts: {_facts(reading, required)}",
        'fact: NEW " " kind "?"? hint?',
        'hint: " (" HINT ")"',
        'kind: "text" | "number" | "day" | "yes/no"' + (" | options" if reading.decides else ""),
        _options(reading),
    ]
    return "\n".join(lines) + _terminals(required)


def _options(reading: Reading) -> str:
    """Words of the task, or for the rest."""
    words = _any([f'"{word}"' for word in dict.fromkeys([*reading.words, "other", "none"])])
    return f'options: "one of (" OPTION (", " OPTION){{1,7}} ")"\nOPTION: {words}'


def _facts(reading: Reading, required: tuple[str, ...]) -> str:
    """The facts of a document: those that tables want by name, then others, then those that the
    task's words ask for."""
    if "marks" in reading.kinds:
        given = _literal(reading.sign) if reading.sign else '"after " SIGNS'
        return f'"several " NEW " " {given}'
    chosen = dict(reading.choices)
    several, inner = reading.brief.several.replace("thing", "task"), False
    own, many = [], ""
    for name in required:
        if name == several or (_is_several(name, reading) and name not in reading.brief.facts):
            many = f'"several {name} text"'
        else:
            own.append(_fact(name, chosen.get(name, ()), reading))
    if several and not many:
        inner = True
        fields = _row(own or ["fact"])
        many = f'"several {several} (" {fields} (", " fact){{0,2}} ")"'
        own = []
    needs = [] if inner else _needs(reading, required)
    parts = [*own, *needs]
    if not parts and not many:
        return 'fact (", " fact){0,5}'
    more = '(", " fact){0,2}' if parts else '(fact ", "){0,2}'
    made = f"{_row(parts)} {more}" if parts else more
    if not many:
        return made
    return f'{made} ", " {many}' if parts else f"{made} {many}"


def _is_several(name: str, reading: Reading) -> bool:
    return f"{name}s" in reading.plural


def _fact(name: str, words: tuple[str, ...], reading: Reading) -> str:
    if words:
        return f'"{name} one of ({", ".join(words)})"'
    if name in reading.decided:
        return f'"{name} yes/no" hint?'
    if is_amount(name):
        return f'"{name} number" "?"? hint?'
    if is_day(name) or name in reading.dated:
        return f'"{name} day?" hint?'
    if NAMES_SOMETHING.search(name):
        return f'"{name} text" "?"? hint?'
    return f'"{name} " kind "?"? hint?'


def _needs(reading: Reading, required: tuple[str, ...]) -> list[str]:
    """Facts that no table names and the task's words ask for."""
    found = []
    for name, words in reading.choices:
        if name not in required:
            said = f'"{name}"' if name else "NEW"
            found.append(f'{said} " one of ({", ".join(words)})"')
    if reading.decides and not reading.choices and not (required and reading.decided):
        found.append('NEW " " ("yes/no" | options) hint?')
    if required:
        return found  # one of those may be what is asked: see `lacking`
    if reading.reckons:
        found.append('NEW " number" "?"? hint?')
    if reading.lacks and not found:
        found.append('NEW " " ("day" | "text" | "number") "?" hint?')
    return found


def lacking(outline: Outline, reading: Reading) -> str:
    """What kind of fact the task's words ask for and no item has, as a clause; empty if none."""
    facts = outline.facts.values()
    if "marks" in reading.kinds:
        return ""
    if reading.decides and not any(fact.kind == TRUTH or fact.options for fact in facts):
        return "the task asks what is yes or no: a fact is yes/no, or one of some words"
    if reading.reckons and not any(fact.kind == NUMBER for fact in facts):
        return "the task reckons with something: a fact is a number"
    if reading.lacks and not any(
        fact.maybe or fact.kind == TRUTH or fact.options for fact in facts
    ):
        return "the task asks what is missing: such a fact has a ?"
    return ""


def only(outline: Outline, reading: Reading) -> str:
    """A line that leaves items out, or the end of the decisions."""
    lines = [
        'start: line "\\n"',
        f'line: "only " where | "{RESULTS}"',
        *_where(outline, reading),
    ]
    return "\n".join(lines) + _terminals()


def decision(outline: Outline, reading: Reading) -> str:
    """What is decided of each item, behind ``NAME = ``."""
    texts = [name for name, fact in outline.facts.items() if fact.kind == TEXT and not fact.options]
    given = [f'"one of ({", ".join(words)})"' for _, words in reading.choices]
    judged = "split" if len(reading.grouped) > 1 else "judged" if given else "judged | split"
    lines = [
        'start: line "\\n"',
        f"line: {judged}",
        f'judged: ({_any(given) if given else "options"}) " from " ({_names(texts)}) ": " SAID',
        _options(reading),
        'split: QUOTED_WORD " if " where " else " QUOTED_WORD',
        "QUOTED_WORD: " + _any([f'"\\"{word}\\""' for word in reading.words]),
        *_where(outline, reading),
    ]
    return "\n".join(lines) + _terminals()


def clause(outline: Outline, reading: Reading, wanted: Wanted) -> str:
    """What a file of the task is made of."""
    made = _Clause(outline, reading, wanted)
    lines = ['start: clause "\\n"', f"clause: {_any(made.forms())}", *made.rules()]
    lines += _where(outline, reading, wanted.bound)
    return "\n".join(lines) + _terminals()


class _Clause:
    """The forms that one file may have."""

    def __init__(self, outline: Outline, reading: Reading, wanted: Wanted) -> None:
        self._outline = outline
        self._reading = reading
        self._wanted = wanted
        self._every = list(outline.facts)
        self._numbers = _of_kind(outline, NUMBER)
        self._told = [n for n, f in outline.facts.items() if f.kind != TRUTH and n != "text"]
        self._tallies: list[str] = []

    def forms(self) -> list[str]:
        path, kinds = self._wanted.path, self._reading.kinds
        if path.endswith("/FILE"):
            if "move" in kinds:
                return ['"copy" where1', '"move" where1']
            return ['"text " SAID where1']
        if placeholder(path):
            own = self._tables() if self._wanted.is_table else ["list", _TEXT]
            return [f'"for each " ({self._named(placeholder(path))}) ": " ({_any(own)})']
        return self._tables() if self._wanted.is_table else self._texts()

    def _where(self) -> str:
        """A condition: one that the words give, one that has to be there, one that may, or none."""
        wanted = self._wanted
        rest = negated(self._outline.tested_last)
        if wanted.others and rest and not rest.startswith("count"):
            return _literal(f" where {rest}")
        doubtful = [name for name, fact in self._outline.facts.items() if fact.maybe]
        if wanted.lacking and wanted.is_table and doubtful:
            return f'" where no " ({_names(doubtful)})'
        if wanted.bound and self._numbers and not wanted.each:
            return '" where " bounded'
        facts = self._outline.facts.values()
        sure = any(fact.kind == TRUTH or fact.options or fact.maybe for fact in facts)
        sure = sure or bool(self._reading.brief.marks)
        one_each = placeholder(wanted.path) and not wanted.path.endswith("/FILE")
        if wanted.filtered and sure and not one_each:
            return '" where " where'
        return self._maybe_where()

    def _maybe_where(self) -> str:
        """Where nothing in the words speaks of some of the items, all are meant."""
        said = f"{self._wanted.said} {self._wanted.behind}".lower()
        words = [name for name, fact in self._outline.facts.items() if fact.kind == TRUTH]
        words += [word for fact in self._outline.facts.values() for word in fact.options]
        spoken = any(re.search(rf"\b{re.escape(word)}", said) for word in words)
        some = self._wanted.filtered or self._wanted.lacking or spoken
        return '(" where " where)?' if some else EMPTY

    def _listed(self) -> list[str]:
        """What is listed: of the facts those that the task names there, if it does."""
        mark = placeholder(self._wanted.path).lower()
        said = f"{self._wanted.said} {self._wanted.behind}".lower()
        said = said.replace(mark, "") if mark else said
        named = [name for name in self._told if re.search(rf"\b{name}(?:s|es)?\b", said)]
        return named or self._told

    def _named(self, mark: str) -> str:
        """A word in capitals often is the name of a fact."""
        return f'"{mark.lower()}"' if mark.lower() in self._outline.facts else _names(self._every)

    def _tables(self) -> list[str]:
        columns, tallied = self._wanted.columns, self._wanted.tallied
        tallied = tallied and not placeholder(self._wanted.path)
        if not columns:
            return ["table", "groups"] if tallied else ["table"]
        groups = []
        by, tallies = self._split(columns)
        self._tallies = tallies
        if tallied and by and tallies:
            named = [f'"{name} " tally' for name in tallies]
            head = f'"groups by {", ".join(by)} with " {_row(named)}'
            where = "" if self._wanted.bound else "where1"
            groups.append(f"{head} {where} having sorted")
        known = [name for name in columns if name in self._outline.facts]
        if len(known) == len(columns) and self._outline.source != "document" and groups:
            return groups
        if "marks" in self._reading.kinds and len(columns) == 2 and not known:
            name = next(name for name in self._every if name not in ABOUT_FILES)
            of = "stem" if "without ." in self._reading.task else "file"
            return [f'"table {of} as {columns[0]}, {name} as {columns[1]}"']
        if len(known) == len(columns) or not tallied:
            cells = [self._cell(name) for name in columns]
            groups.append(f'"table " {_row(cells)} where1 sorted')
        return groups or ["table", "groups"]

    def _cell(self, name: str) -> str:
        """A column by its name, or under it what has another one."""
        known = name in self._outline.facts
        return f'"{name}"' if known else f'({_names(self._every)}) " as {name}"'

    def _split(self, columns: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Fields to group by, and names of what is counted or reckoned."""
        by: list[str] = []
        for name in columns[:-1]:
            fact = self._outline.facts.get(name)
            if fact is None or (fact.kind == NUMBER and by):
                break
            by.append(name)
        return by, list(columns[len(by) :])

    def _texts(self) -> list[str]:
        wanted, source = self._wanted, self._outline.source
        listed = wanted.path.endswith(".md")
        rest = negated(self._outline.tested_last)
        if wanted.others and rest.startswith("count"):
            return [f'"list of " ({_names(self._told)}) {_literal(f" having {rest}")}']
        if wanted.lacking and source in ("document", "file"):
            own = [name for name in self._every if name not in ABOUT_FILES]
            among = f'" not among " ({_names(own)})'
            among = among if "no other" in wanted.said else '" without any"'
            return [f'"list of " ("file" | "stem") ({among})']
        if listed and wanted.each:
            return [f'"for each " ({_names(self._every)}) ": text " SAID where1 counted']
        if wanted.value and not listed:
            numbers = f'" of " ({_names(self._numbers)})'
            of = "" if wanted.value == "count" or not self._numbers else numbers
            return [f'"{wanted.value}" {of} where1', *(["list"] if wanted.value == "count" else [])]
        if wanted.most and not listed:
            return ["most where2", "list"]
        forms = ["list"]
        if listed and wanted.prose:
            least = f'" if more than {wanted.bound}"' if wanted.bound else ""
            forms.append(f'"text " SAID where2 {least}')
        for table, names in self._outline.tables.items():
            fits = set(self._listed()) & set(names)
            if "{" not in table and wanted.bound and fits:
                of = _any([f'"{one}"' for one in names])
                number = f'" where " ({of}) COMPARE NUMBER'
                forms.append(f'"list of " ({_names(sorted(fits))}) " in {table}" ({number})?')
        return forms

    def rules(self) -> list[str]:
        name, order = f"({_names(self._every)})", self._wanted.order
        falling = '" descending"' if order == "falling" else ""
        tally = '"count"'
        if self._numbers:
            hows = '"sum" | "mean" | "smallest" | "largest"'
            tally += f' | ({hows}) " of " ({_names(self._numbers)})'
        columns = self._wanted.columns or tuple(self._every)
        keys = _any([f'"{one}"' for one in columns])
        has_tests = bool(_tests(self._outline, self._reading))
        bound = self._wanted.bound
        tallies = _names(self._tallies) or "NEW"
        each, counted = ('"each "' if self._wanted.distinct else ""), self._wanted.counted
        return [
            f'table: "table " {name} (", " {name}){{0,11}} where1 sorted',
            f'groups: "groups by " {name} (", " {name})? " with " NEW " " tally'
            ' (", " NEW " " tally){0,3} where2 having sorted',
            f'list: "list of " {each} ({_names(self._listed())}) where1 sorted'
            + (
                f' | "list of " {name} where2 " having count" COMPARE ("1" | "2")'
                if counted
                else ""
            ),
            f"tally: {tally}",
            f'most: {name} " with " ("most " | "least ") ({_names([*self._numbers, "items"])})',
            f'sorted: " sorted by " ({keys}) {falling}' if order else 'sorted: ""',
            f'having: " having " ({tallies}) COMPARE "{bound}"' if bound else 'having: ""',
            f'counted: " having count" COMPARE "{bound}"' if bound else 'counted: ""',
            f"where1: {self._where() if has_tests or self._wanted.bound else EMPTY}",
            f"where2: {self._maybe_where() if has_tests else EMPTY}",
        ]


EMPTY = '""'
_TEXT = '"text " SAID where1'


def _where(outline: Outline, reading: Reading, bound: str = "") -> list[str]:
    numbers = _of_kind(outline, NUMBER)
    tests = _tests(outline, reading) or [f'"has " ({_names(list(outline.facts))})']
    said = _names(list(reading.numbers)) or '"0"'
    made = ['where: test (" and " test)?', f"test: {_any(tests)}", f"NUMBER: {said}"]
    if bound:
        made.append(f'bounded: ({_names(numbers or list(outline.facts))}) COMPARE "{bound}"')
    return made


def _tests(outline: Outline, reading: Reading) -> list[str]:
    """Conditions that the facts and the task's words allow."""
    tests = []
    truths, numbers, days = (_of_kind(outline, kind) for kind in (TRUTH, NUMBER, DAY))
    texts = [name for name, fact in outline.facts.items() if fact.kind == TEXT and not fact.options]
    doubtful = [name for name, fact in outline.facts.items() if fact.maybe]
    if truths:
        tests.append(f'"not "? ({_names(truths)})')
    if doubtful or (outline.source in ("row", "object") and "without" in reading.kinds):
        tests.append(f'("has " | "no ") ({_names(doubtful or texts)})')
    if numbers and reading.numbers:
        tests.append(f"({_names(numbers)}) COMPARE NUMBER")
    if days and reading.days:
        tests.append(f"({_names(days)}) COMPARE ({_names(list(reading.days))})")
    for name, fact in outline.facts.items():
        if fact.options:
            words = _any([f'"\\"{word}\\""' for word in fact.options])
            tests.append(f'"{name}" (" is " | " is not ") ({words})')
    if texts and outline.source in ("row", "object", "line"):
        for marks in _quoted(reading):
            tests.append(f'({_names(texts)}) (" is " | " is not " | " contains ") {marks}')
    if "line" in outline.facts and not reading.quoted:
        tests.append('"line contains " SAID')
    if reading.by_sign:
        tests.append('"file" (" starts with " | " ends with " | " contains ") SAID')
        tests += [f'"text contains " {marks}' for marks in _quoted(reading)]
    return tests


def _quoted(reading: Reading) -> list[str]:
    """Words that may stand in the data, as one alternative; none where the task has none."""
    marks = [_literal(f'"{mark}"') for mark in reading.quoted]
    return [f"({_any(marks)})"] if marks else []


def _of_kind(outline: Outline, kind: str) -> list[str]:
    return [name for name, fact in outline.facts.items() if fact.kind == kind and not fact.options]


def _names(names: list[str]) -> str:
    return _any([f'"{name}"' for name in names])


def _row(forms: list[str]) -> str:
    """One after another, with commas between."""
    return ' ", " '.join(forms)


def _literal(text: str) -> str:
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'


def _any(forms: list[str]) -> str:
    return " | ".join(forms)


def _terminals(taken: tuple[str, ...] = ()) -> str:
    others = f" & ~/({'|'.join([*taken, *ABOUT_FILES, 'file.*'])})/"
    return f"\nNEW: /[a-z][a-z0-9_]{{0,30}}/{others}{_TERMINALS}"
