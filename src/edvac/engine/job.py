"""One request as scheduler, programs and drafts see it: counts and token ids, no text."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Job:
    """One request as the scheduler sees it: tokens wanted and tokens computed.

    `draft` holds guesses at what comes next; they are computed where there is room. `shared` are
    lengths of prefixes that other requests of the program may have, by digest. Lossy is what came
    back from a file that keeps less than was computed.
    """

    id: str
    program: str
    cls: str
    reader_class: str
    tokens: list[int]
    max_tokens: int
    shared: dict[str, int] = field(default_factory=dict)
    draft: list[int] = field(default_factory=list)
    prompt: int = 0
    computed: int = 0
    cached: int = 0
    slot: int = -1
    arrived: float = 0.0
    admitted: float = 0.0
    order: int = 0
    served: int = 0  # the last step that had a row of it
    evicted: int = 0  # times
    stays: bool = False  # it has waited long enough not to make room for others
    fetched: int = 0  # how often what is spilled of its prompt was sent for
    exact: bool = False  # it is given nothing lossy
    lossy_from: int | None = None  # tokens of its row from here on are, or are computed behind that

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.computed

    @property
    def prefilling(self) -> bool:
        return self.computed < self.prompt

    @property
    def reserved(self) -> int:
        return self.prompt + self.max_tokens
