"""The policy as data: what it means, what is refused, and that the linter finds what is wrong."""

from __future__ import annotations

import random
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.core.errors import ConfigError, EdvacError
from edvac.core.label import PROGRAM, Label
from edvac.core.schema import ANY, STR, ListOf
from edvac.core.signature import Access, Catalogue, Effect, Param, Role, Signature
from edvac.core.value import Scalar, Value, lift
from edvac.guard import Allow, Ask, Deny, Verdict, decide, logged
from edvac.guard import lint as linting
from edvac.guard.lint import lint
from edvac.guard.load import load, read, shipped
from edvac.program.host import StepCall

SEND = Signature(
    "mail.send",
    (Param("to", ListOf(STR)), Param("text", STR), Param("tone", STR, "plain")),
    ANY,
    Effect.EXTERNAL,
    "",
)
FETCH = Signature("web.fetch", (Param("url", STR),), STR, Effect.READ, "")
WRITE = Signature("llm.write", (Param("goal", STR, role=Role.INSTRUCTION),), STR, Effect.PURE, "")
CATALOGUE = Catalogue.of([SEND, FETCH, WRITE])
MAIL: dict[str, Any] = {
    "trusted": ["book"],
    "rule": {
        "mail": {
            "calls": "mail.send",
            "readers": ["to"],
            "release": True,
            "most": 2,
            "needs": {"to": {"by": ["friend:*"], "bits": 3}, "text": "any"},
        }
    },
}
TRUST = Label.of(["user"])


def label(*who: str, bits: float = 9, readers: list[str] | None = None) -> Label:
    return Label.of(who, bits=bits, readers=readers)


def call(
    signature: Signature = SEND, branch: Label = PROGRAM, **labels: Label
) -> tuple[StepCall, dict[str, Value]]:
    operands = {
        param.name: lift(["a@b"] if param.name == "to" else "x", labels.get(param.name, PROGRAM))
        for param in signature.params
    }
    # a list's own label says how many there are; here all of the bits are in its one item
    if "to" in operands:
        own = labels.get("to", PROGRAM)
        operands["to"] = lift([Scalar("a@b", own)], own.cap(0))
    made = StepCall(
        "", signature.op, signature, {}, {}, ANY, branch, (), 1, signature.function, Access()
    )
    return made, operands


def verdict(said: dict[str, Any] = MAIL, used: int = 0, **more: Any) -> Verdict:
    return decide(*call(**more), read(said, CATALOGUE), lambda _: used)


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"to": label("book")},
        {"to": label("friend:ann")},
        {"text": label("stranger")},
        {"to": label("stranger", bits=3)},
        {"tone": label("user")},
    ],
)
def test_what_holds_is_allowed(labels: dict[str, Label]) -> None:
    found = verdict(**labels)
    assert isinstance(found, Allow) and found.rule == "mail"


@pytest.mark.parametrize(
    "labels",
    [
        {"to": label("stranger")},
        {"to": label("stranger", bits=3.01)},
        {"to": label("friend:ann", "stranger")},
        {"tone": label("friend:ann")},
        {"branch": label("stranger", bits=1)},
        {"branch": label("friend:ann", bits=0)},
        {"to": label("stranger", bits=1), "branch": label("stranger", bits=1)},
    ],
)
def test_what_does_not_is_asked(labels: dict[str, Label]) -> None:
    found = verdict(**labels)
    assert isinstance(found, Ask)
    assert "stranger" in found.text or "friend" in found.text


def test_an_endorsement_is_logged_with_its_rule_and_bits() -> None:
    found = verdict(to=label("stranger", bits=2.5))
    assert logged(found) == {"rule": "mail", "accepted": [["to", 2.5, ["stranger"]]]}


