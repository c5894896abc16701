"""What the proxy of the browser lets out: origins, addresses, names that change, redirects."""

from __future__ import annotations

import asyncio

import pytest
from browser_kit import serving
from hypothesis import given
from hypothesis import strategies as st

from edvac.core.errors import ConfigError
from edvac.device.browser.origins import (
    Grants,
    host_and_port,
    is_public,
    origin_of,
    read_origins,
    shown,
    spelled_origins,
)
from edvac.device.browser.proxy import Proxy


async def ask(proxy_url: str, head: str, body: str = "") -> str:
    reader, writer = await asyncio.open_connection(*host_and_port(origin_of(proxy_url)))
    writer.write((head.replace("\n", "\r\n") + "\r\n\r\n" + body).encode())
    try:
        async with asyncio.timeout(5):
            return (await reader.read()).decode()
    finally:
        writer.close()


def through(proxy: Proxy, *heads: str) -> list[str]:
    async def all_of_them() -> list[str]:
        url = await proxy.start()
        try:
            return [await ask(url, head) for head in heads]
        finally:
            await proxy.close()

    return asyncio.run(all_of_them())


def test_a_granted_origin_is_reached_and_no_other() -> None:
    with serving() as site, serving() as other:
        site.pages = {"/a": "hello", "/go": (302, {"Location": f"{other.url}/a"}, "")}
        origin = frozenset({origin_of(site.url)})
        proxy = Proxy(origin, Grants(private=origin))
        good, bad, moved, after = through(
            proxy,
            f"GET {site.url}/a?q=1 HTTP/1.1\nHost: evil\nProxy-Authorization: x",
            f"GET {other.url}/a HTTP/1.1\nHost: {site.url[7:]}",
            f"GET {site.url}/go HTTP/1.1",
            f"GET {other.url}/a HTTP/1.1",
        )
        assert good.endswith("hello")
        assert "302" in moved
        assert bad.startswith("HTTP/1.1 403") and after.startswith("HTTP/1.1 403")
        assert site.asked == ["GET /a?q=1", "GET /go"]
        assert other.asked == []
        # One request a connection, so that each is judged; and none says more than its URL.
        assert all(one["Connection"] == "close" for one in site.headers)
        assert site.headers[0]["Host"] == site.url[7:]
        assert "Proxy-Authorization" not in site.headers[0]
        refused = proxy.take_refused()
        assert [origin for origin, _ in refused] == [origin_of(other.url)]
        assert proxy.take_refused() == []
        assert proxy.met == origin


def test_tunnels_lead_to_granted_https_only() -> None:
    with serving() as site:
        plain, secure = origin_of(site.url), origin_of(site.url.replace("http:", "https:"))
        host = site.url.removeprefix("http://")
        head = f"CONNECT {host} HTTP/1.1\nHost: {host}"
        (refused,) = through(Proxy(frozenset({plain}), Grants(private=frozenset({plain}))), head)
        assert refused.startswith("HTTP/1.1 403")
        granted = frozenset({secure})

        async def talk() -> str:
            proxy = Proxy(granted, Grants(private=granted))
            url = await proxy.start()
            try:
                end = "\nConnection: close\nHost: x"
                return await ask(url, head, f"GET /t HTTP/1.0\r\n{end}\r\n\r\n")
            finally:
                await proxy.close()

        assert asyncio.run(talk()).startswith("HTTP/1.1 200 Connection established")


def test_private_addresses_need_a_grant() -> None:
    with serving() as site:
        origin = frozenset({origin_of(site.url)})
        head = f"GET {site.url}/ HTTP/1.1"
        (refused,) = through(Proxy(origin, Grants()), head)
        assert refused.startswith("HTTP/1.1 403")
        assert site.asked == []
        (reached,) = through(Proxy(origin, Grants(sandbox=origin)), head)
        assert reached.startswith("HTTP/1.0 404")


