"""Parallel calls: one plan in three forms, the shortest time, and what each arm makes of it.

The two arms without threads run on a virtual clock, so that times are exact; edvac's is asked only
for what comes out and in which order things happen.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from parallel_kit import COMPARISONS, FILMS, SUMS, data_in, row, swapped

from edvac.bench import parallel, parallel_arms, parallel_model
from edvac.bench.parallel_arms import (
    Setting,
    by_edvac,
    by_short_list,
    by_short_program,
    by_task_list,
    by_turns,
)
from edvac.bench.parallel_plans import (
    count,
    finish,
    finished,
    optimum,
    pieces,
    place,
    program_lines,
    short_list,
    short_program,
    streams,
    task_lines,
)
from edvac.bench.question import Call, Question, Ref, Tools
from edvac.bench.question_sets import comparison, recommendation
from edvac.bench.question_sums import sums
from edvac.bench.report import Document
from edvac.bench.task_list import POLL_S, arguments, read_line
from edvac.core.errors import DeviceError
from edvac.machine import Job, Machine
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on which nothing takes time: when all wait, its clock goes to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0

    def time(self) -> float:
        return self._virtual

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._virtual = max(self._virtual, self._scheduled[0]._when)
        super()._run_once()


def virtually(work: Coroutine[Any, Any, T]) -> T:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


# -- one plan in three forms -----------------------------------------------------------------------


def chain(*latter: Call, count: int = 2) -> Question:
    """A question of some searches and what follows from them; the last call is read."""
    names = [f"topic {place}" for place in range(count)]
    calls = (*(Call("search", (name,)) for name in names), *latter)
    pages = {name: f"The size is {place + 2}" for place, name in enumerate(names)}
    last = len(calls) - 1
    return Question("made", "What is it?", "", calls, (last,), "number", (), pages)


SUM = chain(
    Call("calculate", ("multiply", Ref(0), 3.0)),
    Call("calculate", ("multiply", Ref(1), 5.0)),
    Call("calculate", ("sum", Ref(2), Ref(3))),
)


def test_tokens_are_all_of_a_text() -> None:
    for text in ('x1 = tool.search("Élan & K2")\n', "", "  a\n\n\tb_c — 12.5%", "日本語 text"):
        assert "".join(pieces(text)) == text
    assert pieces("one twelve 12") == ["one", " twelve", " 1", "2"]


def test_both_plans_are_streamed_line_for_line_alike() -> None:
    made = streams(SUM)
    assert len(made.program) == len(made.tasks) == made.lines[-1]
    for number, end in enumerate(made.lines, 1):
        for tokens, lines in (
            (made.program, program_lines(SUM)),
            (made.tasks, task_lines(SUM)),
        ):
            whole = "".join(lines[:number])
            assert "".join(tokens[:end]) == whole
            assert "".join(tokens[: end - 1]) != whole, "the last token ends the line"
    longer = zip(program_lines(SUM), task_lines(SUM), strict=True)
    assert made.lines[-1] == sum(max(count(a), count(b)) for a, b in longer)


def brute(question: Question, lines: Sequence[float], latency: float, answer: float) -> float:
    """Every chain of calls, from any of them to the last: its line, and a latency for each."""

    def chains(place: int) -> list[list[int]]:
        longer = [[*one, place] for need in question.calls[place].needs for one in chains(need)]
        return [[place], *longer]

    every = [one for place in range(len(question.calls)) for one in chains(place)]
    ends = {tuple(one): lines[one[0]] + latency * len(one) for one in every}
    answered = [lines[-1] + answer]
    answered += [end + answer for one, end in ends.items() if one[-1] in question.read]
    return max([*answered, *ends.values()])


def test_the_optimum_is_the_longest_chain() -> None:
    chance = random.Random(7)
    for _ in range(200):
        latter = []
        for at in range(2, chance.randint(3, 7)):
            needs = chance.sample(range(at), min(at, chance.randint(1, 3)))
            latter.append(Call("calculate", ("sum", *map(Ref, needs))))
        question = chain(*latter)
        lines = sorted(chance.uniform(0, 5) for _ in range(len(question.calls) + 1))
        latency, answer = chance.choice([0.0, 0.2, 3.0]), chance.uniform(0, 1)
        assert optimum(question, lines, latency, answer) == pytest.approx(
            brute(question, lines, latency, answer)
        )


def test_the_optimum_counts_a_step_from_its_line_or_its_operands() -> None:
    question = chain(Call("calculate", ("sum", Ref(0), Ref(1))))
    assert optimum(question, [1, 2, 3, 4], 0.5, 0.25) == 4.25, "the planner is the slowest"
    assert optimum(question, [1, 2, 3, 4], 3.0, 0.25) == 8.25, "the tools are"


# -- LLMCompiler's rules ---------------------------------------------------------------------------


def test_a_task_depends_on_every_earlier_number_behind_a_dollar() -> None:
    task = read_line('4. find("costs $2 or ${3}", "$9 $4")')
    assert task is not None
    assert (task.number, task.tool, task.needs) == (4, "find", {2, 3})
    joined = read_line("3. join()")
    assert joined is not None and joined.needs == {1, 2}
    assert read_line("Thought: now 3 tasks") is None


def test_references_give_way_to_texts_highest_number_first() -> None:
    results = {1: "one", 2: "see $1", 11: "eleven"}
    assert arguments('"$11 and $1", 2', results) == ["eleven and one", 2.0]
    assert arguments('"$2"', results) == ["see one"], "a result is substituted into"
    assert arguments("two words", results) == ["two words"], "no literal is one text"


RATE = 50.0


def went(arm: parallel_arms.Arm, question: Question, latency: float) -> tuple[Any, Tools]:
    """How an arm answered on the virtual clock, and its tools."""
    ended = virtually(arm(question, Setting(latency, RATE)))
    return ended, KEPT[-1]


KEPT: list[Tools] = []


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tools that an arm makes, for a test to look at."""
    KEPT.clear()

    class Kept(Tools):
        def __init__(self, question: Question, latency_s: float) -> None:
            super().__init__(question, latency_s)
            KEPT.append(self)

    monkeypatch.setattr(parallel_arms, "Tools", Kept)


