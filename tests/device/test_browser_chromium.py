"""The real browser against pages that deceive and lead away, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from browser_kit import Site, serving
from device_kit import make_call

from edvac.core.errors import DeviceError
from edvac.core.value import plain
from edvac.device.browser.chromium import ChromiumPage, missing, open_page
from edvac.device.browser.device import Browser
from edvac.device.browser.origins import Grants, origin_of
from edvac.device.browser.page import Page

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=f"needs a browser: {missing()}"),
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
]


class Surf:
    """A real browser that may reach one site, asked from one loop."""

    def __init__(self, site: Site, other: Site) -> None:
        self.site, self.other = site, other
        self.pages: list[ChromiumPage] = []
        self.loop = asyncio.new_event_loop()
        self.browser = Browser(frozenset({origin_of(site.url)}), Grants(), self._make)

    async def _make(self, allowed: frozenset[str]) -> Page:
        self.pages.append(await open_page(allowed, Grants(private=allowed)))
        return self.pages[-1]

    def get(self, function: str, **operands: Any) -> Any:
        call = make_call(f"browser.{function}", **operands)
        return plain(self.loop.run_until_complete(self.browser.call(call)).value)

    def show(self, html: str) -> Any:
        self.site.pages["/"] = html
        return self.get("open", url=self.site.url)

    def refused(self, function: str, **operands: Any) -> str:
        with pytest.raises(DeviceError) as caught:
            self.get(function, **operands)
        return caught.value.code

    def close(self) -> None:
        self.loop.run_until_complete(self.browser.close())
        self.loop.close()


@pytest.fixture(scope="module")
def surf() -> Iterator[Surf]:
    with serving() as site, serving() as other:
        made = Surf(site, other)
        yield made
        made.close()


@pytest.fixture(autouse=True)
def fresh(surf: Surf) -> None:
    surf.site.asked.clear()
    surf.other.asked.clear()
    surf.site.pages.clear()


def test_a_form_is_filled_and_sent(surf: Surf) -> None:
    surf.site.pages["/sent"] = "<title>Thanks</title><p>Sent"
    surf.show(
        "<h1>Order</h1><form action=/sent><label>Name <input name=n value=old></label>"
        "<label>Day <input type=date name=d></label>"
        "<label for=c>Land</label><select id=c name=c><option>Peru<option>Chad</select>"
        "<label><input type=checkbox name=k>News</label><textarea aria-label=Note name=t>"
        "</textarea><button>Send</button></form>"
    )
    surf.get("fill", role="textbox", name="Name", text="Ada & Bob")
    surf.get("fill", role="textbox", name="Day", text="2026-03-04")
    surf.get("fill", role="textbox", name="Note", text="a\nb")
    surf.get("choose", role="combobox", name="Land", option="Chad")
    surf.get("click", role="checkbox", name="News")
    values = {one["name"]: one["value"] for one in surf.get("elements")}
    assert values["Land"] == "Chad" and values["News"] == "on"
    assert surf.refused("choose", role="combobox", name="Land", option="Oz") == "option_missing"
    done = surf.get("click", role="button", name="Send")
    assert (done["title"], done["moved"]) == ("Thanks", True)
    assert surf.site.asked[-1] == ("GET /sent?n=Ada+%26+Bob&d=2026-03-04&c=Chad&k=on&t=a%0D%0Ab")
    assert surf.get("sees", text="Sent") is True


HIDDEN = [
    "display:none", "visibility:hidden", "opacity:0", "opacity:.05",
    "position:absolute;left:-999px",
    "position:fixed;top:0;width:1px;height:1px;overflow:hidden;padding:0;border:0",
    "clip-path:inset(100%)", "position:absolute;clip:rect(0 0 0 0)", "transform:scale(0)",
]  # fmt: skip


@pytest.mark.parametrize("style", HIDDEN)
def test_hidden_elements_are_not_offered_or_clicked(surf: Surf, style: str) -> None:
    surf.show(f"<p>Shop</p><button style='{style}' onclick='location=\"/bad\"'>Buy</button>")
    assert surf.get("elements", role="button") == []
    assert surf.refused("click", role="button", name="Buy") in ("element_hidden", "element_missing")
    assert "Buy" not in surf.get("text")


COVERS = [
    "<div style='position:fixed;inset:0;background:#0001'>Accept all</div>",
    "<div style='position:fixed;inset:0;opacity:0' onclick='location=\"/bad\"'></div>",
    "<iframe style='position:fixed;inset:0;width:100%;height:100%;opacity:0'></iframe>",
]


@pytest.mark.parametrize("cover", COVERS)
def test_what_lies_over_an_element_does_not_get_its_click(surf: Surf, cover: str) -> None:
    surf.show(f"<button>Buy</button>{cover}")
    assert surf.refused("click", role="button", name="Buy") == "element_covered"
    assert all("/bad" not in one for one in surf.site.asked)


DECEIT = [
    ("<button>Buy</button><button>Buy</button>", "element_ambiguous"),
    ("<button aria-label='Buy'>Delete all</button>", "observations_differ"),
    ("<button>Buy<span style='opacity:0'> never</span></button>", "observations_differ"),
    ("<button disabled>Buy</button>", "element_disabled"),
    ("<fieldset disabled><button>Buy</button></fieldset>", "element_disabled"),
    ("<div>Buy</div>", "element_missing"),
    ("<button aria-hidden=true>Buy</button>", "element_missing"),
]


@pytest.mark.parametrize(("html", "code"), DECEIT)
def test_look_alikes_and_swapped_labels_are_refused(surf: Surf, html: str, code: str) -> None:
    surf.show(f"<h1>Shop</h1>{html}")
    assert surf.refused("click", role="button", name="Buy") == code


def test_scripts_of_the_page_cannot_lie_to_what_looks(surf: Surf) -> None:
    surf.show(
        "<button style='display:none'>Buy</button><script>"
        "Element.prototype.checkVisibility=()=>true;"
        "Element.prototype.getBoundingClientRect=()=>({width:9,height:9,left:9,top:9,right:18,"
        "bottom:18});window.getComputedStyle=()=>({opacity:1});"
        "document.elementFromPoint=()=>document.querySelector('button')</script>"
    )
    assert surf.get("elements", role="button") == []


def test_views_that_differ_are_told(surf: Surf) -> None:
    surf.show("<p>Order <b>placed</b></p><p aria-hidden=true>Paid</p>"
              "<p style='opacity:0'>Refunded</p>")  # fmt: skip
    assert surf.get("sees", text="order placed") is True
    assert surf.refused("sees", text="Paid") == "observations_differ"
    assert surf.refused("sees", text="Refunded") == "observations_differ"


def told(surf: Surf, happened: list[str], *words: str) -> bool:
    """Is it told, if not with the act then with one of the next calls? A busy machine is late."""
    for _ in range(20):
        if any(all(word in one for word in words) for one in happened):
            return True
        surf.get("page")
        happened += surf.pages[-1].happened()
    return False


def test_dialogs_windows_and_downloads_are_refused_and_told(surf: Surf) -> None:
    surf.site.pages["/f"] = (200, {"Content-Disposition": "attachment"}, "x")
    surf.show(
        "<button onclick=\"if(confirm('Sure?'))location='/bad'\">Ask</button>"
        "<button onclick=\"window.open('/pop')\">Pop</button><a href=/f>File</a>"
    )
    done = surf.get("click", role="button", name="Ask")
    assert done["happened"] == ["dialog confirm dismissed: Sure?"]
    assert not done["moved"]
    happened = surf.get("click", role="button", name="Pop")["happened"]
    assert told(surf, happened, "window", "closed"), happened
    assert len(surf.pages[-1]._tab.context.pages) == 1
    happened = surf.get("click", role="link", name="File")["happened"]
    assert told(surf, happened, "download"), happened
    assert all("/bad" not in one for one in surf.site.asked)


def test_nothing_reaches_another_origin(surf: Surf) -> None:
    """Pictures, scripts, fetch, beacons, sockets, workers, frames, prefetch, forms, redirects."""
    away = surf.other.url
    socket = away.replace("http", "ws")
    surf.site.pages["/r"] = (302, {"Location": f"{away}/redirect"}, "")
    surf.site.pages["/w.js"] = (
        200,
        {"Content-Type": "text/javascript"},
        f"fetch('{away}/worker');new WebSocket('{socket}/workersocket')",
    )
    shown = surf.show(
        f"<img src={away}/img><script src={away}/js></script><iframe src={away}/frame></iframe>"
        f"<link rel=prefetch href={away}/pre><link rel=preconnect href={away}>"
        f"<img src=/r><a href=/r>Go</a><form action={away}/form><button>Send</button></form>"
        "<script>"
        f"fetch('{away}/fetch').catch(()=>0);navigator.sendBeacon('{away}/beacon');"
        f"try{{new WebSocket('{socket}/socket')}}catch(e){{}};new EventSource('{away}/events');"
        "new Worker('/w.js');navigator.serviceWorker.register('/w.js').catch(()=>0);"
        f"new RTCPeerConnection({{iceServers:[{{urls:'stun:{away[7:]}'}}]}}).createDataChannel('x')"
        "</script>"
    )
    told = shown["happened"]
    assert f"refused {away}" in told, told  # by the page; the proxy says why
    assert surf.refused("click", role="button", name="Send") == "page_left"
    surf.show("<a href=/r>Go</a>")
    assert surf.refused("click", role="link", name="Go") == "page_left"
    assert surf.refused("text") == "page_left"
    surf.show("<p>back")
    assert surf.get("text") == "back"
    assert surf.other.asked == []


def test_tables_without_heads_have_rows(surf: Surf) -> None:
    surf.show("<table><tr><td>tea</td><td>3</td></tr></table>")
    assert [one["name"] for one in surf.get("elements", role="row")] == ["tea\t3"]
    assert [one["name"] for one in surf.get("elements", role="cell")] == ["tea", "3"]


def test_service_workers_are_not_there(surf: Surf) -> None:
    surf.site.pages["/w.js"] = (200, {"Content-Type": "text/javascript"}, "")
    surf.show(
        "<p id=s>none</p><script>navigator.serviceWorker.register('/w.js')"
        ".then(r => { s.textContent = r && r.scope ? 'kept' : 'none' })</script>"
    )
    assert surf.get("text") == "none"
    assert "GET /w.js" not in surf.site.asked


def test_a_page_that_is_not_there_is_an_error(surf: Surf) -> None:
    with serving() as gone:
        pass

    async def one() -> None:
        page = await open_page(frozenset({origin_of(gone.url)}), Grants())
        try:
            await page.open(gone.url)
        finally:
            await page.close()

    with pytest.raises(DeviceError) as caught:
        asyncio.run(one())
    assert caught.value.code == "page_unreachable"
    assert "127.0.0.1" in caught.value.why
