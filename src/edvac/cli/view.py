"""What a person sees of a run. Everything shown comes from events.

Three ways: a live panel on a terminal, plain lines elsewhere, JSON lines with ``--json``. Progress
goes to stderr, so that stdout stays for results.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from edvac.cli.ui import because, counted, err, safe_json, safe_line, seconds
from edvac.core import event

if TYPE_CHECKING:
    from rich.console import RenderableType


_COUNTED = frozenset({"doc.text", "files.read", "files.stat", "files.write"})  # not worth a line


class View(Protocol):
    """Shows events; may be left more than once."""

    def __enter__(self) -> object: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...
    def show(self, happened: event.Event) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def has_shown(self, program: str) -> bool:
        """Can a person read the program above, from its first line to its last?"""


class Tally:
    """The state of a run as its events tell it."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.known = 0
        self.done = 0
        self.reused = 0
        self.failed = 0
        self.blocked = 0
        self.worked = 0  # steps that took time here: neither reused nor there before
        self._began = self.started
        self._paused = self.started
        self.running: dict[str, str] = {}
        self.pieces: dict[str, str] = {}
        self.tokens = 0
        self.stage: event.Stage | None = None
        self._plan: list[str] = []  # lines that were shown, those taken back included
        self._recent: deque[tuple[float, int]] = deque(maxlen=4000)

    def take(self, happened: event.Event) -> None:
        match happened:
            case event.RunOpened():
                self.known += happened.replayed
                self.done += happened.replayed
                self.stage = None
                self._began = time.monotonic()
            case event.StepWaiting():
                self.known += 1
            case event.StepStarted():
                self.running[happened.slot] = happened.address
            case event.StepText():
                self.tokens += happened.tokens
                self._recent.append((time.monotonic(), happened.tokens))
                self.pieces[happened.slot] = (self.pieces.get(happened.slot, "") + happened.text)[
                    -60:
                ]
            case event.StepFinished():
                self.done += 1
                self.reused += happened.reused
                self.worked += not happened.reused
                self._over(happened.slot)
            case event.StepFailed():
                self.failed += not happened.blocked_by
                self.worked += not happened.blocked_by
                self.blocked += bool(happened.blocked_by)
                self._over(happened.slot)
            case event.Stage():
                self.stage = happened
            case event.PlanLine():
                self._plan.append(happened.text)

    def has_shown(self, program: str) -> bool:
        return self._plan == program.rstrip().split("\n")

    def _over(self, slot: str) -> None:
        self.running.pop(slot, None)
        self.pieces.pop(slot, None)

    def pause(self) -> None:
        """A person is being asked: that is not time of the run."""
        self._paused = time.monotonic()

    def resume(self) -> None:
        away = time.monotonic() - self._paused
        self.started += away
        self._began += away

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Tokens per second over the last ten seconds."""
        now = time.monotonic()
        recent = [(at, n) for at, n in self._recent if now - at < 10]
        if not recent:
            return 0.0
        return sum(n for _, n in recent) / max(0.5, now - recent[0][0])

    @property
    def left_s(self) -> float | None:
        """Expected time for what is known to remain."""
        ended = self.done + self.failed + self.blocked
        if self.worked < 3 or self.known <= ended:
            return None
        return (time.monotonic() - self._began) / self.worked * (self.known - ended)


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._stage = ""

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def pause(self) -> None:
        self.tally.pause()

    def resume(self) -> None:
        self.tally.resume()

    def has_shown(self, program: str) -> bool:
        return self.tally.has_shown(program)

    def show(self, happened: event.Event) -> None:
        self.tally.take(happened)
        line = describe(happened, self.tally)
        if isinstance(happened, event.Stage):
            if happened.name == self._stage:
                return
            self._stage = happened.name
        if line:
            err(safe_line(line))


class JsonLines(Lines):
    """Every event as one JSON line on stdout."""

    def has_shown(self, program: str) -> bool:
        del program
        return False

    def show(self, happened: event.Event) -> None:
        sys.stdout.write(safe_json(event.encode(happened).decode()) + "\n")
        sys.stdout.flush()


class Panel:
    """A live panel: lines that stay, and below them the state of the run, four times a second."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.tally = Tally()
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(
            console=self._console,
            refresh_per_second=4,
            transient=True,
            get_renderable=self._render,
        )

    def __enter__(self) -> Panel:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def pause(self) -> None:
        self.tally.pause()
        self._live.stop()

    def resume(self) -> None:
        self.tally.resume()
        self._live.start()

    def has_shown(self, program: str) -> bool:
        return self.tally.has_shown(program)

    def show(self, happened: event.Event) -> None:
        from rich.text import Text

        self.tally.take(happened)
        if isinstance(happened, event.Stage):
            return
        line = describe(happened, self.tally)
        if line:
            style = "red" if isinstance(happened, event.StepFailed) else ""
            style = "cyan" if isinstance(happened, event.PlanLine) else style
            text = Text(safe_line(line), style=style)
            if isinstance(happened, event.StepFinished):  # a result: its beginning will do
                self._console.print(text, no_wrap=True, overflow="ellipsis")
            else:
                self._console.print(text, soft_wrap=True)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        tally = self.tally
        parts: list[RenderableType] = []
        for slot, address in list(tally.running.items())[:6]:
            piece = " ".join(tally.pieces.get(slot, "").split())
            parts.append(Text(safe_line(f"  {address}  {piece}")[:100], style="dim", no_wrap=True))
        if len(tally.running) > 6:
            parts.append(Text(f"  and {len(tally.running) - 6} more", style="dim"))
        ended = tally.done + tally.failed + tally.blocked
        row = Table.grid(padding=(0, 1))
        row.add_row(
            ProgressBar(total=max(1, tally.known), completed=ended, width=24), status(tally)
        )
        parts.append(row)
        return Group(*parts)


