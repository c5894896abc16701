"""How many bits outsiders choose in what a run accepts of them: counted over the whole run, bounded
by the policy, and neither lost nor counted twice by a kill."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from machine_kit import Bench

from edvac.cli.main import cli
from edvac.core import event
from edvac.core.errors import ConfigError, DeviceError
from edvac.core.label import PROGRAM, UNBOUNDED
from edvac.core.schema import BOOL, STR
from edvac.core.signature import Effect, Param, Signature
from edvac.core.value import Scalar, total_label
from edvac.device import Call, Origin, Reply, Tools
from edvac.device.guarded import Guarded, policy
from edvac.machine import Machine
from edvac.machine.driver import Driver
from edvac.machine.machine import Terminal

READ = "t = files.read('inbox/0.txt')\n"
MAIL = "[rule.mail]\ncalls = 'mail.send'\n"
CHOICE = "llm.choose('Which?', ['yes', 'no', 'maybe', 'never'], t)"
EIGHT = READ + "".join(f"c{n} = {CHOICE}\nmail.send(c{n})\n" for n in range(4))
ENDORSED = MAIL + "needs.text = { bits = 2 }\n"


def test_what_is_accepted_adds_up_over_the_run(bench: Bench) -> None:
    bench.file("policy.toml", ENDORSED)
    told: list[event.Event] = []
    report = bench.run(EIGHT, Terminal(told.append))
    assert report.state == "done" and report.counts["bits"] == 8
    assert [one.bits for one in told if isinstance(one, event.RunClosed)] == [8]
    assert bench.run("mail.send('hello')\n").counts["bits"] == 0


def test_a_decision_that_is_accepted_is_a_bit_and_stands_in_the_journal(bench: Bench) -> None:
    bench.file("policy.toml", MAIL + "branch = 'any'\n")
    report = bench.run(READ + "for w in t.split('='):\n    mail.send('once')\n")
    assert report.counts["bits"] == len(bench.post.sent) == 2
    with bench.open() as machine:
        entries = machine.history(report.run).entries
    said = [one.body["policy"]["accepted"] for one in entries if one.kind == "intent"]
    assert [param for accepted in said for param, _, _ in accepted] == ["branch", "branch"]


@pytest.mark.parametrize(("otherwise", "state"), [("ask", "waiting"), ("deny", "partial")])
def test_no_more_than_the_policy_says(bench: Bench, otherwise: str, state: str) -> None:
    rule = ENDORSED + f"otherwise = '{otherwise}'\n"
    bench.file("policy.toml", "bits_per_run = 5\n" + rule)
    report = bench.run(EIGHT + "mail.send('mine')\n")
    assert report.state == state and report.counts["bits"] == 4
    assert bench.post.sent[:2] == ["yes", "yes"] and "mine" not in bench.post.sent
    codes = {step.failure.code for step in report.failures if step.failure}
    assert ("policy_bits" in codes) is (otherwise == "deny")


def test_what_nobody_else_chose_costs_nothing(bench: Bench) -> None:
    bench.file("policy.toml", "bits_per_run = 0\n" + ENDORSED)
    report = bench.run("mail.send('one')\nmail.send('two')\n")
    assert report.state == "done" and len(bench.post.sent) == 2


async def yes(_: event.Question) -> bool:
    return True


def test_a_person_may_let_it_go_on_and_that_is_no_choice_of_others(bench: Bench) -> None:
    bench.file("policy.toml", "bits_per_run = 5\n" + ENDORSED)
    report = bench.run(EIGHT, Terminal(answer=yes))
    assert report.state == "done" and len(bench.post.sent) == 4
    assert report.counts["bits"] == 4, "the other two are the person's"


@pytest.mark.parametrize("at", range(1, 9))
def test_a_kill_neither_loses_bits_nor_counts_them_twice(bench: Bench, at: int) -> None:
    """Stopped after each of the steps that end, and before the end of what goes on then."""
    bench.file("policy.toml", "bits_per_run = 8\n" + ENDORSED)
    drivers: list[Driver] = []
    ended = itertools.count(1)

    def stop(happened: event.Event) -> None:
        if isinstance(happened, event.StepFinished) and next(ended) == at:
            drivers[-1].stop("interrupted")

    report = bench.run(EIGHT, Terminal(stop, on_driver=drivers.append))
    while report.state != "done":
        report = bench.resume(report.run, Terminal(answer=yes))
    assert report.counts["bits"] == 8 and set(bench.post.sent) == {"yes"}


def test_what_is_tried_again_is_counted_once(bench: Bench) -> None:
    """A failed call may have had its effect, so its bits count; the same call again adds none."""
    bench.file("policy.toml", "bits_per_run = 2\n" + ENDORSED)

    async def refuse(_: Call) -> None:
        raise DeviceError("refused", "the server is away")

    act, bench.post.act = bench.post.act, refuse
    report = bench.run(READ + f"mail.send({CHOICE})\n")
    assert report.state == "partial" and report.counts["bits"] == 2
    bench.post.act = act
    report = bench.resume(report.run, Terminal(answer=yes), retry=True)
    assert report.state == "done" and report.counts["bits"] == 2


def test_it_is_shown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.file("policy.toml", ENDORSED)
    bench.run(EIGHT)
    monkeypatch.chdir(bench.work)
    run = CliRunner().invoke
    assert "accepted: at most 8 bits" in run(cli, ["show"], catch_exceptions=False).output
    bench.file("policy.toml", "bits_per_run = 100\n")  # the command knows no tools of one's own
    assert "at most 100 bits" in run(cli, ["policy", "show"], catch_exceptions=False).output


@pytest.mark.parametrize("text", ["'many'", "-1", "true", "inf"])
def test_what_is_no_number_of_bits_is_refused(bench: Bench, text: str) -> None:
    bench.file("policy.toml", f"bits_per_run = {text}\n")
    with pytest.raises(ConfigError) as refused:
        bench.open()
    assert refused.value.code == "policy_value"


class Oracle:
    """A device that says that nobody but the program is in what it returns."""

    version = "1"
    signatures = (
        Signature("oracle.look", (Param("text", STR),), STR, Effect.READ, ""),
        Signature("oracle.tell", (Param("text", STR),), BOOL, Effect.READ, ""),
    )

    async def call(self, call: Call) -> Reply:
        text = call.text("text")
        found: Any = text if call.signature.op == "oracle.look" else "ann" in text
        return Reply(Scalar(found, PROGRAM))

    async def read_version(self, call: Call) -> str | None:
        return None


@pytest.mark.parametrize(
    ("line", "state"), [("oracle.look(t)", "waiting"), ("f'{oracle.tell(t)}'", "done")]
)
def test_who_chose_what_a_device_is_given_chose_what_it_returns(
    bench: Bench, line: str, state: str
) -> None:
    """K(out) = min(capacity of the type, sum of K(in)), whatever the device says of itself."""
    bench.file("policy.toml", ENDORSED)
    with Machine(
        bench.work, bench.open().processor, devices={"mail": bench.post, "oracle": Oracle()}
    ) as machine:
        report = asyncio.run(machine.run(bench.job(READ + f"mail.send({line})\n")))
    assert report.state == state


def test_somebody_elses_agent_has_no_more_bits_either(tmp_path: Path) -> None:
    bank = Tools("bank")

    @bank.tool(effect="external", origin="bank")
    def pay(fast: bool) -> str:
        return "paid"

    @bank.tool(effect="read", origin=Origin.of("stranger"))
    def urgent() -> bool:
        return True

    rule = "[rule.pay]\ncalls = 'bank.pay'\nneeds.fast = { bits = 1 }\n"
    (tmp_path / "policy.toml").write_text("bits_per_run = 2\n" + rule)
    agent = Guarded([bank], policy(tmp_path / "policy.toml", [bank]))
    about = agent.call("bank.urgent")
    fast = agent.ask_worker(lambda *_: True, "Is it?", about, BOOL)
    assert fast.label.bits == 1 and about.label.bits == UNBOUNDED
    for _ in range(2):
        agent.call("bank.pay", fast=fast)
    assert agent.bits == 2
    with pytest.raises(Exception, match="not approved"):
        agent.call("bank.pay", fast=fast)
    agent.call("bank.pay", fast=agent.said(True))


def test_no_more_ways_to_go_than_the_bits_allow(bench: Bench) -> None:
    """P3 of the notes: whatever outsiders write, what is sent differs in at most 2 ** bits ways."""
    bench.file("policy.toml", ENDORSED + "branch = 'any'\n")
    text = READ + (
        "a = 'ann' in t\nb = 'bo' in t\n"
        "mail.send('x' if a else 'y')\n"
        "if b:\n    mail.send('z')\n"
        "mail.send('end')\n"
    )
    ways, bits = set(), 0
    for words in ["", "ann", "bo", "ann bo", "cy"]:
        bench.file("inbox/0.txt", words)
        bench.post.sent.clear()
        report = bench.run(text)
        assert report.state == "done"
        ways.add(tuple(bench.post.sent))
        bits = max(bits, report.counts["bits"])
    assert len(ways) == 4 == 2**bits


def test_a_choice_among_options_made_elsewhere_holds_no_more_than_they_are(bench: Bench) -> None:
    """Written out or not: four options are two bits, whatever the model has read."""
    text = (
        "said = files.read('inbox/0.txt')\n"
        "found = [x for x in ['yes', 'no', 'later', 'never']]\n"
        "a = llm.choose('Which of these options?', found, said)\n"
        "b = llm.choose('Which of these options?', ['yes', 'no', 'later', 'never'], said)\n"
    )
    report = bench.run(text)
    with bench.open() as machine:
        entries = machine.history(report.run).entries
        labels = {e.address: total_label(e.value) for e in entries if e.kind == "outcome"}
    assert labels["a"].bits == labels["b"].bits == 2
    assert "file:inbox/0.txt" in labels["a"].integrity
