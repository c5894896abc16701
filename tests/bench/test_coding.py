"""The coding benchmark: its tests accept a right service and a right function, and nothing less."""

from __future__ import annotations

import asyncio

import pytest

from edvac.bench import coding
from edvac.bench.coding import Problem

pytestmark = pytest.mark.sandbox

RIGHT = """\
import secrets


class Service:
    def __init__(self, is_alive, locate, now):
        self.is_alive, self.locate, self.now = is_alive, locate, now
        self.links, self.clicks, self.accounts = {}, {}, set()

    def create_account(self, name, password):
        if name in self.accounts or name == "admin":
            raise ValueError(name)
        self.accounts.add(name)

    def shorten(self, url, user=None, custom=None, expires=None):
        if not url.startswith(("http://", "https://")) or not self.is_alive(url):
            raise ValueError(url)
        code = custom or secrets.token_urlsafe(8)
        if code in self.links:
            raise ValueError(code)
        self.links[code] = [url, user, expires]
        self.clicks[code] = []
        return code

    def resolve(self, code, ip=""):
        url, _, expires = self.links[code]
        now = self.now()
        if expires is not None and expires <= now:
            raise KeyError(code)
        self.clicks[code].append((now, self.locate(ip)))
        return url

    def stats(self, code):
        made = self.clicks[code]
        times, places = [t for t, _ in made], [p for _, p in made]
        return {"clicks": len(made), "times": times, "places": places}

    def urls_of(self, user):
        return {code: url for code, (url, owner, _) in self.links.items() if owner == user}

    def _owned(self, user, code):
        if self.links[code][1] != user:
            raise PermissionError(user)

    def edit(self, user, code, url):
        self._owned(user, code)
        self.links[code][0] = url

    def delete(self, user, code):
        self._owned(user, code)
        del self.links[code], self.clicks[code]

    def analytics(self, user):
        return {code: self.stats(code) for code in self.urls_of(user)}

    def _admin(self, name):
        if name != "admin":
            raise PermissionError(name)

    def all_urls(self, admin):
        self._admin(admin)
        return {code: url for code, (url, _, _) in self.links.items()}

    def delete_url(self, admin, code):
        self._admin(admin)
        del self.links[code], self.clicks[code]

    def delete_account(self, admin, name):
        self._admin(admin)
        for code in self.urls_of(name):
            self.delete_url(admin, code)
        self.accounts.remove(name)

    def performance(self, admin):
        self._admin(admin)
        clicks = sum(map(len, self.clicks.values()))
        return {"urls": len(self.links), "accounts": len(self.accounts), "clicks": clicks}
"""


def features(text: str) -> dict[str, int]:
    return asyncio.run(coding.features({"shortener/service.py": text}))


def test_a_right_service_has_every_feature() -> None:
    assert features(RIGHT) == {"seen": 6, "rest": 11}


@pytest.mark.parametrize(
    ("right", "wrong", "left"),
    [
        ("if code in self.links", "if False", {"seen": 5, "rest": 11}),
        ("expires <= now", "False", {"seen": 6, "rest": 10}),
        ('if name != "admin"', "if False", {"seen": 5, "rest": 9}),
        ("len(made)", "0", {"seen": 5, "rest": 10}),
        ("class Service:", "class Server:", {"seen": 0, "rest": 0}),
    ],
)
def test_what_is_missing_costs_its_features(right: str, wrong: str, left: dict[str, int]) -> None:
    assert right in RIGHT
    assert features(RIGHT.replace(right, wrong)) == left


PROMPT = '''\
from typing import List


def half(n):
    return n / 2


def mean(values: List[float]) -> float:
    """ The mean, by half() where there are two.
    >>> mean([1.0, 2.0])
    1.5
    >>> mean([])
    0.0
    """
'''
PROBLEM = Problem(
    "p000", PROMPT, "mean", "def check(candidate):\n    assert candidate([2, 4]) == half(6)\n"
)


def test_the_parts_of_a_problem() -> None:
    assert PROBLEM.preamble.endswith("return n / 2\n\n\n")
    assert PROBLEM.examples == [("mean([1.0, 2.0])\n", "1.5\n"), ("mean([])\n", "0.0\n")]
    assert Problem("p001", "def f(:\n", "f", "").examples == []


@pytest.mark.parametrize(
    ("code", "share"),
    [
        ("def mean(values: List[float]) -> float:\n    return sum(values) / len(values)\n", 1.0),
        ("def mean(values):\n    return 0\n", 0.0),
        ("", 0.0),
    ],
)
def test_hidden_tests_decide(code: str, share: float) -> None:
    files = {"solutions/p000.py": code}
    assert asyncio.run(coding._right(files, [PROBLEM])) == share
