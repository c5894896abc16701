"""Behaviour of the service: what its authors never see, frozen before any model was asked."""

import datetime as dt

import pytest
from shortener.service import Service

NOW = dt.datetime(2026, 5, 4, 12, 0)


def service(**more):
    given = {"is_alive": lambda url: "dead" not in url, "locate": lambda ip: f"land of {ip}"}
    return Service(**{**given, "now": lambda: NOW, **more})


def two_users():
    one = service()
    one.create_account("ann", "secret")
    one.create_account("bob", "secret")
    return one, one.shorten("https://example.com/a", user="ann")


def test_1_2_what_is_no_live_url_is_refused():
    for url in ("no url", "ftp://example.com", "https://dead.example.com"):
        with pytest.raises(ValueError):
            service().shorten(url)


def test_1_3_codes_are_unique():
    one = service()
    assert len({one.shorten(f"https://example.com/{n}") for n in range(200)}) == 200


def test_3_1_there_are_statistics():
    one = service()
    code = one.shorten("https://example.com/a")
    assert one.stats(code) == {"clicks": 0, "times": [], "places": []}
    with pytest.raises(KeyError):
        one.stats("unknown")


def test_3_3_each_click_has_its_time():
    times = iter([NOW + dt.timedelta(minutes=n) for n in range(9)])
    last = [NOW]

    def now():
        last[0] = next(times, last[0])
        return last[0]

    one = service(now=now)
    code = one.shorten("https://example.com/a")
    one.resolve(code)
    one.resolve(code)
    first, second = one.stats(code)["times"]
    assert NOW <= first < second


def test_3_4_each_click_has_its_place():
    one = service()
    code = one.shorten("https://example.com/a")
    one.resolve(code, ip="1.1.1.1")
    one.resolve(code, ip="2.2.2.2")
    assert one.stats(code)["places"] == ["land of 1.1.1.1", "land of 2.2.2.2"]


def test_4_1_an_account_is_made_once():
    one = service()
    one.create_account("ann", "secret")
    with pytest.raises(ValueError):
        one.create_account("ann", "other")


def test_4_3_only_the_owner_edits_and_deletes():
    one, code = two_users()
    with pytest.raises(PermissionError):
        one.edit("bob", code, "https://example.com/b")
    with pytest.raises(PermissionError):
        one.delete("bob", code)
    one.edit("ann", code, "https://example.com/c")
    assert one.resolve(code) == "https://example.com/c"
    one.delete("ann", code)
    with pytest.raises(KeyError):
        one.resolve(code)


def test_4_4_an_account_sees_the_analytics_of_its_links():
    one, code = two_users()
    one.shorten("https://example.com/b", user="bob")
    one.resolve(code, ip="1.1.1.1")
    found = one.analytics("ann")
    assert set(found) == {code} and found[code]["clicks"] == 1


def test_5_2_the_administrator_deletes_links_and_accounts():
    one, code = two_users()
    other = one.shorten("https://example.com/b", user="bob")
    with pytest.raises(PermissionError):
        one.delete_url("bob", code)
    one.delete_url("admin", code)
    one.delete_account("admin", "bob")
    for gone in (code, other):
        with pytest.raises(KeyError):
            one.resolve(gone)
    one.create_account("bob", "again")


def test_5_3_the_administrator_sees_how_it_is_doing():
    one, code = two_users()
    one.resolve(code)
    assert one.performance("admin") == {"urls": 1, "accounts": 2, "clicks": 1}
    with pytest.raises(PermissionError):
        one.performance("ann")


def test_6_1_a_link_expires():
    moment = [NOW]
    one = service(now=lambda: moment[0])
    code = one.shorten("https://example.com/a", expires=NOW + dt.timedelta(hours=1))
    assert one.resolve(code) == "https://example.com/a"
    moment[0] = NOW + dt.timedelta(hours=2)
    with pytest.raises(KeyError):
        one.resolve(code)
