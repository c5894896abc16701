"""`policy`: what the guard lets programs do, and whether its rules do what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.core.errors import EXIT_FAILED

if TYPE_CHECKING:
    from edvac.core.signature import Signature
    from edvac.guard import Rule, Rules
    from edvac.guard.rules import Need

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group()
def policy() -> None:
    """Show and check the guard's rules: policy.toml here over those that come with edvac."""


@policy.command()
@JSON
def show(as_json: bool) -> None:
    """Show which rule decides about each function, and what it needs."""

    rules = _rules()
    found = [_described(rules, signature) for signature in ui.catalogue().signatures.values()]
    if as_json:
        bits = rules.bits_per_run
        ui.out_json({"trusted": list(rules.trusted), "bits_per_run": bits, "functions": found})
        return
    ui.out(f"trusted: {', '.join(sorted(rules.trusted))}")
    ui.out(f"accepted of others in one run: at most {rules.bits_per_run:g} bits")
    for one in found:
        ui.out(f"{one['function']:16} {one['effect']:9} {one['rule'] or '-':12} {_sentence(one)}")


@policy.command()
@JSON
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Try every rule with the program's own operands and with a stranger's.

    The exit code is 1 where a rule does otherwise than it says.
    """
    from edvac.guard.lint import lint

    findings = lint(_rules(), ui.catalogue())
    wrong = sum(one.wrong for one in findings)
    if as_json:
        named = [
            {"rule": one.rule, "function": one.call, "what": one.what, "wrong": one.wrong}
            for one in findings
        ]
        ui.out_json({"findings": named})
    else:
        for one in findings:
            kind = "wrong" if one.wrong else "look at"
            ui.out(ui.safe_line(f"{kind}: rule {one.rule!r}, {one.call}: {one.what}"))
        ui.out(f"{len(ui.catalogue().signatures)} functions tried, {wrong} rules are wrong")
    if wrong:
        ctx.exit(EXIT_FAILED)


def _rules() -> Rules:
    from edvac.guard.load import NAME, load

    return load(ui.workspace() / NAME, ui.catalogue())


def _described(rules: Rules, signature: Signature) -> dict[str, Any]:
    rule = rules.of(signature)
    needs = {}
    for param in signature.params:
        own = rule.need(param, signature) if rule is not None else None
        floor = rules.floor.need(param, signature)
        found = own if own is not None and not own.free else floor
        if not found.free:
            needs[param.name] = _need(found, rules)
    return {
        "function": signature.op,
        "effect": str(signature.effect),
        "rule": rule.name if rule is not None else "",
        "answer": _answer(rule),
        "needs": needs,
    }


def _answer(rule: Rule | None) -> str:
    if rule is None:
        return "allow"
    most = f", at most {rule.most} times in a run" if rule.most else ""
    return f"{rule.answer}, else {rule.otherwise}{most}"


def _need(need: Need, rules: Rules) -> str:
    who = ", ".join(("trusted", *need.by))
    made = "made of " if need.made_of else ""
    bits = "" if need.bits is None else f", or {need.bits:g} bits"
    return f"{made}{who}{bits}"


def _sentence(one: dict[str, Any]) -> str:
    needs = "; ".join(f"{name}: {need}" for name, need in one["needs"].items())
    return f"{one['answer']}" + (f" ({needs})" if needs else "")
