"""The guard for somebody else's agent: its tools behind labels and the policy, no program needed.

    guarded = Guarded([bank], policy(Path("policy.toml"), [bank]), ask=at_the_terminal)
    mails = guarded.call("mail.inbox")                      # a handle: the agent sees no data
    guarded.call("mail.send", to=mails[0]["sender"], text="Thanks")   # the policy decides

What a tool returns is a `Handle`. The agent passes it on, takes parts of it, or has it `read`: then
it sees the data, and from then on everything that it says and every call that it makes counts as
influenced by whoever is in it. Plain operands are the agent's own words, and carry what it has
read. `ask_worker` lets a model without tools answer about data with a value of a narrow type, of
which only so many bits reach the agent as the type has.

Knows nothing of models or of any framework; see examples/ for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edvac.core.errors import ConfigError, DeviceError, EdvacError, ModelOutputError, PolicyError
from edvac.core.label import PROGRAM, UNBOUNDED, Label, combine
from edvac.core.result import influenced
from edvac.core.schema import ANY, STR, Type, decode, show
from edvac.core.signature import NO_ACCESS, REQUIRED, Catalogue, Signature
from edvac.core.value import (
    Instance,
    Mapping,
    Sequence,
    Value,
    lift,
    plain,
    settle,
    steered,
    total_label,
)
from edvac.device.origin import labelled
from edvac.device.tools import Tool, Tools, data, failed
from edvac.guard import Allow, Ask, Deny, Rule, Rules, Verdict, decide
from edvac.guard.load import load
from edvac.program.host import StepCall

Worker = Callable[[str, Any, Type], Any]  # question, data, type of the answer


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked: the policy's reason, and the call as it would be made."""

    text: str
    op: str
    operands: dict[str, Any]

    def __str__(self) -> str:
        """With hidden characters made visible."""
        shown = ", ".join(f"{name}={part!a}" for name, part in self.operands.items())
        return f"{self.text}\n  {self.op}({shown})"


@dataclass(frozen=True, slots=True)
class Decision:
    """One entry of the log."""

    op: str
    verdict: str  # allowed, asked: yes, asked: no, denied
    rule: str
    accepted: tuple[str, ...] = ()


class Handle:
    """A labelled value that the agent can pass on and take apart, but not see."""

    __slots__ = ("_value",)

    def __init__(self, value: Value) -> None:
        self._value = value

    @property
    def label(self) -> Label:
        return total_label(self._value)

    def __getitem__(self, key: int | str | Handle) -> Handle:
        """A part; who chose it by a handle has chosen it."""
        value, decider = self._value, self._value.label
        if isinstance(key, Handle):
            decider = combine([decider, key.label])
        part: Any
        match value, plain(key._value) if isinstance(key, Handle) else key:
            case Sequence(), int() as at:
                part = value.items[at]
            case Mapping(), str() as name:
                part = value.entries[name]
            case Instance(), str() as name:
                part = value.fields[name]
            case _:
                raise KeyError("this handle has no such part")
        here: Any = settle(part)
        return Handle(steered(here, decider))

    def __iter__(self) -> Iterator[Handle]:
        raise TypeError("how many parts a handle has is data, too: read it, or ask a worker")

    def __repr__(self) -> str:
        return (
            f"<{type(self._value).__name__.lower()} of {', '.join(sorted(self.label.integrity))}>"
        )


