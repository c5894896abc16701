"""A tree of finished sequences over token ids, one block of tokens a node.

Each reader class has a tree of its own: nothing is ever shared between two. A node's block is
resident or spilled; the least recently used leaves are spilled first, or given up where there is
nowhere to spill to. A path is matched to the last token: of the block in which it parts, the
tokens before count. It knows no requests and no attention.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

import torch

from edvac.engine.kv.spill import SpillFile
from edvac.engine.scheduler import common_prefix

LEAST: Final = 16  # tokens; shorter prefixes are quicker to compute than to look after
Tokens: TypeAlias = "tuple[int, ...]"


class Blocks(Protocol):
    """What holds the blocks of tokens' keys and values, by number."""

    def harvest(self, slot: int, index: int) -> int: ...
    def make(self, contents: torch.Tensor) -> int | None: ...
    def contents(self, block: int) -> torch.Tensor: ...
    def release(self, block: int) -> None: ...
    def is_used(self, block: int) -> bool: ...
    def lend(self, slot: int, block: int, count: int) -> None: ...


@dataclass(slots=True, eq=False)
class Node:
    """`block` holds `tokens`; where it is None they lie at `place` of the spill file."""

    tokens: Tokens
    parent: Node | None
    block: int | None = None
    place: int | None = None
    used: int = 0
    children: dict[Tokens, Node] = field(default_factory=dict)

    def resident_below(self) -> bool:
        return any(child.block is not None for child in self.children.values())


