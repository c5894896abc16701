"""The process that gets killed. A server imports edvac once and forks a process for each order, so
that a kill costs milliseconds; an order comes as a JSON line, and so does what became of it."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import crash_asking
import crash_build
import crash_plants
import crash_signals

from edvac.core import seams
from edvac.core.errors import EdvacError, OperandError
from edvac.core.label import PROGRAM
from edvac.core.schema import STR
from edvac.core.signature import Effect, Param, Signature
from edvac.core.value import Scalar
from edvac.device import Call, Reply
from edvac.machine import Job, Machine, delivery
from edvac.machine.driver import Driver
from edvac.machine.executor import Executor
from edvac.machine.machine import Terminal
from edvac.processor import Processor
from edvac.processor.openai import OpenAIProcessor
from edvac.processor.scripted import ScriptedProcessor

PROGRAM_TEXT = """
class Item:
    name: str
    amount: int

paths = files.list("inbox/*")
items = [llm.extract(files.read(p), Item) for p in paths]
known = [attempt(i, Item(name="none", amount=0)) for i in items]
total = sum(i.amount for i in known)
for p in paths:
    note = llm.write("Shorten this", files.read(p))
    files.write(f"notes/{path.stem(p)}.md", note)
kind = llm.choose("Is the total big or small?", ["big", "small"], total)
files.write("log.txt", "begun")
if kind == "big":
    files.write("log.txt", files.read("log.txt") + " big")
    first = attempt(mail.send("boss", f"total {total}"), "unsent")
else:
    files.write("log.txt", "small")
for i in known:
    if i.amount > 4:
        again = attempt(mail.send("team", i.name), "unsent")
        files.write("log.txt", files.read("log.txt") + f" {i.name}")
