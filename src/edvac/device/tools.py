"""Plain Python functions as a device: what a program may call, and whose words come back.

    bank = Tools("bank")

    @bank.tool(effect="external", origin="bank")
    def send_money(recipient: str, amount: Decimal) -> str:
        "Send money."

    Machine(workspace, processor, devices={"bank": bank})

Parameters and result follow from the hints, or from a JSON schema (`add`). The function runs in
edvac's own process: a tool that is not to be trusted belongs into a process of its own. Knows
nothing of policies, which name the function as ``bank.send_money``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_type_hints

from edvac.core.errors import ConfigError, DeviceError, EdvacError
from edvac.core.schema import ANY, Type
from edvac.core.signature import REQUIRED, Effect, Param, Role, Signature
from edvac.core.value import plain
from edvac.device.kinds import of_hint, of_schema
from edvac.device.origin import Origin, labelled
from edvac.device.port import Call, Reply

F = TypeVar("F", bound=Callable[..., Any])
EffectName = Literal["pure", "read", "external"]  # `write` is edvac's own store


@dataclass(frozen=True, slots=True)
class Tool:
    """One function with its signature, and whose data it returns."""

    run: Callable[..., Any]
    signature: Signature
    origin: Origin


class Tools:
    """A device of Python functions.

    Args:
        name: of the device, as programs write it.
        version: changes whenever the same operands may give another result.
    """

    def __init__(self, name: str, version: str = "1") -> None:
        if not name.isidentifier():
            raise ConfigError("tool_name", f"{name!r} is no name of a device", "", "Use a word.")
        self.name = name
        self.version = version
        self._tools: dict[str, Tool] = {}

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return tuple(tool.signature for tool in self._tools.values())

    def __getitem__(self, function: str) -> Tool:
        if function not in self._tools:
            raise ConfigError("tool_unknown", f"{self.name} has no function {function!r}")
        return self._tools[function]

    def tool(
        self,
        *,
        effect: EffectName,
        origin: Origin | str,
        roles: Mapping[str, Role] | None = None,
        returns: Type | None = None,
    ) -> Callable[[F], F]:
        """Register the function below, as it is.

        Args:
            origin: whose data the answer is; a text names one principal for all of it.
            roles: what operands are for, where it is not data: `Role.INSTRUCTION` for what
                instructs a model, `Role.CODE` for code.
            returns: type of the answer, where the hint does not say it.
        """

        def register(run: F) -> F:
            params = _params(run, roles or {})
            found = returns or of_hint(get_type_hints(run).get("return", Any))
            signature = self._signature(run.__name__, params, found, effect, inspect.getdoc(run))
            self._keep(run, signature, origin)
            return run

        return register

    def add(
        self,
        run: Callable[..., Any],
        schema: Mapping[str, Any],
        *,
        name: str,
        effect: EffectName,
        origin: Origin | str,
        doc: str = "",
    ) -> None:
        """Register a function by the JSON schema of its parameters."""
        needed = set(schema.get("required", ()))
        params = tuple(
            Param(
                key,
                of_schema(part),
                REQUIRED if key in needed else part.get("default"),
                doc=str(part.get("description", "")),
            )
            for key, part in schema.get("properties", {}).items()
        )
        self._keep(run, self._signature(name, params, ANY, effect, doc), origin)

    def _signature(
        self, function: str, params: tuple[Param, ...], result: Type, effect: str, doc: str | None
    ) -> Signature:
        if effect not in ("pure", "read", "external"):
            raise ConfigError(
                "tool_effect", f"{effect!r} is no effect of a tool", "", "Use read or external."
            )
        said = (doc or "").split("\n")[0]
        return Signature(f"{self.name}.{function}", params, result, Effect(effect), said)

    def _keep(self, run: Callable[..., Any], signature: Signature, origin: Origin | str) -> None:
        contract = Origin.of(origin) if isinstance(origin, str) else origin
        if signature.function in self._tools:
            raise ConfigError("tool_twice", f"{signature.op} is registered twice")
        self._tools[signature.function] = Tool(run, signature, contract)

    async def call(self, call: Call) -> Reply:
        tool = self[call.signature.function]
        operands = {name: plain(operand) for name, operand in call.operands.items()}
        try:
            if inspect.iscoroutinefunction(tool.run):
                found = await tool.run(**operands)
            else:
                found = await asyncio.to_thread(tool.run, **operands)
        except EdvacError:
            raise
        except Exception as problem:  # somebody else's function may raise whatever it likes
            raise failed(call.signature.op, problem) from problem
        return Reply(labelled(data(found), tool.origin, call.signature.result or ANY))

    async def read_version(self, call: Call) -> str | None:
        """A pure function gives the same again; of one that reads, nobody knows."""
        return "" if call.signature.effect is Effect.PURE else None


def failed(op: str, problem: Exception, *, said: bool = True) -> DeviceError:
    """What a function raised, by its class: its words may be an outsider's and are for people."""
    what = f"{op} failed with {type(problem).__name__}"
    return DeviceError("tool_failed", what, str(problem)[:500] if said else "")


def data(found: Any) -> Any:
    """What a function returned as plain data: dataclasses and models of pydantic become dicts."""
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return {part.name: data(getattr(found, part.name)) for part in dataclasses.fields(found)}
    if isinstance(found, list | tuple):
        return type(found)(map(data, found)) if type(found) in (list, tuple) else list(found)
    if isinstance(found, dict):
        return {key: data(one) for key, one in found.items()}
    dump = getattr(found, "model_dump", None)
    return dump() if callable(dump) else found


def _params(run: Callable[..., Any], roles: Mapping[str, Role]) -> tuple[Param, ...]:
    hints = get_type_hints(run)
    found = []
    for name, param in inspect.signature(run).parameters.items():
        if param.kind in (param.VAR_POSITIONAL, param.VAR_KEYWORD, param.POSITIONAL_ONLY):
            raise ConfigError(
                "tool_parameter",
                f"{run.__name__} takes {param}, which no program can give",
                "Each operand of a step has a name.",
                "Give the function named parameters only.",
            )
        default = REQUIRED if param.default is param.empty else param.default
        found.append(
            Param(
                name,
                of_hint(hints.get(name, Any)),
                default,
                roles.get(name, Role.DATA),
                keyword_only=param.kind is param.KEYWORD_ONLY,
            )
        )
    stray = set(roles) - {param.name for param in found}
    if stray:
        raise ConfigError("tool_parameter", f"{run.__name__} has no parameter {min(stray)!r}")
    return tuple(found)
