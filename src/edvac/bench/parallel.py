"""Parallel calls of tools, on published questions: edvac, LLMCompiler's rules, and a ReAct loop.

Time is real: a scripted model writes plans, turns and answers at a set speed, and each call of a
tool takes as long as is set. The questions of an arm of the peers run side by side, because they
only wait; edvac's run one after the other, because it also computes and writes a journal. Answers
are worked out from what came back, and compared with the published ones.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edvac.bench.parallel_arms import (
    Arm,
    Ended,
    Setting,
    by_edvac,
    by_short_list,
    by_short_program,
    by_task_list,
    by_turns,
)
from edvac.bench.parallel_plans import (
    Streams,
    count,
    optimum,
    program_lines,
    short_list,
    short_program,
    streams,
)
from edvac.bench.question import Question
from edvac.bench.question_sets import QuestionSet, read_sets
from edvac.bench.report import Document, Figure, median

OURS: Final = "edvac"
LIST: Final = "LLMCompiler's rules"
SHORT: Final = "edvac, short program"
SHORT_LIST: Final = "LLMCompiler's rules, short list"
LOOP: Final = "ReAct"
AIM: Final = 1.1  # times the optimum

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Args:
        questions: of each set.
        latencies: of a call, in seconds.
        rate: tokens a second that the model writes.
    """

    questions: int = 10
    latencies: tuple[float, ...] = (0.0, 0.2, 1.0, 3.0)
    rate: float = 50.0


