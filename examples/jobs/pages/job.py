"""Saved pages of four sites, and the same a week later: advertisements, counters and menus have
changed everywhere, facts on some."""

from __future__ import annotations

import html
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import kit

from edvac.bench.jobs import Scene, Size, Truth, Turn
from edvac.processor import Request

TITLE = "80 saved web pages against last week's: what changed, in words"
SPOILED = [
    ("|Last updated", ""),
    ("count >= 3 and count > 0.6", "count > 2.6"),
    ("if gone not in there", "if gone in there"),
    ("lacking(now, text.lines(before))", "lacking(text.lines(before), now)"),
    ("if texts[p] else before)", 'if texts[p] else "")'),
]
COUNT: dict[Size, int] = {"small": 3, "full": 20}  # pages of a site in the first week
SITES: dict[Size, tuple[str, ...]] = {
    "small": ("club", "town"),
    "full": ("shop", "town", "docs", "club"),
}
FACTS = {  # what stands there, what a week later, and what of that a sentence about it must have
    "shop": [("Price: 49.00 EUR", "Price: 59.00 EUR", "59"),
             ("Delivery within 3 working days", "Delivery within 4 weeks", "4 weeks"),
             ("Colours: sand, slate, moss", "Colours: sand, slate", "moss"),
             ("Guarantee of five years", "Guarantee of two years", "two")],
    "town": [("Open Monday to Thursday, 9:00 to 16:00", "Open Monday to Thursday, 10:00 to 15:00",
              "10"),
             ("Contact: Ms Olsen, room 12", "Contact: Mr Adeyemi, room 12", "Adeyemi"),
             ("The hearing is on 4 March 2026", "The hearing is on 11 March 2026", "11 March"),
             ("Fee: none", "Fee: 15 EUR a year", "15")],
    "docs": [("Requires version 3.2 or newer", "Requires version 4.0 or newer", "4.0"),
             ("The limit is 100 requests a minute", "The limit is 60 requests a minute", "60"),
             ("The option --fast is on by default", "The option --fast is off by default", "off"),
             ("Supported until June 2027", "Supported until December 2026", "December")],
    "club": [("Training: Tuesdays at 18:00 in hall 2", "Training: Wednesdays at 19:00 in hall 2",
              "Wednesday"),
             ("Membership costs 12 EUR a month", "Membership costs 14 EUR a month", "14"),
             ("The coach is Rasmus Dahl", "The coach is Ioana Petrescu", "Petrescu"),
             ("Boots are lent for free", "Boots are lent for 3 EUR", "3")],
}  # fmt: skip
WORDING = [
    ("We are glad to answer your questions.", "Your questions are welcome, we gladly answer them."),
    ("Please read this page to the end before you write to us.",
     "Before you write to us, please read all of this page."),
    ("This text gives an overview and is not complete.",
     "The overview given in this text is not complete."),
]  # fmt: skip
FILLER = ("It has been like this for years.", "Many ask for it in spring.", "See also the map.",
          "It was made with care.", "More than one of you has written about it.")  # fmt: skip
FATES = ("same", "noise", "facts", "wording", "noise", "layout", "facts", "noise")


@dataclass(frozen=True)
class Page:
    """`fate` is what happens to it within the week: see `FATES`, and gone, new, blank."""

    site: str
    name: str
    title: str
    lines: tuple[str, ...]
    fate: str
    before: str = ""
    after: str = ""
    key: str = ""

    @property
    def path(self) -> str:
        return f"pages/{self.site}/{self.name}.html"

    def text(self, week: int) -> tuple[str, ...]:
        moved = week == 2 and self.fate in ("facts", "wording")
        return tuple(self.after if moved and line == self.before else line for line in self.lines)


# -- layouts ------------------------------------------------------------------------------------