class PrefixTree:
    """Finished sequences, for those that begin alike.

    Args:
        size: tokens of a block.
        spill: takes what has to make room; None gives it up.
    """

    def __init__(self, blocks: Blocks, size: int, spill: SpillFile | None = None) -> None:
        self._blocks, self._size, self._spill = blocks, size, spill
        self._roots: dict[str, Node] = {}
        self._ticks = 0
        self._pinned_from: int | None = None  # nodes used since are not to be evicted
        self.resident = 0  # blocks

    def __len__(self) -> int:
        """Sequences: the tree's leaves."""
        return sum(not node.children for node in self._nodes())

    def match(self, reader_class: str, tokens: list[int]) -> int:
        """How many leading tokens are resident."""
        found = sum(count for _, count in self._path(reader_class, tokens))
        return found if found >= LEAST else 0

    @contextmanager
    def pinned(self, wanted: list[tuple[str, list[int]]]) -> Iterator[None]:
        """Evict nothing of these prefixes, and nothing else that is used meanwhile."""
        before, self._pinned_from = self._pinned_from, self._pinned_from or self._ticks + 1
        try:
            for reader_class, tokens in wanted:
                for node, _ in self._path(reader_class, tokens, spilled=True):
                    self._touch(node)
            yield
        finally:
            self._pinned_from = before

    def recall(self, reader_class: str, tokens: list[int]) -> None:
        """Bring back what is spilled of a prefix, as far as there is room."""
        with self.pinned([(reader_class, tokens)]):
            for node, _ in list(self._path(reader_class, tokens, spilled=True)):
                if node.block is None and not self._unspill(node):
                    return

    def lend(self, reader_class: str, tokens: list[int], count: int, slot: int) -> None:
        """Let an empty row begin with the first `count` tokens, which were matched just now."""
        for node, there in self._path(reader_class, tokens):
            part = min(there, count)
            if part <= 0:
                return
            self._touch(node)
            assert node.block is not None
            self._blocks.lend(slot, node.block, part)
            count -= part
        if count:
            raise KeyError("no such prefix is there")

    def insert(self, reader_class: str, tokens: list[int], slot: int) -> None:
        """Keep what a row holds; it is not written any more."""
        if len(tokens) >= LEAST:
            self._keep(
                reader_class, tokens, lambda at, _: self._blocks.harvest(slot, at // self._size)
            )

    def put(self, reader_class: str, tokens: list[int], contents: torch.Tensor) -> None:
        """Keep a prefix that came from elsewhere, (_, _, heads, tokens, width), as far as there is
        room."""
        self._keep(
            reader_class,
            tokens,
            lambda at, count: self._blocks.make(contents[:, :, :, at : at + count]),
        )

    def _keep(
        self, reader_class: str, tokens: list[int], make: Callable[[int, int], int | None]
    ) -> None:
        """Walk down, and make the blocks that are not resident."""
        node = self._root(reader_class)
        with self.pinned([]):
            for at in range(0, len(tokens), self._size):
                part = tuple(tokens[at : at + self._size])
                known = self._covering(node, part)
                if known is None or known.block is None:
                    shorter = known is not None and len(part) < len(known.tokens)
                    block = None if shorter else make(at, len(part))
                    if block is None:  # no room, or no more than what is spilled
                        return
                    known = known or Node(part, node)
                    self._forget_place(known)
                    known.block, node.children[known.tokens] = block, known
                    self.resident += 1
                self._touch(known)
                node = known

    def evict(self, most: int = 1) -> bool:
        """Make room: the longest unused leaves that no row shows, as many as are wanted."""
        candidates = [
            node
            for node in self._nodes()
            if node.block is not None
            and not self._is_pinned(node)
            and not node.resident_below()
            and not self._blocks.is_used(node.block)
        ]
        for node in heapq.nsmallest(most, candidates, key=lambda one: one.used):
            self._demote(node)
        return bool(candidates)

    def _demote(self, node: Node) -> None:
        """From memory to the spill file, or out."""
        assert node.block is not None
        node.place = self._place_for(node.block)
        self._blocks.release(node.block)
        node.block = None
        self.resident -= 1
        if node.place is None:
            self._drop(node)

    def _place_for(self, block: int) -> int | None:
        """Where the block lies in the spill file; the longest unused one there makes room."""
        if self._spill is None:
            return None
        place = self._spill.put(self._blocks.contents(block))
        if place is None:
            spilled = [
                node
                for node in self._nodes()
                if node.place is not None and not node.children and not self._is_pinned(node)
            ]
            if spilled:
                self._drop(min(spilled, key=lambda one: one.used))
                place = self._spill.put(self._blocks.contents(block))
        return place

    def _path(
        self, reader_class: str, tokens: list[int], *, spilled: bool = False
    ) -> Iterator[tuple[Node, int]]:
        """Nodes from the root on, and how many of each one's tokens agree."""
        node = self._roots.get(reader_class)
        at = 0
        while node is not None and at < len(tokens):
            part = tuple(tokens[at : at + self._size])
            child = node.children.get(part)
            count = len(part)
            if child is None:
                child, count = self._nearest(node, part)
            if child is None or (child.block is None and not spilled):
                return
            yield child, count
            at += count
            node = child if count == self._size else None

    @staticmethod
    def _nearest(node: Node, part: Tokens) -> tuple[Node | None, int]:
        best: tuple[Node | None, int] = (None, 0)
        wanted = list(part)
        for child in node.children.values():
            if child.tokens[0] == part[0]:
                shared = common_prefix(list(child.tokens), wanted)
                if shared > best[1]:
                    best = (child, shared)
        return best

    def _covering(self, node: Node, part: Tokens) -> Node | None:
        """The child that begins with these tokens; ones that these begin with are given up."""
        found = node.children.get(part)
        if found is not None:
            return found
        for child in list(node.children.values()):
            if child.tokens[: len(part)] == part:
                return child
            if len(child.tokens) < self._size and part[: len(child.tokens)] == child.tokens:
                self._drop(child)
        return None

    def _drop(self, node: Node) -> None:
        """Give up a node and all below it."""
        for child in list(node.children.values()):
            self._drop(child)
        if node.block is not None:
            self._blocks.release(node.block)
            node.block = None
            self.resident -= 1
        self._forget_place(node)
        if node.parent is not None:
            del node.parent.children[node.tokens]

    def _unspill(self, node: Node) -> bool:
        assert self._spill is not None and node.place is not None
        contents = self._spill.get(node.place)
        if contents is None:  # damaged: what is below it is of no use without it
            self._drop(node)
            return False
        node.block = self._blocks.make(contents)
        if node.block is None:
            return False
        self.resident += 1
        self._forget_place(node)
        return True

    def _forget_place(self, node: Node) -> None:
        if node.place is not None and self._spill is not None:
            self._spill.free(node.place)
        node.place = None

    def _is_pinned(self, node: Node) -> bool:
        return self._pinned_from is not None and node.used >= self._pinned_from

    def _root(self, reader_class: str) -> Node:
        return self._roots.setdefault(reader_class, Node((), None))

    def _touch(self, node: Node) -> None:
        self._ticks += 1
        node.used = self._ticks

    def _nodes(self) -> Iterator[Node]:
        """Every node but the roots."""
        stack = [child for root in self._roots.values() for child in root.children.values()]
        while stack:
            node = stack.pop()
            yield node
            stack += node.children.values()