def test_what_is_released_is_logged_and_only_to_whom_a_trusted_operand_names() -> None:
    secret = label("user", bits=0, readers=["user"])
    found = verdict(text=secret)
    assert logged(found) == {"rule": "mail", "accepted": [["operands", None, ["a@b"]]]}
    held = verdict(text=secret, to=label("stranger"))
    assert isinstance(held, Ask) and "a@b" in held.text
    strict = {"rule": {"mail": MAIL["rule"]["mail"] | {"release": False}}}
    assert isinstance(verdict(strict, text=secret), Ask)
    loose = {"rule": {"mail": MAIL["rule"]["mail"] | {"branch": "any"}}}
    assert isinstance(verdict(loose, branch=label("stranger", bits=1)), Allow)
    led = verdict(loose, text=secret, branch=label("stranger", bits=1))
    assert isinstance(led, Ask), "nothing is released where an outsider decided"


def test_a_run_has_no_more_calls_than_the_rule_says() -> None:
    assert isinstance(verdict(used=1), Allow)
    found = verdict(used=2)
    assert isinstance(found, Deny) and found.error.code == "policy_limit"


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [("ask", Ask, ""), ("deny", Deny, "policy_denied"), ("dry_run", Deny, "policy_dry_run")],
)
def test_answers(answer: str, kind: type, code: str) -> None:
    found = verdict({"rule": {"r": {"calls": "mail.*", "answer": answer}}})
    assert isinstance(found, kind)
    if isinstance(found, Deny):
        assert found.error.code == code and "'r'" in found.error.why + "'r'"


def test_the_strictest_answer_counts() -> None:
    rule = {"calls": "mail.send", "answer": "dry_run", "otherwise": "deny"}
    found = verdict({"rule": {"r": rule}}, to=label("stranger"))
    assert isinstance(found, Deny) and found.error.code == "policy_denied"


def test_a_need_may_say_what_is_answered_where_it_does_not_hold() -> None:
    needs = {"to": {"otherwise": "deny"}}
    said = {"rule": {"r": {"calls": "mail.send", "needs": needs}}}
    assert isinstance(verdict(said, to=label("stranger")), Deny)
    assert isinstance(verdict(said, text=label("stranger")), Ask)


def test_the_floor_cannot_be_loosened() -> None:
    said = {"rule": {"r": {"calls": "llm.write", "branch": "any", "needs": {"goal": "any"}}}}
    found = verdict(said, signature=WRITE, goal=label("stranger", bits=0))
    assert isinstance(found, Deny) and found.error.code == "untrusted_instruction"


def test_the_closest_rule_decides() -> None:
    said = {
        "rule": {
            "all": {"calls": "*", "answer": "deny"},
            "mails": {"calls": "mail.*", "answer": "ask"},
            "one": {"calls": "mail.send"},
        }
    }
    assert isinstance(verdict(said), Allow)
    assert isinstance(verdict(said, signature=FETCH), Deny)
    del said["rule"]["one"]
    assert isinstance(verdict(said), Ask)


def test_a_rule_of_the_workspace_goes_before_a_shipped_one() -> None:
    assert isinstance(verdict({"rule": {"all": {"calls": "*", "answer": "deny"}}}), Deny)


def test_what_no_rule_of_the_workspace_names_is_decided_as_shipped() -> None:
    said = {"rule": {"r": {"calls": "web.fetch"}}}
    assert isinstance(verdict(said), Allow)
    found = verdict(said, text=label("stranger"))
    assert isinstance(found, Ask) and "cannot be undone" in found.text
    assert isinstance(verdict({}, signature=FETCH, url=label("stranger")), Allow)
    assert isinstance(verdict(said, signature=FETCH, url=label("stranger")), Ask)


# -- the loader

