"""Which element a program means, what is checked before and after acting, and labels of answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from browser_kit import StillPage
from device_kit import make_call
from hypothesis import given
from hypothesis import strategies as st

from edvac.core.errors import DeviceError
from edvac.core.label import Label
from edvac.core.value import Instance, Scalar, Value, lift, plain
from edvac.device.browser.device import Browser
from edvac.device.browser.find import alike, find
from edvac.device.browser.origins import Grants, origin_of
from edvac.device.browser.page import Node, Page

SHOP = "https://shop.example/"
HERE = frozenset({origin_of(SHOP)})


class Session:
    """A browser over pages in memory, with a loop for each call."""

    def __init__(self, html: str, on_look: Callable[[StillPage], None] = id) -> None:
        self.page = StillPage({SHOP: html, "https://evil.example/": "<p>hi"}, on_look)
        self.made = 0
        self.browser = Browser(HERE, Grants(), self._make)
        self.get("open", url=SHOP)

    async def _make(self, allowed: frozenset[str]) -> Page:
        self.made += 1
        self.allowed = allowed
        return self.page

    def value(self, function: str, **operands: Any) -> Value:
        call = make_call(f"browser.{function}", **operands)
        return asyncio.run(self.browser.call(call)).value

    def get(self, function: str, **operands: Any) -> Any:
        return plain(self.value(function, **operands))

    def refused(self, function: str, **operands: Any) -> str:
        with pytest.raises(DeviceError) as caught:
            self.value(function, **operands)
        assert caught.value.what
        return caught.value.code


def test_what_can_be_seen_is_offered_and_nothing_else() -> None:
    shop = Session(
        "<title>Shop</title><p>Hello<p hidden>secret</p><button>Buy</button>"
        "<button hidden>Delete</button><a href=/x>More</a>"
    )
    assert shop.get("page") == {"url": SHOP, "title": "Shop", "happened": []}
    assert "secret" not in shop.get("text")
    assert "Hello" in shop.get("text")
    found = [(one["role"], one["name"]) for one in shop.get("elements")]
    assert found == [("button", "Buy"), ("link", "More")]
    assert [one["name"] for one in shop.get("elements", role="link")] == ["More"]


def test_one_element_is_clicked_and_what_changed_is_said() -> None:
    shop = Session("<a href=/next id=n>Next  page</a>")
    shop.page.pages[SHOP + "next"] = "<title>Two</title>"
    shop.page.events.append("dialog alert dismissed: hi")
    done = shop.get("click", role="link", name="next page")
    assert done == {"url": SHOP + "next", "title": "Two", "moved": True,
                    "happened": ["dialog alert dismissed: hi"]}  # fmt: skip
    assert shop.page.acts == [("click", "n", "")]
    assert shop.get("page")["happened"] == []


@pytest.mark.parametrize(
    ("html", "code"),
    [
        ("<button>Buy</button><button>Buy</button>", "element_ambiguous"),
        ("<button>Buy</button><button>B\u200buy</button>", "element_ambiguous"),
        ("<button>Buy</button><button aria-label=Buy>Delete</button>", "element_ambiguous"),
        ("<button hidden>Buy</button>", "element_hidden"),
        ("<a>Buy</a><button>Sell</button>", "element_missing"),
        ("<button>Buy now</button>", "element_missing"),
        ("<button disabled>Buy</button>", "element_disabled"),
        ("<button data-covered='a banner'>Buy</button>", "element_covered"),
        ("<button aria-label=Buy>Delete</button>", "observations_differ"),
        ("<button aria-label=Delete>Buy</button>", "observations_differ"),
    ],
)
def test_an_element_that_is_not_the_one_is_not_acted_on(html: str, code: str) -> None:
    shop = Session(html)
    assert shop.refused("click", role="button", name="Buy") == code
    assert shop.page.acts == []


def test_hidden_twins_do_not_matter_and_a_place_tells_others_apart() -> None:
    shop = Session("<button hidden>Buy</button><button id=b>Buy</button>")
    shop.get("click", role="button", name="Buy")
    rows = "".join(f"<fieldset><legend>{n}</legend><button id={n}>Buy</button></fieldset>"
                   for n in ("tea", "ink"))  # fmt: skip
    shop = Session(rows)
    assert shop.refused("click", role="button", name="Buy") == "element_ambiguous"
    shop.get("click", role="button", name="Buy", place="Ink")
    assert shop.page.acts == [("click", "ink", "")]
    assert shop.refused("click", role="button", name="Buy", place="oil") == "element_missing"


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ("<p>gone", "page_changed"),
        ("<button id=b>Delete</button>", "element_missing"),
        ("<button id=b hidden>Buy</button>", "element_hidden"),
        ("<button id=b data-covered=x>Buy</button>", "element_covered"),
    ],
)
def test_a_page_that_changes_before_the_act_is_seen(after: str, code: str) -> None:
    def change(page: StillPage) -> None:
        page.pages[SHOP] = after

    shop = Session("<button id=b>Buy</button>", change)
    assert shop.refused("click", role="button", name="Buy") == code
    assert shop.page.acts == []


def test_fields_hold_what_was_put_into_them_or_the_step_fails() -> None:
    html = (
        "<input title=Name id=n><select title=Land id=l>"
        "<option>Peru</option><option>Chad</option></select>"
    )
    shop = Session(html)
    shop.get("fill", role="textbox", name="Name", text="Ada")
    assert [one["value"] for one in shop.get("elements", role="textbox")] == ["Ada"]
    assert shop.refused("choose", role="combobox", name="Land", option="Oz") == "option_missing"
    shop.page.keeps = False
    assert shop.refused("fill", role="textbox", name="Name", text="Bob") == "act_unverified"


def test_claims_are_answered_from_both_views() -> None:
    shop = Session(
        "<p>Order <b>placed</b></p><p hidden>Paid</p><p aria-hidden=true>Free</p>"
        "<button aria-label=Pay>Cancel</button><button>Back</button>"
    )
    assert shop.get("sees", text="order placed") is True
    assert shop.get("sees", text="lost") is False
    assert shop.get("sees", role="button", name="back") is True
    assert shop.get("sees", role="link", name="Back") is False
    assert shop.get("sees", text="lost", role="button", name="Back") is False
    assert shop.refused("sees", text="Paid") == "observations_differ"
    assert shop.refused("sees", text="Free") == "observations_differ"
    assert shop.refused("sees", role="button", name="Pay") == "observations_differ"
    assert shop.refused("sees", role="button", name="Cancel") == "observations_differ"
    assert shop.refused("sees") == "claim_empty"


def test_only_named_origins_are_opened_and_stayed_at() -> None:
    shop = Session("<a href=https://evil.example/>Go</a>")
    assert shop.allowed == HERE
    assert shop.refused("open", url="https://evil.example/") == "origin_not_allowed"
    assert shop.refused("open", url="http://shop.example/") == "origin_not_allowed"
    for url in ("file:///etc/passwd", "javascript:1", "https://a@shop.example/", "shop.example"):
        assert shop.refused("open", url=url) == "url_unfit"
    assert shop.page.url == SHOP
    assert shop.refused("click", role="link", name="Go") == "page_left"
    for function in ("text", "page", "elements"):
        assert shop.refused(function) == "page_left"
    assert shop.refused("sees", text="hi") == "page_left"
    assert shop.refused("click", role="link", name="Go") == "page_left"
    assert len(shop.page.acts) == 1
    assert shop.made == 1


def test_without_a_page_nothing_is_seen_or_done() -> None:
    shop = Session("")
    asyncio.run(shop.browser.close())
    assert shop.page.closed
    assert shop.refused("text") == "page_none"
    assert shop.refused("click", role="button", name="Buy") == "page_none"


def test_answers_have_the_labels_of_sites_and_of_what_was_typed() -> None:
    shop = Session("<input title=Name><p>x")
    site = Label.of(["site:https://shop.example"], readers=["user"], bits=float("inf"))
    assert shop.value("text").label is site
    seen = shop.value("sees", text="x")
    assert isinstance(seen, Scalar)
    assert seen.label.sources == {"seen:https://shop.example"}
    assert seen.label.bits == 1
    call = make_call("browser.fill", role="textbox", name="Name", text="a")
    call.operands["text"] = lift("a", Label.of(["file:in.txt"], readers=["user"]))
    asyncio.run(shop.browser.call(call))
    for function in ("text", "page", "elements"):
        assert "file:in.txt" in shop.value(function).label.sources
    done = shop.value("fill", role="textbox", name="Name", text="b")
    assert isinstance(done, Instance)
    assert "file:in.txt" in shop.value("sees", text="x").label.sources
    assert done.fields["moved"].label.sources >= {"site:https://shop.example", "file:in.txt"}


NAMES = st.sampled_from(["Buy", "buy ", "Sell", ""])
NODES = st.lists(
    st.builds(
        Node, st.integers(0, 9), st.sampled_from(["button", "link"]), NAMES, NAMES,
        st.just(""), st.sampled_from(["tea", "ink"]), st.booleans(), st.booleans(),
        st.sampled_from(["", "x"]),
    ),
    max_size=4,
)  # fmt: skip


@given(NODES, st.sampled_from(["", "TEA"]))
def test_found_is_the_only_one_and_fit(nodes: list[Node], place: str) -> None:
    """Against the rule in one line each."""
    meant = [
        n for n in nodes
        if n.role == "button" and n.visible and "buy" in (alike(n.name), alike(n.shown))
        and (not place or n.place == "tea")
    ]  # fmt: skip
    fit = [n for n in meant if n.enabled and not n.covered and alike(n.shown) in ("", "buy")
           and (alike(n.name) == "buy")]  # fmt: skip
    try:
        found = find(nodes, "button", "Buy", place)
    except DeviceError:
        assert len(meant) != 1 or not fit
    else:
        assert [found] == meant == fit
