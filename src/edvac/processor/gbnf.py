"""A Lark grammar in the notation of llama.cpp (GBNF), for servers that take no Lark.

Covers what edvac's own grammars are made of: rules, texts, regular expressions without look-around
or back-references, repetitions. What GBNF cannot say, that a text is *not* of some form, is left
out: the result allows more, and whoever asked checks what comes. Anything else is refused.
"""

from __future__ import annotations

import json
import re

from edvac.core.errors import InternalError

_RULE = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*): (.*)$", re.S)
_NOT = re.compile(r"\s*&\s*~/(?:\\.|[^/\\])*/")
_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<text>"(?:\\.|[^"\\])*")
    |(?P<regex>/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\[])*/)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>\{\d+(?:,\d*)?\}|[()|?*+])""",
    re.X,
)
_PART = re.compile(
    r"""(?P<set>\[(?:\\.|[^\]\\])*\])|(?P<escape>\\.)|(?P<mark>\{\d+(?:,\d*)?\}|[()|?*+])
    |(?P<dot>\.)|(?P<plain>.)""",
    re.X | re.S,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_CLASSES = {"d": "[0-9]", "w": "[A-Za-z0-9_]", "s": r"[ \t\n\r]", "D": "[^0-9]"}


def from_lark(lark: str) -> str:
    """The grammar in GBNF; its first rule is `start`.

    Raises:
        InternalError: it has something that this notation lacks.
    """
    lines = [line for line in lark.split("\n") if line.strip() and not line.startswith("//")]
    rules = []
    for line in lines:
        found = _RULE.match(line)
        if found is None:
            raise _unknown(line)
        rules.append(f"{_name(found.group(1))} ::= {_body(_NOT.sub('', found.group(2)))}")
    return "\n".join(rules) + "\n"


def _name(name: str) -> str:
    """Names have dashes here, and not every server tells upper case from lower case."""
    if name == "start":
        return "root"
    kind = "token-" if name.isupper() or name[0].isupper() else ""
    return kind + name.lower().replace("_", "-")


def _body(text: str) -> str:
    made: list[str] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _unknown(text[at:])
        at = found.end()
        kind, piece = found.lastgroup, found.group()
        if kind == "text":
            made.append(_text(json.loads(piece)))
        elif kind == "regex":
            made.append(f"({_regex(piece[1:-1])})")
        elif kind == "name":
            made.append(_name(piece))
        elif kind == "mark" and (piece[0] in "?*+{") and made:
            made[-1] += piece
        elif kind == "mark":
            made.append(piece)
    return " ".join(made)


def _regex(pattern: str) -> str:
    made: list[str] = []
    for found in _PART.finditer(pattern):
        kind, piece = found.lastgroup, found.group()
        if kind == "set":
            made.append(piece)
        elif kind == "escape":
            made.append(_CLASSES.get(piece[1]) or _text(_ESCAPES.get(piece[1], piece[1])))
        elif kind == "mark" and piece[0] in "?*+{" and made and made[-1] != "(":
            made[-1] += piece
        elif kind == "mark" and piece in "()|":
            made.append(piece)
        elif kind == "dot":
            made.append(r"[^\n]")
        elif kind == "plain" and piece not in "^$":
            made.append(_text(piece))
        else:
            raise _unknown(pattern)
    return " ".join(made) or '""'


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'.replace("\t", "\\t").replace("\r", "\\r")


def _unknown(what: str) -> InternalError:
    return InternalError(
        "grammar_untranslated",
        f"a grammar has what llama.cpp's notation lacks: {what[:60]!r}",
        "",
        "Please report this.",
    )
