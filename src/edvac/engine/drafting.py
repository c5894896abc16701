"""What is drafted for the next step, by looking up, else by a small model, and what is learnt from
it.

A draft pays where a step has rows to spare, so it is cut to what its chances and the cost of rows
say. It knows answers and times, neither logits nor the scheduler's order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from edvac.engine.answer import Answer
from edvac.engine.draft import ANSWERS, DraftModel
from edvac.engine.draft import MOST as MOST_BY_MODEL
from edvac.engine.job import Job
from edvac.engine.pace import Pace
from edvac.engine.speculation import MOST, Corpus, Costs, Experience, Memory, worthwhile

_CORPORA: Final = 64  # programs whose answers are remembered


class Drafting:
    """
    Args:
        ends: tokens that end an answer; they are not drafted.
        model: guesses where looking up finds nothing; None does without.
    """

    def __init__(
        self, costs: Costs, ends: frozenset[int], pace: Pace, model: DraftModel | None = None
    ) -> None:
        self._costs, self._ends, self._pace, self._model = costs, ends, pace, model
        self._experience = Experience()
        self._corpora: OrderedDict[tuple[str, str], Corpus] = OrderedDict()

    def memory(self, program: str, reader_class: str) -> Memory:
        """Where an answer looks things up: never in what another reader class has read."""
        corpus = self._corpora.get((program, reader_class)) if program else None
        return Memory(self._experience.child(), corpus)

    def prepare(self, running: list[Job], answers: Mapping[str, Answer]) -> None:
        """Give each running job its draft, where the next step is narrow enough for more rows to
        pay."""
        rows, gained = sum(job.pending for job in running), float(len(running))
        for job in running:
            job.draft = []
        if any(job.prefilling for job in running):
            return
        silent = []
        for job in running:
            answer = answers[job.id]
            if worthwhile(MOST, 1.0, rows, gained, self._costs) == 0:
                continue
            guess = answer.guess(MOST, self._ends)
            if guess is None:
                silent.append(answer)
                continue
            chance = answer.memory.experience.chance(guess.agreed)
            count = worthwhile(len(guess.tokens), chance, rows, gained, self._costs)
            job.draft, answer.agreed = guess.tokens[:count], guess.agreed
            answer.teaches = answer.memory.experience
            rows += count
            gained += sum(chance**power for power in range(1, count + 1))
        if self._model is not None and len(running) <= ANSWERS:
            for answer in silent:
                self._ask(self._model, answer, rows, gained)

    def _ask(self, model: DraftModel, answer: Answer, rows: int, gained: float) -> None:
        """A draft by the model, if the answer has gone on for long enough to be worth it."""
        job, step = answer.job, self._pace.answering(1)
        room = answer.room_for_guesses(MOST_BY_MODEL)
        if not step or room < 1:
            return
        reading = model.missing(job) * (model.token_seconds or self._pace.reading(1))
        if reading > answer.produced * step:
            return
        each = model.step_seconds / step
        count = worthwhile(room, model.chance, rows, gained, self._costs, each=each)
        if count == 0 and not model.curious():
            return
        draft = model.draft(job, max(count, 1))
        job.draft = answer.allowed(draft, self._ends)
        answer.agreed, answer.teaches = 0, model.experience

    def learn(self, answer: Answer, draft: list[int], held: int, *, goes_on: bool) -> None:
        """From a draft of which `held` tokens were right; where the answer ended nothing is known
        of the rest."""
        if answer.teaches is not None:
            answer.teaches.learn(answer.agreed, held, goes_on and held < len(draft))

    def ended(self, answer: Answer) -> None:
        """The answer is over: later ones of its program may say the same."""
        job = answer.job
        if answer.request.program and answer.produced:
            key = (job.program, job.reader_class)
            corpus = self._corpora.setdefault(key, Corpus())
            self._corpora.move_to_end(key)
            if len(self._corpora) > _CORPORA:
                self._corpora.popitem(last=False)
            corpus.add(job.tokens[job.prompt :])
        if self._model is not None and job.slot >= 0:
            self._model.forget(job.slot)

    def forget(self) -> None:
        """Give up what answers said."""
        self._corpora.clear()
