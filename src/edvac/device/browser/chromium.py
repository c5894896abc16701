"""A page of the Chromium that is installed on this machine, driven by Playwright.

What is on the page is looked at from a world that its scripts cannot reach, and from Chromium's
accessibility tree. Acts are real input at the place where the element is. Knows nothing of which
element is meant.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

from edvac.core.errors import DeviceError
from edvac.device.browser.origins import Grants, origin_of, shown
from edvac.device.browser.page import Node, Texts
from edvac.device.browser.proxy import Proxy, Resolve, resolve
from edvac.device.browser.signatures import ROLES

if TYPE_CHECKING:
    from playwright.async_api import Browser, CDPSession, Dialog, Playwright, Request, Route
    from playwright.async_api import Page as Tab

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPEN_MS, SETTLE_S, QUIET_S, MAX_NODES = 20_000, 4.0, 0.1, 3_000
MAX_HAPPENED = 50
WINDOW = {"width": 1280, "height": 900}
# Chromium's own names for what ARIA calls otherwise.
_ROLES = {"gridcell": "cell",
    "LayoutTableRow": "row",
    "LayoutTableCell": "cell", "Date": "textbox", "InputTime": "textbox", "DateTime": "textbox",
          "DisclosureTriangle": "button", "alertdialog": "dialog"}  # fmt: skip
_TYPED = ("textbox", "searchbox", "spinbutton", "slider", "Date", "InputTime")
_SPEAKING = frozenset({"StaticText", "checkbox", "radio", "switch", "combobox", "button", "link",
                       *_TYPED})  # fmt: skip
_ARGUMENTS = (
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-pings",
    "--dns-prefetch-disable",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--disable-features=WebRtcHideLocalIpsWithMdns,Translate,OptimizationHints,MediaRouter",
)


def installed() -> str:
    """The program; empty where there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), "")


def missing() -> str:
    """What keeps the browser from being used, as a clause; empty where nothing does."""
    if importlib.util.find_spec("playwright") is None:
        return "the Python package playwright is not installed"
    return "" if installed() else "no Chromium is installed"


