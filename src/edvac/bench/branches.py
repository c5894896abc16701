"""Sparse models beside a TAGE predictor, on branch traces of processors.

The first half of a trace is looked at: for the branches that TAGE gets wrong most, a sparse model
over the latest 512 outcomes of conditional branches is fitted by the routine that the control unit
uses on the conditions of programs (`control.sparse`). Those that beat TAGE on samples which the fit
has not seen go into a table of 2 KB: 128 entries of 112 bits (12 of a tag, 4 of confidence, eight
features of 9 bits of position and 3 of weight) and a bias each. The second half is run with both:
an entry speaks where its sum is clear and its confidence has been earned. Table, override and
confidence are ours; the seed (Sparse Branch Correlations) does not publish its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edvac.bench.external import data
from edvac.bench.report import Document, Figure
from edvac.bench.tage import Tage
from edvac.bench.trace_reader import Branch, read_trace
from edvac.control.sparse import Column, fit

HISTORY: Final = 512
ENTRIES: Final = 128
FEATURES: Final = 8
SAMPLES: Final = 2000  # of one branch, the latest of the first half
_FEWEST: Final = 30
_WRONG: Final = 4  # times that TAGE must be wrong before a branch is looked at
_TOP: Final = 7  # confidence; it speaks from half of that
_CLASSES: Final = ("loop", "forward, mostly one way", "forward, both ways")
_ONE_WAY: Final = 0.95


@dataclass(slots=True)
class Entry:
    """A branch's model as the table holds it: weights of -4 to 4 but 0, one number for a step."""

    bias: int
    weights: tuple[tuple[int, int], ...]  # position in the history, weight
    clear: int  # a smaller sum says nothing
    confidence: int = _TOP // 2 + 1

    def score(self, history: int) -> int:
        return self.bias + sum(
            weight if history >> place & 1 else -weight for place, weight in self.weights
        )

    def learn(self, right: bool, other_right: bool) -> None:
        if right is not other_right:
            self.confidence = max(0, min(_TOP, self.confidence + (1 if right else -1)))


@dataclass(slots=True)
class _Seen:
    """What the first half says of one branch."""

    wrong: int = 0
    samples: list[tuple[int, bool, bool]] = field(
        default_factory=list
    )  # history, taken, TAGE right


@dataclass(slots=True)
class Counted:
    """Mispredictions of the second half, by class: of TAGE alone, and with the table."""

    instructions: int
    alone: Counter[str] = field(default_factory=Counter)
    both: Counter[str] = field(default_factory=Counter)
    entries: int = 0


def measure(document: Document, say: Callable[[str], None]) -> None:
    """Add the figures of all traces that are there.

    Raises:
        UsageError: the data are absent.
    """
    for path in sorted(data("cbp2025").rglob("*.gz")):
        branches, instructions = read_trace(path)
        counted = compare(branches, instructions)
        _add(document, path, counted)
        say(f"{path.name}: {counted.entries} branches have an entry")


