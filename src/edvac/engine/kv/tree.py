"""A tree of finished sequences over token ids, one block of tokens a node.

Each reader class has a tree of its own: nothing is ever shared between two. A node's block is
resident, spilled, or on its way back, which a helper sees to while steps go on. The least recently
used leaves leave memory first, and what programs have claimed last (`edvac.engine.programs` says
what and for how long). A path is matched to the last token: of the block in which it parts, the
tokens before count.

A spill file may keep less than was computed. What came from it is lossy, and so is what was
computed behind that: readers that ask for exactness are matched with neither, and what they compute
instead takes its place. Nothing lossy ever takes the place of what is exact in memory. It knows no
requests and no attention.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import torch

from edvac.engine.kv.nodes import Blocks, Claim, Load, Node, Tokens, line, worth
from edvac.engine.kv.spill import SpillFile
from edvac.engine.retention import Keep
from edvac.engine.sequences import Prefix, common_prefix

LEAST: Final = 16  # tokens; shorter prefixes are quicker to compute than to look after


class PrefixTree:
    """Finished sequences, for those that begin alike.

    Args:
        size: tokens of a block.
        spill: takes what has to make room; None gives it up.
        most_claimed: blocks that claims can keep in all.
    """

    def __init__(
        self, blocks: Blocks, size: int, spill: SpillFile | None = None, most_claimed: int = 1 << 30
    ) -> None:
        self._blocks, self._size, self._spill = blocks, size, spill
        self._most_claimed = most_claimed
        self._roots: dict[str, Node] = {}
        self._claims: dict[str, Claim] = {}
        self._loads: list[Load] = []
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reload")
        self._ticks = 0
        self._pins: set[Node] = set()  # nodes that are not to be evicted
        self.resident = 0  # blocks
        # Whether so many tokens, in so many blocks, are quicker to read than to compute.
        self.worth_loading: Callable[[int, int], bool] = lambda tokens, blocks: True

    def __len__(self) -> int:
        """Sequences: the tree's leaves."""
        return sum(not node.children for node in self._nodes())

    def match(self, reader_class: str, tokens: list[int], *, exact: bool = False) -> int:
        """How many leading tokens are resident."""
        found = sum(count for _, count in self._path(reader_class, tokens, exact=exact))
        return found if found >= LEAST else 0

    def exact(self, reader_class: str, tokens: list[int]) -> int:
        """How many of the leading tokens that `match` counts come before the first lossy one."""
        path = self._path(reader_class, tokens)
        return sum(count for _, count in itertools.takewhile(lambda one: not one[0].lossy, path))

    def coming(self, reader_class: str, tokens: list[int], *, exact: bool = False) -> int:
        """How many leading tokens are resident or on their way."""
        if not self._loads:
            return 0
        found = 0
        for node, count in self._path(reader_class, tokens, spilled=True, exact=exact):
            if node.block is None and node.load is None:
                break
            found += count
        return found

    def known(self, reader_class: str, tokens: list[int], *, exact: bool = False) -> int:
        """How many leading tokens are resident or could be brought back."""
        path = self._path(reader_class, tokens, spilled=True, exact=exact)
        return sum(count for _, count in path)

    @contextmanager
    def pinned(self, wanted: list[tuple[str, list[int]]]) -> Iterator[None]:
        """Evict nothing of these prefixes, nor of what is pinned within."""
        before = set(self._pins)
        try:
            for reader_class, tokens in wanted:
                self.use(reader_class, tokens)
            yield
        finally:
            self._pins = before

    def use(self, reader_class: str, tokens: list[int], *, exact: bool = False) -> None:
        """A prefix is about to be lent, or brought back: it stays until the pins around end."""
        for node, _ in self._path(reader_class, tokens, spilled=True, exact=exact):
            self._pins.add(node)
            self._touch(node)

    def lend(
        self, reader_class: str, tokens: list[int], count: int, slot: int, *, exact: bool = False
    ) -> None:
        """Let an empty row begin with the first `count` tokens, which were matched just now."""
        for node, there in self._path(reader_class, tokens, exact=exact):
            part = min(there, count)
            if part <= 0:
                return
            self._touch(node)
            assert node.block is not None
            self._blocks.lend(slot, node.block, part)
            count -= part
        if count:
            raise KeyError("no such prefix is there")

    def insert(
        self, reader_class: str, tokens: list[int], slot: int, lossy_from: int | None = None
    ) -> None:
        """Keep what a row holds; it is not written any more. From `lossy_from` on it is lossy."""
        if len(tokens) >= LEAST:
            self._keep(
                reader_class,
                tokens,
                lambda at, _: self._blocks.harvest(slot, at // self._size),
                lossy_from,
            )

    def put(self, reader_class: str, tokens: list[int], contents: torch.Tensor) -> None:
        """Keep an exact prefix that came from elsewhere, (_, _, heads, tokens, width), as far as
        there is room."""
        self._keep(
            reader_class,
            tokens,
            lambda at, count: self._blocks.make(contents[:, :, :, at : at + count]),
        )

    def _keep(
        self,
        reader_class: str,
        tokens: list[int],
        make: Callable[[int, int], int | None],
        lossy_from: int | None = None,
    ) -> None:
        """Walk down, and make the blocks that are not resident, or lossy where these are not."""
        node = self._root(reader_class)
        with self.pinned([]):
            for at in range(0, len(tokens), self._size):
                part = tuple(tokens[at : at + self._size])
                lossy = lossy_from is not None and at + len(part) > lossy_from
                if lossy and self._is_exact_beginning(node, part):
                    return
                known = self._covering(node, part)
                if known is not None:
                    self._pins.add(known)
                better = known is not None and known.lossy and not lossy
                if known is None or known.block is None or better:
                    shorter = known is not None and len(part) < len(known.tokens)
                    block = None if shorter else make(at, len(part))
                    if block is None:  # no room, or no more than what is spilled
                        return
                    known = known or Node(part, node)
                    self._hold(known, block, lossy)
                    node.children[known.tokens] = known
                self._touch(known)
                self._pins.add(known)
                node = known

    def _hold(self, node: Node, block: int, lossy: bool) -> None:
        """The block is the node's, instead of what it held."""
        if node.load is not None:
            self._orphan(node)
        if node.block is None:
            self.resident += 1
        else:
            self._blocks.release(node.block)
        if node.lossy and not lossy:
            self._forget_place(node)  # the copy of what is exact loses less
        node.block, node.lossy = block, lossy

    # --- claims --------------------------------------------------------------------------------

    def keep(self, owner: str, prefix: Prefix, keep: Keep) -> None:
        """Keep a prefix longer than others; an owner's earlier claim ends, and where all of them
        together are too large, those that are due last."""
        self.unclaim(owner)
        claim = self._claims[owner] = Claim(prefix, keep)
        for node, _ in self._path(*prefix, spilled=True):
            claim.nodes.append(node)
            node.claims.append(claim)
        while sum(len(one.nodes) for one in self._claims.values()) > self._most_claimed:
            self.unclaim(max(self._claims, key=lambda one: self._claims[one].keep.due))

    def renew(self, owner: str, keep: Keep) -> None:
        """What is known of a claim's use has changed."""
        claim = self._claims.get(owner)
        if claim is not None:
            claim.keep = keep

    def unclaim(self, owner: str) -> None:
        claim = self._claims.pop(owner, None)
        if claim is not None:
            for node in claim.nodes:
                node.claims.remove(claim)

    def expire(self, now: float) -> None:
        """End the claims whose time is over."""
        for owner in [owner for owner, claim in self._claims.items() if claim.keep.until <= now]:
            self.unclaim(owner)

    def held(self, owner: str) -> int:
        """Tokens in memory that claims of others hold."""
        nodes: set[Node] = set()
        if self._blocks.pooled:
            for other, claim in self._claims.items():
                if claim.keep.holds and other != owner:
                    nodes.update(node for node in claim.nodes if node.block is not None)
        return len(nodes) * self._size

    def is_claimed(self, owner: str) -> bool:
        return owner in self._claims

    def yield_claim(self) -> bool:
        """Of the claims that hold, and do not wait, the one that is due last holds no longer."""
        held = [one for one in self._claims.values() if one.keep.holds and not one.keep.waits]
        if held:
            latest = max(held, key=lambda claim: claim.keep.due)
            latest.keep = replace(latest.keep, holds=False)
        return bool(held)

    def prefetch(self, owner: str) -> None:
        """Begin to bring back what an owner has claimed and what is spilled of it."""
        claim = self._claims.get(owner)
        if claim is not None:
            self.fetch(*claim.prefix)

    def give_up(self, prefix: Prefix) -> None:
        """Nobody reads the end of this prefix again, as far as it is nobody else's beginning."""
        path = [node for node, _ in self._path(*prefix, spilled=True)]
        for node in reversed(path):
            used = node.block is not None and self._blocks.is_used(node.block)
            if node.children or node.claims or used or self._is_pinned(node):
                return
            self._drop(node)

    # --- out of memory -------------------------------------------------------------------------

    def evict(self, most: int = 1) -> bool:
        """Make room: the longest unused leaves that no row shows, as many as are wanted; claimed
        ones after all others, the latest due first."""
        ends = [node for node in self._nodes() if self._can_leave(node)]
        while not ends and self._loads:
            self.wait()  # what is on its way holds blocks and cannot be stopped
            ends = [node for node in self._nodes() if self._can_leave(node)]
        order = itertools.count()
        heap = [(worth(node), next(order), node) for node in ends]
        heapq.heapify(heap)
        for _ in range(most):
            if not heap:
                break
            node = heapq.heappop(heap)[2]
            before = node.parent
            self._demote(node)
            # A sequence leaves from its end on, before the next one begins to.
            if before is not None and self._can_leave(before):
                heapq.heappush(heap, (worth(before), next(order), before))
        return bool(ends)

    def _can_leave(self, node: Node) -> bool:
        return (
            node.block is not None
            and not self._is_pinned(node)
            and not node.resident_below()
            and not self._blocks.is_used(node.block)
        )

    def _demote(self, node: Node) -> None:
        """From memory to the spill file, or out."""
        assert node.block is not None
        if node.place is None:
            node.place = self._place_for(node)
        self._blocks.release(node.block)
        node.block, node.lossy = None, node.lossy or self._loses
        self.resident -= 1
        if node.place is None:
            self._drop(node)

    def _place_for(self, node: Node) -> int | None:
        """Where its block lies in the spill file; copies of what is in memory make room, then the
        longest unused block."""
        if self._spill is None:
            return None
        place = self._put(node)
        if place is None:
            placed = [node for node in self._nodes() if node.place is not None and not node.load]
            copies = [node for node in placed if node.block is not None]
            alone = [
                node
                for node in placed
                if node.block is None and not node.children and not self._is_pinned(node)
            ]
            if copies:
                self._forget_place(min(copies, key=lambda one: one.used))
            elif alone:
                self._drop(min(alone, key=worth))
            if copies or alone:
                place = self._put(node)
        return place

    def _put(self, node: Node) -> int | None:
        assert self._spill is not None and node.block is not None
        return self._spill.put(self._blocks.contents(node.block), self._first(node))

    def _first(self, node: Node) -> int:
        """The position of its first token."""
        return (len(line(node)) - 1) * self._size

    # --- and back ------------------------------------------------------------------------------

    def fetch(self, reader_class: str, tokens: list[int], *, exact: bool = False) -> bool:
        """Begin to bring back what is spilled of a prefix, as far as there is room and it is
        quicker than computing it; whether anything is on its way."""
        with self.pinned([(reader_class, tokens)]):
            path = list(self._path(reader_class, tokens, spilled=True, exact=exact))
            away = [(node, count) for node, count in path if node.block is None and not node.load]
            if away and not self.worth_loading(sum(count for _, count in away), len(away)):
                return False
            for node, _ in away:
                block = self._blocks.reserve()
                if block is None:
                    break
                if node.place is None:  # given up while room was made
                    self._blocks.release(block)
                    break
                self._start(node, block)
        return any(node.load is not None for node, _ in path)

    def recall(self, reader_class: str, tokens: list[int], *, exact: bool = False) -> None:
        """Bring back what is spilled of a prefix, and wait for it."""
        while self.fetch(reader_class, tokens, exact=exact):
            self.wait()

    def _start(self, node: Node, block: int) -> None:
        assert self._spill is not None and node.place is not None
        target = self._blocks.contents(block)
        reading = self._reader.submit(self._spill.read, node.place, target, self._first(node))
        node.load = Load(node, block, node.place, reading)
        self._loads.append(node.load)
        self.resident += 1
        self._touch(node)

    def settle(self) -> None:
        """Take in what has arrived."""
        while self._loads and self._loads[0].good.done():
            load = self._loads.pop(0)
            node = load.node
            if node is None:
                self._blocks.release(load.block)
                self.resident -= 1
                assert self._spill is not None
                self._spill.free(load.place)
                continue
            node.load = None
            if load.good.result():
                node.block = load.block
                self._touch(node)
            else:  # damaged: what is below it is of no use without it
                self._blocks.release(load.block)
                self.resident -= 1
                self._drop(node)

    @property
    def loading(self) -> bool:
        return bool(self._loads)

    def wait(self) -> None:
        """Until the first of what is on its way has arrived."""
        if self._loads:
            wait([self._loads[0].good])
            self.settle()

    # --- beyond the end of the engine ----------------------------------------------------------

    def save(self, most: int) -> None:
        """Leave the whole blocks for a later engine, up to `most` of those that are in memory
        only."""
        if self._spill is None or not self._spill.named:
            return
        nodes = [node for node in self._nodes() if len(node.tokens) == self._size]
        for node in sorted(nodes, key=lambda one: -one.used):
            fresh = [one for one in line(node) if one.block is not None and one.place is None]
            most -= len(fresh)
            if most < 0:
                break
            for one in fresh:
                one.place = self._put(one)
        # What comes first is given up first, and a block is of no use without those before it.
        nodes.reverse()
        self._spill.save((self._key(one), one.place) for one in nodes if one.place is not None)

    def forget(self) -> None:
        """Give up all that no row shows, here and on disk."""
        for owner in list(self._claims):
            self.unclaim(owner)
        for root in self._roots.values():
            for child in list(root.children.values()):
                self._drop(child)
        if self._spill is not None:
            self._spill.forget()

    def _key(self, node: Node) -> bytes:
        assert self._spill is not None
        chain = []
        at: Node | None = node
        while at is not None and not at.key:
            chain.append(at)
            at = at.parent
        for one in reversed(chain):
            assert one.parent is not None
            one.key = self._spill.key(one.parent.key, one.tokens)
        return node.key

    def _restored(self, node: Node, part: Tokens) -> Node | None:
        """The block behind `node` that an earlier engine left."""
        if self._spill is None or not self._spill.named or len(part) != self._size:
            return None
        key = self._spill.key(self._key(node), part)
        place = self._spill.find(key)
        if place is None:
            return None
        found = node.children[part] = Node(part, node, place=place, lossy=self._loses, key=key)
        return found

    # --- the tree ------------------------------------------------------------------------------

    @property
    def _loses(self) -> bool:
        return self._spill is not None and self._spill.lossy

    def _path(
        self, reader_class: str, tokens: list[int], *, spilled: bool = False, exact: bool = False
    ) -> Iterator[tuple[Node, int]]:
        """Nodes from the root on, and how many of each one's tokens agree; only `exact` ones, or
        all the same."""
        restored = spilled and not (exact and self._loses)
        node = self._root(reader_class) if spilled else self._roots.get(reader_class)
        at = 0
        while node is not None and at < len(tokens):
            part = tuple(tokens[at : at + self._size])
            child = node.children.get(part) or (self._restored(node, part) if restored else None)
            count = len(part)
            if child is None or (exact and child.lossy):
                child, count = self._nearest(node, part, exact)
            if child is None or (child.block is None and not spilled):
                return
            yield child, count
            at += count
            node = child if count == self._size else None

    @staticmethod
    def _nearest(node: Node, part: Tokens, exact: bool) -> tuple[Node | None, int]:
        """The child that agrees for longest, of several one that is not lossy."""
        best: tuple[Node | None, int] = (None, 0)
        wanted = list(part)
        for child in sorted(node.children.values(), key=lambda one: one.lossy):
            if child.tokens[0] == part[0] and not (exact and child.lossy):
                shared = common_prefix(list(child.tokens), wanted)
                if shared > best[1]:
                    best = (child, shared)
        return best

    @staticmethod
    def _is_exact_beginning(node: Node, part: Tokens) -> bool:
        """Whether these tokens would take the place of some of them that are exact in memory."""
        return any(
            child.block is not None
            and not child.lossy
            and len(child.tokens) < len(part)
            and part[: len(child.tokens)] == child.tokens
            for child in node.children.values()
        )

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
        for claim in node.claims:
            claim.nodes.remove(node)
        node.claims = []
        if node.block is not None:
            self._blocks.release(node.block)
            node.block = None
            self.resident -= 1
        self._orphan(node)
        if node.parent is not None:
            del node.parent.children[node.tokens]

    def _orphan(self, node: Node) -> None:
        """The spilled copy of a node is of no use any more; what is being read is freed later."""
        if node.load is not None:
            node.load.node = node.load = node.place = None
        self._forget_place(node)

    def _forget_place(self, node: Node) -> None:
        if node.place is not None and self._spill is not None:
            self._spill.free(node.place)
        node.place = None

    def _is_pinned(self, node: Node) -> bool:
        return node in self._pins

    def _root(self, reader_class: str) -> Node:
        found = self._roots.get(reader_class)
        if found is None:
            key = b"" if self._spill is None else self._spill.root(reader_class)
            found = self._roots[reader_class] = Node((), None, key=key)
        return found

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