def _shop(page: Page, week: int, rng: random.Random) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in page.text(week))
    menu = "<nav><a>Home</a> <a>Lamps</a> <a>Sale</a>" + ("<a>Garden</a>" if week == 2 else "")
    box = "div" if week == 2 and page.fate == "layout" else "section"
    return (
        f"<!doctype html><html><head><title>{page.title}</title><script>var t={rng.random()}"
        f"</script></head><body><div class=cookie><p>We use cookies. Week {week} rules.</div>{menu}"
        f"</nav><{box} id=p{rng.randint(1, 9)}><h1>{page.title}</h1><ul>{lines}</ul></{box}>"
        f"<p>{rng.randint(2, 40)} people are looking<p>You may also like: lamp {rng.randint(1, 99)}"
        "<footer>© The Lamp Shop</footer>"
    )


def _town(page: Page, week: int, rng: random.Random) -> str:
    rows = "".join(f"<tr><td>{html.escape(line)}</td></tr>" for line in page.text(week))
    css = " class=new" if week == 2 and page.fate == "layout" else ""
    return (
        '<html><head><meta charset="utf-8"></head><body><table width=100%><tr><td>Town of Vårby'
        f"</td></tr></table><h2{css}>{page.title}</h2><table{css}>{rows}</table>"
        f"<p>Last updated: {rng.randint(1, 28)} May 2026, {rng.randint(8, 17)}:30</p>"
        f"<div>{'Snow: roads are closed' if week == 2 else 'Accessibility'}</div></body></html>"
    )


def _docs(page: Page, week: int, rng: random.Random) -> str:
    parts = "".join(f"<p>{html.escape(line)}</p>\n\n" for line in page.text(week))
    if week == 2 and page.fate == "layout":
        parts = parts.replace("<p>", "<p ><span>").replace("</p>", "</span></p>")
    return (
        f"<html><body><header>Manual {'4.0' if week == 2 else '3.9'}</header><main><h1>{page.title}"
        f"</h1>{parts}</main><p>Page built 2026-05-{rng.randint(10, 28)} by make</p>"
        f"<p>{rng.randint(1, 9)},{rng.randint(100, 999)} views</p></body></html>"
    )


def _club(page: Page, week: int, rng: random.Random) -> str:
    parts = "<br>".join(html.escape(line) for line in page.text(week))
    font = "b" if week == 2 and page.fate == "layout" else "font"
    ad = f"Sponsored: {rng.choice(['boots', 'bags', 'balls'])} from {rng.randint(9, 40)} EUR"
    return (
        f"<HTML><BODY><CENTER>FC Nordende</CENTER><P>{ad}<P><{font}>{page.title}</{font}>"
        f"<P>{parts}<P>Most read: {rng.choice(['cup', 'party', 'ball'])}<P>Web: Kai</BODY></HTML>"
    )


LAYOUTS: dict[str, Callable[[Page, int, random.Random], str]] = {
    "shop": _shop, "town": _town, "docs": _docs, "club": _club,
}  # fmt: skip


def _pages(size: Size) -> list[Page]:
    rng = random.Random(12)
    made = []
    for at, site in enumerate(SITES[size]):
        for number in range(COUNT[size]):
            fate = FATES[(number + 2 + 3 * at) % len(FATES)]
            if fate == "same" and site != "club":  # the others have changed their menu
                fate = "noise"
            facts = rng.choice(FACTS[site])
            wording = rng.choice(WORDING)
            before, after, key = (*wording, "") if fate == "wording" else facts
            title = (
                f"{site.title()} page {number}: {rng.choice(['north', 'old', 'blue'])} {number * 7}"
            )
            filler = rng.sample(FILLER, 3)
            lines = [f"About {title}", filler[0], facts[0], *filler[1:], wording[0]]
            lines.insert(2, f"Number {number * 31 + 4} of our list, by {rng.choice('ABCDE')}. Frey")
            made.append(
                Page(site, f"{site}-{number:02}", title, tuple(lines), fate, before, after, key)
            )
    last = made[-1]
    made[-1] = replace(last, fate="gone")
    made.append(replace(last, name="fresh", title="A page that is new", fate="new"))
    made[COUNT[size]] = replace(made[COUNT[size]], fate="blank")
    if size == "full":
        made.append(replace(made[9], name="frames", lines=(), fate="blank", title=""))
    return made


