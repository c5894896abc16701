"""One plan in three forms, the tokens that it takes, and how soon it could be done.

A program of edvac's, a list of tasks as LLMCompiler has them, and the turns of a ReAct loop. Line i
of the program and line i of the list arrive after the same number of tokens, that of the longer
one: what differs between the two is what is made of the lines, not how many words a form needs.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edvac.bench.question import Call, Question, Ref, number_in, shown

GOAL = "Answer it."
RESULT = "answer.txt"
PLAN_END = "<END_OF_PLAN>"
_PIECE = re.compile(r" ?[^\W\d_]{1,6}| ?\d| ?(?:[^\w\s]|_){1,2}|\s", re.ASCII)
_OTHER = re.compile(r"[^\x00-\x7f]{1,2}")


def pieces(text: str) -> list[str]:
    """A text in pieces about as long as a model's tokens; together they are the text. A word of up
    to six letters is one, and so is each digit."""
    found, place = [], 0
    while place < len(text):
        match = _PIECE.match(text, place) or _OTHER.match(text, place)
        assert match is not None  # the second one takes whatever the first does not
        found.append(match[0])
        place = match.end()
    return found


def count(text: str) -> int:
    return len(pieces(text))


def name(place: int) -> str:
    """The variable that holds what a call returns: one of the first letters."""
    return string.ascii_lowercase[place]


def place(name: str) -> int:
    """The call whose result a variable holds; -1 for one that is not of a plan made here."""
    return string.ascii_lowercase.find(name) if len(name) == 1 else -1


def program_lines(question: Question) -> list[str]:
    """The program: a line for each call, and one that answers."""

    def written(arg: object) -> str:
        return name(arg.call) if isinstance(arg, Ref) else json.dumps(arg, ensure_ascii=False)

    lines = [
        f"{name(place)} = tool.{call.tool}({', '.join(map(written, call.args))})\n"
        for place, call in enumerate(question.calls)
    ]
    read = ", ".join(name(place) for place in question.read)
    return [*lines, f'files.write("{RESULT}", llm.write("{GOAL}", {read}))\n']


def task_lines(question: Question) -> list[str]:
    """The same as numbered tasks, whose last one is to join the results."""

    def written(arg: object) -> str:
        text = f"${arg.call + 1}" if isinstance(arg, Ref) else arg
        return json.dumps(text, ensure_ascii=False)

    lines = [
        f"{place}. {call.tool}({', '.join(map(written, call.args))})\n"
        for place, call in enumerate(question.calls, 1)
    ]
    return [*lines, f"{len(lines) + 1}. join()\n{PLAN_END}\n"]


@dataclass(frozen=True, slots=True)
class Streams:
    """Both plans as they are written, token by token.

    Attributes:
        lines: how many tokens have been written when each line is complete.
    """

    program: tuple[str, ...]
    tasks: tuple[str, ...]
    lines: tuple[int, ...]


def streams(question: Question) -> Streams:
    """The tokens of both plans, line for line as many."""
    program: list[str] = []
    tasks: list[str] = []
    lines: list[int] = []
    for one, other in zip(program_lines(question), task_lines(question), strict=True):
        left, right = pieces(one), pieces(other)
        size = max(len(left), len(right))
        program += _stretched(left, size)
        tasks += _stretched(right, size)
        lines.append(len(program))
    return Streams(tuple(program), tuple(tasks), tuple(lines))


def short_list(question: Question) -> tuple[list[str], list[int]]:
    """The list of tasks in no more tokens than it needs, and how many there are when the line of
    each call, and the last one, is complete."""
    return _own_words(task_lines(question))


def short_program(question: Question) -> tuple[list[str], list[int]]:
    """The same of the shortest program: where all calls are searches, a loop may need fewer."""
    plain = _own_words(program_lines(question))
    if any(call.tool != "search" for call in question.calls):
        return plain
    topics = json.dumps([call.args[0] for call in question.calls], ensure_ascii=False)
    loop = [
        f"pages = [tool.search(t) for t in {topics}]\n",
        f'files.write("{RESULT}", llm.write("{GOAL}", pages))\n',
    ]
    tokens, (first, last) = _own_words(loop)
    looped = tokens, [*[first] * len(question.calls), last]
    return min(plain, looped, key=lambda one: len(one[0]))


def _own_words(written: Sequence[str]) -> tuple[list[str], list[int]]:
    tokens: list[str] = []
    lines: list[int] = []
    for line in written:
        tokens += pieces(line)
        lines.append(len(tokens))
    return tokens, lines


def _stretched(tokens: list[str], size: int) -> list[str]:
    """As many tokens as wanted: empty ones stand before the last, which ends the line."""
    return [*tokens[:-1], *[""] * (size - len(tokens)), tokens[-1]]


def optimum(question: Question, lines: Sequence[float], latency_s: float, answer_s: float) -> float:
    """Seconds until the answer could be there, if nothing but the plan's own order held it up.

    A call begins when its line is complete and the calls that it needs have ended; the answer when
    its line is complete and what it reads has ended.

    Args:
        lines: seconds until each line is complete, the answer's last.
        answer_s: seconds that the model writes at the answer.
    """
    ended: list[float] = []
    for place, call in enumerate(question.calls):
        begins = max([lines[place], *(ended[need] for need in call.needs)])
        ended.append(begins + latency_s)
    answers = max([lines[-1], *(ended[place] for place in question.read)])
    return max([answers + answer_s, *ended])


def turn(question: Question, place: int, results: Mapping[int, str]) -> str:
    """What a ReAct loop's model writes before one call, given the results so far."""
    call = question.calls[place]
    if call.tool == "search":
        thought = f"I need to look up {call.args[0]}."
    else:
        thought = f"Now I work out the next value: {call.args[0]}."
    said = ", ".join(json.dumps(arg, ensure_ascii=False) for arg in _copied(call, results))
    return f"Thought: {thought}\nAction: {call.tool}({said})\n"


def _copied(call: Call, results: Mapping[int, str]) -> list[str | float]:
    """The arguments with the numbers of earlier results, as a model copies them."""
    return [
        shown(number_in(results[arg.call])) if isinstance(arg, Ref) else arg for arg in call.args
    ]


def finish(answer: str) -> str:
    """What a model writes that answers: at the end of a ReAct loop, and as LLMCompiler's joiner."""
    return f"Thought: The results are enough to answer.\nAction: Finish({answer})\n"


def finished(text: str) -> str:
    """The answer in what such a model wrote; empty where there is none."""
    found = re.search(r"Action: Finish\((.*)\)\s*$", text, re.DOTALL)
    return found[1] if found else ""