@dataclass(slots=True)
class Guarded:
    """Tools, a policy, and what the agent has seen so far.

    Args:
        ask: answers a question of the policy; without it every question is a no.
        bits: that outsiders have chosen in what the policy has accepted so far.
    """

    devices: Iterable[Tools]
    rules: Rules
    ask: Callable[[Question], bool] = lambda _: False
    log: list[Decision] = field(default_factory=list)
    seen: Label = PROGRAM
    bits: float = 0.0
    _used: dict[str, int] = field(default_factory=dict)

    def call(self, op: str, /, **operands: Any) -> Handle:
        """Call a tool, if the policy lets it.

        Raises:
            PolicyError: it does not, or a person said no; nothing was done.
            DeviceError: the tool failed.
        """
        tool = self._tool(op)
        values = self._operands(tool.signature, operands)
        self._decide(tool.signature, values)
        try:
            found = data(tool.run(**{name: plain(value) for name, value in values.items()}))
        except EdvacError:
            raise
        except Exception as problem:  # somebody else's function may raise whatever it likes
            self._leaks(tool.origin.label(), *map(total_label, values.values()))
            raise failed(op, problem, said=False) from None
        who = combine([*map(total_label, values.values()), self.seen])
        kind = tool.signature.result or ANY
        return Handle(influenced(labelled(found, tool.origin, kind), kind, who))

    def read(self, handle: Handle) -> Any:
        """The data, for the agent to see: from now on it may be led by whoever is in it."""
        self.seen = combine([self.seen, handle.label])
        return plain(handle._value)

    def said(self, words: Any, principal: str = "user") -> Handle:
        """Somebody's words, such as a text that the user pasted: whose are they?"""
        bits = 0 if principal == "user" else UNBOUNDED
        return Handle(lift(words, Label.of([principal], bits=bits)))

    def ask_worker(
        self, worker: Worker, question: str, about: Handle, answer: Type = STR
    ) -> Handle:
        """Let a model without tools answer a question about data; the answer has to fit the type.

        Raises:
            DeviceError: it does not fit; not a word of it comes with the error.
        """
        label = combine([about.label, self.seen])
        found = worker(question, plain(about._value), answer)
        try:
            return Handle(decode(found, answer, label))
        except ModelOutputError:
            self._leaks(label)
            raise DeviceError(
                "worker_answer_unfit", f"the worker's answer is no {show(answer)}"
            ) from None

    def _leaks(self, *labels: Label) -> None:
        """That something failed is a bit that the agent sees."""
        self.seen = combine([self.seen, combine(labels, bits=1)])

    def _tool(self, op: str) -> Tool:
        device, _, function = op.partition(".")
        for one in self.devices:
            if one.name == device:
                return one[function]
        raise ConfigError("tool_unknown", f"there is no device {device!r}")

    def _operands(self, signature: Signature, given: dict[str, Any]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for param in signature.params:
            if param.name in given:
                found[param.name] = self._value(given.pop(param.name))
            elif param.default is REQUIRED:
                raise ConfigError("tool_operand", f"{signature.op} needs {param.name!r}")
            else:
                found[param.name] = lift(param.default, PROGRAM)
        if given:
            raise ConfigError("tool_operand", f"{signature.op} takes no {min(given)!r}")
        return found

    def _value(self, operand: Any) -> Value:
        """Handles keep their labels; everything else the agent says itself."""
        match operand:
            case Handle():
                return operand._value
            case list():
                return Sequence(tuple(map(self._value, operand)), self.seen)
            case dict():
                return Mapping({key: self._value(one) for key, one in operand.items()}, self.seen)
        return lift(operand, self.seen)

    def _decide(self, signature: Signature, values: dict[str, Value]) -> None:
        made = StepCall(
            slot="",
            op=signature.op,
            signature=signature,
            args={},
            types={},
            result=ANY,
            branch=self.seen,
            order=(),
            line=1,
            address=signature.function,
            static=NO_ACCESS,
        )
        verdict = decide(made, values, self.rules, self._count, self.bits)
        asked = isinstance(verdict, Ask)
        yes = isinstance(verdict, Allow) or (asked and self._yes(verdict, signature, values))
        self._note(signature.op, verdict, yes=yes)
        if isinstance(verdict, Deny):
            verdict.error.line = None  # there is no program
            raise verdict.error
        if not yes:
            raise PolicyError(
                "tool_denied", f"{signature.op} was not approved", "A person said no."
            )
        self.bits += verdict.bits if isinstance(verdict, Allow) else 0.0
        rule = self.rules.of(signature)
        if rule is not None:
            self._used[rule.name] = self._used.get(rule.name, 0) + 1

    def _yes(self, verdict: Verdict, signature: Signature, values: dict[str, Value]) -> bool:
        shown = {name: plain(value) for name, value in values.items()}
        text = verdict.text if isinstance(verdict, Ask) else ""
        return self.ask(Question(text, signature.op, shown)) is True

    def _count(self, rule: Rule) -> int:
        return self._used.get(rule.name, 0)

    def _note(self, op: str, verdict: Verdict, *, yes: bool) -> None:
        said = {Allow: "allowed", Deny: "denied"}.get(type(verdict))
        said = said or f"asked: {'yes' if yes else 'no'}"
        accepted = map(str, verdict.accepted) if isinstance(verdict, Allow) else ()
        self.log.append(Decision(op, said, verdict.rule, tuple(accepted)))


def policy(path: Path, devices: Iterable[Tools]) -> Rules:
    """The policy of a file, for these tools; raises what `edvac.guard.load.load` does."""
    found = [signature for device in devices for signature in device.signatures]
    return load(path, Catalogue.of(found))
