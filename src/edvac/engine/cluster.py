"""The order in which many requests that nobody waits for are computed: those that begin alike
together, and those that write much before those that read much (BatchLLM, arXiv 2412.03594).

Groups have one prefix each, as there: a bottom-up pass lengthens prefixes where members save more
than their group repeats. Within a group the order is that of a walk through the tree of all
prompts, so that beginnings which only some members share are computed once too. It sees token
ids and lengths of answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edvac.engine.sequences import common_prefix

LEAST = 16  # tokens; what shares less is not grouped


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its prompt, and how many tokens its answer has at most."""

    tokens: list[int]
    answer: int


@dataclass(frozen=True, slots=True)
class Group:
    """Requests, by number, whose first `prefix` tokens are the same."""

    prefix: int
    members: tuple[int, ...]


@dataclass(slots=True)
class _Branch:
    """Prompts `first` to `last` of the sorted ones; the first `length` tokens are the same."""

    first: int
    last: int
    length: int
    children: list[_Branch] = field(default_factory=list)

    @property
    def members(self) -> int:
        return self.last - self.first + 1


def grouped(asked: Sequence[Asked]) -> list[Group]:
    """All requests in groups, in the order in which they are best computed."""
    order = sorted(range(len(asked)), key=lambda one: asked[one].tokens)
    prompts = [asked[one].tokens for one in order]
    found: list[Group] = []
    for branch in _branches(prompts):
        parts = _lengthened(branch) if branch.children else [branch]
        found += [Group(part.length, tuple(order[part.first : part.last + 1])) for part in parts]
    found.sort(key=lambda one: -_written_share(one, asked))
    return found


def _written_share(group: Group, asked: Sequence[Asked]) -> float:
    """Tokens written for each token read, the prefix read once."""
    own = sum(len(asked[one].tokens) - group.prefix for one in group.members)
    return sum(asked[one].answer for one in group.members) / max(1, group.prefix + own)


def _branches(prompts: list[list[int]]) -> list[_Branch]:
    """The tree of sorted prompts, by the lengths that neighbours share: its first level."""
    top = _Branch(0, -1, 0)
    stack = [top]
    for at, prompt in enumerate(prompts):
        shared = common_prefix(prompts[at - 1], prompt) if at else 0
        if shared < LEAST:
            shared = 0
        child = None
        while len(stack) > 1 and (stack[-1].length > shared or not stack[-1].children):
            child = stack.pop()
            child.last = at - 1
        if stack[-1].length < shared:
            # The branch parts here: what was below is one of its children.
            first = child.first if child is not None else at - 1
            parent = _Branch(first, at, shared)
            if child is not None:
                stack[-1].children.remove(child)
                parent.children.append(child)
            stack[-1].children.append(parent)
            stack.append(parent)
        leaf = _Branch(at, at, len(prompt))
        stack[-1].children.append(leaf)
        stack.append(leaf)
    for branch in stack:
        branch.last = len(prompts) - 1
    return top.children


def _lengthened(top: _Branch) -> list[_Branch]:
    """The branch as one group or several, from the deepest branches up."""
    ways: list[tuple[_Branch, int]] = [(top, 0)]
    for branch, _ in ways:  # grows as it goes: parents before children
        ways += [(child, branch.length) for child in branch.children if child.children]
    parts: dict[int, list[_Branch]] = {}
    for branch, before in reversed(ways):
        below: list[_Branch] = []
        for child in branch.children:
            below += parts.pop(id(child), [child])
        parts[id(branch)] = _promoted(branch, before, below)
    return parts[id(top)]


def _promoted(branch: _Branch, before: int, below: list[_Branch]) -> list[_Branch]:
    """A group below becomes one beside the branch where its members save more by their longer
    prefix than the branch's costs once more: (members - 1) x (its tokens below the branch) >
    (the branch's tokens below what is before it)."""
    found: list[_Branch] = []
    last: _Branch | None = None  # the run of those that stay
    for part in below:
        gain = (part.members - 1) * (part.length - branch.length)
        if part.members > 1 and gain > branch.length - before:
            found.append(part)
            last = None
        elif last is None:
            last = _Branch(part.first, part.last, branch.length)
            found.append(last)
        else:
            last.last = part.last
    return found
