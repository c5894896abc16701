"""What the tree of finished sequences is made of. It knows token ids, and no files or threads."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch

from edvac.engine.retention import Keep
from edvac.engine.sequences import Prefix

Tokens: TypeAlias = "tuple[int, ...]"


class Blocks(Protocol):
    """What holds the blocks of tokens' keys and values, by number."""

    pooled: bool  # do these blocks and those of running sequences take each other's room?

    def harvest(self, slot: int, index: int) -> int: ...
    def make(self, contents: torch.Tensor) -> int | None: ...
    def reserve(self) -> int | None: ...
    def contents(self, block: int) -> torch.Tensor: ...
    def release(self, block: int) -> None: ...
    def is_used(self, block: int) -> bool: ...
    def lend(self, slot: int, block: int, count: int) -> None: ...


@dataclass(slots=True, eq=False)
class Node:
    """`block` holds `tokens`; they lie at `place` of the spill file too, or only there.

    It is `lossy` where that is not what would be computed: it came, or would come, from a file that
    keeps less, or was computed behind what did.
    """

    tokens: Tokens
    parent: Node | None
    block: int | None = None
    place: int | None = None
    lossy: bool = False
    load: Load | None = None
    used: int = 0
    key: bytes = b""
    claims: list[Claim] = field(default_factory=list)
    children: dict[Tokens, Node] = field(default_factory=dict)

    def resident_below(self) -> bool:
        return any(
            child.block is not None or child.load is not None for child in self.children.values()
        )


@dataclass(slots=True, eq=False)
class Load:
    """A block on its way back; `node` becomes None where nobody wants it any more."""

    node: Node | None
    block: int
    place: int
    good: Future[bool]


@dataclass(slots=True, eq=False)
class Claim:
    """A program's word that it reads a prefix again."""

    prefix: Prefix
    keep: Keep
    nodes: list[Node] = field(default_factory=list)


def line(node: Node) -> list[Node]:
    """All blocks up to this one, the first first."""
    found: list[Node] = []
    at: Node | None = node
    while at is not None and at.parent is not None:
        found.append(at)
        at = at.parent
    return found[::-1]


def worth(node: Node) -> tuple[int, float]:
    """What is evicted first comes first."""
    if node.claims:
        return 1, -min(claim.keep.due for claim in node.claims)
    return 0, node.used
