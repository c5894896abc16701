"""What a task wants written, read from its words by code: the files in their order, and of each the
columns, whether its rows are counted or summed, in which order they stand, and what they are
compared with.

A model then needs to say only what the words do not give away.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace

from edvac.compiler.brief import (
    CHOICE,
    LONGEST,
    Brief,
    bounds_in,
    choices_in,
    is_day,
    placeholder,
    read_brief,
)
from edvac.compiler.examples import kinds_of_work, library

# A folder that is written to: "into x/", "x/NAME/", "in x/ under the same name".
_INTO = re.compile(
    r"(?:\b(?:into|to|as) (?:the folder )?|\b(?=[\w/-]*[A-Z]{3,}/))((?:[\w-]+/)+)(?![\w*])"
    r"|(?<=\bin )((?:[\w-]+/)+)(?= under)"
)
_TALLIED = re.compile(
    r"(?<!row )\bper (?!line\b)\w+|\b(?:for|of|by|in) (?:each|every) (?!of\b|\w+ in [\w-]+/)"
    r"|\bcount|\bhow (?:many|often)\b|\bnumber of\b|\bsums?\b|\badd(?:s|ed)? up\b"
    r"|\btotals?\b(?! of)|\baltogether\b|\bmeans?\b|\baverage\b",
    re.IGNORECASE,
)
_TALLY_TOLD = re.compile(r"\bnumber of\b|\bhow (?:many|often)\b|\bsum of\b|\bmean of\b")
_FALLING = re.compile(
    r"\b(?:high|larg|bigg|new|lat|long|strong|thick|old)est\b|\bmost\b|\bbest\b|descending",
    re.IGNORECASE,
)
_RISING = re.compile(
    r"\b(?:low|small|earli|soon|short|cheap|near)est\b|\bleast\b|alphabetical|ascending"
    r"|\bfirst\b|\bsorted\b",
    re.IGNORECASE,
)
_ALPHABETICAL = re.compile(r"alphabetical|\bsorted\b|\bin order\b")
_DISTINCT = re.compile(r"\b(?:each|every)(?: \w+)? once\b")
_FILTER = re.compile(
    r"\b(?:who|that|which|whose|only|without|ones)\b|\bwith (?!the columns?\b|all\b)"
    r"|\b[Tt]o each (?!other)"
)
_COUNTED = re.compile(
    r"\bonce\b|\bsingle\b|\bmore than (?:one|two|three)\b|\bseveral\b|\bonly one\b|\btwice\b",
    re.IGNORECASE,
)
_PROSE = re.compile(
    r"\b(?:summar|repl(?:y|ies)|letter|report|describ|explain|answer|paragraph|invit|text|note\b"
    r"|about)",
    re.IGNORECASE,
)
_WRITTEN = re.compile(r"\b(\w+) \(((?:the|a|an|its|in|by|when|who|how)\b[^()]*)\)")
_GROUPED = re.compile(r"\b(\w+) \((?:under|over|above|below|from|up to|\d)[^()]*\)")
_UNFIT = re.compile(
    r"\b(?:count|how many|number of) (?:the )?(?:words|characters|letters)\b"
    r"|\bhow many lines does\b",
    re.IGNORECASE,
)
_AND_WHETHER = re.compile(
    r"\b[Ww]rite ([\w, -]+?),? and whether [\w ]*?(\w+)(?: (?:for|of|to)\b|,|$)"
)
_BY_SIGN = re.compile(r"\bthe word [A-Z]{3,}\b|\bnames? (?:starts?|begins?|ends?)\b")
_VALUES = {
    "mean": r"\baverage\b|\bmean\b",
    "count": r"\bhow many\b|\bnumber of\b|\bcount\b",
    "sum": r"\bsum\b|\badd(?:s|ed)? up\b|\btotal\b|\baltogether\b",
}
_MOST = re.compile(r"\b(?:most|least)\b|\b(?!great|inter|for|lat)\w{3,}est\b", re.IGNORECASE)
_EACH = re.compile(
    r"\b(?:for )?(?:each|every) \w+ (?:with|that|of|a\b|write)|\bfor (?:each|every)\b",
    re.IGNORECASE,
)
_LACKING = re.compile(
    r"\bwithout (?:any|an?)\b|\b(?:that|which) no other\b|\b(?:hold|have|has|contain)s? no\b"
)
_OTHERS = re.compile(r"\ball (?:the )?other|\bthe (?:others|rest)\b", re.IGNORECASE)
_NEXT = re.compile(r",? and (?:write|put|list|note|count|for|the|of|those)\b|, and |; ")
_EITHER = re.compile(r"\b(?P<words>(?:[a-z]+, )+[a-z]+,? or [a-z]+|[a-z]+ or [a-z]+)\b")
_NO_CHOICE = frozenset({"a", "an", "the", "more", "fewer", "less", "later", "earlier", "not", "no"})
_DECIDES = re.compile(
    r"\bwhether\b|\bwhich (?:of )?|\b(?:who|that) (?:may|can|must)\b|\bstill \w+\b|\bnot yet\b"
    r"|\ball (?:the )?others?\b|\beach \w+ that is\b|\bto each (?!other)\w+\b",
    re.IGNORECASE,
)
_LACKS = re.compile(
    r"\bwithout an?\b|\bno \w|\b(?:that|which|who) (?:has|have)\b|\bif any\b|\bhas an?\b"
)
_PLACED = re.compile(r"\b(\w+) \(the (first|second|third|fourth|fifth|sixth|seventh) word\)")
_PLURAL = re.compile(r"\b([a-z]+s) (?:of (?:all|every|each)|that the)\b")
_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
_SENTENCE = re.compile(r"(?<=[.;:!?])\s+(?=[A-Z])")
_WORD = re.compile(r"[a-z]{2,}")
_LITTLE = (
    "an am been being be but by did do does done each ever few had if just many may me might much "
    "must my not off only or our own per same so still such then there too up us very was we were "
    "will would yet you your first last next all any both every find give keep make say take tell"
)
MOST_UNREAD = 0.1  # of a task's words
ABOUT_FILES = frozenset({"file", "stem"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file, or one for each item (``x/FILE``) or name.

    Attributes:
        columns: of a table; empty where the task does not say them.
        tallied: do its words speak of counts, sums or means?
        order: rising or falling; empty where nothing is said.
        bound: what something is compared with; empty where nothing is.
        value: sum, mean or count, where it is one number; empty where nothing is said.
        most: is it who or what has most or least of something?
        each: is there a part of it for each name? `lacking`: what lacks something? `others`: what
            the file before it leaves? `distinct`: each once? `filtered`: only some of the items?
            `counted`: by how many there are? `prose`: is it written by a model?
        said, behind: what the task says before the file's name, and after it.
    """

    path: str
    columns: tuple[str, ...] = ()
    tallied: bool = False
    order: str = ""
    bound: str = ""
    value: str = ""
    most: bool = False
    each: bool = False
    lacking: bool = False
    others: bool = False
    distinct: bool = False
    filtered: bool = False
    counted: bool = False
    prose: bool = False
    said: str = ""
    behind: str = ""

    @property
    def is_table(self) -> bool:
        return self.path.endswith((".csv", ".tsv"))


