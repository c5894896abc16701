"""Web pages to text."""

from __future__ import annotations

import re

BLOCKS = (
    "p, div, tr, li, h1, h2, h3, h4, h5, h6, table, section, blockquote, nav, header, footer, "
    "main, article, aside, form, fieldset, ul, ol, dl, dt, dd, pre, address, figure, figcaption, "
    "caption, details, summary, center, title, legend"
)
_BREAK = "\x1f"  # stands before a block until it is known whether a line has begun there


def visible(raw: str) -> str:
    """Visible text, a line for each block, cells of a row kept on one line."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(raw.replace(_BREAK, " "))
    for node in tree.css("script, style, noscript, template, head"):
        node.decompose()
    for node in tree.css("td, th"):
        node.insert_after(" | ")
    alone = ", ".join(f"{cell} > {one}:only-child" for cell in ("td", "th") for one in ("p", "div"))
    for node in tree.css(alone):
        node.unwrap()
    for node in tree.css(BLOCKS):
        node.insert_before(_BREAK)
        node.insert_after("\n")
    for node in tree.css("br"):
        node.insert_after("\n")
    body = tree.body or tree.root
    text = body.text() if body is not None else ""
    text = re.sub(rf"(^|\n)[ \t\xa0]*{_BREAK}[ \t\xa0{_BREAK}]*", r"\1", text)
    text = re.sub(rf"{_BREAK}[ \t\xa0{_BREAK}]*", "\n", text)
    lines = (re.sub(r"[ \t\xa0]+", " ", line).strip(" |") for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
