"""One request while it runs: its text so far, its stops, its clockings.

It turns tokens into text and decides when a stop string ends the answer. It knows neither the
scheduler nor the model.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from edvac.engine.adapters import Adapter
from edvac.engine.grammar import Matcher
from edvac.engine.job import Job
from edvac.engine.protocol import Done, FinishReason, FromEngine, Generate, Text, Token
from edvac.engine.speculation import Experience, Guess, Memory
from edvac.engine.tokenizer import TextStream


@dataclass(slots=True)
class Answer:
    """The state of one answer; prefixes of the lengths `keeps` are to be kept on disk."""

    request: Generate
    job: Job
    matcher: Matcher | None
    stream: TextStream
    memory: Memory
    keeps: list[int] = field(default_factory=list)
    adapter: Adapter | None = None
    produced: int = 0
    forced: int = 0
    drafted: int = 0
    accepted: int = 0
    agreed: int = 0  # tokens before the draft that agreed with its source
    teaches: Experience | None = None  # who learns from the draft
    text: str = ""
    stop: str = ""
    _chosen: deque[tuple[int, Token]] = field(default_factory=deque)
    _shown: int = 0
    _since_shown: int = 0
    _first: float = 0.0
    _queued: deque[int] = field(default_factory=deque)

    @property
    def complete(self) -> bool:
        return self.matcher is not None and self.matcher.complete()

    def decoding_since(self, now: float) -> None:
        if not self._first:
            self._first = now

    def add(self, tokens: list[int], report: list[Token] | None = None) -> bool:
        """Append tokens to the text; true where a stop string was met, which is cut off.

        With a `report`, one entry a token, each is reported with the text that it begins.
        """
        before = len(self.text)
        self.produced += len(tokens)
        self.forced += max(0, len(tokens) - 1)
        self._since_shown += len(tokens)
        for place, token in enumerate(tokens):
            if report is not None:
                self._chosen.append((len(self.text), report[place]))
            self.text += self.stream.feed(token)
        for stop in self.request.stop:
            at = self.text.find(stop, max(0, before - len(stop) + 1))
            if at >= 0:
                self.text, self.stop = self.text[:at], stop
                return True
        return False

    def feed(self, tokens: list[int], together: bool) -> None:
        """Hand tokens on to be computed: all in the next step, or one per step."""
        if together:
            self.job.tokens += tokens
        else:
            self.job.tokens.append(tokens[0])
            self._queued.extend(tokens[1:])

    def next_queued(self) -> int | None:
        return self._queued.popleft() if self._queued else None

    def guess(self, most: int, ends: frozenset[int]) -> Guess | None:
        """What may come next, as far as it was said before."""
        room = self.room_for_guesses(most)
        found = self.memory.guess(self.job.tokens, room, self.matcher) if room else None
        if found is None:
            return None
        tokens = _before_end(found.tokens, ends)
        return Guess(tokens, found.agreed) if tokens else None

    def room_for_guesses(self, most: int) -> int:
        """How many tokens may be guessed: none while tokens that must come are still queued."""
        room = min(most, self.request.max_tokens - self.produced - 1)
        return 0 if self._queued else max(0, room)

    def allowed(self, draft: list[int], ends: frozenset[int]) -> list[int]:
        """As much of a draft as the grammar lets come."""
        draft = _before_end(draft, ends)
        return draft if self.matcher is None else draft[: self.matcher.legal(draft)]

    def fresh_text(self, last: bool = False) -> list[FromEngine]:
        """Text not shown yet; the part that might become a stop string is held back."""
        if last:
            self.text += self.stream.finish()
        if not self.request.stream:
            return []
        safe = len(self.text) if last else len(self.text) - self._held()
        if safe <= self._shown:
            return []
        piece, self._shown = self.text[self._shown : safe], safe
        count, self._since_shown = self._since_shown, 0
        return [Text(self.request.id, piece, count, self._reported(safe))]

    def _reported(self, end: int) -> list[Token]:
        """Tokens that are not reported yet and whose text begins before `end`."""
        found = []
        while self._chosen and self._chosen[0][0] < end:
            found.append(self._chosen.popleft()[1])
        return found

    def _held(self) -> int:
        """Length of the longest tail that begins some stop string."""
        longest = 0
        for stop in self.request.stop:
            for size in range(min(len(stop) - 1, len(self.text)), longest, -1):
                if self.text.endswith(stop[:size]):
                    longest = size
                    break
        return longest

    def done(self, reason: FinishReason, now: float) -> Done:
        job = self.job
        admitted = job.admitted or now
        first = self._first or now
        return Done(
            id=self.request.id,
            text=self.text,
            finish_reason=reason,
            stop=self.stop,
            prompt_tokens=job.prompt,
            cached_tokens=job.cached,
            completion_tokens=self.produced,
            forced_tokens=self.forced,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
            program=job.program,
            queue_ms=(admitted - job.arrived) * 1000,
            prefill_ms=max(0.0, first - admitted) * 1000,
            decode_ms=max(0.0, now - first) * 1000,
            chosen=self._reported(len(self.text)),
        )


def _before_end(tokens: list[int], ends: frozenset[int]) -> list[int]:
    at = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:at]