def status(tally: Tally) -> str:
    """The one line that says how a run stands."""
    stage = tally.stage
    if stage is not None and not tally.known:
        part = f" {stage.done:,.0f} of {stage.total:,.0f} {stage.unit}" if stage.total else ""
        return f"{stage.name}{part} · {seconds(tally.elapsed)}"
    ended = tally.done + tally.failed + tally.blocked
    text = f"{ended}/{tally.known} steps"
    if tally.reused:
        text += f" · {tally.reused} reused"
    if tally.failed or tally.blocked:
        text += f" · {tally.failed} failed, {tally.blocked} blocked"
    if tally.rate:
        text += f" · {tally.rate:.1f} tokens/s"
    text += f" · {seconds(tally.elapsed)}"
    if tally.left_s is not None:
        text += f", about {seconds(tally.left_s)} left"
    return text


def describe(happened: event.Event, tally: Tally) -> str:
    """One line for an event worth a line, else nothing."""
    match happened:
        case event.PlanLine():
            return f"  {happened.number:3} {happened.text}"
        case event.Stage():
            return f"{happened.name} …"
        case event.RunOpened(resumed=True):
            there = counted(happened.replayed, "step")
            return f"run {happened.run} goes on; already there: {there}"
        case event.RunOpened():
            return f"run {happened.run}"
        case event.StepFinished(op=op) if op in _COUNTED:
            return ""
        case event.StepFinished():
            mark = "=" if happened.reused else "✓"
            took = "" if happened.reused else f"  ({seconds(happened.seconds)})"
            ended = tally.done + tally.failed + tally.blocked
            return f"{mark} [{ended}/{tally.known}] {happened.address}: {happened.preview}{took}"
        case event.StepFailed(blocked_by=""):
            return f"✗ {happened.address}: {because(happened.what, happened.why, happened.address)}"
        case event.StepFailed(blocked_by="the program"):
            return f"- {happened.address}: not done: {happened.what}"
        case event.StepFailed():
            return f"- {happened.address}: not done, because {happened.blocked_by} failed"
        case event.StepRetried(escalated=True):
            return f"… {happened.address}: {happened.what}; now the escalate model"
        case event.StepRetried():
            return f"… {happened.address}: {happened.what}; again"
        case event.FileWritten():
            return f"  wrote {happened.path} ({happened.size:,} bytes)"
        case event.Note():
            return f"note: {happened.text}"
    return ""


def choose(*, plain: bool, as_json: bool) -> View:
    """The view for this terminal."""
    if as_json:
        return JsonLines()
    if plain or not sys.stderr.isatty():
        return Lines()
    return Panel()
