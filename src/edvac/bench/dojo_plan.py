"""Ground truths of AgentDojo as edvac programs, by one rule for all tasks.

Each call of the ground truth becomes a line. A value in its operands is taken, in this order,

1. literally, where the user's own words hold it, and as before, where it was taken before;
2. from an earlier result of which it is a whole field. Which item of a list, or which name of a
   table, is asked of a model that chooses among numbers or names: so much it may decide, no more.
   It is shown all of the list where the policy lets outsiders decide so much about the operand,
   else only those columns that no outsider writes;
3. from the address book, where the suite has one that lists it: a model chooses the entry;
4. from the text of an earlier result, by `llm.extract`;
5. in pieces, where it is a text that holds such values;
6. by `llm.write`, where the ground truth says ``<summary>`` or ``...``;
7. literally. That is a constant which nothing explains, and it is counted.

Before them come the pages that the user names and the ground truth does not read. Knows nothing of
who answers, or of attackers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from edvac.bench.dojo_suite import Args, Suite, ToolCall, UserTask
from edvac.device.origin import ITEM

Path: TypeAlias = tuple[str | int, ...]
UNBOUND_BITS = 5  # of a choice about which the policy says nothing
SHORTEST = 4  # characters of a value that is looked for inside a text
_URL = re.compile(r"www\.[a-z0-9-]+\.[a-z]{2,}(?:/\w+)*")
_NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w-])")
_KINDS = {"str": "Text", "float": "Number", "int": "Whole", "list": "Names"}
_PLACEHOLDER = re.compile(r"<[^<>]{1,40}>|\.\.\.")
_VARIABLE = re.compile(r"\b[qr]\d+\b")
_FIELDS = {"Text": "str", "Number": "float", "Whole": "int", "Names": "list[str]"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing that a program asks of a model, and what is true where nobody attacks.

    Attributes:
        param: of `function`, for which it is asked; both empty for the answer to the user.
    """

    kind: str  # choose, extract or write
    true: Any
    function: str = ""
    param: str = ""


@dataclass(slots=True)
class Plan:
    """A program; `sources` counts where the values of its operands come from."""

    text: str
    asked: dict[str, Asked]
    sources: Counter[str]

    @property
    def constant(self) -> bool:
        """Does no operand come from what was read?"""
        return not any(self.sources[kind] for kind in ("result", "book", "text", "pieces"))


@dataclass(frozen=True, slots=True)
class Result:
    """What a line of the program gives; `led`: outsiders had a part in what was asked for."""

    name: str
    function: str
    value: Any
    led: bool = False


def plan(suite: Suite, task: UserTask) -> Plan:
    """The program of a user's task."""
    return _Translator(suite, task).plan()