@dataclass(frozen=True, slots=True)
class Reading:
    """A task as far as its words give it away.

    Attributes:
        folders, inputs: where items may come from.
        choices: by name, words of which one is chosen; the name is empty where none is said.
        decides: is something asked that is yes or no? `lacks`: may something be missing?
        places: which word of a line is what.
        plural: what each of the items has several of: "the ingredients of all recipes".
        words, numbers, days: that stand in it.
        grouped: words that stand for a range of numbers: "young (under 30)".
        quoted: words that may stand in the data as they are.
        decided: columns that answer what is yes or no.
        dated: names that it says to be days; `sign`: how something is marked in the texts.
        by_sign: are documents told apart by a word or name, so that no model has to read them?
        unfit: does it ask for something that no outline says?
        names: does it ask for the names of what the documents are about?
    """

    task: str
    brief: Brief
    kinds: frozenset[str]
    results: tuple[Wanted, ...]
    folders: tuple[str, ...]
    inputs: tuple[str, ...]
    choices: tuple[tuple[str, tuple[str, ...]], ...]
    decides: bool
    lacks: bool
    places: tuple[tuple[str, int], ...]
    plural: frozenset[str]
    words: tuple[str, ...]
    numbers: tuple[str, ...]
    days: tuple[str, ...]
    dated: frozenset[str]
    grouped: tuple[str, ...]
    quoted: tuple[str, ...]
    decided: frozenset[str]
    sign: str
    by_sign: bool
    unfit: bool
    names: bool

    @property
    def fits(self) -> bool:
        """Does it say from what which files are made, in words that are understood?"""
        said = bool(self.results and (self.folders or self.inputs))
        return said and not self.unfit and self.unread <= MOST_UNREAD

    @property
    def unread(self) -> float:
        """The share of its words that neither name something in it nor occur in an example: where
        much is said in another way, the rest may be misread."""
        brief = self.brief
        names = [*self.folders, *self.inputs, *brief.marks, *(one.path for one in self.results)]
        for own in (*brief.columns.values(), *(one.words for one in brief.lines.values())):
            names += own
        for name, options in self.choices:
            names += [name, *options]
        known = {word.rstrip("s") for name in names for word in _WORD.findall(name.lower())}
        known |= _vocabulary()
        words = _WORD.findall(self.task.lower())
        unknown = {word for word in words if word.rstrip("s") not in known}
        return len(unknown) / max(1, len(words))

    def required(self) -> tuple[str, ...]:
        """Facts of a document that tables want by name."""
        names: list[str] = []
        for one in self.results:
            names += one.columns[:1] if one.tallied else one.columns
        names += self.brief.facts
        names += ["name"] if self.names else []
        return tuple(name for name in dict.fromkeys(names) if name not in ABOUT_FILES)

    @property
    def reckons(self) -> bool:
        """Are numbers added up or compared?"""
        bounds = any(bound.value != "1" for bound in self.brief.bounds)
        return bounds or bool(self.kinds & {"sum", "mean"})

    def undecided(self, known: frozenset[str]) -> tuple[str, ...]:
        """Columns of tables that the rows do not have and that are no tallies."""
        return tuple(name for name in self.required() if name not in known)


