"""Web pages to text."""

from __future__ import annotations

import re


def visible(raw: str) -> str:
    """Visible text, a line for each block, cells of a row kept on one line."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(raw)
    for node in tree.css("script, style, noscript, template, head"):
        node.decompose()
    for node in tree.css("td, th"):
        node.insert_after(" | ")
    for node in tree.css("p, div, tr, li, h1, h2, h3, h4, h5, h6, br, table, section, blockquote"):
        node.insert_after("\n")
    body = tree.body or tree.root
    text = body.text() if body is not None else ""
    lines = (re.sub(r"[ \t\xa0]+", " ", line).strip(" |") for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
