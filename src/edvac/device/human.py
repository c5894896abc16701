"""`human.ask`: a person answers a question. The answer is the user's, so it is trusted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edvac.core.errors import DeviceError
from edvac.core.label import USER
from edvac.core.schema import ANY, STR, ListOf
from edvac.core.signature import Effect, Param, Role, Signature
from edvac.core.value import Scalar, plain
from edvac.device.port import AskPerson, Call, Reply

SIGNATURES = (
    Signature(
        "human.ask",
        (
            Param("question", STR, role=Role.INSTRUCTION),
            Param("options", ListOf(STR), default=[], role=Role.INSTRUCTION),
            Param("data", ANY, default=None, variadic=True, doc="shown with the question"),
        ),
        STR,
        Effect.READ,
        "Ask the person who runs the program; returns the answer.",
        person=True,
        timeout_s=30 * 24 * 3600.0,
    ),
)


MAX_LINES, MAX_COLUMNS = 20, 200  # of data beside a question


class Human:
    """The `human` device; `ask(address, text, options)` reaches the person."""

    signatures = SIGNATURES
    version = "1"

    def __init__(self, ask: AskPerson) -> None:
        self._ask = ask

    async def call(self, call: Call) -> Reply:
        shown = plain(call.operands["data"]) if "data" in call.operands else []
        text = "\n".join([call.text("question"), *_quoted(shown or [])])
        options = call.data("options")
        answer = await self._ask(call.address, text, options)
        if options and answer not in options:
            raise DeviceError(
                "answer_not_an_option", f"{answer!r} is none of {', '.join(map(repr, options))}"
            )
        return Reply(Scalar(answer, USER))

    async def read_version(self, call: Call) -> str | None:
        return None


def _quoted(data: Iterable[Any]) -> list[str]:
    """Data as quoted lines, for it may be a document's: without the mark it could pass for edvac's
    own words, and in full it could fill the screen."""
    lines = [line for part in data for line in str(part).splitlines() or [""]]
    shown = [line[:MAX_COLUMNS] for line in lines[:MAX_LINES]]
    left = sum(map(len, lines)) - sum(map(len, shown))
    quoted = [f"  | {line}" for line in shown]
    if left or len(lines) > MAX_LINES:
        rows = len(lines) - len(shown)
        quoted.append(f"  (left out: {rows:,} of {len(lines):,} lines, {left:,} characters)")
    return quoted
