"""The seam to one page of a browser: what is on it, seen in two ways, and acts on one element.

Knows nothing of which element a program means, or whether it may act.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Node:
    """An element that a program could mean.

    Attributes:
        ref: for the acts below, until the next look at the page.
        name: what the accessibility tree calls it.
        shown: what stands on it or beside it on the screen; empty where nothing does.
        place: the row, group or heading that it belongs to.
        covered: what lies over its middle, in words; empty where nothing does.
    """

    ref: int
    role: str
    name: str
    shown: str
    value: str = ""
    place: str = ""
    visible: bool = True
    enabled: bool = True
    covered: str = ""


@dataclass(frozen=True, slots=True)
class Texts:
    """The text of the page as it is laid out, and as the accessibility tree has it."""

    shown: str
    spoken: str


class Page(Protocol):
    """One page. What cannot be done raises `DeviceError`."""

    async def open(self, url: str) -> None: ...

    async def where(self) -> tuple[str, str]:
        """Its URL and title; an empty URL before anything was opened."""

    async def texts(self) -> Texts: ...

    async def nodes(self) -> list[Node]: ...

    async def look(self, ref: int) -> Node | None:
        """The element again, brought into view; None where it is gone."""

    async def click(self, ref: int) -> None: ...

    async def fill(self, ref: int, text: str) -> None: ...

    async def choose(self, ref: int, option: str) -> bool:
        """False where it has no such option, or more than one."""

    def happened(self) -> list[str]:
        """What nobody asked for since the last call: dialogs, windows, refused connections."""

    def met(self) -> frozenset[str]:
        """Origins whose content has reached the page so far."""

    async def close(self) -> None: ...
