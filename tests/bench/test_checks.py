"""Checks: what a task asked for is looked at, what it left open is not."""

from __future__ import annotations

from typing import Any

import pytest

from edvac.bench.checks import read_check

TABLE = {"table": "a.csv", "rows": "name,total\nAnn,3\nBob,1.50\n"}


@pytest.mark.parametrize(
    ("spec", "text", "good"),
    [
        (TABLE, "Total,Name\n1.5,bob\n3.00,ANN\n", True),
        (TABLE, "id,name,total\n1,Ann,3\n2,Bob,1.5\n", True),
        (TABLE, "name,total\nAnn,3\n", False),
        (TABLE, "name,total\nAnn,3\nBob,1.5\nBob,1.5\n", False),
        (TABLE, "name,total\nAnn,3\nBob,1.51\n", False),
        (TABLE, "name,sum\nAnn,3\nBob,1.5\n", False),
        (TABLE, "", False),
        (TABLE | {"ordered": True}, "name,total\nBob,1.5\nAnn,3\n", False),
        (TABLE | {"ordered": True}, "name,total\nAnn,3\nBob,1.5\n", True),
        (TABLE | {"ordered_by": "total"}, "name,total\nBob,1.5\nAnn,3\n", False),
        (TABLE | {"near": 1}, "name,total\nAnn,4\nBob,1.5\n", True),
        (TABLE | {"near": 1}, "name,total\nAnn,5\nBob,1.5\n", False),
        (TABLE | {"unsigned": True}, "name,total\nAnn,-3\nBob,1.5\n", True),
        (TABLE, "name,total\nAnn,-3\nBob,1.5\n", False),
        (TABLE | {"digits": 1}, "name,total\nAnn,3.01\nBob,1.5\n", True),
        ({"table": "a.csv", "rows": "x\ntrue\n"}, "x\nyes\n", True),
        ({"table": "a.csv", "rows": 'x,y\n1,""\n'}, "x,y\n1,None\n", True),
        ({"text": "a.csv", "has": ["Ann"], "lacks": ["Bob"]}, "dear ANN", True),
        ({"text": "a.csv", "has": ["Ann"], "lacks": ["Bob"]}, "dear Ann and Bob", False),
        ({"text": "a.csv", "has": ["Ann"], "lacks": ["Bob"]}, "dear", False),
        ({"lines": "a.csv", "are": ["b", "a"]}, "- b\n\n2. A\n", True),
        ({"lines": "a.csv", "are": ["b", "a"]}, "a\nb\n", False),
        ({"lines": "a.csv", "are": ["b", "a"], "sort": True}, "a\nb\n", True),
        ({"numbers": "a.csv", "are": ["1500.5"]}, "The sum is 1,500.50.", True),
        ({"numbers": "a.csv", "are": ["1500.5"]}, "The sum of 2 is 1,500.50.", False),
        ({"files": "a*", "names": ["a.csv"]}, "", True),
        ({"files": "a*", "names": []}, "", False),
    ],
)
def test_a_check_tells(spec: dict[str, Any], text: str, good: bool) -> None:
    check = read_check(spec)
    assert (check({"a.csv": text}) == []) is good
    if "files" not in spec:
        assert check({"b/a.csv": text}) == ["a.csv is missing (b/a.csv is there)"]


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(ValueError, match="no such check"):
        read_check({"tabel": "a.csv"})
    with pytest.raises(TypeError):
        read_check({"text": "a.csv", "hass": ["x"]})