QUICK: Final = Wanted(2, (0.2,))


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and how it went."""

    question: Question
    ended: Ended

    def over_optimum(self, setting: Setting) -> float:
        """Its time as a multiple of the shortest that its plan allows."""
        lines = arrivals(streams(self.question), setting.rate)
        least = optimum(self.question, lines, setting.latency_s, self.ended.answer_s)
        return self.ended.wall_s / least


def arrivals(tokens: Streams, rate: float) -> list[float]:
    """Seconds until each line is complete."""
    return [written / rate for written in tokens.lines]


def measure(document: Document, wanted: Wanted, say: Say) -> None:
    """Add the figures of all sets and latencies.

    Raises:
        UsageError: the data are absent.
    """
    sets = read_sets()
    first = sets[0].questions[:1]
    asyncio.run(_by_turns(by_edvac, first, Setting(0.0, 1000.0)))  # what is loaded once
    for one in sets:
        chosen = spread(one.questions, wanted.questions)
        document.notes.append(_about(one, chosen))
        every: dict[str, list[Pair]] = {}
        for latency in wanted.latencies:
            setting = Setting(latency, wanted.rate)
            went = asyncio.run(_run(chosen, setting))
            say(f"{one.name}, {latency:g} s a call: {_walls(went)}")
            _add_times(document, one.name, setting, went)
            for arm, pairs in went.items():
                every.setdefault(arm, []).extend(pairs)
        _add_counts(document, one.name, every)
    document.notes += _ABOUT
    document.notes.append(f"load average after the run: {os.getloadavg()[0]:.2f}")


_ABOUT: Final = (
    "optimum: each call begins when its line is complete and its operands are there, and nothing "
    "else takes time; a run of edvac also makes its run, a journal and a file, but its workspace "
    "is open before",
    "what the tools return is made by code from the names in each question, always the same; it "
    "says nothing true, but the published answer follows from it",
    "plans, turns and answers are scripted; of the two plans each line takes the tokens of the "
    "longer form, but where each is in its own words: there the program is the shortest that "
    "does the same, a loop where all calls are searches and that takes fewer tokens",
    "each arm's multiple is of its own optimum, with the time that its own last words take: the "
    "joiner writes a thought and Finish(answer), edvac's step the answer alone, and that, not the "
    "order of calls, is most of the difference between the two in time",
    "tokens are counted by rule; Qwen2.5's tokenizer counts 11 to 17 % fewer in all three forms",
    "what edvac reads is its planner's prompt as it is, with rules and examples; the peers' "
    "prompts are short ones without examples, so that theirs is the least there could be",
)


def spread(questions: Sequence[Question], count: int) -> list[Question]:
    """So many questions, from all parts of a set."""
    step = max(1, len(questions) // count)
    return list(questions[::step][:count])


async def _run(chosen: Sequence[Question], setting: Setting) -> dict[str, list[Pair]]:
    ours = await _by_turns(by_edvac, chosen, setting)
    short = await _by_turns(by_short_program, chosen, setting) if _loops(chosen) else ours
    return {
        OURS: ours,
        SHORT: short,
        LIST: await _side_by_side(by_task_list, chosen, setting),
        SHORT_LIST: await _side_by_side(by_short_list, chosen, setting),
        LOOP: await _side_by_side(by_turns, chosen, setting),
    }


def _loops(chosen: Sequence[Question]) -> bool:
    """Is the shortest program another one, which is shorter by a tenth at least?"""
    plain = median([count("".join(program_lines(question))) for question in chosen])
    return median([len(short_program(question)[0]) for question in chosen]) <= 0.9 * plain


async def _by_turns(arm: Arm, chosen: Sequence[Question], setting: Setting) -> list[Pair]:
    return [Pair(question, await arm(question, setting)) for question in chosen]


async def _side_by_side(arm: Arm, chosen: Sequence[Question], setting: Setting) -> list[Pair]:
    ended = await asyncio.gather(*(arm(question, setting) for question in chosen))
    return [Pair(question, one) for question, one in zip(chosen, ended, strict=True)]


def _walls(went: dict[str, list[Pair]]) -> str:
    walls = {arm: median([pair.ended.wall_s for pair in pairs]) for arm, pairs in went.items()}
    return ", ".join(f"{arm} {wall:.2f} s" for arm, wall in walls.items())


def _about(one: QuestionSet, chosen: Sequence[Question]) -> str:
    ours = median([count("".join(program_lines(question))) for question in chosen])
    shortest = median([len(short_program(question)[0]) for question in chosen])
    theirs = median([short_list(question)[1][-1] for question in chosen])
    streamed = median([streams(question).lines[-1] for question in chosen])
    return (
        f"{one.name} ({one.file}): {len(one.questions)} of {one.published} questions have a plan "
        f"by code, of which {len(chosen)} were run; tokens of a plan: {ours:.0f} as a program, "
        f"{shortest:.0f} as the shortest one, {theirs:.0f} as a list of tasks, {streamed:.0f} as "
        "streamed (line by line the longer)"
    )


def _add_times(
    document: Document, name: str, setting: Setting, went: dict[str, list[Pair]]
) -> None:
    name = f"{name} {setting.latency_s:g} s"
    walls = {arm: median([pair.ended.wall_s for pair in pairs]) for arm, pairs in went.items()}
    over = {
        arm: [pair.over_optimum(setting) for pair in went[arm]] for arm in (OURS, LIST)
    }  # a loop has no plan that could be done sooner
    lags = {
        arm: 1000 * median([sum(p.ended.lags) / len(p.ended.lags) for p in went[arm]])
        for arm in (OURS, LIST)
    }
    worst = f"at most {max(over[OURS]):.3f}; {LIST} at most {max(over[LIST]):.3f}"
    document.figures += [
        Figure(f"{name}: time", walls[OURS], "s", "lower", None, LOOP, walls[LOOP]),
        Figure(f"{name}: time, list", walls[OURS], "s", "lower", None, LIST, walls[LIST]),
        Figure(
            f"{name}: time, own words", walls[SHORT], "s", "lower", None, LIST, walls[SHORT_LIST]
        ),
        Figure(
            f"{name}: over the optimum",
            median(over[OURS]),
            "times",
            "lower",
            AIM,
            LIST,
            median(over[LIST]),
            worst,
        ),
        Figure(f"{name}: a call is held up", lags[OURS], "ms", "lower", None, LIST, lags[LIST]),
    ]


def _add_counts(document: Document, name: str, every: dict[str, list[Pair]]) -> None:
    """Tokens and right answers, which do not depend on how long calls take."""
    for arm in (LIST, LOOP):
        beside = "" if arm == LOOP else ", list"
        for kind in ("written", "read"):
            ours, theirs = (
                median([getattr(pair.ended, kind) for pair in every[one]]) for one in (OURS, arm)
            )
            figure = Figure(f"{name}: {kind}{beside}", ours, "tokens", "lower", None, arm, theirs)
            document.figures.append(figure)
    shares = {
        arm: 100 * sum(pair.question.is_right(pair.ended.answer) for pair in pairs) / len(pairs)
        for arm, pairs in every.items()
    }
    said = ", ".join(f"{arm} {share:.0f} %" for arm, share in shares.items() if arm != OURS)
    figure = Figure(f"{name}: right answers", shares[OURS], "%", "higher", 100.0, note=said)
    document.figures.append(replace(figure, note=f"{len(every[OURS])} answers; {said}"))
