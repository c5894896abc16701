"""A fixture: steps are tried again as often as ever, but hardly a pause lies between."""

from __future__ import annotations

import functools

import pytest

from edvac.control import Limits
from edvac.machine import machine


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "Limits", functools.partial(Limits, backoff_s=0.01))
