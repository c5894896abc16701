"""What the browser offers to programs."""

from __future__ import annotations

from typing import Any

from edvac.core.schema import BOOL, STR, Field, ListOf, Record, Type
from edvac.core.signature import Effect, Param, Role, Signature, address_param

ROLES = (
    "alert", "button", "cell", "checkbox", "columnheader", "combobox", "dialog", "heading", "link",
    "listitem", "menuitem", "option", "radio", "row", "searchbox", "slider", "spinbutton", "status",
    "switch", "tab", "textbox",
)  # fmt: skip
TIMEOUT_S = 60.0
LONGEST = 10_000  # characters of what is typed into a field

PAGE = Record(
    "Page",
    (
        Field("url", STR),
        Field("title", STR),
        Field("happened", ListOf(STR), "what nobody asked for: dialogs, windows, refused contacts"),
    ),
)
ELEMENT = Record(
    "Element",
    (
        Field("role", STR, "button, link, textbox, row, .."),
        Field("name", STR),
        Field("value", STR, "what stands in a field"),
        Field("place", STR, "the row, group or heading that it belongs to"),
    ),
)
DONE = Record(
    "Done",
    (
        Field("url", STR, "of the page after the act"),
        Field("title", STR),
        Field("moved", BOOL, "is it another URL than before?"),
        Field("happened", ListOf(STR), "what nobody asked for: dialogs, windows, refused contacts"),
    ),
)


def _wrong_role(role: Any) -> str:
    return "" if role in ROLES or role == "" else f"{str(role)[:40]!r} is none of {list(ROLES)}"


def _wrong_text(text: Any) -> str:
    if len(str(text)) > LONGEST:
        return f"it is longer than {LONGEST:,} characters"
    return "" if "\x00" not in str(text) else "it has a zero in it"


_ROLE = Param("role", STR, wrong=_wrong_role, doc="button, link, textbox, ..")
_ANY_ROLE = Param("role", STR, default="", wrong=_wrong_role, doc="empty takes all")
_NAME = Param("name", STR, doc="as it stands on it or beside it; capitals and blanks are no matter")
_PLACE = Param("place", STR, default="", doc="text of its row, group or heading", keyword_only=True)


def _of(
    op: str, params: tuple[Param, ...], result: Type, doc: str, effect: Effect = Effect.READ
) -> Signature:
    return Signature(
        op,
        params,
        result,
        effect,
        doc,
        timeout_s=TIMEOUT_S,
        planned=False,
        yields=True,
        contacts=tuple(one.name for one in params if one.role is Role.ADDRESS),
        turn="page",
    )


def _acting(op: str, params: tuple[Param, ...], doc: str) -> Signature:
    return _of(op, params, DONE, doc, Effect.EXTERNAL)


SIGNATURES = (
    _of(
        "browser.open",
        (address_param("url", "its origin is spelled in the program or granted by a setting"),),
        PAGE,
        "Open a page. A run has one; the calls on it are done in the program's order.",
    ),
    _of("browser.page", (), PAGE, "Where the page is now."),
    _of("browser.text", (), STR, "The text that can be seen on the page."),
    _of(
        "browser.elements",
        (_ANY_ROLE,),
        ListOf(ELEMENT),
        "The elements that can be seen, of one role or of all.",
    ),
    _of(
        "browser.sees",
        (
            Param("text", STR, default="", doc="text on the page"),
            Param("role", STR, default="", wrong=_wrong_role, doc="or an element of this role"),
            Param("name", STR, default="", doc="and name"),
        ),
        BOOL,
        "Is it on the page? Answered twice, from what is laid out and from the accessibility tree; "
        "where they differ the step fails.",
    ),
    _acting(
        "browser.click",
        (_ROLE, _NAME, _PLACE),
        "Click the one element of this role and name. Dialogs are dismissed.",
    ),
    _acting(
        "browser.fill",
        (_ROLE, _NAME, Param("text", STR, wrong=_wrong_text), _PLACE),
        "Write a text into the one field of this role and name, in place of what is in it.",
    ),
    _acting(
        "browser.choose",
        (_ROLE, _NAME, Param("option", STR, doc="as it stands in the list"), _PLACE),
        "Choose an option of the one list of this role and name.",
    ),
)