@functools.cache
def _vocabulary() -> frozenset[str]:
    """Words, without the s of a plural, of the examples' tasks, and those that say little."""
    said = " ".join(example.task.lower() for example in library())
    return frozenset(word.rstrip("s") for word in [*_WORD.findall(said), *_LITTLE.split()])


def read_task(task: str) -> Reading:
    """Read its first part, as `read_brief` does."""
    task = task[:LONGEST]
    brief = read_brief(task)
    written = {_folder(into): into.start() for into in _INTO.finditer(task)}
    folders = tuple(name for name in brief.folders if name not in written)
    inputs = brief.inputs
    if not folders and not inputs:
        named = [name for name in brief.files if not placeholder(name)]
        inputs = tuple([name for name in named if name in brief.columns][:1] or named[:1])
    found = {
        task.find(name): _file(name, task, brief) for name in brief.files if name not in inputs
    }
    for folder, at in written.items():
        found[at] = replace(_file(f"{folder}/", task, brief), path=f"{folder}/FILE")
    results = _with_columns([found[at] for at in sorted(found)])
    choices = choices_in(task)
    bare = CHOICE.sub("", task)
    choices += [("", _words(one["words"])) for one in _EITHER.finditer(bare)]
    choices = [(name, words) for name, words in choices if not _NO_CHOICE & set(words)]
    places = tuple((name, _PLACES.index(place) + 1) for name, place in _PLACED.findall(task))
    described = {name for name, told in _WRITTEN.findall(task) if is_day(told)}
    return Reading(
        task,
        brief,
        frozenset(kinds_of_work(task)),
        results,
        folders,
        inputs,
        tuple(choices),
        _DECIDES.search(task) is not None,
        _LACKS.search(task) is not None,
        places,
        frozenset(_PLURAL.findall(task)),
        _own_words(task, brief),
        tuple(dict.fromkeys([*(bound.value for bound in brief.bounds if "-" not in bound.value)])),
        tuple(dict.fromkeys(re.findall(r"\b\d{4}-\d\d-\d\d\b", task))),
        frozenset(described),
        tuple(dict.fromkeys(_GROUPED.findall(task))),
        tuple(dict.fromkeys([*brief.marks, *re.findall(r"[\"“']([\w -]{2,30})[\"”']", task)])),
        frozenset(
            name
            for own in [*brief.columns.values(), *(one.columns for one in results)]
            for name in own
            if re.search(rf"\b(?:whether|may|can|must)\b[^.,]*\b{re.escape(name)}", task)
        ),
        _sign(task),
        _BY_SIGN.search(task) is not None,
        _UNFIT.search(task) is not None,
        re.search(r"\b[Tt]heir names\b", task) is not None,
    )


