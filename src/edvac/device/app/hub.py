"""What one app asks of another goes through here: typed, permitted, and no more than the step may.

IsolateGPT (2024) keeps apps apart and lets them talk through a trusted hub only, with messages of a
known shape and a permission for each pair. So it is here, with three things added: both sides are
held to the signatures that a person approved; a request can have no effect that the step which it
comes from does not have; and the policy that decides about the program's own calls decides about
it first. What an app asks is a stranger's data, whatever it was made of.

Knows nothing of terminals, nor of how permissions are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from edvac.core.errors import EdvacError, StepError, TransientError
from edvac.core.label import Label
from edvac.core.schema import ANY, decode
from edvac.core.signature import NO_ACCESS, REQUIRED, Effect, Signature
from edvac.core.value import Value, lift, plain, total_label
from edvac.device.app.manifest import App
from edvac.device.app.session import UNKNOWN, Refusal
from edvac.guard import Deny, Rules, decide
from edvac.program.host import StepCall

METHOD = "edvac/call"
MOST = 20  # requests of one call
Permission: TypeAlias = Literal["once", "run", "always", "no"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One app that asks, and one tool of another."""

    asks: str
    answers: str
    tool: str

    @property
    def op(self) -> str:
        return f"{self.answers}.{self.tool}"

    def __str__(self) -> str:
        return f"{self.asks} asks {self.op}"


@dataclass(frozen=True, slots=True)
class Request:
    """What a person is asked.

    Attributes:
        address: the step in which it is asked.
        operands: as they would be handed over.
        acts: can it not be undone? Then there is no permission for good.
        planned: does the program itself call both apps?
    """

    pair: Pair
    address: str
    operands: dict[str, Any]
    acts: bool
    planned: bool

    @property
    def choices(self) -> list[Permission]:
        return ["once", "run", "no"] if self.acts else ["once", "run", "always", "no"]

    def __str__(self) -> str:
        """With hidden characters made visible."""
        shown = ", ".join(f"{name}={_short(data)}" for name, data in self.operands.items())
        asks, answers = self.pair.asks, self.pair.answers
        seldom = "" if self.planned else " Your program has no such connection."
        undone = " It cannot be undone." if self.acts else ""
        return (
            f"the app {asks} asks for {self.pair.op}({shown}): {answers} would learn these values, "
            f"and {asks} the answer.{seldom}{undone} Permit it?"
        )


def _short(data: Any, most: int = 400) -> str:
    """Of very much the beginning, and how much it is."""
    text = ascii(data)
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


class Permissions(Protocol):
    """What was permitted, and a person who may be asked."""

    async def given(self, pair: Pair, *, acts: bool) -> bool:
        """Was it permitted for this run, or for good? What acts is permitted for good by nobody."""

    async def ask(self, request: Request) -> Permission:
        """Ask, and keep what was answered.

        Raises:
            PolicyError: nobody is there.
        """


class Peer(Protocol):
    """An app as the hub sees it."""

    @property
    def app(self) -> App: ...

    async def asked(self, tool: str, values: dict[str, Value], address: str) -> Value:
        """What the app answers, in the step at this address; raises what `AppDevice.call` does."""


@dataclass(slots=True)
class Asking:
    """One call of an app under way, and what it has come to so far.

    Attributes:
        heard: who has influenced it, beside its operands.
        timer: of the app's own time; what others take, a person who thinks among them, is not that.
    """

    app: App
    address: str
    effect: Effect
    asked: int = 0
    heard: list[Label] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    timer: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The app's time does not run."""
        now, end = asyncio.get_running_loop().time, self.timer.when()
        if end is None or self.timer.expired():
            yield
            return
        left = end - now()
        self.timer.reschedule(None)
        try:
            yield
        finally:
            self.timer.reschedule(now() + left)