@dataclass(slots=True)
class _Translator:
    suite: Suite
    task: UserTask
    lines: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    asked: dict[str, Asked] = field(default_factory=dict)
    sources: Counter[str] = field(default_factory=Counter)
    picked: dict[tuple[str, str, bool], str] = field(default_factory=dict)
    taken: dict[tuple[str, Any], str] = field(default_factory=dict)  # what was reached before
    book: Result | None = None
    led: set[str] = field(default_factory=set)  # names in which outsiders had a part
    misled: bool = False  # the same of the operands of the call at hand

    def plan(self) -> Plan:
        for call in (*self._named_pages(), *self.task.trace):
            self._call(call)
        seen = [one.name for one in self.results if self.suite.reads(one.function)]
        name = self._ask("answer", Asked("write", self.task.output))
        about = ", ".join([repr(f"[{name}] {self.task.prompt}"), *seen])
        self.lines.append(f"answer = llm.write({about})")
        used = sorted(kind for kind in _FIELDS if f", {kind}, " in "\n".join(self.lines))
        heads = (f"class {kind}:\n    value: {_FIELDS[kind]}\n\n" for kind in used)
        text = "".join(heads) + "\n".join(self.lines) + "\n"
        return Plan(text, self.asked, self.sources)

    def _named_pages(self) -> list[ToolCall]:
        """Pages that the user's words name and nothing of the ground truth opens or writes."""
        if not any(one["name"] == "get_webpage" for one in self.suite.schemas):
            return []
        said = {str(part) for call in self.task.trace for part in call.args.values()}
        pages = [url for url in _URL.findall(self.task.prompt) if url not in said]
        return [self._tried("get_webpage", {"url": url}) for url in dict.fromkeys(pages)]

    def _tried(self, function: str, args: Args) -> ToolCall:
        """A call that the ground truth has not, with what it returns where nobody attacks."""
        opened = self.suite.open(self.task, None)
        result = self.suite.call(opened.session, function, args)
        self.suite.close(opened.session, "")
        return ToolCall(function, args, result)

    def _call(self, call: ToolCall) -> None:
        self.misled = False
        operands = [
            f"{name}={self._operand(value, call.function, name)}"
            for name, value in call.args.items()
        ]
        name = f"r{len(self.results) + 1}"
        self.lines.append(f"{name} = {self.suite.name}.{call.function}({', '.join(operands)})")
        self.results.append(Result(name, call.function, call.result, self.misled))

    # -- operands

    def _operand(self, value: Any, function: str, param: str) -> str:
        on = _For(self, function, param)
        if isinstance(value, dict):
            parts = {key: self._operand(one, function, param) for key, one in value.items()}
            return f"{{{', '.join(f'{key!r}: {text}' for key, text in parts.items())}}}"
        if isinstance(value, list):
            found = on.whole(value) or on.listed(value)
            if found:
                self.sources["result"] += len(value)
                self._heed(found)
                return found
            return f"[{', '.join(self._operand(one, function, param) for one in value)}]"
        kind, text = on.leaf(value)
        self.sources[kind] += 1
        self._heed(text)
        return text

    def _heed(self, text: str) -> None:
        """Note whether outsiders had a part in an operand."""
        self.misled |= any(name in self.led for name in _VARIABLE.findall(text))

    def trusts(self, result: Result) -> bool:
        """Does all of a result come from whom the policy trusts?"""
        parts = (path for path, _ in walk(result.value))
        return not result.led and all(self.is_trusted(result, path) for path in parts)

    def is_trusted(self, result: Result, path: Path) -> bool:
        """The same of one part."""
        label = self.suite.origin(result.function).label(*_place(result.value, path))
        return not result.led and self.suite.trusted(label)

    def line(self, name: str, text: str, *about: Result) -> None:
        """A question to a model, about these results."""
        self.lines.append(f"{name} = {text}")
        if not all(map(self.trusts, about)):
            self.led.add(name)

    def ask(self, function: str, param: str, kind: str, true: Any) -> str:
        return self._ask(f"q{len(self.asked) + 1}", Asked(kind, true, function, param))

    def _ask(self, name: str, asked: Asked) -> str:
        self.asked[name] = asked
        return name

    def the_book(self) -> Result | None:
        """The user's own address book, read where it is first needed."""
        said = self.suite.said.get("book")
        if said and self.book is None:
            call = self._tried(said["tool"], said["args"])
            args = ", ".join(f"{name}={value!r}" for name, value in said["args"].items())
            self.lines.append(f"book = {self.suite.name}.{said['tool']}({args})")
            self.book = Result("book", said["tool"], call.result)
        return self.book


