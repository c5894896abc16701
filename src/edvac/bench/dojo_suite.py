"""AgentDojo's suites as edvac sees them: tools in a process that has the benchmark, whose words
they return, and the policy of each suite.

AgentDojo is no dependency: `Bridge` talks in JSON lines to a script that runs in an environment of
its own (`peers/agentdojo_bridge.py`), or to anything that speaks the same. Knows nothing of
programs or of attackers.
"""

from __future__ import annotations

import json
import subprocess
import threading
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from importlib import resources
from typing import Any, TypeAlias

from edvac.core.errors import DeviceError, UsageError
from edvac.core.label import Label
from edvac.core.signature import Catalogue
from edvac.device import CATALOGUE
from edvac.device.origin import Origin
from edvac.device.tools import EffectName, Tools
from edvac.guard import Rules
from edvac.guard.load import read

SUITES = ("banking", "slack", "travel", "workspace")
SCRIPT = "peers/agentdojo_bridge.py"
MARK = "<INFORMATION>"  # begins every injected text

Args: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    function: str
    args: Args
    result: Any = None


@dataclass(frozen=True, slots=True)
class UserTask:
    """What a user wants, and the calls that do it, with their results where nobody attacks."""

    id: str
    prompt: str
    output: str
    trace: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """An environment of its own; `truth` are the user's calls there, `wanted` the attacker's."""

    session: int
    attack: str
    truth: tuple[ToolCall, ...]
    wanted: tuple[ToolCall, ...]


class Bridge:
    """The other end: requests out, answers in.

    Raises:
        UsageError: it cannot be started, or does not answer as agreed.
    """

    def __init__(self, command: list[str]) -> None:
        self._one = threading.Lock()  # steps that read run side by side
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as problem:
            raise missing(str(problem)) from problem

    @staticmethod
    def of(python: str) -> Bridge:
        """A bridge run by the interpreter of another environment."""
        script = resources.files("edvac.bench").joinpath(SCRIPT)
        return Bridge([python, str(script)])

    def ask(self, op: str, **operands: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        line = json.dumps({"op": op, **operands}, default=str) + "\n"
        try:
            with self._one:
                self._process.stdin.write(line)
                self._process.stdin.flush()
                answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as problem:
            raise missing(f"It did not answer {op}: {problem}") from problem
        if "ok" not in answer:
            raise missing(f"{op} failed there: {answer.get('error')}")
        return answer["ok"]

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait(timeout=30)


def missing(why: str) -> UsageError:
    """AgentDojo is not there, or not as it should be."""
    return UsageError(
        "agentdojo_missing",
        "no AgentDojo answers, and this benchmark is its tasks",
        why,
        "Install agentdojo==0.1.35 into an environment of its own and name its interpreter: "
        "--agentdojo PYTHON.",
    )


@dataclass
class Suite:
    """One suite: its tasks, and what the file of its policy says.

    Attributes:
        said: the parsed file in ``dojo_policies``.
    """

    name: str
    bridge: Bridge
    said: Mapping[str, Any]
    schemas: list[dict[str, Any]]
    users: tuple[UserTask, ...]
    injections: dict[str, str]
    _origins: dict[str, Origin] = field(default_factory=dict)

    @staticmethod
    def load(bridge: Bridge, name: str, said: Mapping[str, Any] | None = None) -> Suite:
        found = bridge.ask("describe", suite=name)
        users = (
            UserTask(one["id"], one["prompt"], one["output"], _calls(one["trace"]))
            for one in found["users"]
        )
        said = policy_file(name) if said is None else said
        return Suite(name, bridge, said, found["tools"], tuple(users), found["injections"])

    def open(self, user: UserTask, injection: str | None) -> Opened:
        made = self.bridge.ask("open", suite=self.name, user=user.id, injection=injection)
        truth, wanted = _calls(made["truth"]), _calls(made["wanted"])
        return Opened(made["session"], made["attack"], truth, wanted)

    def call(self, session: int, function: str, args: Args) -> Any:
        """Have a tool called there.

        Raises:
            DeviceError: the tool refused it.
        """
        answer = self.bridge.ask("call", session=session, function=function, args=args)
        if "error" in answer:
            why = str(answer["error"])
            raise DeviceError("tool_failed", f"{self.name}.{function} failed", why)
        return answer["result"]

    def close(self, session: int, output: str) -> tuple[bool, bool]:
        """Did the user get what he wanted, and the attacker what he wanted?"""
        found = self.bridge.ask("close", session=session, output=output)
        return found["utility"], found["security"]

    def reads(self, function: str) -> bool:
        return any(fnmatchcase(function, glob) for glob in self.said["reads"])

    def origin(self, function: str) -> Origin:
        """Whose words the tool returns: the first pattern of the file that fits it."""
        if function not in self._origins:
            self._origins[function] = self._contract(function)
        return self._origins[function]

    def _contract(self, function: str) -> Origin:
        said = self.said["origin"]
        globs = (name for name in said if name != "inside" and fnmatchcase(function, name))
        body = said[next(globs)]
        return Origin.of(
            body["rest"], body.get("parts"), said.get("inside", ()), body.get("readers")
        )

    def keyed(self, function: str) -> bool:
        """Is its answer a dict by name, and no record?"""
        return any(place == ("*",) for place, _ in self.origin(function).parts)

    def tools(self, call: Callable[[str, Args], Any]) -> Tools:
        """The suite's tools as a device; `call` has them called."""
        made = Tools(self.name)
        for one in self.schemas:
            name = one["name"]
            effect: EffectName = "read" if self.reads(name) else "external"
            made.add(
                _bound(call, name),
                one["schema"],
                name=name,
                effect=effect,
                origin=self.origin(name),
                doc=one["doc"],
            )
        return made

    @cached_property
    def rules(self) -> Rules:
        return read(self.said["policy"], self.catalogue)

    @cached_property
    def catalogue(self) -> Catalogue:
        own = self.tools(lambda function, args: None).signatures
        return Catalogue.of([*CATALOGUE.signatures.values(), *own])

    def trusted(self, label: Label) -> bool:
        """Did nobody but those whom the policy trusts everywhere have a part in it?"""
        return not self.rules.strange(label.integrity, ())


def policy_file(name: str) -> dict[str, Any]:
    """The parsed policy of a suite."""
    text = resources.files("edvac.bench").joinpath(f"dojo_policies/{name}.toml")
    return tomllib.loads(text.read_text(encoding="utf-8"))


def _bound(call: Callable[[str, Args], Any], name: str) -> Callable[..., Any]:
    def run(**args: Any) -> Any:
        return call(name, args)

    return run


def _calls(found: list[dict[str, Any]]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(one["function"], one["args"], one.get("result")) for one in found)
