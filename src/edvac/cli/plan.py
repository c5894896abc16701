"""What a program will do, derived from its text by code, for the person who approves it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edvac.cli import ui
from edvac.core.signature import Effect
from edvac.program import Program, parse
from edvac.program.extending import EXTEND

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edvac.core.value import Value
    from edvac.guard import Rules
    from edvac.machine import Settings
    from edvac.machine.estimate import Estimate, Range


def describe_plan(
    text: str,
    roots: dict[str, Path],
    settings: Settings,
    *,
    values: Mapping[str, Value] | None = None,
    task: str = "",
    with_text: bool,
) -> list[str]:
    """Lines: the program (unless it was just shown), what it reads, writes, contacts and takes."""
    from edvac.machine.estimate import estimate

    lines = []
    if with_text:
        lines += [f"  {n:3} {line}" for n, line in enumerate(text.rstrip().split("\n"), 1)]
    program = parse(text, ui.catalogue())
    found = estimate(program, roots, values or {}, task)
    lines += describe_touches(program, roots, found)
    named = dict.fromkeys((settings.model, settings.plan_model, settings.escalate_model))
    remote = [model for model in named if "://" in model] + _hosts(program)
    lines.append(f"contacts  {', '.join(remote) or 'nothing outside this machine'}")
    return lines + _cost(found, settings)


def _hosts(program: Program) -> list[str]:
    """Origins that the apps which it calls may connect to."""
    from edvac.device.browser.origins import shown
    from edvac.machine import apps

    called = {use.op.partition(".")[0] for use in program.access}
    found = [app for app in apps.approved(ui.workspace()) if app.name in called]
    return [f"{shown(host)} (the app {app.name})" for app in found for host in app.hosts]


def describe_touches(
    program: Program, roots: dict[str, Path], found: Estimate | None = None
) -> list[str]:
    """Lines: what it reads, writes and does; with an estimate as often as the files there say."""
    touched = program.touches
    counts = found.steps if found is not None else program.outline().steps
    steps = [f"{op} ×{count:,}" for op, count in counts.items()]
    more = ", and more that the contents decide" if found is not None and found.guessed else ""
    return [
        f"reads     {', '.join(touched.reads) or 'nothing'}",
        *(f"          {name or '.'}/ is {path.resolve()}" for name, path in roots.items()),
        f"writes    {', '.join(touched.writes) or 'nothing'} (into the run, not yet real)",
        f"steps     {', '.join(steps) or 'none'}{more}",
        *(
            f"adds      line {use.line}: lines that the planner writes then; what they may do, "
            "the policy says"
            for use in program.access
            if use.op == EXTEND
        ),
    ]


def describe_effects(found: list[dict[str, Any]]) -> list[str]:
    """Lines: for every effect who could influence it, and what one that leaves the run could
    reveal."""
    lines: list[str] = []
    for one in found:
        parts = [f"{name} by {_named(whom)}" for name, whom in one["operands"].items() if whom]
        if one["decided_by"]:
            parts.append(f"whether it is done by {_named(one['decided_by'])}")
        told = f"could be influenced: {'; '.join(parts)}" if parts else "by nobody but you"
        lines.append(f"effect    line {one['line']}: {one['op']}, {told}")
        if one["policy"] != "allow":
            lines.append(f"          {_ANSWERS[one['policy']]}")
        if one["reveals"]:
            lines.append(f"          it could reveal {_named(one['reveals'])}")
    return lines


def effects(program: Program, rules: Rules) -> list[dict[str, Any]]:
    """The same as data. Named are those whom nobody vouches for; not the user, not the program."""
    from edvac.guard import foreseen
    from edvac.program.influence import influences

    found = []
    for one in influences(program):
        signature = program.catalogue.signatures[one.op]
        if one.effect not in (Effect.WRITE, Effect.EXTERNAL) and not signature.told:
            continue
        operands = {
            name: sorted(rules.strange(label.integrity, ())) for name, label in one.params.items()
        }
        leaves = one.effect is Effect.EXTERNAL or signature.told
        away = rules.strange(one.reveals, ("model", *signature.told)) if leaves else ()
        found.append(
            {
                "line": one.line,
                "op": one.op,
                "operands": operands,
                "decided_by": sorted(rules.strange(one.branch.integrity, ())),
                "reveals": sorted(away),
                "policy": foreseen(rules, signature, one.params, one.branch),
            }
        )
    return found


_ANSWERS = {
    "ask": "a person may be asked before it is done",
    "deny": "the policy may refuse it",
    "dry_run": "it would not be done, only shown",
}
_OTHERS = {"model": "a model", "sender": "whoever sends the signal"}


def _named(principals: list[str]) -> str:
    """``file:inbox/*`` is whoever wrote what lies there, ``name:inbox/*`` who named it."""
    shown = []
    for one in principals:
        kind, _, path = one.partition(":")
        words = {"file": f"what {path} says", "name": f"which files {path} are"}
        words |= {"app": f"the app {path}", "kept": f"what the app {path} was told before"}
        shown.append(words.get(kind, _OTHERS.get(one, one)))
    return ", ".join(shown)


def _cost(found: Estimate, settings: Settings) -> list[str]:
    """Lines: tokens, time and price, each from .. to."""
    from edvac.machine.rates import measured
    from edvac.processor import FREE

    if not found.asks_model:
        return []
    rates = measured(settings.model)
    took = found.seconds(rates)
    time = "not known before a first run of this model here"
    if took is not None and rates is not None:
        runs = ui.counted(rates.runs, "run")
        time = f"{_span(took, ui.seconds)} (as {runs} of this model took here)"
    price = dict(settings.prices).get(settings.model, FREE)
    cost = found.cost(price)
    money = f"{_span(cost, lambda one: f'{one:.2g}')} {settings.currency}"
    if "://" not in settings.model:
        money = "nothing: the model runs here"
    elif price == FREE:
        money = f'not known: edvac.toml has no [prices."{settings.model}"]'
    return [
        f"tokens    {_span(found.read, _tokens)} read, {_span(found.written, _tokens)} written",
        f"time      {time}",
        f"price     {money}",
    ]


def _span(found: Range, say: Callable[[float], str]) -> str:
    low, high = say(found.low), say(found.high)
    return low if low == high else f"{low} to {high}"


def _tokens(count: float) -> str:
    """Two digits are all that such a figure knows."""
    return f"{float(f'{count:.2g}'):,.0f}"
