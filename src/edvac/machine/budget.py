"""Budgets and prices as people write them: ``100000``, ``2.50USD``, ``10min``, ``tokens=5000``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from edvac.core.errors import ConfigError
from edvac.processor import Price

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_AMOUNT = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,9})?)\s?(?P<unit>[A-Za-z]{0,8})")
_KINDS = ("tokens", "money", "time")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run may use, over all its drives.

    Attributes:
        tokens: computed by models; 0 is no limit.
        money: in the workspace's currency; None is no limit.
        seconds: of being driven; 0 is no limit.
    """

    tokens: int = 0
    money: Decimal | None = None
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return self != Budget()

    def raised(self, other: Budget) -> Budget:
        """This budget with what the other one states instead."""
        return Budget(
            other.tokens or self.tokens,
            self.money if other.money is None else other.money,
            other.seconds or self.seconds,
        )

    def stored(self) -> dict[str, Any]:
        money = None if self.money is None else str(self.money)
        return {"tokens": self.tokens, "money": money, "seconds": self.seconds}

    @staticmethod
    def restore(form: Mapping[str, Any]) -> Budget:
        money = form.get("money")
        amount = None if money is None else Decimal(money)
        return Budget(form.get("tokens", 0), amount, form.get("seconds", 0.0))


UNLIMITED = Budget()


def parse_budget(texts: Iterable[str], currency: str) -> Budget:
    """A budget from one or more texts, each of one or more parts with commas between.

    Raises:
        ConfigError: a part is no amount, or in another currency than the prices.
    """
    found = Budget()
    for text in texts:
        for part in text.split(","):
            found = found.raised(_part(part.strip(), currency))
    return found


def _part(text: str, currency: str) -> Budget:
    kind, mark, rest = text.partition("=")
    amount = _AMOUNT.fullmatch(rest.strip() if mark else text)
    if amount is None or (mark and kind.strip() not in _KINDS):
        raise _refused(text, currency)
    number, unit = Decimal(amount["number"]), amount["unit"]
    if not number:
        raise _refused(text, currency)
    kind = kind.strip() if mark else _kind(unit)
    if kind == "tokens" and unit in ("", "tokens") and number == int(number):
        return Budget(tokens=int(number))
    if kind == "time" and unit in _UNITS:
        return Budget(seconds=float(number * _UNITS[unit]))
    if kind == "money" and unit.upper() in ("", currency):
        return Budget(money=number)
    raise _refused(text, currency)


def _kind(unit: str) -> str:
    if unit in _UNITS:
        return "time"
    return "tokens" if unit in ("", "tokens") else "money"


def _refused(text: str, currency: str) -> ConfigError:
    return ConfigError(
        "budget_malformed",
        f"{text[:60]!r} is no budget",
        f"A budget is in tokens, in {currency} (the currency of the prices), or in s, min, h or d.",
        f"Such as 100000, 2.50{currency}, 10min, or tokens=100000,money=2.50,time=10min.",
    )


def read_prices(table: Mapping[str, Any]) -> tuple[tuple[str, Price], ...]:
    """The table ``prices`` of the settings: by model, the price of a million tokens.

    Raises:
        ConfigError: an entry is not a table of amounts.
    """
    return tuple((model, _price(model, entry)) for model, entry in table.items())


def _price(model: str, entry: Any) -> Price:
    names = ("input", "cached", "output")
    try:
        amounts = {name: Decimal(str(amount)) for name, amount in dict(entry).items()}
    except (TypeError, ValueError, InvalidOperation):
        amounts = {"": Decimal(0)}
    sound = all(amount.is_finite() and amount >= 0 for amount in amounts.values())
    if not sound or set(amounts) - {*names} or not {"input", "output"} <= set(amounts):
        raise ConfigError(
            "price_malformed",
            f"the price of {model!r} is not one",
            "It has the amounts input, output and, where it differs from input, cached.",
            "Such as input = 2.5 and output = 10, for a million tokens.",
        )
    found = Price(**amounts)
    return found if "cached" in amounts else replace(found, cached=found.input)


def require_price(model: str, prices: Mapping[str, Price], budget: Budget) -> Price:
    """What a model's calls are charged at; a model on this machine is free.

    Raises:
        ConfigError: the budget is in money and nobody says what this endpoint asks.
    """
    if model in prices or "://" not in model:
        return prices.get(model, Price())
    if budget.money is not None:
        raise ConfigError(
            "price_unknown",
            f"the budget is in money, and there is no price for {model}",
            "What its calls cost can only be counted with one.",
            f'Add [prices."{model}"] with input and output to edvac.toml, or budget tokens.',
        )
    return Price()
