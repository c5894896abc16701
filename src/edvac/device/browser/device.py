"""The `browser` device: answers about a page, and acts on the one element that is meant.

An element is meant by role and name. It has to be the only one that can be seen, work and be
reached, and what stands on it has to be what the accessibility tree calls it; else nothing is done.
What comes from a page has the labels of the sites that made it. Knows nothing of Chromium.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edvac.core.errors import DeviceError
from edvac.core.label import UNBOUNDED, Label, combine
from edvac.core.value import Instance, Scalar, Sequence, Value, lift, total_label
from edvac.device.browser.find import alike, find, same
from edvac.device.browser.origins import Grants, origin_of, shown
from edvac.device.browser.page import Node, Page
from edvac.device.browser.signatures import DONE, ELEMENT, PAGE, SIGNATURES
from edvac.device.port import Call, Reply

MakePage = Callable[[frozenset[str]], Awaitable[Page]]
SITE, SEEN = "site:", "seen:"  # principals: whoever made a page; the same, in a checked answer
MAX_TEXT = 1_000_000  # characters of a page
MAX_ELEMENTS = 2_000


class Browser:
    """One page for one run.

    Args:
        spelled: origins that the program names in its own words.
        make: a page that can connect to these origins only; called when it is first needed.
    """

    signatures = SIGNATURES
    version = "1"

    def __init__(self, spelled: frozenset[str], grants: Grants, make: MakePage) -> None:
        self._allowed = spelled | grants.further
        self._make = make
        self._page: Page | None = None
        self._lock = asyncio.Lock()
        self._told: list[Label] = []  # of what was typed and chosen: the site may show it again

    async def call(self, call: Call) -> Reply:
        async with self._lock:
            op = call.signature.function
            if op == "open":
                value = await self._open(call)
            elif op in ("click", "fill", "choose"):
                value = await self._act(call, op)
            else:
                value = await self._answer(call, op)
        return Reply(value)

    def contacted(self) -> list[str]:
        """Origins that were connected to."""
        return sorted(map(shown, self._page.met())) if self._page is not None else []

    async def read_version(self, call: Call) -> str | None:
        return None

    async def close(self) -> None:
        page, self._page = self._page, None
        if page is not None:
            await page.close()

    # -- seeing

    async def _open(self, call: Call) -> Value:
        url = call.text("url")
        origin = origin_of(url)
        if not origin:
            raise DeviceError(
                "url_unfit",
                f"{url[:100]!r} is no URL that can be opened",
                "It begins with http:// or https:// and holds no name, password or blank.",
                "Write it as https://shop.example/orders.",
            )
        if origin not in self._allowed:
            raise _not_allowed(origin)
        if self._page is None:
            self._page = await self._make(self._allowed)
        await self._page.open(url)
        return await self._where(self._page)

    async def _where(self, page: Page) -> Value:
        url, title = await self._here(page)
        label = self._label(page, SITE)
        data = {"url": url, "title": title, "happened": page.happened()}
        return Instance(PAGE.name, {name: lift(one, label) for name, one in data.items()}, label)

    async def _answer(self, call: Call, op: str) -> Value:
        page = self._opened()
        if op == "page":
            return await self._where(page)
        await self._here(page)
        if op == "sees":
            found = await self._sees(page, call.text("text"), call.text("role"), call.text("name"))
            return Scalar(found, self._label(page, SEEN).cap(1))
        if op == "text":
            text = (await page.texts()).shown
            if len(text) > MAX_TEXT:
                raise _too_large(f"its text has {len(text):,} characters")
            return Scalar(text, self._label(page, SITE))
        return await self._elements(page, call.text("role"))

    async def _elements(self, page: Page, role: str) -> Value:
        nodes = [one for one in await page.nodes() if one.visible and role in ("", one.role)]
        if len(nodes) > MAX_ELEMENTS:
            raise _too_large(f"it has {len(nodes):,} elements")
        label = self._label(page, SITE)
        return Sequence(tuple(_element(node, label) for node in nodes), label)

    async def _sees(self, page: Page, text: str, role: str, name: str) -> bool:
        """The answer that what is laid out and the accessibility tree agree on.

        Raises:
            DeviceError: they do not agree.
        """
        if not (text or name):
            raise DeviceError(
                "claim_empty",
                "browser.sees was asked nothing",
                "It needs a text, or the role and name of an element.",
                'Write browser.sees("Order placed") or browser.sees(role="button", name="Pay").',
            )
        if text:
            found = await page.texts()
            views = (_dense(text) in _dense(found.shown), _dense(text) in _dense(found.spoken))
            if views[0] != views[1]:
                raise _differ(text, laid_out=views[0])
        if not name:
            return views[0]
        nodes = [one for one in await page.nodes() if one.visible and role in ("", one.role)]
        laid_out = any(same(one.shown, name) for one in nodes)
        spoken = any(same(one.name, name) for one in nodes)
        if laid_out != spoken:
            raise _differ(name, laid_out=laid_out)
        return laid_out and (not text or views[0])

    # -- acting

    async def _act(self, call: Call, op: str) -> Value:
        page = self._opened()
        before, _ = await self._here(page)
        role, name, place = call.text("role"), call.text("name"), call.text("place")
        node = await self._meant(page, role, name, place)
        self._told += [total_label(one) for one in call.operands.values()]
        await self._do(page, node, op, call)
        url, title = await self._here(page)
        label = self._label(page, SITE)
        data = {"url": url, "title": title, "moved": url != before, "happened": page.happened()}
        return Instance(DONE.name, {key: lift(one, label) for key, one in data.items()}, label)

    async def _meant(self, page: Page, role: str, name: str, place: str) -> Node:
        """The element, brought into view and looked at again there."""
        met = find(await page.nodes(), role, name, place)
        node = await page.look(met.ref)
        if node is None:
            raise _changed(name)
        return find([node], role, name, place)

    async def _do(self, page: Page, node: Node, op: str, call: Call) -> None:
        if op == "click":
            await page.click(node.ref)
            return
        if op == "fill":
            wanted = call.text("text")
            await page.fill(node.ref, wanted)
        else:
            wanted = call.text("option")
            if not await page.choose(node.ref, wanted):
                raise DeviceError(
                    "option_missing",
                    f"{node.name!r} has no single option {wanted[:60]!r}",
                    "",
                    'browser.elements("option") lists them.',
                )
        after = await page.look(node.ref)
        if after is None or not _holds(after.value, wanted):
            raise DeviceError(
                "act_unverified",
                f"{node.name!r} does not hold what was put into it",
                "The page changed the value or the field.",
                "Look at the page; nothing was sent by this step itself.",
            )

    # -- what holds for both

    def _opened(self) -> Page:
        if self._page is None:
            raise _none()
        return self._page

    async def _here(self, page: Page) -> tuple[str, str]:
        """Where the page is.

        Raises:
            DeviceError: it has left for where it must not be.
        """
        url, title = await page.where()
        if origin_of(url) in self._allowed:
            return url, title
        if url in ("", "about:blank"):
            raise _none()
        why = "; ".join(page.happened())
        raise DeviceError(
            "page_left",
            f"the page is not where it may be, but at {url[:100]!r}",
            f"Since the last look: {why}." if why else "The page itself went there.",
            "Spell that origin in the program if it is meant, or add it to `browser_further`.",
        )

    def _label(self, page: Page, kind: str) -> Label:
        sites = Label.of([kind + shown(one) for one in page.met()], readers=["user"],
                         bits=UNBOUNDED)  # fmt: skip
        return combine([sites, *dict.fromkeys(self._told)]) if self._told else sites


def _element(node: Node, label: Label) -> Value:
    data = {"role": node.role, "name": node.name, "value": node.value, "place": node.place}
    return Instance(ELEMENT.name, {key: Scalar(one, label) for key, one in data.items()}, label)


def _dense(text: str) -> str:
    """Without blanks: the two views part words differently where an element ends in one."""
    return alike(text).replace(" ", "")


def _holds(value: str, wanted: str) -> bool:
    return value.replace("\r\n", "\n").strip() == wanted.replace("\r\n", "\n").strip()


def _none() -> DeviceError:
    return DeviceError(
        "page_none",
        "no page is open",
        "A page lives as long as the process that opened it; a run that goes on after a cut does "
        "not have it any more.",
        "Call browser.open first; after a cut, begin a new run with `edvac run`.",
    )


def _not_allowed(origin: str) -> DeviceError:
    return DeviceError(
        "origin_not_allowed",
        f"{shown(origin)} is no origin that this run may contact",
        "The program does not spell it in a browser.open, and no setting grants it.",
        "Spell the URL in the program, or add the origin to `browser_further` in edvac.toml.",
    )


def _differ(what: str, *, laid_out: bool) -> DeviceError:
    one, other = "what is laid out", "the accessibility tree"
    has, lacks = (one, other) if laid_out else (other, one)
    return DeviceError(
        "observations_differ",
        f"{what[:60]!r} is in {has} and not in {lacks}",
        "What people see and what machines read are not the same; a page that deceives does so.",
        "Look at the page yourself, or ask for something that both have.",
    )


def _changed(name: str) -> DeviceError:
    return DeviceError(
        "page_changed",
        f"{name!r} was gone before it could be acted on",
        "The page changed between looking and acting; nothing was done.",
        "Run `edvac resume --retry`, or wait for something that comes after the change.",
    )


def _too_large(why: str) -> DeviceError:
    return DeviceError(
        "page_too_large", "the page is too large", f"It is left out whole: {why}.", "Open a part."
    )