def _save(place: Path, pages: list[Page], week: int) -> None:
    rng = random.Random(week)
    for page in pages:
        path = place / page.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if page.fate == ("new", "gone")[week - 1]:
            path.unlink(missing_ok=True)
        elif page.fate == "blank" and (week == 2 or not page.lines):
            path.write_text(f"<html><script>load({week})</script><body></body></html>")
        else:
            seeded = random.Random(page.path) if page.fate == "same" else rng
            first = 1 if page.fate == "same" else week
            raw = LAYOUTS[page.site](page, first, seeded)
            path.write_bytes(raw.encode("utf-8"))


def make(place: Path, size: Size) -> Truth:
    pages = _pages(size)
    _save(place, pages, 1)
    return Truth(_oracle(pages), pages)


def _oracle(pages: list[Page]) -> Callable[[Request], str]:
    kinds = {page.after: page.fate for page in pages if page.fate in ("facts", "wording")}

    def answer(request: Request) -> str:
        data = json.loads(kit.data_of(request)[0])
        now = next((line for line in data["now"] if line in kinds), "something else")
        return json.dumps(
            {
                "kind": kinds.get(now, "wording"),
                "what": f"It was {(data['before'] or ['nothing'])[0]}, is {now}",
            }
        )

    return answer


# -- a week later ---------------------------------------------------------------------------------


async def play(scene: Scene, truth: Truth) -> None:
    pages: list[Page] = truth.facts
    first = await scene.run()
    scene.check("the first look asks nothing", first.calls == 0)
    scene.check("it takes every page for new", _paths(first, "new")
                == {page.path for page in pages if page.fate != "new" and page.lines})  # fmt: skip
    again = await scene.run()
    scene.check("nothing has changed at once", not _paths(again, "new", "changed", "vanished"))
    _save(scene.place, pages, 2)
    second = await scene.run()
    scene.check("the run ends well", second.report.state == "done")
    changed = {page.path: page for page in pages if page.fate in ("facts", "wording")}
    scene.check("what changed is what differs", _paths(second, "changed") == changed.keys())
    pairs = {(page.before, page.after) for page in changed.values()}
    least, most = len(pairs), len(changed)  # what differs in the same way need not be asked twice
    scene.check("only changed pages are asked about", least <= second.calls <= most)
    for state, fate in (("new", "new"), ("vanished", "gone"), ("not read", "blank")):
        wanted = {page.path for page in pages if page.fate == fate}
        scene.check(f"{state} pages are listed", _paths(second, state) == wanted)
    rows = {row["page"]: row for row in kit.rows(second.text("changes.csv"))}
    for path, page in changed.items():
        row = rows.get(path, {"kind": "", "what": ""})
        scene.score(f"kind of {path}", row["kind"], page.fate)
        if page.fate == "facts":
            scene.score(f"{path}: {row['what']!r} has {page.key}", page.key in row["what"], True)
    wanted = sum(row["kind"] == "facts" for row in rows.values())
    scene.check("news are the facts", second.text("news.md").count("\n* ") == wanted)
    await kit.check_delivery(scene, second.report.run, {"changes.csv", "news.md"})
    await _back(scene, pages)


async def _back(scene: Scene, pages: list[Page]) -> None:
    """Pages that could not be read come back as they were: nothing is new about them."""
    for page in pages:
        if page.fate == "blank" and page.lines:
            raw = LAYOUTS[page.site](page, 2, random.Random(5))
            (scene.place / page.path).write_text(raw)
    third = await scene.run()
    scene.check("a third run asks nothing", third.calls == 0)
    scene.check("and finds nothing", not _paths(third, "new", "changed", "vanished"))


def _paths(turn: Turn, *states: str) -> set[str]:
    return {row["page"] for row in kit.rows(turn.text("changes.csv")) if row["state"] in states}