RULE = {"calls": "mail.send"}


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"rules": {}}, "policy_key_unknown"),
        ({"rule": {"r": RULE | {"neds": {}}}}, "policy_key_unknown"),
        ({"rule": {"r": RULE | {"needs": {"to": {"bit": 1}}}}}, "policy_key_unknown"),
        ({"rule": {"r": {"calls": "mial.send"}}}, "policy_device_unknown"),
        ({"rule": {"r": {"calls": ["mail.send", "nothing.*"]}}}, "policy_device_unknown"),
        ({"rule": {"r": RULE | {"needs": {"recipient": "any"}}}}, "policy_param_unknown"),
        ({"rule": {"r": RULE | {"readers": ["cc"]}}}, "policy_param_unknown"),
        ({"rule": {"a": RULE, "b": RULE}}, "policy_contradicts"),
        ({"rule": {"a": RULE, "b": {"effect": "external", "calls": "mail.sen?"}}}, ""),
        ({"rule": {"r": RULE | {"release": True}}}, "policy_contradicts"),
        (
            {"rule": {"r": RULE | {"release": True, "readers": ["to"], "needs": {"to": "any"}}}},
            "policy_contradicts",
        ),
        ({"rule": {"r": RULE | {"otherwise": "allow"}}}, "policy_contradicts"),
        ({"rule": {"r": RULE | {"branch": ["any", "user"]}}}, "policy_contradicts"),
        ({"rule": {"r": RULE | {"needs": {"to": {"by": "any", "bits": 1}}}}}, "policy_contradicts"),
        ({"trusted": "any"}, "policy_contradicts"),
        ({"trusted": ["*"]}, "policy_contradicts"),
        ({"trusted": [1]}, "policy_value"),
        ({"rule": []}, "policy_value"),
        ({"rule": {"r": []}}, "policy_value"),
        ({"rule": {"r": {}}}, "policy_value"),
        ({"rule": {"r": RULE | {"answer": "maybe"}}}, "policy_value"),
        ({"rule": {"r": RULE | {"most": -1}}}, "policy_value"),
        ({"rule": {"r": RULE | {"most": True}}}, "policy_value"),
        ({"rule": {"r": RULE | {"needs": {"to": {"bits": float("nan")}}}}}, "policy_value"),
        ({"rule": {"r": RULE | {"needs": {"to": {"bits": float("inf")}}}}}, "policy_value"),
        ({"rule": {"r": RULE | {"needs": "any"}}}, "policy_value"),
        ({"rule": {"r": RULE | {"release": 1}}}, "policy_value"),
    ],
)
def test_what_is_no_policy_is_refused(said: dict[str, Any], code: str) -> None:
    if not code:
        read(said, CATALOGUE)
        return
    with pytest.raises(ConfigError) as refused:
        read(said, CATALOGUE)
    assert refused.value.code == code