def test_a_name_keeps_the_address_that_it_had_first() -> None:
    with serving() as site:
        site.pages = {"/": "first"}
        port = host_and_port(origin_of(site.url))[1]
        name = f"http://shop.example:{port}"
        answers = [["127.0.0.1"], ["127.0.0.2"]]
        asked: list[str] = []

        async def changing(host: str, port: int) -> list[str]:
            asked.append(host)
            return answers[len(asked) - 1]

        origin = frozenset({origin_of(name)})
        proxy = Proxy(origin, Grants(private=origin), changing)
        found = through(proxy, *[f"GET {name}/ HTTP/1.1"] * 3)
        assert [one.rpartition("\n")[2] for one in found] == ["first"] * 3
        assert asked == ["shop.example"]


def test_a_public_name_at_a_private_address_is_refused() -> None:
    async def rebound(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    origin = frozenset({origin_of("http://shop.example")})
    proxy = Proxy(origin, Grants(), rebound)
    (found,) = through(proxy, "GET http://shop.example/ HTTP/1.1")
    assert found.startswith("HTTP/1.1 403")
    ((_, why),) = proxy.take_refused()
    assert "127.0.0.1" in why


@pytest.mark.parametrize(
    "head", ["GET / HTTP/1.1", "nonsense", "GET ftp://x/ HTTP/1.1", "CONNECT x HTTP/1.1"]
)
def test_what_is_no_request_of_the_web_is_refused(head: str) -> None:
    (found,) = through(Proxy(frozenset(), Grants()), head)
    assert found.startswith("HTTP/1.1 403")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("::ffff:93.184.216.34", True),
        ("93.184.216.34", True), ("2606:4700::1111", True), ("10.0.0.1", False),
        ("127.9.9.9", False), ("169.254.169.254", False), ("192.168.1.1", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False),
        ("::", False), ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
        ("ff02::1", False), ("nonsense", False),
    ],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Shop.Example/a", "https://shop.example:443"),
        ("http://shop.example.:80/", "http://shop.example:80"),
        ("http://[::1]:8000/x", "http://[::1]:8000"),
        ("https://shop.example@evil.example/", ""),
        ("https://shop.example\\@evil.example/", ""),
        ("https://shop.example:99999/", ""),
        ("https://", ""), ("ftp://a/", ""), ("//a", ""), ("https://a b/", ""), ("https://a\n/", ""),
    ],
)  # fmt: skip
def test_origins(url: str, origin: str) -> None:
    assert origin_of(url) == origin
    if origin:
        assert origin_of(shown(origin)) == origin


@given(st.text(max_size=40))
def test_an_origin_never_fails(text: str) -> None:
    for url in (text, f"https://{text}", f"http://a:{text}"):
        found = origin_of(url)
        assert not found or origin_of(found) == found


@pytest.mark.parametrize(
    ("program", "origins"),
    [
        ('browser.open("https://a.example/x")', {"https://a.example:443"}),
        ('u = "https://a.example"\nbrowser.open(f"{u}/x")', {"https://a.example:443"}),
        ('u = param("https://a.example")\nbrowser.open(u)', {"https://a.example:443"}),
        ('for u in ["http://a", "http://b"]:\n    browser.open(u)', {"http://a:80", "http://b:80"}),
        ('def go(u):\n    browser.open(u)\ngo("http://a")', {"http://a:80"}),
        ('x = llm.write("See https://evil.example/")', set()),
        ('h = "evil"\nbrowser.open(f"https://{h}.example/")', set()),
        ('browser.open(llm.write("x"))\ny = "http://c"', set()),
    ],
)
def test_origins_that_a_program_spells(program: str, origins: set[str]) -> None:
    assert spelled_origins(program) == origins


def test_origins_of_settings() -> None:
    assert read_origins("x", ("https://a.example/", "http://b:1")) == {
        "https://a.example:443",
        "http://b:1",
    }
    for bad in ("a.example", "https://a.example/path", ""):
        with pytest.raises(ConfigError) as caught:
            read_origins("browser_further", (bad,))
        assert caught.value.code == "origin_unfit"
