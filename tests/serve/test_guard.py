"""Who is answered: at the address served, with a key, and not for a web page."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx2
import pytest

from edvac.core.errors import UsageError
from edvac.serve.run import hosts_of, listen

from .served import KEY, Pieces, service_at, talk

HELLO = Pieces(lambda request: "hello")


def routes() -> list[tuple[str, str]]:
    listener = listen("127.0.0.1", 0)
    with listener:
        application: Any = service_at(HELLO, listener).application()
    found = [
        (method, route.path.replace("{name:path}", "m"))
        for route in application.application.routes
        for method in route.methods - {"HEAD"}
    ]
    assert len(found) > 15
    return found


def test_no_route_answers_who_does_not_know_the_key_or_asks_elsewhere() -> None:
    async def work(url: str, http: httpx2.AsyncClient) -> None:
        for method, path in [*routes(), ("GET", "/nowhere"), ("OPTIONS", "/v1/models")]:
            for headers, status in (
                ({"Authorization": ""}, 401),
                ({"Authorization": "Bearer wrong"}, 401),
                ({"Authorization": f"Bearer {KEY}x"}, 401),
                ({"Authorization": "", "X-Api-Key": "wrong"}, 401),
                ({"Host": "evil.example"}, 403),
                ({"Host": "evil.example", "Authorization": ""}, 403),
                ({"Origin": "https://evil.example"}, 403),
                ({"Origin": "null"}, 403),
            ):
                reply = await http.request(method, url + path, headers=headers, content=b"{}")
                assert reply.status_code == status, (method, path, headers)
                assert "access-control-allow-origin" not in reply.headers
                assert reply.json()["error"]["message"]

    talk(HELLO, work)


def test_what_is_not_there_is_said_in_the_same_form() -> None:
    async def work(url: str, http: httpx2.AsyncClient) -> None:
        for method, path, status in (
            ("GET", "/nowhere", 404),
            ("POST", "/v1/embeddings", 404),
            ("GET", "/v1/chat/completions", 405),
            ("GET", "/v1/models/other", 404),
        ):
            reply = await http.request(method, url + path)
            assert reply.status_code == status and reply.json()["error"]["code"], path

    talk(HELLO, work)


def test_keys_are_told_in_either_header_and_name_their_clients() -> None:
    async def work(url: str, http: httpx2.AsyncClient) -> list[int]:
        heads: list[dict[str, str]] = [
            {"Authorization": "Bearer first-key"},
            {"Authorization": "Bearer second-key"},
            {"Authorization": "", "X-Api-Key": "second-key"},
            {"Authorization": "Basic first-key"},
        ]
        return [(await http.get(f"{url}/health", headers=one)).status_code for one in heads]

    keys = {"first-key": "one", "second-key": "two"}
    assert talk(HELLO, work, keys=keys) == [200, 200, 200, 401]


def test_without_keys_everybody_is_answered_but_no_web_page() -> None:
    async def work(url: str, http: httpx2.AsyncClient) -> list[int]:
        plain = {"Content-Type": "text/plain", "Origin": "http://evil.example"}
        own = {"Origin": url}
        reply = await http.post(f"{url}/v1/chat/completions", content=b"{}", headers=plain)
        return [
            reply.status_code,
            (await http.get(f"{url}/health")).status_code,
            (await http.get(f"{url}/health", headers=own)).status_code,
        ]

    assert talk(HELLO, work, keys={}) == [403, 200, 200]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Host: {host}", 200),
        ("Host: localhost:{port}", 200),
        ("HOST: LOCALHOST:{port}", 200),
        ("", 400),
        ("Host:", 403),
        ("Host: {host}\r\nHost: {host}", 400),
        ("Host: {host}\r\nHost: evil.example", 400),
        ("Host: 127.0.0.1", 403),
        ("Host: :{port}", 403),
        ("Host: localhost.evil.example:{port}", 403),
        ("Host: 127.0.0.1.evil.example:{port}", 403),
        ("Host: {host}.", 403),
        ("Host: evil.example@{host}", 403),
        ("Host: [::1]:{port}", 403),
        ("Host: 0.0.0.0:{port}", 403),
    ],
)
def test_only_the_exact_host_is_answered(head: str, status: int) -> None:
    async def work(url: str, http: httpx2.AsyncClient) -> int:
        host = url.removeprefix("http://")
        reader, writer = await asyncio.open_connection(*host.split(":"))
        lines = head.format(host=host, port=host.partition(":")[2])
        rest = f"Authorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
        writer.write(
            f"GET /health HTTP/1.1\r\n{lines}{chr(13) + chr(10) if lines else ''}{rest}".encode()
        )
        first = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return int(first.split()[1])

    assert talk(HELLO, work) == status


def test_names_that_are_answered() -> None:
    def names(host: str, *more: str) -> set[str]:
        with listen(host, 0) as listener:
            port = listener.getsockname()[1]
            return {one.replace(str(port), "PORT") for one in hosts_of(listener, more)}

    assert names("127.0.0.1") == {"127.0.0.1:PORT", "localhost:PORT"}
    assert names("127.0.0.1", "Box.example") == {
        "127.0.0.1:PORT",
        "localhost:PORT",
        "box.example",
        "box.example:PORT",
    }
    assert names("0.0.0.0", "10.0.0.7") == {"10.0.0.7", "10.0.0.7:PORT"}
    with pytest.raises(UsageError, match="what it is called"):
        names("0.0.0.0")
    if socket.has_ipv6:
        assert names("::1") == {"[::1]:PORT", "localhost:PORT"}
