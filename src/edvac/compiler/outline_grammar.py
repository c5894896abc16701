"""Grammars for the lines of an outline (text of Lark grammars as llguidance reads them).

Each line has its own, from what is known before it: the folders and tables of the task, then the
facts of the items.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edvac.compiler.brief import DAYLIKE, Brief, placeholder
from edvac.compiler.examples import kinds_of_work
from edvac.compiler.outline import DAY, NUMBER, TEXT, TRUTH, Outline

RESULTS = "results"  # the line after the last decision

_TERMINALS = r"""
NEW: /[a-z][a-z0-9_]{0,30}/
WORD: /[A-Za-z0-9][A-Za-z0-9 _\/-]{0,30}/
HINT: /[a-z][A-Za-z0-9 ,'-]{2,60}/
SAID: /"[A-Za-z0-9][^"\\\n{}]{0,160}"/
SIGNS: /"[^"\\\n{}A-Za-z0-9]{1,6}"/
NUMBER: /-?[0-9]{1,9}(\.[0-9]{1,4})?/
DAY: /[0-9]{4}-[0-9]{2}-[0-9]{2}/
PLACE: /[1-9][0-9]?/
COMPARE: " > " | " < " | " >= " | " <= "
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a task asks for, as far as its words give it away: forms that nothing asks for are not
    offered, and facts that are needed have to be declared.

    Attributes:
        kinds: of work, see `examples.kinds_of_work`.
        choices: lists of words of which one is chosen.
        decides: is something asked that is yes or no?
        lacks: may something be missing?
    """

    kinds: frozenset[str]
    choices: tuple[tuple[str, ...], ...] = ()
    decides: bool = False
    lacks: bool = False

    @staticmethod
    def read(task: str) -> Wanted:
        kinds = frozenset(kinds_of_work(task))
        choices = tuple(
            tuple(re.split(r", | or |, or ", found[1])) for found in _CHOICE.finditer(task)
        )
        return Wanted(
            kinds, choices, _DECIDES.search(task) is not None, _LACKS.search(task) is not None
        )

    def needed(self, brief: Brief) -> list[str]:
        """Grammars of the facts of a document that have to be declared."""
        if "marks" in self.kinds:
            return ["several"]
        found = [f'NEW " one of ({", ".join(words)})"' for words in self.choices]
        if self.decides and not self.choices:
            found.append('NEW " " ("yes/no" | options) (" (" HINT ")")?')
        if self.kinds & {"sum", "mean"} or any(bound.value != "1" for bound in brief.bounds):
            found.append('NEW " number" "?"? (" (" HINT ")")?')
        days = [name for own in brief.columns.values() for name in own if DAYLIKE.search(name)]
        found += [f'"{name} day" "?"?' for name in dict.fromkeys(days)]
        if self.lacks and not brief.several:
            found.append('NEW " " kind "?" (" (" HINT ")")?')
        return [*(found or ["fact"]), *(["several"] if brief.several else [])]


_CHOICE = re.compile(r"\(((?:[\w-]+, )*[\w-]+,? or [\w-]+)\)")
_DECIDES = re.compile(
    r"\bwhether\b|\bwhich (?:of )?|\b(?:who|that) (?:may|can|must)\b|\bstill \w+\b|\bnot yet\b"
    r"|\ball (?:the )?others?\b|\beach \w+ that is\b|\bto each (?!other)\w+\b",
    re.IGNORECASE,
)
_LACKS = re.compile(r"\bwithout an?\b|\bno \w|\b(?:that|which|who) (?:has|have)\b|\bif any\b")


def first_line(
    brief: Brief, wanted: Wanted, folders: tuple[str, ...], inputs: tuple[str, ...]
) -> str:
    """What each item is.

    Args:
        folders: those that items may lie in; `inputs` are files that hold them.
    """
    needed = wanted.needed(brief)
    marks = ' | "between " SIGNS " and " SIGNS | "after " SIGNS' if "marks" in wanted.kinds else ""
    sources = []
    for folder in folders:
        sources.append(f'"each document in \\"{folder}/\\": " facts')
        if wanted.kinds & {"move", "language", "text"}:
            sources.append(f'"each file in \\"{folder}/\\""')
    columns: list[str] = []
    for path in inputs:
        kind = {"csv": "row", "tsv": "row", "json": "object"}.get(path.rpartition(".")[2], "line")
        each = f'"each {kind} of \\"{path}\\""'
        if kind == "line":
            told = path in brief.lines
            sources.append(each if told else f'{each} (": " place (", " place){{0,6}})?')
            continue
        known = brief.columns.get(path, ())
        names = _any([f'"{name}"' for name in known]) if known else "NEW"
        rule = f"column{len(columns)}"
        columns.append(f'{rule}: ({names}) " " ("number" | "day" "?"?)')
        sources.append(f'{each} (": " {rule} (", " {rule}){{0,6}})?')
    lines = [
        'start: source "\\n"',
        f"source: {_any(sources)}",
        *columns,
        'place: NEW " word " PLACE',
        'facts: (fact ", "){0,6} ' + ' ", " '.join(needed),
        'fact: NEW " " kind "?"? (" (" HINT ")")?',
        'kind: "text" | "number" | "day" | "yes/no" | options',
        'options: "one of (" WORD (", " WORD){1,7} ")"',
        'several: "several " NEW " " ("text" | "(" fact (", " fact){1,5} ")"' + marks + ")",
    ]
    return "\n".join(lines) + _TERMINALS


def decision(outline: Outline) -> str:
    """A line that leaves items out or decides something of each, or the end of these."""
    texts = [name for name, fact in outline.facts.items() if fact.kind == TEXT and not fact.options]
    lines = [
        'start: line "\\n"',
        f'line: "only " where | NEW " = " (judged | split) | "{RESULTS}"',
        f'judged: options " from " ({_names(texts)}) ": " SAID',
        'options: "one of (" WORD (", " WORD){1,7} ")"',
        'split: "\\"" WORD "\\" if " where " else \\"" WORD "\\""',
        *_where(outline),
    ]
    return "\n".join(lines) + _TERMINALS


def clause(outline: Outline, wanted: Wanted, path: str) -> str:
    """What a file of the task is made of."""
    every, numbers = list(outline.facts), _of_kind(outline, NUMBER)
    kinds = wanted.kinds
    if path.endswith("/FILE"):
        forms = ['"copy" where1?', '"move" where1?'] if "move" in kinds else []
        if "text" in outline.facts and "move" not in kinds:
            forms.append('"text " SAID where1?')
        return _joined(outline, forms)
    name, is_table = f"({_names(every)})", path.endswith((".csv", ".tsv"))
    order = "order" in kinds
    tally = '"count"'
    if numbers:
        tally = f'("count" | ("sum" | "mean" | "smallest" | "largest") " of " ({_names(numbers)}))'
    most = f'{name} " with " ("most " | "least ") ({_names([*numbers, "items"])})'
    rules = [
        'table: "table " column (", " column){0,11} where1?' + (" sorted1?" if order else ""),
        f'column: {name} (" as " NEW)?',
        f'groups: "groups by " {name} (", " {name})? " with " NEW " " {tally}'
        f' (", " NEW " " {tally}){{0,3}} where1? (" having " NEW COMPARE NUMBER)?'
        + (" sorted2?" if order else ""),
        f'list: "list of " "each "? {name} where1?'
        + (" sorted1?" if order else "")
        + f' | "list of " {name} where1? " having " {tally} COMPARE NUMBER',
        f'sorted1: " sorted by " {name} " descending"?',
        'sorted2: " sorted by " NEW " descending"?',
    ]
    tallies = bool(kinds & {"sum", "count", "mean", "by each"})
    one = ["list", _TEXT]
    if is_table:
        one = ["table", "groups"] if tallies else ["table"]
    if placeholder(path):
        return _joined(outline, [f'"for each " {name} ": " ({_any(one)})'], rules)
    if is_table:
        return _joined(outline, one, rules)
    forms = ["list"]
    if not path.endswith(".md"):
        forms += [f"{tally} where1?"] if tallies else []
        forms += [f"{most} where1?"] if order else []
    if "text" in kinds or path.endswith(".md"):
        forms.append(_TEXT + ('(" if more than " PLACE)?' if "bound" in kinds else ""))
        having = '(" having count" COMPARE PLACE)?'
        forms.append(f'"for each " {name} ": text " SAID where1? {having}')
    if outline.source in ("document", "file"):
        forms.append(f'"list of " ("file" | "stem") (" without any" | " not among " {name})')
    for table, names in outline.tables.items():
        if "{" not in table:
            of = _any([f'"{one}"' for one in names])
            forms.append(f'"list of " ({of}) " in {table}" (" where " ({of}) COMPARE NUMBER)?')
    return _joined(outline, forms, rules)


_TEXT = '"text " SAID where1?'


def _joined(outline: Outline, forms: list[str], rules: list[str] | None = None) -> str:
    lines = ['start: clause "\\n"', f"clause: {_any(forms)}", *(rules or [])]
    lines += [*_where(outline), 'where1: " where " where']
    return "\n".join(lines) + _TERMINALS


def _where(outline: Outline) -> list[str]:
    tests = []
    truths, numbers, days = (_of_kind(outline, kind) for kind in (TRUTH, NUMBER, DAY))
    texts = [name for name, fact in outline.facts.items() if fact.kind == TEXT and not fact.options]
    doubtful = [name for name, fact in outline.facts.items() if fact.maybe]
    if outline.source in ("row", "object", "line"):
        doubtful += texts
    if truths:
        tests.append(f'"not "? ({_names(truths)})')
    if doubtful:
        tests.append(f'("has " | "no ") ({_names(doubtful)})')
    if numbers:
        tests.append(f"({_names(numbers)}) COMPARE NUMBER")
    if days:
        tests.append(f"({_names(days)}) COMPARE DAY")
    for name, fact in outline.facts.items():
        if fact.options:
            words = _any([f'"\\"{word}\\""' for word in fact.options])
            tests.append(f'"{name}" (" is " | " is not ") ({words})')
    if texts:
        tests.append(f'({_names(texts)}) (" is " | " is not " | " contains ") SAID')
    return ['where: test (" and " test){0,2}', f"test: {_any(tests)}"]


def _of_kind(outline: Outline, kind: str) -> list[str]:
    return [name for name, fact in outline.facts.items() if fact.kind == kind and not fact.options]


def _names(names: list[str]) -> str:
    return _any([f'"{name}"' for name in names])


def _any(forms: list[str]) -> str:
    return " | ".join(forms)