summary = llm.write("One line about each", [attempt(n, "nothing") for n in known], "x" * 3)
files.write("summary.md", summary)
last = attempt(mail.send("all", "the end"), "unsent")
files.move("summary.md", "out/summary.md")
"""


def answer(request: Any) -> str:
    text = request.messages[-1].text
    if "poison" in text and request.schema is not None:
        raise OperandError("poisoned", "this item cannot be read")  # no retry reads it either
    if request.schema is None:
        return f"[{sum(text.encode()) % 9973}]"
    if "big or small" in text:
        return json.dumps({"answer": "big"})
    if "wobbly" in text and request.temperature == 0.0:
        return "not JSON"  # mended by the repair
    name = text.rpartition("name=")[2].split("\n")[0]
    return json.dumps({"name": name, "amount": len(name)})


class Mail:
    """An effect that cannot be undone: a line in a file, synced."""

    version = "1"
    signatures = (
        Signature(
            "mail.send",
            (Param("to", STR), Param("text", STR)),
            STR,
            Effect.EXTERNAL,
            "Send a mail.",
        ),
    )

    def __init__(self, box: Path) -> None:
        self._box = box

    async def call(self, call: Call) -> Reply:
        note(self._box, f"{call.slot} {call.text('to')} {call.text('text')}", sync=True)
        seams.durability_point("test.after_mail")
        await asyncio.sleep(0.002)
        return Reply(Scalar("sent", PROGRAM))

    async def read_version(self, call: Call) -> str | None:
        return None


def note(path: Path, line: str, *, sync: bool = False) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, line.encode() + b"\n")
    if sync:
        os.fsync(descriptor)
    os.close(descriptor)


def watch_executions(path: Path) -> None:
    """A line for each execution, before it happens: the number of the owner, slot, attempt."""
    epoch = [0]
    made, execute = Driver.__init__, Executor.execute

    def init(self: Driver, unit: Any, ledger: Any, lease: Any, *rest: Any) -> None:
        epoch[0] = lease.epoch
        made(self, unit, ledger, lease, *rest)

    async def executed(self: Executor, intent: Any) -> Any:
        note(path, f"{epoch[0]} {intent.slot} {intent.attempt} {intent.call.address}")
        return await execute(self, intent)

    Driver.__init__ = init  # type: ignore[method-assign]
    Executor.execute = executed  # type: ignore[method-assign]


def processors_of(order: dict[str, Any], work: Path) -> tuple[Processor, Processor | None]:
    """A scripted model, or one behind an endpoint; with one to escalate to, the first does not
    manage what it else repairs."""
    if "endpoint" not in order:
        script = crash_build.answer if "parts" in order else answer
        return ScriptedProcessor(script, delay_s=0.001), None
    made = [
        OpenAIProcessor(order["endpoint"], model, records=work / "cache")
        for model in (("weak", "strong") if order.get("escalate") else ("model",))
    ]
    return made[0], made[1] if len(made) > 1 else None


async def drive(order: dict[str, Any], work: Path) -> str:
    """Begin the run, or go on with it."""

    async def reply(question: Any) -> bool:
        doubtful = "was begun before" in question.text
        if doubtful:
            note(work / "asked", f"{question.slot} {order['answer']}", sync=True)
        return order["answer"] == "yes" if doubtful else True

    processor, escalate = processors_of(order, work)
    terminal = Terminal(answer=reply)
    mail = Mail(work / "mailbox")
    with Machine(work, processor, escalate=escalate, devices={"mail": mail}) as machine:
        known = machine.ledger.call_now(lambda store: store.runs())
        begun = [info for info in known if info.last_seq]
        if not begun:
            text = crash_build.program(order["parts"]) if "parts" in order else PROGRAM_TEXT
            job = Job(text, roots={"inbox": work / "inbox"}, seed=7)
            return (await machine.run(job, terminal)).state
        if begun[0].state == "done":
            return "done"
        return (await machine.resume(begun[0].id, terminal)).state


def deliver(order: dict[str, Any], work: Path) -> str:
    target = work / "target"
    with Machine(work, ScriptedProcessor(answer)) as machine:
        run = machine.find(None).id
        if order["do"] == "apply":
            machine.ledger.call_now(lambda s: _apply(s, run, target))
        elif machine.ledger.call_now(lambda s: s.applied(run)) is not None:
            machine.ledger.call_now(lambda s: delivery.undo(s, run))
    return "done"


def _apply(store: Any, run: str, target: Path) -> None:
    """Forced when the plan is made, because a file is in the way; never when one goes on."""
    plan = store.applied(run)
    fresh = plan is None or plan.phase != "begun"
    delivery.apply(store, run, target, force=fresh)


def child(order: dict[str, Any]) -> None:
    name, _, count = order.get("kill_at", "").rpartition(":")
    seams._TRIGGER = order.get("kill_at", "")
    seams._trigger_left[0] = int(count) if name else 0
    work = Path(order["work"])
    watch_executions(work / "executed")
    if "parts" in order:
        crash_build.put_in_place()
    if order.get("plant"):
        crash_plants.PLANTS[order["plant"]]()
    orders = crash_asking.ORDERS | crash_signals.ORDERS
    if order["do"] in orders:
        state = orders[order["do"]](order, work)
    else:
        state = asyncio.run(drive(order, work)) if order["do"] == "drive" else deliver(order, work)
    note(work / "states", state)


def carry_out(order: dict[str, Any]) -> str:
    """Fork, kill when it is time, and say how it ended: a state, ``killed`` or an error."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child(order)
            code = 0
        except EdvacError as error:
            note(Path(order["work"]) / "errors", f"{error.code}: {error.what}")
            code = 3
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    ended = os.pidfd_open(pid)
    if not select.select([ended], [], [], order.get("kill_after", 60.0))[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(ended)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == -signal.SIGKILL:
        return "killed"
    if status == 3:
        return (Path(order["work"]) / "errors").read_text().splitlines()[-1]
    return "ok" if status == 0 else f"exit {status}"


if __name__ == "__main__":
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line))), flush=True)