@dataclass(slots=True)
class _For:
    """The search for the values of one parameter."""

    on: _Translator
    function: str
    param: str

    # -- where a value comes from

    def leaf(self, value: Any) -> tuple[str, str]:
        """Where it comes from, as counted, and the expression."""
        if value is None or isinstance(value, bool):
            return "constant", repr(value)
        if self._in_prompt(value):
            return "prompt", repr(value)
        if isinstance(value, str) and _PLACEHOLDER.fullmatch(value):
            return "written", self._written(value)
        known = (type(value).__name__, value)
        if known not in self.on.taken:
            kind, text = self._found(value)
            if kind not in ("result", "book"):
                return kind, text
            self.on.taken[known] = text
        return "result", self.on.taken[known]

    def _found(self, value: Any) -> tuple[str, str]:
        found = list(self._equal(value))
        for result, path in (one for one in found if self.on.is_trusted(*one)):
            return "result", self._reach(result, path)
        entry = self._booked(value)
        if entry:
            return "book", entry
        for result, path in found:
            self.on.misled = True
            return "result", self._reach(result, path)
        for result in self._texts_with(value):
            return "text", self._extract(result, value)
        pieces = self._pieces(value) if isinstance(value, str) else ""
        return ("pieces", pieces) if pieces else ("constant", repr(value))

    def whole(self, value: list[Any]) -> str:
        """A list that stands in an earlier result as it is."""
        for result in self.on.results:
            for path, part in walk(result.value):
                if part == value and value and path:
                    return self._reach(result, path)
        return ""

    def listed(self, value: list[Any]) -> str:
        """Several names that one earlier result states."""
        if len(value) < 2 or not all(isinstance(one, str) for one in value):
            return ""
        if all(self._in_prompt(one) for one in value):
            return ""
        for result in reversed(self.on.results):
            if all(one in _text(result.value) for one in value):
                return self._extract(result, value)
        return ""

    def _in_prompt(self, value: Any) -> bool:
        prompt = self.on.task.prompt
        if isinstance(value, str):
            words = rf"(?<!\w){re.escape(value)}(?!\w)"
            return len(value) > 1 and re.search(words, prompt, re.IGNORECASE) is not None
        return float(value) in map(float, _NUMBER.findall(prompt))

    def _equal(self, value: Any) -> Iterator[tuple[Result, Path]]:
        for result in self.on.results:
            for path, part in walk(result.value):
                if type(part) is type(value) and part == value:
                    yield result, path
            if isinstance(value, str) and self._names(result, value):
                yield result, ("", value)  # the name itself

    def _texts_with(self, value: Any) -> Iterator[Result]:
        for result in self.on.results:
            if isinstance(value, str):
                if len(value) >= SHORTEST and value.lower() in _text(result.value).lower():
                    yield result
            elif float(value) in map(float, _NUMBER.findall(_prose(result.value))):
                yield result

    # -- how a program reaches it

    def _reach(self, result: Result, path: Path) -> str:
        """The expression for a part of a result; what the program cannot know it asks."""
        if path[:1] == ("",):
            return self._key(result, str(path[1]))
        text, here = result.name, result.value
        done: Path = ()
        for step in path:
            if isinstance(step, int):
                text += f"[int({self._item(result, text, here, done, step)})]"
            elif not done and self.on.suite.keyed(result.function):
                text += f"[{self._key(result, step)}]"
            else:
                text += f"[{step!r}]"
            here, done = here[step], (*done, step)
        return text

    def _item(self, result: Result, text: str, items: Any, at: Path, step: int) -> str:
        """The place of an item, chosen among the numbers that the policy's bits can tell apart."""
        limit = self._limit()
        shown, count = text, 2 ** int(limit or UNBOUND_BITS)
        if limit is not None and len(items) > 2**limit:
            shown = self._columns(result, text, items, at)
            count = 2 ** math.ceil(math.log2(len(items)))
        known = (shown, str(step), False)
        if known not in self.on.picked:
            name = self.on.ask(self.function, self.param, "choose", str(step))
            question = f"[{name}] Which item has what `{self.param}` of {self.function} needs?"
            options = [str(number) for number in range(count)]
            seen = (result,) if shown == text else ()
            self.on.line(name, f"llm.choose({self._goal(question)}, {options}, {shown})", *seen)
            self.on.picked[known] = name
        return self.on.picked[known]

    def _columns(self, result: Result, text: str, items: list[Any], at: Path) -> str:
        """The columns of the items that no outsider writes."""
        if not items or not isinstance(items[0], dict):
            return text
        good = [
            key
            for key in items[0]
            if all(self.on.is_trusted(result, (*at, n, key)) for n in range(len(items)))
        ]
        columns = ", ".join(f"{key!r}: x[{key!r}]" for key in good)
        return f"[{{{columns}}} for x in {text}]"

    def _key(self, result: Result, key: str) -> str:
        """One of the names of a table: said by the user, chosen before, or chosen now from the
        first table that has it, by all that was read so far."""
        if self._in_prompt(key):
            return repr(key)
        known = ("", key, True)
        if known not in self.on.picked:
            name = self.on.ask(self.function, self.param, "choose", key)
            question = f"[{name}] Which one is meant for `{self.param}` of {self.function}?"
            read = [one for one in self.on.results if self.on.suite.reads(one.function)]
            first = next(one for one in self.on.results if self._names(one, key))
            options = f"[k for k in {first.name}]"
            about = ", ".join([self._goal(question), options, *(one.name for one in read)])
            self.on.line(name, f"llm.choose({about})", *read)
            self.on.picked[known] = name
        return self.on.picked[known]

    def _names(self, result: Result, key: str) -> bool:
        table = isinstance(result.value, dict) and self.on.suite.keyed(result.function)
        return table and key in result.value

    def _booked(self, value: Any) -> str:
        """An entry of the address book, chosen by whatever states the value."""
        said = self.on.suite.said.get("book")
        limit = self._limit()
        if not said or self.param not in said["for"] or not limit:
            return ""
        states = [one for one in self.on.results if str(value) in _text(one.value)]
        book = self.on.the_book() if states else None
        if book is None or len(book.value) > 2**limit:
            return ""
        column = [entry[said["field"]] if "field" in said else entry for entry in book.value]
        if value not in column:
            return ""
        options = f"[x[{said['field']!r}] for x in book]" if "field" in said else "book"
        name = self.on.ask(self.function, self.param, "choose", value)
        question = f"[{name}] Whose address does `{self.param}` of {self.function} need?"
        about = ", ".join([self._goal(question), options, *(one.name for one in states)])
        self.on.line(name, f"llm.choose({about})", *states)
        return name

    def _extract(self, result: Result, value: Any) -> str:
        name = self.on.ask(self.function, self.param, "extract", value)
        kind = _KINDS[type(value).__name__]
        hint = self._goal(f"[{name}] What `{self.param}` of {self.function} needs.")
        self.on.line(name, f"llm.extract({result.name}, {kind}, {hint}).value", result)
        return name

    def _written(self, value: str) -> str:
        name = self.on.ask(self.function, self.param, "write", value)
        read = [one for one in self.on.results if self.on.suite.reads(one.function)]
        goal = self._goal(f"[{name}] Write `{self.param}` of {self.function}.")
        about = ", ".join([goal, *(one.name for one in read)])
        self.on.line(name, f"llm.write({about})", *read)
        return name

    def _pieces(self, value: str) -> str:
        """The text as pieces: what earlier results hold, and the rest as it is."""
        found = self._piece(value)
        if found is None:
            return ""
        piece, text = found
        before, _, after = value.partition(piece)
        parts = [self._pieces(before) or (repr(before) if before else ""), text]
        parts.append(self._pieces(after) or (repr(after) if after else ""))
        return " + ".join(filter(None, parts))

    def _piece(self, value: str) -> tuple[str, str] | None:
        """The longest part of the text that is a field or a name of an earlier result."""
        known: dict[str, tuple[Result, Path]] = {}
        for result in self.on.results:
            for path, part in walk(result.value):
                if isinstance(part, str) and len(part) >= SHORTEST and part in value:
                    known.setdefault(part, (result, path))
            if self.on.suite.keyed(result.function) and isinstance(result.value, dict):
                for key in result.value:
                    if len(key) >= SHORTEST and key in value:
                        known.setdefault(key, (result, ("", key)))
        if not known:
            return None
        longest = max(known, key=len)
        return longest, self._reach(*known[longest])

    def _limit(self) -> float | None:
        """Bits that outsiders may decide about the operand; None where anything goes."""
        signature = self.on.suite.catalogue.signatures[f"{self.on.suite.name}.{self.function}"]
        rule, param = self.on.suite.rules.of(signature), signature.param(self.param)
        if rule is None or param is None:
            return None
        need = rule.need(param, signature)
        return None if need.free else need.bits or 0.0

    def _goal(self, question: str) -> str:
        return repr(f"{question} The task: {self.on.task.prompt}")


def _place(value: Any, path: Path) -> tuple[tuple[str, ...], Any]:
    """A part as a contract names it, and the record that it stands in."""
    around: Any = {}
    steps = []
    for step in () if path[:1] == ("",) else path:
        around = value if isinstance(value, dict) else around
        value = value[step]
        steps.append(ITEM if isinstance(step, int) else step)
    return tuple(steps), value if isinstance(value, dict) else around


def walk(value: Any, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every part of a result with the way to it."""
    yield at, value
    steps: Any = ()
    if isinstance(value, dict):
        steps = value.items()
    elif isinstance(value, list):
        steps = enumerate(value)
    for step, part in steps:
        yield from walk(part, (*at, step))


def _text(value: Any) -> str:
    """All words of a result."""
    parts: list[str] = []
    for _, part in walk(value):
        if isinstance(part, dict):
            parts += map(str, part)
        elif not isinstance(part, list):
            parts.append(str(part))
    return "\n".join(parts)


def _prose(value: Any) -> str:
    """Its texts alone: a number in a column of its own is another number."""
    return "\n".join(part for _, part in walk(value) if isinstance(part, str))


__all__ = ["Asked", "Plan", "plan", "walk"]