def mixed() -> Question:
    """A search, what follows from it, another search, and both together."""
    calls = (
        Call("search", ("topic 0",)),
        Call("calculate", ("multiply", Ref(0), 3.0)),
        Call("search", ("topic 1",)),
        Call("calculate", ("sum", Ref(1), Ref(2))),
    )
    pages = {"topic 0": "The size is 2", "topic 1": "The size is 5"}
    return Question("mixed", "How much?", "11", calls, (3,), "number", (), pages)


def line_times(question: Question) -> list[float]:
    return [written / RATE for written in streams(question).lines]


def test_what_depends_on_a_finished_task_waits_for_the_planners_next_line() -> None:
    lines = line_times(mixed())
    latency = (lines[1] + lines[2]) / 2 - lines[0]  # it ends in the middle of the third line
    ended, tools = went(by_task_list, mixed(), latency)
    assert tools.ended[0] == pytest.approx((lines[1] + lines[2]) / 2)
    assert tools.begun[1] == pytest.approx(lines[2]), "though its operand was there before"
    assert ended.lags[1] == pytest.approx((lines[2] - lines[1]) / 2)
    assert ended.lags[0] == pytest.approx(0) and ended.lags[2] == pytest.approx(0)


def test_a_task_whose_operands_are_there_begins_with_its_line() -> None:
    lines = line_times(mixed())
    _, tools = went(by_task_list, mixed(), 0.0)
    assert [tools.begun[place] for place in range(4)] == pytest.approx(lines[:4])