class ChromiumPage:
    """One page, in a Chromium of its own; `open_page` makes it."""

    def __init__(self, play: Playwright, chromium: Browser, proxy: Proxy) -> None:
        self._play = play
        self._chromium = chromium
        self._proxy = proxy
        self._tab: Tab
        self._cdp: CDPSession
        self._asked: set[Request] = set()
        self._wanted: set[str] = set()  # origins that the page has asked for
        self._happened: list[str] = []
        self._handles: list[tuple[str, str, str]] = []  # object in the page, role, name
        self._look = ""
        self._world = 0

    async def begin(self, allowed: frozenset[str]) -> None:
        context = await self._chromium.new_context(
            accept_downloads=False,
            service_workers="block",
            viewport=WINDOW,
            locale="en-US",
        )

        async def judged(route: Route) -> None:
            if origin_of(route.request.url) in allowed:
                await route.continue_()
            else:
                self._note(f"refused {_short(route.request.url)}")
                await route.abort("blockedbyclient")

        await context.route("**/*", judged)
        await context.route_web_socket(lambda _: True, lambda socket: self._no_socket(socket.url))
        tab = self._tab = await context.new_page()
        self._cdp = await context.new_cdp_session(tab)
        tab.on("dialog", self._dismiss)
        tab.on("request", self._begun)
        tab.on("requestfinished", self._ended)
        tab.on("requestfailed", self._ended)
        tab.on("download", lambda download: self._note(f"download {_short(download.url)} refused"))
        context.on("page", self._shut)

    def _note(self, text: str) -> None:
        if len(self._happened) < MAX_HAPPENED:
            self._happened.append(text)

    def _begun(self, request: Request) -> None:
        self._asked.add(request)
        self._wanted.add(origin_of(request.url))

    def _ended(self, request: Request) -> None:
        self._asked.discard(request)

    def _refused(self) -> list[str]:
        """What the page was refused; Chromium's own attempts are refused, too, and not told."""
        mine = [(origin, why) for origin, why in self._proxy.take_refused()
                if origin in self._wanted]  # fmt: skip
        return [f"refused {shown(origin)}: {why}" for origin, why in mine]

    async def _dismiss(self, dialog: Dialog) -> None:
        self._note(f"dialog {dialog.type} dismissed: {dialog.message[:200]}")
        await dialog.dismiss()

    async def _shut(self, tab: Tab) -> None:
        self._note(f"window {_short(tab.url)} closed")
        await tab.close()

    def _no_socket(self, url: str) -> None:
        """A web socket that is given no server: it stays without one."""
        self._note(f"refused {url[:100]}")

    # -- the page

    async def open(self, url: str) -> None:
        from playwright.async_api import Error

        try:
            answer = await self._tab.goto(url, timeout=OPEN_MS, wait_until="load")
        except Error as problem:
            refused = self._refused()
            self._happened += refused
            raise _unreachable(url, "; ".join(refused) or _first(problem)) from problem
        refused = self._refused()
        self._happened += refused
        if answer is not None and answer.status in (403, 502) and (refused or answer.status == 502):
            raise _unreachable(url, "; ".join(refused) or "no server answers there")
        await self._settle()

    async def _settle(self) -> None:
        """Until nothing has been asked for a little while; a page that never rests is left."""
        quiet, spent = 0.0, 0.0
        while quiet < QUIET_S and spent < SETTLE_S:
            await asyncio.sleep(0.03)
            spent += 0.03
            quiet = 0.0 if self._asked else quiet + 0.03

    async def where(self) -> tuple[str, str]:
        return self._tab.url, (await self._tab.title())[:500]

    def happened(self) -> list[str]:
        found, self._happened = self._happened + self._refused(), []
        return list(dict.fromkeys(found))[:MAX_HAPPENED]

    def met(self) -> frozenset[str]:
        return frozenset(self._proxy.met)

    async def close(self) -> None:
        await self._chromium.close()
        await self._play.stop()
        await self._proxy.close()

    # -- what is on it

    async def texts(self) -> Texts:
        await self._enter()
        laid_out = await self._call("texts")
        tree = await self._tree()
        spoken = [_text(one, "name") for one in tree if _text(one, "role") in _SPEAKING]
        return Texts(str(laid_out), " ".join(spoken))

    async def nodes(self) -> list[Node]:
        await self._enter()
        self._handles = []
        found: list[Node] = []
        for one in await self._tree():
            role = _ROLES.get(_text(one, "role"), _text(one, "role"))
            if role not in ROLES or "backendDOMNodeId" not in one or one.get("ignored"):
                continue
            if len(self._handles) >= MAX_NODES:
                raise DeviceError(
                    "page_too_large",
                    f"the page has more than {MAX_NODES:,} elements",
                    "It is left out whole.",
                    "Open a part of it.",
                )
            handle = await self._handle(one["backendDOMNodeId"])
            if handle:
                self._handles.append((handle, role, _text(one, "name")))
                node = await self._node(len(self._handles) - 1, near=False)
                found += [node] if node else []
        return found

    async def look(self, ref: int) -> Node | None:
        return await self._node(ref, near=True)

    async def _node(self, ref: int, *, near: bool) -> Node | None:
        handle, role, name = self._handles[ref]
        found = await self._call("node", handle, near)
        if found is None:
            return None
        return Node(
            ref,
            role,
            name or found["shown"],
            found["shown"],
            found["value"],
            found["place"],
            found["visible"],
            found["enabled"],
            found["covered"],
        )

    # -- acts

    async def click(self, ref: int) -> None:
        found = await self._call("node", self._handles[ref][0], True)
        if found is None or found["covered"] or not found["visible"]:
            raise _gone(self._handles[ref][2])
        await self.press(ref)

    async def press(self, ref: int) -> None:
        """A click where the element is, whatever lies there."""
        found = await self._call("node", self._handles[ref][0], True)
        await self._tab.mouse.click(found["x"], found["y"])
        await self._settle()

    async def fill(self, ref: int, text: str) -> None:
        if not await self._call("put", self._handles[ref][0], text):
            await self._tab.keyboard.press("Delete")
            await self._tab.keyboard.insert_text(text)
        await self._settle()

    async def choose(self, ref: int, option: str) -> bool:
        done = bool(await self._call("choose", self._handles[ref][0], option))
        await self._settle()
        return done

    # -- Chromium's own protocol

    async def _enter(self) -> None:
        """A world of our own in the document that is there now."""
        tree = await self._send("Page.getFrameTree")
        made = await self._send(
            "Page.createIsolatedWorld", frameId=tree["frameTree"]["frame"]["id"], worldName="edvac"
        )
        self._world = made["executionContextId"]
        source = resources.files("edvac.device.browser").joinpath("look.js").read_text("utf-8")
        found = await self._send("Runtime.evaluate", expression=source, contextId=self._world)
        self._look = found["result"]["objectId"]

    async def _tree(self) -> list[dict[str, Any]]:
        """The accessibility tree in the page's order, without what stands in fields."""
        found = await self._send("Accessibility.getFullAXTree")
        known = {one["nodeId"]: one for one in found["nodes"]}
        waiting = [one["nodeId"] for one in found["nodes"] if "parentId" not in one]
        made: list[dict[str, Any]] = []
        while waiting:
            one = known.pop(waiting.pop(), None)
            if one is None:
                continue
            if not one.get("ignored"):
                made.append(one)
            if _text(one, "role") not in _TYPED:
                waiting += reversed(one.get("childIds", []))
        return made

    async def _handle(self, backend: int) -> str:
        from playwright.async_api import Error

        try:
            found = await self._cdp.send(
                "DOM.resolveNode", {"backendNodeId": backend, "executionContextId": self._world}
            )
        except Error:  # gone since the tree was read
            return ""
        return str(found["object"].get("objectId", ""))

    async def _call(self, name: str, handle: str = "", *arguments: object) -> Any:
        given = [{"objectId": handle}] if handle else []
        found = await self._send(
            "Runtime.callFunctionOn",
            functionDeclaration=f"function(...a) {{ return this.{name}(...a); }}",
            objectId=self._look,
            arguments=[*given, *({"value": one} for one in arguments)],
            returnByValue=True,
        )
        if "exceptionDetails" in found:
            raise _gone(name)
        return found["result"].get("value")

    async def _send(self, method: str, **parameters: object) -> dict[str, Any]:
        from playwright.async_api import Error

        try:
            found: dict[str, Any] = await self._cdp.send(method, parameters)
        except Error as problem:
            raise _gone(_first(problem)) from problem
        return found


