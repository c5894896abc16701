"""`serve` at the command line: what is refused before a model is loaded."""

from __future__ import annotations

import pytest
from cli_kit import Bench


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--host", "0.0.0.0", "--no-key"], "serve_open"),
        (["--key-env", "NOT_SET"], "serve_key"),
        (["--model", "http://127.0.0.1:1/v1#m"], "serve_endpoint"),
        (["--host", "203.0.113.7"], "address_unusable"),
    ],
)
def test_what_cannot_be_served_is_said(edvac: Bench, args: list[str], code: str) -> None:
    said = edvac("serve", *args)
    assert said.code == 2 and f"[{code}]" in said.err
