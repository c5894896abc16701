"""A task for several results, taken apart into a smaller task for each of them.

A small model that writes a program for three files often goes wrong before the second; for each of
them alone it mostly does not. So the sentences of a task are given to the results that they speak
of: what stands before all results, or says what the task starts from, belongs to each of them.
What takes up something that was said of another result ("the others", or a column that is worked
out for it) stays with that one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edvac.compiler.brief import LONGEST, Brief, choices_in, read_brief

IsThere = Callable[[str], bool]

_SPLIT = re.compile(
    r"(?<=[.;!?])\s+(?:\d{1,2}[.)]\s+)?|(?:(?<=:)\s+|\s+(?=[2-9]\. ))\d{1,2}[.)]\s+"
    r"|\s+\*\s+|(?<=:)\s+-\s+|\s*\n\s*(?:-\s+)?"
    r"|, and (?=(?:write|put|list|the|of|for|to|give|copy|move|also)\b)"
)
_WITHOUT_VERB = re.compile(r"(?:the|of|for) .*\b(?:to|into) [\w/-]+\.\w+")  # it stands before
_TAKES_UP = re.compile(
    r"\b(?:they|them|those|these|such|others?|ones|instead|rest|latter)\b", re.IGNORECASE
)
_DEFINES = re.compile(r"\bwhere (?P<what>(?P<name>\w+) is (?:the )?[^,.;:]+)")
_LEADS_OUT = re.compile(r"\b(?:into|to|as|under|go in|goes in|put in|saved? in)\s+$", re.IGNORECASE)
_SENTENCE_ENDS = (".", "!", "?", ":")


@dataclass(frozen=True, slots=True)
class _Part:
    text: str
    results: tuple[str, ...]  # files and folders that it says are to be made
    names_source: bool


@dataclass(frozen=True, slots=True)
class _Source:
    """What the task starts from: files, and folders with their slash; and what is in a folder."""

    names: tuple[str, ...]
    noun: str = ""


@dataclass(slots=True)
class _Group:
    """Parts about results that belong together, by their places in the task."""

    parts: dict[int, _Part] = field(default_factory=dict)

    @property
    def results(self) -> list[str]:
        return [name for part in self.parts.values() for name in part.results]


@dataclass(frozen=True, slots=True)
class Smaller:
    """
    Attributes:
        alone: the task for one result, with all that it has to know.
        so_far: the whole task up to this result.
    """

    alone: str
    so_far: str


def smaller(task: str, is_there: IsThere | None = None) -> list[Smaller]:
    """A task for each result, in the order in which the whole one speaks of them; the whole one
    alone where it cannot be taken apart.

    Args:
        is_there: do files match a pattern? A folder that holds something is not to be made.
    """
    brief = read_brief(task)
    source = _source(task, brief, is_there)
    groups: list[_Group] = []
    common: list[str] = []
    for place, text in enumerate(_texts(task)):
        part = _part(text, brief, source)
        if not part.results:
            if part.names_source or not groups:
                common += [] if text.endswith(":") and not part.names_source else [text]
            else:
                groups[-1].parts[place] = part
            continue
        group = _taken_up(part, groups, brief, source)
        if group is None:
            group = _Group()
            groups.append(group)
        group.parts[place] = part
    if len(groups) < 2:
        return [Smaller(task, task)]
    known = " ".join(map(_sentence, common))
    so_far = [_told(groups[: n + 1], known, task, brief, source) for n in range(len(groups))]
    return [
        Smaller(_told([group], known, task, brief, source), said)
        for group, said in zip(groups, so_far, strict=True)
    ]


def _texts(task: str) -> Iterator[str]:
    """The parts of a task: sentences, points of a list, and what stands behind ", and"."""
    end = 0
    for found in [*_SPLIT.finditer(task[:LONGEST]), None]:
        text = " ".join(task[end : found.start() if found else LONGEST].split()).strip(" -*")
        within = task[:end].endswith(", and ") and _WITHOUT_VERB.match(text) is not None
        end = found.end() if found else end
        if re.search(r"[A-Za-z]{2}", text):
            yield f"Write {text}" if within else text


def _source(task: str, brief: Brief, is_there: IsThere | None) -> _Source:
    folders = []
    for number, folder in enumerate(brief.folders):
        if is_there is not None:
            given = is_there(f"{folder}/*")
        else:
            before = task[: task.find(f"{folder}/")]
            given = number == 0 and _LEADS_OUT.search(before) is None
        folders += [f"{folder}/"] if given else []
    noun = ""
    if len(folders) == 1 and not brief.inputs:
        said = re.search(
            rf"\b(?:the|of|every|each|all|any|our|which) (\w+) (?:in|from|of) {folders[0]}",
            task,
            re.IGNORECASE,
        )
        own = folders[0].rstrip("/").rpartition("/")[2]
        noun = f"{said[1].rstrip('s')}s" if said else own if own.endswith("s") else "files"
    return _Source((*brief.inputs, *folders), noun)


def _part(text: str, brief: Brief, source: _Source) -> _Part:
    bare = text
    for name in brief.files:
        bare = bare.replace(name, "")
    made = [f"{name}/" for name in brief.folders if f"{name}/" not in source.names]
    results = [name for name in brief.results if _names(name, text)]
    results += [name for name in made if _names(name, bare)]
    return _Part(text, tuple(results), any(_names(name, text) for name in source.names))


def _names(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w/.-]){re.escape(name)}", text) is not None


def _taken_up(part: _Part, groups: list[_Group], brief: Brief, source: _Source) -> _Group | None:
    """The group that says what the part speaks of, if one does."""
    text = part.text.replace("ones", source.noun) if source.noun else part.text
    if groups and _TAKES_UP.search(text):
        return groups[-1]
    given = {name for path in brief.inputs for name in brief.columns.get(path, ())}
    defined = {found["name"] for found in _DEFINES.finditer(text)}
    for group in groups if brief.inputs else ():
        made = {name for path in group.results for name in brief.columns.get(path, ())}
        for name in made - given - defined:
            if re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE):
                return group
    return None


def _told(groups: list[_Group], known: str, task: str, brief: Brief, source: _Source) -> str:
    """The task for some groups of results, with all that it has to know."""
    parts = sorted((place, one.text) for group in groups for place, one in group.parts.items())
    own = " ".join(_sentence(text) for _, text in parts)
    if source.noun:
        own = re.sub(r"\bones\b", source.noun, own)
    told = f"{known} {own}".strip()
    more = [
        f"The {name} is {', '.join(words[:-1])} or {words[-1]}."
        for name, words in choices_in(task)
        if re.search(rf"\b{name}s?\b", told) and f"{name} (" not in told
    ]
    more += [
        f"{found['what']}."
        for found in _DEFINES.finditer(task)
        if re.search(rf"\b{found['name']}\b", told) and found["what"] not in told
    ]
    if not any(_names(name, told) for name in source.names):
        more = [*(_begins(name, brief, source) for name in source.names), *more]
    return " ".join([*map(_sentence, more), told])


def _begins(name: str, brief: Brief, source: _Source) -> str:
    if name.endswith("/"):
        return f"Look at the {source.noun or 'files'} in {name}."
    columns = brief.columns.get(name)
    return f"{name} has the columns {', '.join(columns)}." if columns else f"Read {name}."


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a name, and a full stop."""
    text = text.rstrip(" ;,")
    first = text.split(" ")[0]
    text = text if set(first) & set("./") else text[0].upper() + text[1:]
    return text if text.endswith(_SENTENCE_ENDS) else f"{text}."
