"""A branch predictor of the TAGE kind (Seznec and Michaud 2006), as the baseline of `branches`.

A table of two-bit counters, and tagged tables that are looked up with ever longer pieces of the
global history; the longest that matches speaks. About 24 KB. It has no statistical corrector and
no loop predictor, so it is weaker than the TAGE-SC-L of 64 KB whose figures are published.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

LENGTHS: Final = (4, 6, 10, 16, 25, 40, 64, 101, 160, 254, 403, 640)
_BITS: Final = 10  # of an index
_TAG: Final = 11
_BASE: Final = 13
_FADE: Final = 1 << 18  # branches after which what is useful fades


@dataclass(slots=True)
class _Fold:
    """The latest `length` outcomes, folded to `width` bits by exclusive or, step by step."""

    length: int
    width: int
    value: int = 0

    def shift(self, new: int, old: int) -> None:
        value = (self.value << 1) | new
        value ^= old << (self.length % self.width)
        value ^= value >> self.width
        self.value = value & ((1 << self.width) - 1)


@dataclass(slots=True)
class _Entry:
    tag: int = -1
    counter: int = 0  # -4..3; its sign speaks
    useful: int = 0  # 0..3


@dataclass(slots=True)
class _Table:
    length: int
    entries: list[_Entry] = field(default_factory=lambda: [_Entry() for _ in range(1 << _BITS)])
    index: _Fold = field(init=False)
    tags: tuple[_Fold, _Fold] = field(init=False)

    def __post_init__(self) -> None:
        self.index = _Fold(self.length, _BITS)
        self.tags = _Fold(self.length, _TAG), _Fold(self.length, _TAG - 1)

    def find(self, address: int) -> tuple[_Entry, int]:
        """The entry for this branch and history, and the tag that it has if it is theirs."""
        at = (address ^ address >> _BITS ^ self.index.value) & ((1 << _BITS) - 1)
        tag = (address ^ self.tags[0].value ^ self.tags[1].value << 1) & ((1 << _TAG) - 1)
        return self.entries[at], tag


class Tage:
    """Call `predict`, then `update` with what happened; unconditional branches only `shift`."""

    def __init__(self) -> None:
        self._base = [1] * (1 << _BASE)
        self._tables = [_Table(length) for length in LENGTHS]
        self.history = 0  # the latest outcome in bit 0
        self._fresh = 8  # trust in entries just allocated, 0..15
        self._count = 0
        self._turn = 0
        self._found: list[tuple[_Entry, int]] = []
        self._provider: _Entry | None = None
        self._other = False
        self._said = False

    @property
    def sure(self) -> bool:
        """Does a counter that is saturated speak?"""
        if self._provider is None:
            return False
        return self._provider.counter in (-4, 3)

    def predict(self, address: int) -> bool:
        address >>= 2
        self._found = [table.find(address) for table in self._tables]
        matching = [entry for entry, tag in reversed(self._found) if entry.tag == tag]
        base = self._base[address & ((1 << _BASE) - 1)] >= 2
        self._provider = matching[0] if matching else None
        self._other = matching[1].counter >= 0 if len(matching) > 1 else base
        self._said = base
        if self._provider is not None:
            weak = self._provider.counter in (-1, 0) and not self._provider.useful
            trusts_other = weak and self._fresh >= 8
            self._said = self._other if trusts_other else self._provider.counter >= 0
        return self._said

    def update(self, address: int, taken: bool) -> None:
        provider = self._provider
        if provider is None:
            at = (address >> 2) & ((1 << _BASE) - 1)
            self._base[at] = min(3, self._base[at] + 1) if taken else max(0, self._base[at] - 1)
        else:
            self._learn(provider, taken)
        if self._said is not taken:
            self._allocate(taken)
        self._count += 1
        if self._count % _FADE == 0:
            for table in self._tables:
                for entry in table.entries:
                    entry.useful >>= 1
        self.shift(taken)

    def _learn(self, provider: _Entry, taken: bool) -> None:
        own = provider.counter >= 0
        if own is not self._other:
            if provider.counter in (-1, 0) and not provider.useful:
                better = self._other is taken
                self._fresh = min(15, self._fresh + 1) if better else max(0, self._fresh - 1)
            step = 1 if own is taken else -1
            provider.useful = max(0, min(3, provider.useful + step))
        step = 1 if taken else -1
        provider.counter = max(-4, min(3, provider.counter + step))

    def _allocate(self, taken: bool) -> None:
        """An entry with a longer history, where one is free; else the others fade."""
        places = [at for at, (entry, _) in enumerate(self._found) if entry is self._provider]
        start = places[0] + 1 if places else 0
        self._turn = (self._turn + 1) % 3  # not always the next: entries would crowd there
        start = min(start + (self._turn == 0), len(self._tables))
        for entry, tag in self._found[start:]:
            if not entry.useful:
                entry.tag, entry.counter = tag, 0 if taken else -1
                return
        for entry, _ in self._found[start:]:
            entry.useful -= 1

    def shift(self, taken: bool) -> None:
        """Append an outcome to the history."""
        new = int(taken)
        for table in self._tables:
            old = self.history >> (table.length - 1) & 1
            table.index.shift(new, old)
            for fold in table.tags:
                fold.shift(new, old)
        self.history = (self.history << 1 | new) & ((1 << 1024) - 1)
