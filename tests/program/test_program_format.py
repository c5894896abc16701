"""The formatter: idempotent, keeps the syntax tree and every comment."""

from __future__ import annotations

import ast
import io
import random
import tokenize

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program_gen import Generator

from edvac.program import format_program


def messy(text: str, chance: random.Random) -> str:
    """The same program with other spaces, indents and comments."""
    made = []
    for line in text.splitlines():
        bare = line.lstrip(" ")
        indent = "  " * ((len(line) - len(bare)) // 4)
        if chance.random() < 0.2:
            made.append(f"{indent}#note {len(made)}")
        made.append(indent + bare + chance.choice(["", " ", "  # why", "#x"]))
        made.extend([""] * chance.choice([0, 0, 0, 4]))
    return "\n".join(made) + chance.choice(["", "\n", "\n\n"])


def comments(text: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_formatting_changes_only_layout(chance: random.Random) -> None:
    text = messy(Generator(chance, steps=True).program(), chance)
    made = format_program(text)
    assert format_program(made) == made
    assert ast.dump(ast.parse(made)) == ast.dump(ast.parse(text))
    assert comments(made) == comments(text)
