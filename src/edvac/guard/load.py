"""Reads a policy: ``policy.toml`` of a workspace over the one that comes with edvac.

Every mistake is a typed error that names the rule: a policy that is not understood in full is not
in force in part. Knows nothing of how a decision is taken.
"""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from edvac.core.errors import ConfigError
from edvac.core.signature import Catalogue, Effect, Role
from edvac.guard.rules import (
    ANY_BODY,
    CONTACT,
    REST,
    TOLD,
    WRITTEN,
    Answer,
    Check,
    Each,
    Need,
    Rule,
    Rules,
    Workers,
)

NAME = "policy.toml"
MAX_BYTES = 1 << 20
ANSWERS = get_args(Answer)
WORDS = {"any": ANY_BODY, "trusted": ()}  # instead of a list of principals
ROLES = frozenset({REST, WRITTEN, CONTACT, *(f"@{role}" for role in Role)})
_NEED = ("by", "made_of", "bits", "in_directory", "otherwise")
_RULE = ("calls", "effect", "answer", "otherwise", "branch", "most", "needs", "readers", "release")
_SHIPPED = (*_RULE, "told")


@functools.cache
def shipped() -> Rules:
    """The policy that comes with edvac."""
    text = resources.files("edvac.guard").joinpath("default.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    floor = _rule("floor", {"calls": "*", **data["floor"]}, shipped=True)
    return Rules(floor, _rules(data, shipped=True), bits_per_run=data["bits_per_run"])


def load(path: Path, catalogue: Catalogue) -> Rules:
    """The policy in force: that of the file, where there is one, over the shipped one.

    Raises:
        ConfigError: it cannot be read, or something in it means nothing or contradicts itself.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return shipped()
    except OSError as problem:
        what = f"{path.name} cannot be read"
        raise ConfigError("policy_unreadable", what, str(problem)) from problem
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            "policy_unreadable", f"{path.name} cannot be read", f"It has {len(raw):,} bytes."
        )
    try:
        data = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as problem:
        what = f"{path.name} is not TOML"
        raise ConfigError("policy_unreadable", what, str(problem)) from problem
    return read(data, catalogue)


def read(data: Mapping[str, Any], catalogue: Catalogue) -> Rules:
    """The policy that parsed TOML says, over the shipped one; raises what `load` does."""
    _known(data, ("trusted", "rule", "workers", "bits_per_run"), "the policy")
    base = shipped()
    trusted = _principals(data.get("trusted", []), "trusted")
    if trusted == ANY_BODY:
        raise ConfigError(
            "policy_contradicts", "`trusted` names everybody", "Then nothing is untrusted."
        )
    bits = _bits(data.get("bits_per_run", base.bits_per_run), "bits_per_run")
    made = Rules(
        base.floor,
        (*_rules(data), *base.rules),
        (*base.trusted, *trusted),
        _workers(data.get("workers", {})),
        bits,
    )
    for rule in made.rules:
        if not rule.shipped:
            _fits(rule, catalogue)
    for signature in catalogue.signatures.values():
        ties = made.ties(signature)
        if len(ties) > 1:
            names = " and ".join(repr(rule.name) for rule in ties)
            raise ConfigError(
                "policy_contradicts", f"rules {names} both decide about {signature.op}"
            )
    return made


def _rules(data: Mapping[str, Any], *, shipped: bool = False) -> tuple[Rule, ...]:
    found = data.get("rule", {})
    if not isinstance(found, dict):
        raise ConfigError("policy_value", "`rule` is no table", "A rule is a table: [rule.NAME].")
    return tuple(_rule(name, body, shipped=shipped) for name, body in found.items())


def _rule(name: str, body: Any, *, shipped: bool = False) -> Rule:
    at = f"rule {name!r}"
    if not isinstance(body, dict):
        raise ConfigError("policy_value", f"{at} is no table", "A rule is a table: [rule.NAME].")
    _known(body, _SHIPPED if shipped else _RULE, at)
    effect = _one_of(body.get("effect"), [*map(str, Effect), None], f"effect of {at}")
    if "calls" not in body and effect is None:
        raise ConfigError(
            "policy_value", f"{at} says of no call", "It has neither `calls` nor `effect`."
        )
    made = Rule(
        name,
        _texts(body.get("calls", ["*"]), f"calls of {at}"),
        None if effect is None else Effect(effect),
        _one_of(body.get("answer", "allow"), ANSWERS, f"answer of {at}"),
        _one_of(body.get("otherwise", "ask"), ANSWERS, f"otherwise of {at}"),
        _principals(body.get("branch", "trusted" if not shipped else "any"), f"branch of {at}"),
        _whole(body.get("most", 0), f"most of {at}"),
        _needs(body.get("needs", {} if shipped else {REST: "trusted"}), at, shipped=shipped),
        _texts(body.get("readers", []), f"readers of {at}"),
        _flag(body.get("release", False), f"release of {at}"),
        shipped,
        bool(body.get("told", False)),
    )
    _consistent(made, at)
    return made


def _workers(body: Any) -> Workers:
    if not isinstance(body, dict):
        raise ConfigError("policy_value", "`workers` is no table", "It is a table: [workers].")
    _known(body, ("check", "each"), "workers")
    base = Workers()
    check = _one_of(body.get("check", base.check), get_args(Check), "check of workers")
    each = _one_of(body.get("each", base.each), get_args(Each), "each of workers")
    return Workers(check, each)


def _needs(body: Any, at: str, *, shipped: bool) -> dict[str, Need]:
    """By parameter; in a workspace's rule, what is not named needs to be trusted."""
    if not isinstance(body, dict):
        raise ConfigError(
            "policy_value", f"needs of {at} is no table", 'Write needs.to = "trusted".'
        )
    made = {name: _need(found, f"needs.{name} of {at}") for name, found in body.items()}
    return made if shipped else {REST: Need(()), **made}


def _need(body: Any, at: str) -> Need:
    if not isinstance(body, dict):
        return Need(_principals(body, at))
    _known(body, _NEED, at)
    bits = body.get("bits")
    made = Need(
        _principals(body.get("by", "trusted"), f"by of {at}"),
        _flag(body.get("made_of", False), f"made_of of {at}"),
        None if bits is None else _bits(bits, f"bits of {at}"),
        _flag(body.get("in_directory", False), f"in_directory of {at}"),
        _one_of(body.get("otherwise"), [*ANSWERS, None], f"otherwise of {at}"),
    )
    if made.free and (bits is not None or made.otherwise):
        raise ConfigError(
            "policy_contradicts", f"{at} takes anything, and then not", "`by` is any."
        )
    if made.otherwise == "allow":
        raise ConfigError(
            "policy_contradicts", f"{at} allows what does not hold", "Write `by` = any."
        )
    return made


def _consistent(rule: Rule, at: str) -> None:
    if rule.otherwise == "allow":
        raise ConfigError(
            "policy_contradicts", f"{at} allows what does not hold", "Its otherwise is allow."
        )
    if rule.release and not rule.readers:
        raise ConfigError(
            "policy_contradicts", f"{at} releases to nobody", "It names no `readers`."
        )
    if "*" in rule.branch and len(rule.branch) > 1:
        raise ConfigError("policy_contradicts", f"branch of {at} names anybody and somebody")
    for name in set(rule.readers) - {TOLD}:
        if rule.release and rule.needs.get(name, Need(())).free:
            why = "Anybody could name those to whom it releases."
            raise ConfigError(
                "policy_contradicts", f"{at} takes any {name}, and releases to it", why
            )


def _fits(rule: Rule, catalogue: Catalogue) -> None:
    """Do the functions and parameters exist that the rule speaks of?"""
    at = f"rule {rule.name!r}"
    for glob in rule.calls:
        one = Rule("", (glob,), rule.effect)
        if not any(one.covers(found) for found in catalogue.signatures.values()):
            near = _near(glob, catalogue.signatures)
            raise ConfigError(
                "policy_device_unknown", f"{at}: no function is called {glob!r}", "", near
            )
    covered = [found for found in catalogue.signatures.values() if rule.covers(found)]
    names = {param.name for found in covered for param in found.params}
    if TOLD in rule.readers and not any(found.told for found in covered):
        what = f"{at}: nobody learns the operands of {' and '.join(rule.calls)} but by an operand"
        raise ConfigError("policy_param_unknown", what, "", "Name the parameter that says who.")
    for name in (*rule.needs, *(set(rule.readers) - {TOLD})):
        if name not in names | ROLES:
            what = f"{at}: {' and '.join(rule.calls)} has no parameter {name!r}"
            fix = _near(name, names) or f"There are: {', '.join(sorted(names))}."
            raise ConfigError("policy_param_unknown", what, "", fix)


def _known(body: Mapping[str, Any], keys: Iterable[str], at: str) -> None:
    for key in body:
        if key not in keys:
            near = _near(key, keys)
            raise ConfigError("policy_key_unknown", f"{at} has an unknown key {key!r}", "", near)


def _principals(body: Any, at: str) -> tuple[str, ...]:
    if isinstance(body, str) and body in WORDS:
        return WORDS[body]
    if isinstance(body, list) and all(isinstance(one, str) and one for one in body):
        if "any" in body or (set(body) & {"*", "**"}):
            if len(body) > 1:
                raise ConfigError("policy_contradicts", f"{at} names anybody and somebody")
            return ANY_BODY
        return tuple(one for one in body if one != "trusted")
    raise ConfigError(
        "policy_value", f"{at} is {body!r}", 'It is "trusted", "any" or a list of principals.'
    )


def _texts(body: Any, at: str) -> tuple[str, ...]:
    found = [body] if isinstance(body, str) else body
    if isinstance(found, list) and all(isinstance(one, str) and one for one in found):
        return tuple(found)
    raise ConfigError("policy_value", f"{at} is {body!r}", "It is a text or a list of texts.")


def _one_of(body: Any, options: Iterable[str | None], at: str) -> Any:
    if not isinstance(body, str | None) or body not in options:
        named = ", ".join(filter(None, options))
        raise ConfigError("policy_value", f"{at} is {body!r}", f"It is one of {named}.")
    return body


def _flag(body: Any, at: str) -> bool:
    if not isinstance(body, bool):
        raise ConfigError("policy_value", f"{at} is {body!r}", "It is true or false.")
    return body


def _whole(body: Any, at: str) -> int:
    if not isinstance(body, int) or isinstance(body, bool) or body < 0:
        raise ConfigError(
            "policy_value", f"{at} is {body!r}", "It is a whole number, 0 for no limit."
        )
    return body


def _bits(body: Any, at: str) -> float:
    number = isinstance(body, int | float) and not isinstance(body, bool)
    if not (number and 0 <= body < float("inf")):
        raise ConfigError("policy_value", f"{at} is {body!r}", "It is a number of bits, 0 or more.")
    return float(body)


def _near(word: str, words: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(words), 1)
    return f"Did you mean {found[0]!r}?" if found else ""