def compare(branches: list[Branch], instructions: int) -> Counted:
    """Run a trace: learn on its first half, count on its second."""
    middle = len(branches) // 2
    classes = classify(branches)
    tage = Tage()
    seen: dict[int, _Seen] = {}
    history = 0
    for branch in branches[:middle]:
        right = _one(tage, branch)
        if branch.conditional:
            here = seen.setdefault(branch.address, _Seen())
            here.wrong += not right
            here.samples.append((history, branch.taken, right))
            history = _pushed(history, branch.taken)
    table = learn(seen)
    counted = Counted(instructions // 2, entries=len(table))
    for branch in branches[middle:]:
        if not branch.conditional:
            tage.shift(branch.taken)
            continue
        said = tage.predict(branch.address)
        entry = table.get(branch.address)
        final = said if entry is None else _decide(entry, history, branch.taken, said)
        tage.update(branch.address, branch.taken)
        kind = classes[branch.address]
        counted.alone[kind] += said is not branch.taken
        counted.both[kind] += final is not branch.taken
        history = _pushed(history, branch.taken)
    return counted


def _one(tage: Tage, branch: Branch) -> bool:
    if not branch.conditional:
        tage.shift(branch.taken)
        return True
    said = tage.predict(branch.address)
    tage.update(branch.address, branch.taken)
    return said is branch.taken


def _pushed(history: int, taken: bool) -> int:
    return (history << 1 | taken) & ((1 << HISTORY) - 1)


def _decide(entry: Entry, history: int, taken: bool, said: bool) -> bool:
    """What is predicted; the entry learns whether it would have been right."""
    score = entry.score(history)
    own = score >= 0
    if abs(score) < entry.clear:
        return said
    final = own if entry.confidence > _TOP // 2 else said
    entry.learn(own is taken, said is taken)
    return final


def learn(seen: dict[int, _Seen]) -> dict[int, Entry]:
    """Entries for the branches that gain most by one."""
    gains: list[tuple[int, int, Entry]] = []
    for address, here in seen.items():
        if here.wrong < _WRONG or len(here.samples) < _FEWEST:
            continue
        gain, entry = _fitted(here.samples[-SAMPLES:])
        if entry is not None and gain > 0:
            gains.append((gain, address, entry))
    gains.sort(key=lambda one: -one[0])
    return {address: entry for _, address, entry in gains[:ENTRIES]}


def _fitted(samples: list[tuple[int, bool, bool]]) -> tuple[int, Entry | None]:
    """An entry, and how many more of the later samples it gets right than TAGE did."""
    outcomes = sum(1 << at for at, (_, taken, _) in enumerate(samples) if taken)
    everywhere = (1 << len(samples)) - 1
    columns = [Column(everywhere, positive) for positive in _transposed([h for h, _, _ in samples])]
    model = fit(columns, outcomes, len(samples), most=FEATURES)
    if not model.weights:
        return 0, None
    entry = quantised(model.bias, model.weights)
    gain = 0
    for history, taken, right in samples[-model.held :]:
        score = entry.score(history)
        own = right if abs(score) < entry.clear else (score >= 0) is taken
        gain += own - right
    return gain, entry


def _transposed(rows: list[int]) -> list[int]:
    """Bit i of column j is bit j of row i."""
    texts = [format(row, f"0{HISTORY}b") for row in reversed(rows)]
    columns = ["".join(bits) for bits in zip(*texts, strict=True)]
    return [int(column, 2) for column in reversed(columns)]


def quantised(bias: float, weights: dict[int, float]) -> Entry:
    """Weights of sign and two bits, the largest at full scale; what would become 0 is dropped."""
    scale = 4 / max(map(abs, weights.values()))
    made = {place: round(weight * scale) for place, weight in weights.items()}
    kept = tuple((place, weight) for place, weight in sorted(made.items()) if weight)
    most = sum(abs(weight) for _, weight in kept)
    whole = max(-most, min(most, round(bias * scale)))
    return Entry(whole, kept, clear=max(1, most // 4))


def classify(branches: list[Branch]) -> dict[int, str]:
    """Each conditional branch by how it behaves over the whole trace."""
    times: Counter[int] = Counter()
    taken: Counter[int] = Counter()
    back: set[int] = set()
    for one in branches:
        if one.conditional:
            times[one.address] += 1
            taken[one.address] += one.taken
            if one.back:
                back.add(one.address)
    return {address: _class(taken[address] / count, address in back)
            for address, count in times.items()}  # fmt: skip


def _class(share: float, back: bool) -> str:
    if back:
        return _CLASSES[0]
    return _CLASSES[1] if max(share, 1 - share) >= _ONE_WAY else _CLASSES[2]


def _add(document: Document, path: Path, counted: Counted) -> None:
    name = path.name.removesuffix(".gz")
    thousands = counted.instructions / 1000
    for kind in ("all", *_CLASSES):
        alone = counted.alone.total() if kind == "all" else counted.alone[kind]
        both = counted.both.total() if kind == "all" else counted.both[kind]
        label = f"{name}: {kind}"
        document.figures.append(
            Figure(
                label,
                both / thousands,
                "MPKI",
                "lower",
                None,
                "TAGE alone",
                alone / thousands,
                note=f"{both} instead of {alone} mispredictions",
            )
        )
    document.notes.append(f"{name}: {counted.entries} entries of {ENTRIES}")