def test_a_file_is_read_whole_or_refused(tmp_path: Any) -> None:
    path = tmp_path / "policy.toml"
    assert load(path, CATALOGUE) is shipped()
    path.write_text("trusted = ['book']\n[rule.r]\ncalls = 'mail.send'\n")
    assert load(path, CATALOGUE).trusted == ("program", "user", "book")
    for broken in (b"[rule", b"\xff\xfe", b"trusted = ['x']\n[rule.r]\nsurprise = 1\n"):
        path.write_bytes(broken)
        with pytest.raises(ConfigError):
            load(path, CATALOGUE)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["any", "trusted", "mail.send", "*", "ask", "allow", "to"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["calls", "needs", "to", "by", "bits", "readers", "x", "branch", "answer"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(rule=JUNK, trusted=JUNK)
def test_whatever_stands_in_a_file_is_a_policy_or_a_typed_error(rule: Any, trusted: Any) -> None:
    try:
        made = read({"trusted": trusted, "rule": {"r": rule}}, CATALOGUE)
    except ConfigError:
        return
    assert all(finding.rule for finding in lint(made, CATALOGUE))


# -- decisions, beside a naive oracle

WHO = ["user", "program", "book", "friend:ann", "friend:bob", "stranger"]
LABELS = st.builds(
    lambda who, steered, bits: Label.of(who, steered, None, bits),
    st.sets(st.sampled_from(WHO), max_size=2),
    st.sets(st.sampled_from(WHO), max_size=2),
    st.sampled_from([0, 1, 3, 3.5, float("inf")]),
)
NEEDS = st.one_of(
    st.sampled_from(["any", "trusted"]),
    st.lists(st.sampled_from(["friend:*", "friend:ann", "stranger"]), max_size=2),
    st.fixed_dictionaries({"by": st.just(["friend:*"]), "bits": st.sampled_from([0, 2, 3])}),
)


@settings(deadline=None)
@given(needs=st.tuples(NEEDS, NEEDS, NEEDS), labels=st.tuples(LABELS, LABELS, LABELS, LABELS))
def test_decisions_are_those_of_a_naive_oracle(needs: Any, labels: Any) -> None:
    names = ("to", "text", "tone")
    rule = {"calls": "mail.send", "needs": dict(zip(names, needs, strict=True))}
    said = {"trusted": ["book"], "rule": {"r": rule}}
    branch = labels[3]
    found = verdict(said, branch=branch, **dict(zip(names, labels, strict=False)))

    def trusted(who: frozenset[str], by: list[str]) -> bool:
        globs = ["user", "program", "book", *by]
        return all(any(fnmatchcase(one, glob) for glob in globs) for one in who)

    steady = trusted(branch.integrity, [])
    fine = steady
    for need, own in zip(needs, labels, strict=False):
        if need == "any":
            continue
        by = need if isinstance(need, list) else need["by"] if isinstance(need, dict) else []
        bits = need["bits"] if isinstance(need, dict) else -1
        fine = fine and (trusted(own.integrity, by) or (own.bits <= bits and steady))
    assert isinstance(found, Allow) is fine


@settings(deadline=None)
@given(labels=st.tuples(LABELS, LABELS, LABELS, LABELS), where=st.integers(0, 3))
def test_more_influence_never_allows_more(labels: Any, where: int) -> None:
    names = ("to", "text", "tone", "branch")
    before = dict(zip(names, labels, strict=True))
    worse = before | {names[where]: before[names[where]].join(label("stranger", bits=20))}
    if isinstance(verdict(**worse), Allow):
        assert isinstance(verdict(**before), Allow)


# -- C6: rules that nobody has tried


def test_c6_every_shipped_rule_does_what_it_says() -> None:
    assert lint(shipped(), CATALOGUE) == []


@pytest.mark.parametrize("seed", range(20))
def test_c6_rules_that_are_well_formed_do_what_they_say(seed: int) -> None:
    chance = random.Random(seed)
    needs = {
        name: chance.choice(["any", "trusted", ["friend:*"], {"bits": chance.choice([0, 1, 4.5])}])
        for name in ("to", "text", "tone")
    }
    rule = {"calls": "mail.send", "needs": needs, "branch": chance.choice(["any", "trusted"])}
    findings = lint(read({"rule": {"r": rule}}, CATALOGUE), CATALOGUE)
    assert [one for one in findings if one.wrong] == []


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ({"needs": {"to": ["str*"]}}, "an outsider's to passes"),
        ({"branch": ["stranger:*"]}, "an outsider decided"),
    ],
)
def test_c6_a_rule_that_lets_anybody_in_is_found(rule: dict[str, Any], what: str) -> None:
    found = lint(read({"rule": {"r": RULE | rule}}, CATALOGUE), CATALOGUE)
    assert any(what in one.what and one.wrong for one in found)


def test_c6_an_inverted_decision_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def inverted(*given: Any) -> Verdict:
        found = decide(*given)
        return Ask("") if isinstance(found, Allow) else Allow()

    monkeypatch.setattr(linting, "decide", inverted)
    found = {one.what for one in lint(read(MAIL, CATALOGUE), CATALOGUE)}
    assert "trusted operands do not pass" in found and "an outsider's to passes" in found


def test_a_rule_that_asks_nothing_is_pointed_out() -> None:
    rule = RULE | {"branch": "any", "needs": {"to": "any", "text": "any", "tone": "any"}}
    (found,) = lint(read({"rule": {"r": rule}}, CATALOGUE), CATALOGUE)
    assert not found.wrong and "cannot be undone" in found.what


def test_the_shipped_policies_of_the_benchmark_name_what_exists() -> None:
    from edvac.bench.dojo_suite import SUITES, policy_file

    for name in SUITES:
        said = policy_file(name)
        assert {"reads", "policy", "origin"} <= set(said)
        assert all(rule["calls"] for rule in said["policy"]["rule"].values())
    with pytest.raises((EdvacError, FileNotFoundError)):
        policy_file("none")
