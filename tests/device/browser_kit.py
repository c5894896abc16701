"""Pages for tests of the browser: of HTML in memory without scripts, and sites on loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urljoin

from selectolax.lexbor import LexborHTMLParser, LexborNode

from edvac.device.browser.origins import origin_of
from edvac.device.browser.page import Node, Texts

ROLES = {"button": "button", "a": "link", "input": "textbox", "select": "combobox", "tr": "row"}


class StillPage:
    """HTML by URL, looked at as the real page is; what is `hidden` or `aria-hidden` shows so.

    Attributes:
        on_look: called before an element is looked at again: the page may change in between.
    """

    def __init__(self, pages: dict[str, str], on_look: Callable[[StillPage], None] = id) -> None:
        self.pages = dict(pages)
        self.url = ""
        self.acts: list[tuple[str, str, str]] = []
        self.events: list[str] = []
        self.values: dict[str, str] = {}
        self.keeps = True  # do fields hold what is put into them?
        self.on_look = on_look
        self.closed = False
        self._refs: list[str] = []

    async def open(self, url: str) -> None:
        self.url = url

    async def where(self) -> tuple[str, str]:
        title = LexborHTMLParser(self.pages.get(self.url, "")).css_first("title")
        return self.url, title.text() if title else ""

    async def texts(self) -> Texts:
        tree = self._tree()
        return Texts(_text(tree.body, "hidden"), _text(tree.body, "aria-hidden"))

    async def nodes(self) -> list[Node]:
        self._refs = []
        made = []
        for found in self._tree().css(", ".join(ROLES)):
            if "aria-hidden" in found.attributes:
                continue
            self._refs.append(found.attributes.get("id") or f"#{len(self._refs)}")
            made.append(self._node(found, len(made)))
        return made

    async def look(self, ref: int) -> Node | None:
        self.on_look(self)
        name = self._refs[ref]
        for number, found in enumerate(await self.nodes()):
            if self._refs[number] == name:
                covered = self._tree().css(", ".join(ROLES))[number].attributes.get("data-covered")
                return replace(found, ref=number, covered=covered or "")
        return None

    def _node(self, found: LexborNode, ref: int) -> Node:
        facts = found.attributes
        inside = found.text(deep=True).strip()
        label = facts.get("title") or inside or facts.get("value") or ""
        value = self.values.get(self._refs[ref], "")
        row = found.parent.css_first("legend") if found.parent else None
        return Node(
            ref, ROLES[found.tag or ""], facts.get("aria-label") or label, label, value,
            row.text() if row else "", "hidden" not in facts, "disabled" not in facts,
        )  # fmt: skip

    def _tree(self) -> LexborHTMLParser:
        return LexborHTMLParser(self.pages.get(self.url, ""))

    async def click(self, ref: int) -> None:
        self.acts.append(("click", self._refs[ref], ""))
        found = self._tree().css(", ".join(ROLES))[ref]
        if found.attributes.get("href"):
            self.url = urljoin(self.url, found.attributes["href"])

    async def fill(self, ref: int, text: str) -> None:
        self.acts.append(("fill", self._refs[ref], text))
        self.values[self._refs[ref]] = text if self.keeps else text[:1]

    async def choose(self, ref: int, option: str) -> bool:
        found = self._tree().css(", ".join(ROLES))[ref]
        there = [one.text() for one in found.css("option")].count(option) == 1
        if there:
            await self.fill(ref, option)
        return there

    def happened(self) -> list[str]:
        found, self.events = self.events, []
        return found

    def met(self) -> frozenset[str]:
        return frozenset({origin_of(self.url)} - {""})

    async def close(self) -> None:
        self.closed = True


def _text(node: Any, unless: str) -> str:
    if node is None:
        return ""
    parts = []
    for one in node.traverse(include_text=True):
        above, gone = one, False
        while above is not None:
            gone = gone or unless in (above.attributes or {})
            above = above.parent
        if one.tag == "-text" and not gone:
            parts.append(one.text(deep=False))
    return " ".join("".join(parts).split())


class Site:
    """A server on loopback: what it answers by path, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.pages: dict[str, str | tuple[int, dict[str, str], str]] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(size).decode()
            site.asked.append(f"{self.command} {self.path}" + (f" {sent}" if sent else ""))
            site.headers.append(dict(self.headers.items()))
            found = site.pages.get(self.path.partition("?")[0], (404, {}, ""))
            status, headers, body = found if isinstance(found, tuple) else (200, {}, found)
            self.send_response(status)
            for name, value in ({"Content-Type": "text/html; charset=utf-8"} | headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield site
        server.shutdown()
        thread.join()
