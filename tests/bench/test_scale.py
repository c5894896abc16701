"""The scale benchmark measures what it says."""

from __future__ import annotations

from edvac.bench import report, scale


def test_a_small_one_has_every_figure() -> None:
    document = report.start("scale", "edvac bench scale --steps 1000")
    scale.measure(document, 1000)
    found = {figure.id: figure.value for figure in document.figures}
    assert all(value > 0 for value in found.values())
    assert found["memory at 200 steps"] <= found["memory at 1,000 steps"]
    assert {"edvac ps", "edvac show", "resume until steps begin"} <= set(found)
