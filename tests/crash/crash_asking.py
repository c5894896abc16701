"""The two processes of a run that asks: one drives it, the other answers; either may be killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edvac.core.errors import UsageError
from edvac.core.label import PROGRAM
from edvac.core.schema import STR
from edvac.core.signature import Effect, Param, Signature
from edvac.core.value import Scalar
from edvac.device import Call, Reply
from edvac.machine import Job, Machine
from edvac.machine.questions import checked_answer, post_answers, questions
from edvac.processor.scripted import ScriptedProcessor
from edvac.store import Store

PROGRAM_TEXT = """
for p in files.list("inbox/*"):
    kept = human.ask("Keep this one?", ["yes", "no"], "txt")
    name = human.ask("Its name?", [], p)
    files.write(f"out/{path.stem(p)}.txt", f"{kept} {name}")
sent = [mail.send(files.read(p)) for p in files.list("inbox/*")]
files.write("sent.txt", f"{len(sent)}")
"""


class Mail:
    version = "1"
    signatures = (Signature("mail.send", (Param("text", STR),), STR, Effect.EXTERNAL, "Send."),)

    def __init__(self, box: Path) -> None:
        self._box = box

    async def call(self, call: Call) -> Reply:
        note(self._box, call.slot)
        return Reply(Scalar("sent", PROGRAM))

    async def read_version(self, call: Call) -> str | None:
        return None


def note(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, line.encode() + b"\n")
    os.fsync(descriptor)
    os.close(descriptor)


def drive(order: dict[str, Any], work: Path) -> str:
    processor = ScriptedProcessor(lambda request: "x")
    with Machine(work, processor, devices={"mail": Mail(work / "mailbox")}) as machine:
        begun = [i for i in machine.ledger.call_now(lambda store: store.runs()) if i.last_seq]
        if not begun:
            job = Job(PROGRAM_TEXT, roots={"inbox": work / "inbox"}, seed=7)
            return asyncio.run(machine.run(job)).state
        if begun[0].state == "done":
            return "done"
        retry = begun[0].state == "partial"
        return asyncio.run(machine.resume(begun[0].id, retry=retry)).state


def reply(order: dict[str, Any], work: Path) -> str:
    """Answer everything that is open; what is tried and what is acknowledged is noted. Approvals
    are refused the first time, so that a retry asks again."""
    with Store(work) as store:
        begun = [info.id for info in store.runs(5) if info.last_seq]
        run = begun[0] if begun else ""
        for question in questions(store, run) if run else []:
            text = order["text"]
            if question.options:
                text = "no" if order["text"] == "0" else "yes"
            asked = [f"{one.slot} {one.key}" for one in question.steps]
            said = checked_answer(question, text)
            for one in asked:
                note(work / "tried", f"{one} {said}")
            try:
                post_answers(store, run, {question.number: text})
            except UsageError as error:
                note(work / "refused", error.code)
                continue
            for one in asked:
                note(work / "acknowledged", f"{one} {said}")
    return "answered"


ORDERS: dict[str, Callable[[dict[str, Any], Path], str]] = {"asking": drive, "reply": reply}
