"""The columns of tables, as a task tells them: after the file's name in parentheses, behind a colon
or "has", as "columns a, b and c", or before it as "write a, b and c to x.csv".

Names come with all sorts of remarks ("price (for one seat)", "month, like 2026-03", "discount in
percent"): the first word of each part is the name, and a list of them ends where a part is no name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TABLES = r"csv|tsv|jsonl|json"
TABLE = re.compile(rf"(?<![\w/.*-])[\w*-]+(?:/[\w*-]+)*\.(?:{_TABLES})\b")
_FOLDER = re.compile(r"(?<![\w/.-])[\w-]+(?:/[\w-]+)*/(?:\*(?:\.\w+)?)?(?![\w*])")
_NAME = re.compile(r"[`\"']?(?P<name>[A-Za-z_][\w-]*)[`\"']?")
# What may stand behind a name in its part of a list.
_REMARK = re.compile(
    r"(?: (?:in|into|to|go|goes|belong|per|as|like|of|for|with|written|counted|rounded|from|less|is"
    r"|are|–|-)\b.*|\s*[–:=-] .*)?"
)
_LEAD = re.compile(
    r"^.{0,60}?\b(?:columns?|fields?|keys?|header|objects? (?:with|of)|with|holding)(?: the)?"
    r"(?: columns?| fields?| keys?)?:? "
)
_FILL = (
    "which|that|and|also|each|both|in|where|whose|is|to be|a|the|JSON|CSV|list|of|one|objects?|per"
    "|lines?|as|on|by|every|rows?|tables?|files?|shall|should|now|then"
)
_OPENING = (
    "has|have|hold|holds|holding|contains?|keeps?|says?|gives?|gets?|lists?|with|for|we keep|tell"
    "|there (?:is|are)|columns?|fields?|keys?|are|is"
)
_OPENED = re.compile(
    rf"^(?:,? (?:{_FILL}|{_OPENING})\b)*,? (?:{_OPENING})\b(?: the)?"
    r"(?: columns?| fields?| keys?)?:?(?: (?:our|the|all) [\w ]{1,30}:)? "
)
_COLON = re.compile(r"^:\s+(?:columns? )?")
_COMMA = re.compile(r"^, ")
_AFTER = "a an the each every one sorted ordered beginning in of from to with as for by"
_ENDS = frozenset(_AFTER.split())
_LITTLE = (
    "all its their this these which whose where how that there if are is on two three four five no"
    " not only just also and or must should matter very same our my your his her it they we you i"
)
_NO_NAMES = _ENDS | frozenset(_LITTLE.split())
_AND = re.compile(r",? and |,\s*")
_END = re.compile(r"[.;:!?](?:\s|$)|\n|[)\]]")
_VERB = re.compile(
    r"\b(?:write|put|note|list|save|want|give(?: me| us)?|need|record|collect|enter|show) ",
    re.IGNORECASE,
)
_GOING = re.compile(r",? (?:(?:go(?:es)?|belongs?) )?(?:in|into|to|for)$")
_NAMED = re.compile(r"\b(?:columns?|fields?|keys?)(?: are)?:? ", re.IGNORECASE)
_AS_COLUMNS = re.compile(r"\(([^()]*) as columns\b")
_SENTENCE = re.compile(r"(?<=[.;!?])\s+(?=[A-Z])")


def read_columns(task: str) -> dict[str, tuple[str, ...]]:
    """Columns by file; those of all tables in a folder under ``folder/*``."""
    found: dict[str, tuple[str, ...]] = {}
    for path, names in _found(task):
        if path and names and path not in found:
            found[path] = names
    return found


def _found(task: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for sentence in _SENTENCE.split(task):
        yield from _by_word(sentence)
    tables = list(TABLE.finditer(task))
    starts = {table.start() for table in tables}
    folders = [one for one in _FOLDER.finditer(task) if one.start() not in starts]
    places = sorted([*tables, *folders], key=lambda one: one.start())
    ends = [*(one.start() for one in places[1:]), len(task)][: len(places)]
    for place, end in zip(places, ends, strict=True):
        behind = task[place.end() : end]
        if place.re is TABLE:
            yield place.group(), _behind(behind, (_COLON, _OPENED)) or _in_brackets(behind)
        else:
            folder = place.group().split("/*")[0].rstrip("/")
            yield f"{folder}/*", _behind(behind, (_OPENED,)) or _in_brackets(behind, led=True)
    before = [0, *(table.end() for table in tables[:-1])]
    ends = [*(table.start() for table in tables[1:]), len(task)]
    for start, table, end in zip(before, tables, ends, strict=False):
        yield table.group(), _before(task[start : table.start()])
        yield table.group(), _behind(task[table.end() : end], (_COMMA,))
        said = _AS_COLUMNS.search(task, table.end(), end)
        yield table.group(), _names(said[1], named=True) if said else ()


def _in_brackets(behind: str, *, led: bool = False) -> tuple[str, ...]:
    """``x.csv (a, b, c)``, ``x.json, a list of objects (a, b)``.

    Args:
        led: must they begin with a word such as "columns"?
    """
    opened = re.match(r"[^.;()\[\]]{0,60}?[(\[]([^()\[\]]*(?:\([^()]*\)[^()\[\]]*)*)[)\]]", behind)
    if opened is None:
        return ()
    inside = _without_brackets(opened[1].split(";")[0])
    lead = _LEAD.match(inside)
    if lead is not None:
        return _names(inside[lead.end() :], named=True)
    names = _names(inside)
    whole = len(names) == len(_AND.split(inside)) > 1
    return names if whole and not led else ()


def _behind(behind: str, openings: tuple[re.Pattern[str], ...]) -> tuple[str, ...]:
    """``x.csv has a, b and c``, ``x.csv: a, b``, ``x.csv with a and b``."""
    for opening in openings:
        opened = opening.match(behind)
        if opened is not None:
            names = _names(_END.split(_without_brackets(behind[opened.end() :]))[0])
            if len(names) > 1:
                return names
    return ()


def _by_word(sentence: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """``... columns a, b and c``, of the table before it, or else the next one; of two tables where
    it says "both" or "each"."""
    tables = list(TABLE.finditer(sentence))
    for word in _NAMED.finditer(sentence):
        before = [one.group() for one in tables if one.end() <= word.start()]
        behind = [one.group() for one in tables if one.start() >= word.end()]
        names = _names(_END.split(_without_brackets(sentence[word.end() :]))[0], named=True)
        yield (before[-1:] or behind[:1] or [""])[0], names
        if re.search(r"\b(?:both|each)\b[\w ,]{0,16}$", sentence[: word.start()]):
            yield from ((path, names) for path in before[-2:-1])


def _before(text: str) -> tuple[str, ...]:
    """``write a, b and c of each of them to x.csv``: names, then where they go."""
    going = _GOING.search(text.rstrip())
    if going is None:
        return ()
    part = re.split(r"[.;:!?]\s|\n", _without_brackets(text[: going.start()]))[-1]
    verb = _VERB.search(part)
    part = part[verb.end() :] if verb else part
    part = _WHETHER.sub("", re.sub(r",? (?:of|for|from) .*$", "", part))
    names = _names(part)
    return names if len(names) == len(_AND.split(part)) > 1 else ()


_WHETHER = re.compile(r"\bwhether (?:it|they|he|she) (?:is|are|was|were) (?=\w+$)")
_ASIDE = re.compile(r"(?:written|spelt|given|as in|such as|like|in the form)\b", re.IGNORECASE)


def _names(text: str, *, named: bool = False) -> tuple[str, ...]:
    """The names that a list begins with; any words at all where they are `named` so."""
    made: list[str] = []
    for part in _AND.split(text):
        if made and _ASIDE.match(part.strip()):
            continue
        bare = re.sub(r"^the ", "", part.strip()) if named else part.strip()
        name = _NAME.match(bare)
        if name is None or name["name"].casefold() in (_ENDS if named else _NO_NAMES):
            break
        remark = bare[name.end() :]
        if _REMARK.fullmatch(remark) is None or (remark and bare != part.strip()):
            break
        made.append(name["name"])
    return tuple(dict.fromkeys(made))


def _without_brackets(text: str) -> str:
    """Without what stands in closed ones."""
    return re.sub(r" ?\([^()]*\)", "", text)
