"""What apps in processes of their own cost: the harness runs what it says, in both ways."""

from __future__ import annotations

import pytest

from edvac.bench import apps, report
from edvac.bench.apps import MIX, Wanted

pytestmark = pytest.mark.sandbox


def test_every_query_is_run_apart_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[bool, str]] = []
    run = apps._run

    def noted(machine: apps.Machine, program: str) -> apps.Took:
        ran.append((bool(machine.apps), program))
        return run(machine, program)

    monkeypatch.setattr(apps, "_run", noted)
    document = report.start("apps", "edvac bench apps")
    apps.measure(document, Wanted(repeats=1, delay_s=0.0, calls=2))
    found = {figure.id: figure.value for figure in document.figures}
    assert {f"{name}: time" for name in MIX} < found.keys()
    assert [apart for apart, _ in ran] == [True, False] * (len(MIX) + 1)
    assert all(program in [text for _, text in ran] for program in MIX.values())
    shares = [found[f"all queries, {share} are below"] for share in ("50%", "75%", "90%", "95%")]
    assert shares == sorted(shares) and shares[0] > 0
