"""Behaviour of the service: what its authors may see, frozen before any model was asked."""

import datetime as dt

import pytest
from shortener.service import Service

NOW = dt.datetime(2026, 5, 4, 12, 0)


def service(**more):
    given = {"is_alive": lambda url: "dead" not in url, "locate": lambda ip: f"land of {ip}"}
    return Service(**{**given, "now": lambda: NOW, **more})


def test_1_1_a_url_is_shortened():
    code = service().shorten("https://example.com/a/long/path")
    assert isinstance(code, str) and code


def test_1_4_a_custom_code_is_taken_once():
    one = service()
    assert one.shorten("https://example.com/a", custom="mine") == "mine"
    with pytest.raises(ValueError):
        one.shorten("https://example.com/b", custom="mine")


def test_2_1_a_code_leads_to_its_url():
    one = service()
    code = one.shorten("https://example.com/a")
    assert one.resolve(code, ip="1.2.3.4") == "https://example.com/a"
    with pytest.raises(KeyError):
        one.resolve("unknown")


def test_3_2_clicks_are_counted():
    one = service()
    code = one.shorten("https://example.com/a")
    for _ in range(3):
        one.resolve(code, ip="1.2.3.4")
    assert one.stats(code)["clicks"] == 3


def test_4_2_an_account_sees_its_links():
    one = service()
    one.create_account("ann", "secret")
    code = one.shorten("https://example.com/a", user="ann")
    one.shorten("https://example.com/b")
    assert one.urls_of("ann") == {code: "https://example.com/a"}


def test_5_1_the_administrator_sees_all_links():
    one = service()
    one.create_account("ann", "secret")
    made = {one.shorten("https://example.com/a", user="ann"), one.shorten("https://example.com/b")}
    assert set(one.all_urls("admin")) == made
    with pytest.raises(PermissionError):
        one.all_urls("ann")