def test_when_all_lines_are_there_the_list_is_looked_at_every_ten_milliseconds() -> None:
    lines = line_times(mixed())
    ended, tools = went(by_task_list, mixed(), 3.0001)
    waits = tools.begun[3] - lines[-1]
    ready = max(tools.ended[1], tools.ended[2])
    assert ready < tools.begun[3] <= ready + POLL_S + 1e-9
    assert waits / POLL_S == pytest.approx(round(waits / POLL_S)), "it is one of its looks"
    looks = -(-(tools.ended[3] - lines[-1] - 1e-9) // POLL_S)
    joined = lines[-1] + looks * POLL_S
    assert ended.wall_s == pytest.approx(joined + count(finish("11")) / RATE)


def test_the_list_of_tasks_joins_after_all_even_those_that_the_answer_does_not_read() -> None:
    base = mixed()
    idle = Question("idle", "How much?", "6", base.calls[:3], (1,), "number", (), base.pages)
    lines = line_times(idle)
    ended, tools = went(by_task_list, idle, 3.0)
    assert ended.answer == "6"
    assert ended.wall_s >= tools.ended[2] + count(finish("6")) / RATE
    assert tools.ended[2] == pytest.approx(lines[2] + 3.0)


def test_a_list_in_its_own_words_is_sooner_by_the_tokens_that_it_lacks() -> None:
    tokens, lines = short_list(mixed())
    assert "".join(tokens) == "".join(task_lines(mixed()))
    assert tokens == pieces("".join(tokens)) and lines[-1] == len(tokens)
    stretched, _ = went(by_task_list, mixed(), 0.0)
    short, tools = went(by_short_list, mixed(), 0.0)
    fewer = streams(mixed()).lines[-1] - len(tokens)
    assert fewer > 0 and short.wall_s == pytest.approx(stretched.wall_s - fewer / RATE)
    assert tools.begun[0] == pytest.approx(lines[0] / RATE)


def test_the_shortest_program_is_a_loop_where_that_takes_fewer_tokens() -> None:
    films = recommendation(row(FILMS, "F Six"))
    assert films is not None
    tokens, lines = short_program(films)
    first, _, rest = "".join(tokens).split("\n")
    assert first.startswith("pages = [tool.search(t) for t in [") and rest == ""
    assert lines == [count(f"{first}\n")] * 8 + [len(tokens)]
    assert len(tokens) < len(streams(films).program)
    assert "".join(short_program(mixed())[0]) == "".join(program_lines(mixed()))


def test_a_failing_tool_ends_the_list_of_tasks_with_its_error() -> None:
    broken = Question(
        "broken", "How much?", "", mixed().calls, (3,), "number", (), {"topic 0": "The size is 2"}
    )
    with pytest.raises(DeviceError) as caught:
        went(by_task_list, broken, 0.2)
    assert caught.value.code == "page_missing"


# -- a ReAct loop ----------------------------------------------------------------------------------


def test_a_loop_takes_the_sum_of_its_turns() -> None:
    ended, tools = went(by_turns, mixed(), 0.5)
    assert ended.answer == "11"
    assert ended.wall_s == pytest.approx(ended.written / RATE + 4 * 0.5)
    begun = [tools.begun[place] for place in range(4)]
    assert all(later >= tools.ended[place] for place, later in enumerate(begun[1:]))


def test_a_loop_reads_all_that_was_said_at_each_turn() -> None:
    short = Question("one", "How much?", "2", mixed().calls[:1], (0,), "number", (), mixed().pages)
    one, _ = went(by_turns, short, 0.0)
    all_four, _ = went(by_turns, mixed(), 0.0)
    assert all_four.read > 4 * one.read / 2, "five prompts instead of two, each with more in it"
    assert all_four.written > one.written


# -- all three -------------------------------------------------------------------------------------


def questions() -> list[Question]:
    made = [
        *(comparison(row(text, answer, n)) for n, (text, answer, _) in enumerate(COMPARISONS)),
        recommendation(row(FILMS, "F Six")),
        *(sums(row(text, answer, n)) for n, (text, answer, _) in enumerate(SUMS)),
    ]
    return [question for question in made if question is not None]


@pytest.mark.parametrize("arm", [by_task_list, by_short_list, by_turns])
def test_the_peers_answer_as_published(arm: parallel_arms.Arm) -> None:
    asked = questions()
    assert len(asked) == len(COMPARISONS) + 1 + len(SUMS)
    for question in asked:
        ended, tools = went(arm, question, 0.2)
        assert question.is_right(ended.answer), question.text
        assert sorted(tools.ended) == list(range(len(question.calls)))


@pytest.mark.parametrize("number", [0, 2, 4, 6, 10])
def test_edvac_answers_as_published(number: int) -> None:
    question = questions()[number]
    ended = asyncio.run(by_edvac(question, Setting(0.0, 5000.0)))
    assert question.is_right(ended.answer)
    assert sorted(KEPT[-1].ended) == list(range(len(question.calls)))
    assert len(ended.lags) == len(question.calls)
    assert ended.planned == len(streams(question).program)


def test_edvac_answers_as_published_by_a_loop() -> None:
    question = questions()[4]
    ended = asyncio.run(by_short_program(question, Setting(0.0, 5000.0)))
    assert question.is_right(ended.answer)
    assert sorted(KEPT[-1].ended) == list(range(8)) and len(ended.lags) == 8


def test_no_arm_is_right_with_other_pages() -> None:
    """Answers are worked out from what the tools return, not known beforehand."""
    question = swapped(questions()[2])
    for arm in (by_task_list, by_turns):
        ended, _ = went(arm, question, 0.0)
        assert not question.is_right(ended.answer)
    ended = asyncio.run(by_edvac(question, Setting(0.0, 5000.0)))
    assert not question.is_right(ended.answer)


def test_a_step_begins_before_the_next_line_is_complete(tmp_path: Path) -> None:
    """The planner stops in the middle of its second line until the first line's call has been
    made, and before the last line until what depends on it has."""
    question = mixed()
    tools = Tools(question, 0.0)
    made = asyncio.Event()
    seen: list[tuple[int, int]] = []  # place of a call, characters of the plan by then
    said = 0

    class Told(parallel_arms.ToolDevice):
        async def call(self, call: Any) -> Any:
            seen.append((place(call.address), said))
            made.set()
            return await super().call(call)

    async def write(draft: Callable[[str], None]) -> str:
        nonlocal said
        lines = program_lines(question)
        begun = ""
        for number, line in enumerate(lines):
            said = len(begun) + len(line) // 2
            while number in (1, 2) and number - 1 not in [place for place, _ in seen]:
                made.clear()
                await asyncio.wait_for(made.wait(), 20)
            begun += line
            said = len(begun)
            draft(begun)
        return begun

    processor = parallel_arms.SpokenProcessor(question, 5000.0)
    with Machine(tmp_path, processor, devices={"tool": Told(tools)}) as machine:
        report = asyncio.run(machine.run_as_written(Job("", task="t"), write))
    assert report.state == "done"
    second = len(program_lines(question)[0]) + len(program_lines(question)[1])
    assert seen[0][0] == 0 and seen[0][1] < second


def test_a_streamed_program_is_handed_over_at_the_end_of_each_statement() -> None:
    drafts: list[str] = []
    text = "a = 1\nif a:\n    b = 2\nelse:\n    b = 3\nc = 4\n"

    async def go() -> str:
        return await parallel_arms.stream_program(pieces(text), RATE, drafts.append)

    assert virtually(go()) == text
    assert drafts == [text[: text.index("if")], text[: text.index("c =")], text]


# -- the document ----------------------------------------------------------------------------------


def test_the_document_has_times_ratios_and_right_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_in(tmp_path, monkeypatch)
    document = Document("parallel", "edvac bench parallel")
    said: list[str] = []
    parallel.measure(document, parallel.Wanted(1, (0.0, 0.05), 2000.0), said.append)
    figures = {figure.id: figure for figure in document.figures}
    assert len(figures) == len(document.figures) == 3 * (2 * 5 + 5)
    for name in ("HotpotQA", "movies", "ParallelQA"):
        assert figures[f"{name}: right answers"].value == 100
        assert "ReAct 100 %" in figures[f"{name}: right answers"].note
        for latency in ("0", "0.05"):
            over = figures[f"{name} {latency} s: over the optimum"]
            assert over.value >= 1 and over.target == parallel.AIM
            assert over.peer == parallel.LIST and (over.peer_value or 0) >= 1
        loop = figures[f"{name}: written"]
        assert loop.peer == "ReAct" and loop.value < (loop.peer_value or 0)
    assert len(said) == 6
    assert json.loads(json.dumps(document.as_dict()))["figures"]


def test_questions_are_taken_from_all_of_a_set() -> None:
    every = [Question(str(n), "", "", (), (), "", (), {}) for n in range(25)]
    assert [one.id for one in parallel.spread(every, 5)] == ["0", "5", "10", "15", "20"]
    assert len(parallel.spread(every, 99)) == 25


def planner_of(lines: list[str], answer: Callable[[Request], str]) -> ScriptedProcessor:
    """Plans line by line, as a model does under a grammar, and answers the steps."""
    left = iter([*lines, "```"])

    def script(request: Request) -> str:
        return next(left) if request.run == "plan" else answer(request)

    return ScriptedProcessor(script)


def test_a_model_that_plans_and_answers_well_is_right() -> None:
    question = questions()[2]
    processor = planner_of(
        program_lines(question),
        lambda request: question.conclude(parallel_arms.shown_data(request)),
    )
    planned = asyncio.run(parallel_model.answer(question, processor, 0.0))
    assert planned.why == "" and planned.program == "".join(program_lines(question))


def test_a_model_that_answers_badly_or_writes_no_program_is_not() -> None:
    question = questions()[2]
    wrong = planner_of(program_lines(question), lambda _: "Ash Hall")
    planned = asyncio.run(parallel_model.answer(question, wrong, 0.0))
    assert planned.program and "'Ash Hall' instead of 'Oak Hall'" in planned.why
    never = ScriptedProcessor(lambda _: "this is no program\n")
    unplanned = asyncio.run(parallel_model.answer(question, never, 0.0))
    assert not unplanned.program and unplanned.why.startswith("no program")
    document = Document("parallel-model", "")
    parallel_model.add_figures(document, "set", [planned, unplanned])
    values = {figure.id: figure.value for figure in document.figures}
    assert values["set: valid plans"] == 50 and values["set: right answers"] == 0


def test_what_finishes_is_read_back() -> None:
    assert finished(finish("a (b) c")) == "a (b) c"
    assert finished('Thought: on.\nAction: search("Finish")\n') == ""