def _own_words(task: str, brief: Brief) -> tuple[str, ...]:
    """Words that could be what something is one of."""
    grouped = tuple(dict.fromkeys(_GROUPED.findall(task)))
    if len(grouped) > 1:
        return grouped
    taken = {name for own in brief.columns.values() for name in own} | _NO_CHOICE
    words = re.findall(r"\b[a-z]{3,20}\b", task)
    return tuple(dict.fromkeys(word for word in words if word not in taken))


def _sign(task: str) -> str:
    """How the task says that something is marked in a text, as an outline says it."""
    if re.search(r"\[\[\w+\]\]", task):
        return 'between "[[" and "]]"'
    found = re.search(r"(?<!\w)([@#])\w+", task)
    return f'after "{found[1]}"' if found else ""


def _with_columns(results: list[Wanted]) -> tuple[Wanted, ...]:
    """A table whose columns are not said has those of the one before it: "vendor and total of the
    paid ones to paid.csv and of the open ones to open.csv"."""
    made: list[Wanted] = []
    for one in results:
        before = made[-1] if made else None
        if one.is_table and not one.columns and before and before.is_table and not one.tallied:
            one = replace(one, columns=before.columns)
        made.append(one)
    return tuple(made)


def _file(name: str, task: str, brief: Brief) -> Wanted:
    before, behind = _said(name, task, brief)
    order = ""
    if _FALLING.search(behind):
        order = "falling"
    elif _RISING.search(behind) or _ALPHABETICAL.search(before):
        order = "rising"
    bounds = [bound.value for bound in brief.bounds if bound.file == name]
    bounds = bounds or bounds_in(before)
    tallied = _TALLIED.search(before) is not None or _TALLY_TOLD.search(behind) is not None
    columns = brief.columns.get(name, ()) or _and_whether(before)
    tallied = tallied or bool({*brief.folders} & {*columns[1:]})  # how many of the documents
    values = [how for how, cue in _VALUES.items() if re.search(cue, before, re.IGNORECASE)]
    return Wanted(
        name,
        columns,
        tallied,
        order,
        bounds[0] if bounds else "",
        values[0] if values else "",
        _MOST.search(before) is not None,
        _EACH.search(before) is not None,
        _LACKING.search(before) is not None,
        _OTHERS.search(before) is not None or re.search(r"\bthe other\b", before) is not None,
        _DISTINCT.search(before) is not None,
        _FILTER.search(f"{_bare(before)} {_bare(behind)}") is not None
        or any(mark.lower() in before.lower() for mark in brief.marks if f"/{mark}" not in task),
        _COUNTED.search(before) is not None,
        _PROSE.search(before) is not None or not re.search(r"\b(?:list|name)", before.lower()),
        _bare(before),
        _bare(behind),
    )


def _and_whether(said: str) -> tuple[str, ...]:
    """ "Write sender, topic and whether it is urgent": columns, of which the last is yes or no."""
    found = _AND_WHETHER.search(_bare(said))
    if found is None:
        return ()
    names = re.split(r", | and ", found[1])
    return (*names, found[2]) if all(re.fullmatch(r"[a-z_]+", name) for name in names) else ()


def _bare(text: str) -> str:
    return re.sub(r" ?\([^()]*\)", "", text)


def _said(name: str, task: str, brief: Brief) -> tuple[str, str]:
    """What the task says for a file: before its name and since what belongs to the file before it,
    and behind it."""
    outputs = [other for other in brief.files if other not in brief.inputs]
    sentence = next(one for one in _SENTENCE.split(task) if name in one)
    if len(outputs) == 1:
        sentence = task
    at = sentence.find(name)
    others = [other for other in brief.files if other in sentence and other not in brief.inputs]
    places = sorted(sentence.find(other) for other in others)
    earlier = [place for place in places if place < at]
    later = [place for place in places if place > at]
    start = 0
    if earlier:
        cut = _NEXT.search(sentence, earlier[-1], at)
        start = cut.start() if cut else earlier[-1] + 1
    cut = _NEXT.search(sentence, at)
    end = min(cut.start() if cut else len(sentence), later[0] if later else len(sentence))
    return sentence[start:at], sentence[at + len(name) : max(end, at + len(name))]


def _folder(into: re.Match[str]) -> str:
    return (into[1] or into[2]).rstrip("/")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in re.split(r",? or |, ", text))