class Hub:
    """The apps of one run.

    Args:
        called: the apps that the program calls itself.
    """

    def __init__(self, rules: Rules, called: frozenset[str], permissions: Permissions) -> None:
        self._rules = rules
        self._called = called
        self._permissions = permissions
        self._refused: set[Pair] = set()
        self._waits: dict[str, str] = {}  # by app that asks: the app whose answer it waits for
        self.peers: Mapping[str, Peer] = {}

    def answering(self, asking: Asking) -> Callable[[str, dict[str, Any]], Awaitable[Any]]:
        """What an app may ask during a call."""

        async def answer(method: str, params: dict[str, Any]) -> Any:
            if method != METHOD:
                raise Refusal(f"{method[:40]!a} is not offered here", UNKNOWN)
            with asking.paused():
                return await self._answer(asking, params)

        return answer

    async def _answer(self, asking: Asking, params: dict[str, Any]) -> dict[str, Any]:
        asking.asked += 1
        peer, signature = self._found(asking, params.get("tool"))
        pair = Pair(asking.app.name, signature.device, signature.function)
        values = _operands(asking.app, signature, params.get("arguments", {}))
        self._circle(pair)
        await self._permitted(asking, pair, signature, values)
        self._circle(pair)  # somebody may have asked while a person thought about it
        self._waits[pair.asks] = pair.answers
        try:
            found = await peer.asked(pair.tool, values, asking.address)
        except (StepError, TransientError, TimeoutError) as problem:
            why = problem.code if isinstance(problem, EdvacError) else "step_timeout"
            asking.notes.append(f"{pair}, which failed: {why}")
            raise Refusal("the other app could not answer") from problem
        finally:
            del self._waits[pair.asks]
        who = total_label(found)
        asking.heard.append(Label.of(who.sources, who.steered, None, who.bits))
        return {"value": plain(found)}

    def _found(self, asking: Asking, named: object) -> tuple[Peer, Signature]:
        """The tool that is meant: exactly that name, approved, and of another app."""
        if asking.asked > MOST:
            raise Refusal(f"a call asks {MOST} times at most")
        device, _, tool = named.partition(".") if isinstance(named, str) else ("", "", "")
        peer = self.peers.get(device)
        if peer is None or tool not in peer.app.tools or device == asking.app.name:
            raise Refusal("there is no such tool of another app")
        signature = peer.app.signature(tool)
        if signature.effect is Effect.EXTERNAL and asking.effect is not Effect.EXTERNAL:
            raise Refusal("a step that only reads asks for nothing that acts")
        return peer, signature

    def _circle(self, pair: Pair) -> None:
        """An app that waits for the one that asks, however indirectly, cannot answer."""
        here: str | None = pair.answers
        while here is not None:
            if here == pair.asks:
                raise Refusal("that app waits for this one")
            here = self._waits.get(here)

    async def _permitted(
        self, asking: Asking, pair: Pair, signature: Signature, values: dict[str, Value]
    ) -> None:
        """
        Raises:
            Refusal: the policy or a person says no.
            PolicyError: nobody is there to ask.
        """
        rule = self._rules.of(signature)
        counted = rule is not None and rule.most > 0  # what it counts are the program's own calls
        if counted or isinstance(decide(_call(asking, signature), values, self._rules), Deny):
            asking.notes.append(f"{pair}: the policy refused it")
            raise Refusal("the policy refuses it")
        if pair in self._refused:
            raise Refusal("it was refused")
        acts = signature.effect is Effect.EXTERNAL
        if await self._permissions.given(pair, acts=acts):
            asking.notes.append(f"{pair}: permitted before")
            return
        planned = {pair.asks, pair.answers} <= self._called
        shown = {name: plain(value) for name, value in values.items()}
        request = Request(pair, asking.address, shown, acts, planned)
        answer = await self._permissions.ask(request)
        if answer not in request.choices or answer == "no":
            asking.notes.append(f"{pair}: refused")
            self._refused.add(pair)
            raise Refusal("it was refused")
        asking.notes.append(f"{pair}: permitted, {answer}")


def _operands(app: App, signature: Signature, given: object) -> dict[str, Value]:
    """What an app hands over, held to the approved types and labelled as its words.

    Raises:
        Refusal: it does not fit.
    """
    params = {param.name: param for param in signature.params}
    if not isinstance(given, dict) or not given.keys() <= params.keys():
        raise Refusal("the operands are not those that the tool takes")
    values: dict[str, Value] = {}
    for name, param in params.items():
        if name not in given and param.default is REQUIRED:
            raise Refusal(f"{name} is missing")
        if name in given:
            try:
                free = param.type == ANY
                made = (
                    lift(given[name], app.label)
                    if free
                    else decode(given[name], param.type, app.label)
                )
            except EdvacError:
                raise Refusal(f"{name} is not of its type") from None
            values[name] = made
    return values


def _call(asking: Asking, signature: Signature) -> StepCall:
    """The request as the policy looks at a call: the app that asks has decided that it is made."""
    return StepCall(
        slot="",
        op=signature.op,
        signature=signature,
        args={},
        types={},
        result=ANY,
        branch=asking.app.label,
        order=(),
        line=0,
        address=asking.address,
        static=NO_ACCESS,
    )