async def open_page(
    allowed: frozenset[str],
    grants: Grants,
    resolver: Resolve = resolve,
    kind: type[ChromiumPage] = ChromiumPage,
) -> ChromiumPage:
    """Start a Chromium that reaches these origins only.

    Raises:
        DeviceError: it is not there, or does not start.
    """
    why = missing()
    if why:
        raise DeviceError(
            "browser_missing",
            "there is no browser to open pages in",
            why[0].upper() + why[1:] + ".",
            "Install Chromium (Debian: apt install chromium) and `pip install 'edvac[browser]'`.",
        )
    from playwright.async_api import Error, async_playwright

    proxy = Proxy(allowed, grants, resolver)
    url = await proxy.start()
    play = await async_playwright().start()
    try:
        chromium = await play.chromium.launch(
            executable_path=installed(),
            chromium_sandbox=os.geteuid() != 0,  # Chromium has none for root
            args=list(_ARGUMENTS),
            proxy={"server": url, "bypass": "<-loopback>"},
        )
        made = kind(play, chromium, proxy)
        await made.begin(allowed)
    except Error as problem:
        await play.stop()
        await proxy.close()
        raise DeviceError(
            "browser_failed", "the browser does not start", _first(problem), "Try it by hand."
        ) from problem
    return made


def maker(
    grants: Grants, kind: type[ChromiumPage] = ChromiumPage
) -> Callable[[frozenset[str]], Awaitable[ChromiumPage]]:
    return lambda allowed: open_page(allowed, grants, kind=kind)


def _text(node: dict[str, Any], key: str) -> str:
    return str(node.get(key, {}).get("value", ""))


def _short(url: str) -> str:
    origin = origin_of(url)
    return shown(origin) if origin else url[:60]


def _first(problem: Exception) -> str:
    return str(problem).partition("\n")[0][:200]


def _unreachable(url: str, why: str) -> DeviceError:
    return DeviceError(
        "page_unreachable",
        f"{_short(url)} gave no page",
        why,
        "See whether the address is right and the site is there; an address of your own machine or "
        "networks is granted by `browser_private`.",
    )


def _gone(what: str) -> DeviceError:
    return DeviceError(
        "page_changed",
        f"the page changed while it was looked at: {what[:100]}",
        "Nothing was done to it by this step.",
        "Run `edvac resume --retry`, or begin again.",
    )
