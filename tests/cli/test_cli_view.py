"""What a person sees of a run: the panel and the plain lines, from events alone."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from edvac.cli import ui, view
from edvac.cli.view import JsonLines, Lines, Panel, Tally, describe, status
from edvac.core import event


class Time:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    made = Time()
    monkeypatch.setattr(view, "time", made)
    yield made


def waiting(slot: str) -> event.Event:
    return event.StepWaiting(slot=slot, address=slot, op="llm.write")


def started(slot: str) -> event.Event:
    return event.StepStarted(slot=slot, address=slot, op="llm.write")


def finished(slot: str, **more: Any) -> event.Event:
    return event.StepFinished(
        **{"slot": slot, "address": slot, "op": "llm.write", "seconds": 1.0, "preview": "ok"} | more
    )


def failed(slot: str, blocked_by: str = "") -> event.Event:
    return event.StepFailed(
        slot=slot, address=slot, op="o", code="c", what="broke", blocked_by=blocked_by
    )


def panel(*events: event.Event) -> tuple[str, str]:
    """The lines that stay and the panel below them, as text."""
    made = Panel()
    stay = io.StringIO()
    made._console = Console(file=stay, width=80, force_terminal=False)
    for one in events:
        made.show(one)
    below = io.StringIO()
    Console(file=below, width=80, force_terminal=False).print(made._render())
    return stay.getvalue(), below.getvalue()


def test_the_panel_shows_what_runs_and_how_far_it_is(clock: Time) -> None:
    stay, below = panel(
        event.RunOpened(run="r1", program="p"),
        *map(waiting, "abcd"),
        *map(started, "abc"),
        event.StepText(slot="b", text="some words\nand more", tokens=5),
        finished("a"),
        failed("d", blocked_by="c"),
    )
    assert "run r1" in stay
    assert "✓ [1/4] a: ok  (1.0 s)" in stay
    assert "- d: not done, because c failed" in stay
    lines = below.splitlines()
    assert lines[0].startswith("  b  some words and more")
    assert lines[1].startswith("  c")
    assert "2/4 steps" in lines[-1]
    assert "0 failed, 1 blocked" in lines[-1]
    assert "tokens/s" in lines[-1]


def test_the_panel_is_short_however_much_runs(clock: Time) -> None:
    slots = [f"s{number}" for number in range(50)]
    _, below = panel(*map(waiting, slots), *map(started, slots))
    assert len(below.splitlines()) == 8
    assert "and 44 more" in below
    assert "0/50 steps" in below


def test_long_and_hostile_texts_stay_on_their_line(clock: Time) -> None:
    evil = "\x1b[2J\u202e[bold]" + "x" * 200
    stay, below = panel(
        waiting("a"), started("a"), event.StepText(slot="a", text=evil), finished("b", preview=evil)
    )
    assert not {"\x1b", "\u202e"} & set(stay + below)
    assert "[bold]" in stay, "markup of a document is text"
    assert len(below.splitlines()) == 2
    assert max(map(len, below.splitlines())) <= 80


def test_a_long_wait_shows_its_stage(clock: Time) -> None:
    _, below = panel(event.Stage(name="loading the model", done=3, total=9, unit="MB"))
    assert "loading the model 3 of 9 MB" in below
    _, below = panel(event.Stage(name="loading", done=3, total=9), waiting("a"))
    assert "0/1 steps" in below


def test_the_panel_can_be_paused_and_left_twice() -> None:
    made = Panel()
    made._console.file = io.StringIO()
    with made:
        made.pause()
        made.resume()
        made.__exit__(None, None, None)
    assert not made._live.is_started


def test_the_expected_time_follows_from_what_is_done(clock: Time) -> None:
    tally = Tally()
    for slot in "abcdefghij":
        tally.take(waiting(slot))
    assert tally.left_s is None
    clock.now += 8.0
    for slot in "abcd":
        tally.take(finished(slot))
    assert tally.left_s == pytest.approx(12.0)  # 2 s each, 6 left
    assert "about 12 s left" in status(tally)
    for slot in "efghij":
        tally.take(finished(slot))
    assert tally.left_s is None


def test_waiting_for_a_person_is_not_time_of_the_run(clock: Time) -> None:
    tally = Tally()
    clock.now += 3.0
    tally.pause()
    clock.now += 100.0
    tally.resume()
    clock.now += 4.0
    assert tally.elapsed == pytest.approx(7.0)


def test_what_is_only_read_is_counted_without_a_line() -> None:
    tally = Tally()
    read = finished("a", op="doc.text")
    tally.take(read)
    assert describe(read, tally) == ""
    assert tally.done == 1


def test_what_was_done_before_does_not_count_as_speed(clock: Time) -> None:
    tally = Tally()
    tally.take(event.RunOpened(run="r", program="p", resumed=True, replayed=1000))
    for slot in "abcdefgh":
        tally.take(waiting(slot))
    clock.now += 10.0
    for slot in "abcd":
        tally.take(finished(slot))
    tally.take(finished("e", reused=True))
    assert tally.left_s == pytest.approx(7.5)  # 2.5 s each, 3 left


def test_the_rate_is_of_the_last_seconds(clock: Time) -> None:
    tally = Tally()
    tally.take(event.StepText(slot="a", text="x", tokens=100))
    clock.now += 5.0
    assert tally.rate == pytest.approx(20.0)
    clock.now += 6.0
    assert tally.rate == 0.0


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as lines:
        for one in (
            event.Stage(name="loading"),
            event.Stage(name="loading", done=1),
            event.PlanLine(text="x = 1", number=1),
            event.RunOpened(run="r", program="p", resumed=True, replayed=3),
            waiting("a"),
            event.StepRetried(slot="a", address="a", attempt=2, code="c", what="away", wait_s=1),
            finished("a", reused=True),
            failed("b"),
            event.FileWritten(path="o\x1b.txt", size=1200),
            event.Note(text="two\nlines"),
        ):
            lines.show(one)
    assert capsys.readouterr().err.splitlines() == [
        "loading …",
        "    1 x = 1",
        "run r goes on; already there: 3 steps",
        "… a: away; again",
        "= [4/4] a: ok",
        "✗ b: broke",
        "  wrote o\\x1b.txt (1,200 bytes)",
        "note: two\\x0alines",
    ]


def test_json_lines_hide_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLines().show(event.Note(text="a\u202eb\x9b"))
    line = capsys.readouterr().out
    assert "\\u202e" in line
    assert json.loads(line)["text"] == "a\u202eb\x9b"


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (42.4, "42 s"),
        (59.9, "1 min 00 s"),
        (61, "1 min 01 s"),
        (7265, "2 h 01 min"),
    ],
)
def test_durations(found: float, shown: str) -> None:
    assert ui.seconds(found) == shown
