"""Which of a page's elements is meant by a role and a name: exactly one, or a reason why none.

Knows nothing of pages.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from edvac.core.errors import DeviceError
from edvac.device.browser.page import Node


def alike(text: str) -> str:
    """Texts that look the same but for capitals and blanks, in one form."""
    plain = unicodedata.normalize("NFKC", text)
    seen = (sign for sign in plain if unicodedata.category(sign) != "Cf")
    return " ".join("".join(seen).split()).casefold()


def same(one: str, other: str) -> bool:
    return alike(one) == alike(other)


def find(nodes: Sequence[Node], role: str, name: str, place: str = "") -> Node:
    """The element that is meant.

    Raises:
        DeviceError: none is, more than one is, or it must not be acted on.
    """
    named = [
        one
        for one in nodes
        if one.role == role
        and (same(one.name, name) or same(one.shown, name))
        and alike(place) in alike(one.place)
    ]
    visible = [one for one in named if one.visible]
    said = f"{role} {name[:60]!r}" + (f" in {place[:40]!r}" if place else "")
    if not visible:
        raise _none(said, nodes, role, hidden=bool(named))
    if len(visible) > 1:
        raise DeviceError(
            "element_ambiguous",
            f"there are {len(visible)} elements {said}",
            "They lie in " + ", ".join(repr(one.place[:40]) for one in visible[:3]) + ".",
            "Say which with place=, the text of its row, group or heading.",
        )
    return _fit(visible[0], said)


def _none(said: str, nodes: Sequence[Node], role: str, *, hidden: bool) -> DeviceError:
    if hidden:
        return DeviceError(
            "element_hidden",
            f"{said} is on the page, but cannot be seen",
            "What nobody can see is not acted on.",
            "Open what it is hidden in first.",
        )
    there = [one.name for one in nodes if one.role == role and one.visible and one.name]
    why = f"Of that role there are {', '.join(repr(one[:30]) for one in there[:5])}."
    return DeviceError(
        "element_missing",
        f"there is no {said}",
        why if there else "There is none of that role.",
        "browser.elements() lists what can be seen.",
    )


def _fit(node: Node, said: str) -> Node:
    if node.shown and not same(node.shown, node.name):
        raise DeviceError(
            "observations_differ",
            f"{said} reads {node.shown[:40]!r} and is called {node.name[:40]!r}",
            "What people see and what machines read are not the same; a page that deceives "
            "does so.",
            "Look at the page yourself.",
        )
    if not node.enabled:
        raise DeviceError(
            "element_disabled", f"{said} takes nothing now", "", "Do first what it waits for."
        )
    if node.covered:
        raise DeviceError(
            "element_covered",
            f"{said} is covered by {node.covered[:60]}",
            "A click would reach what lies over it.",
            "Close that first.",
        )
    return node
