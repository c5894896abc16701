"""What a benchmark reports: figures with peers and targets, the machine, the load, the command."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `better` says which way is up; peer and target are None where there is none."""

    id: str
    value: float
    unit: str
    better: str  # higher or lower
    target: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer; below 1 it lost."""
        if not self.peer_value or not self.value:
            return None
        ratio = self.value / self.peer_value
        return ratio if self.better == "higher" else 1 / ratio


@dataclass(slots=True)
class Document:
    """One run of one benchmark."""

    name: str
    command: str
    figures: list[Figure] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        figures = [asdict(figure) | {"ratio": figure.ratio} for figure in self.figures]
        return asdict(self) | {"figures": figures}


def start(name: str, command: str) -> Document:
    """A document with the machine and the load as they are before anything runs."""
    return Document(name, command, machine=machine(), load=[round(x, 2) for x in os.getloadavg()])


def machine() -> dict[str, Any]:
    """The machine in words that a reader can compare with their own."""
    model, flags = "", ""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n"):
            key, _, text = line.partition(":")
            model = text.strip() if key.strip() == "model name" else model
            flags = text if key.strip() == "flags" else flags
    except OSError:
        model = platform.processor()
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "features": [flag for flag in wanted if flag in flags.split()],
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def table(document: Document) -> list[str]:
    """The document as lines of Markdown."""
    about = document.machine
    lines = [
        f"# {document.name}",
        "",
        f"Command: `{document.command}`",
        "",
        f"Machine: {about['processor']}, {about['cores']} cores ({', '.join(about['features'])}), "
        f"{about['memory_gb']} GB, {about['system']}, Python {about['python']}. "
        f"Load average before the run: {', '.join(map(str, document.load))}.",
        "",
        "| figure | edvac | peer | ratio | target |",
        "|---|---:|---:|---:|---:|",
    ]
    for figure in document.figures:
        peer = f"{figure.peer}: {_number(figure.peer_value)}" if figure.peer else ""
        ratio = f"{figure.ratio:.2f}×" if figure.ratio else ""
        target = f"{_number(figure.target)}" if figure.target is not None else ""
        name = f"{figure.id} [{figure.unit}, {figure.better} is better]"
        lines.append(f"| {name} | {_number(figure.value)} | {peer} | {ratio} | {target} |")
    notes = [f"{figure.id}: {figure.note}" for figure in document.figures if figure.note]
    lines += ["", *(f"* {note}" for note in notes + document.notes)]
    return lines


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def write(
    document: Document, directory: Path, lines: Callable[[Document], list[str]] = table
) -> list[Path]:
    """Write NAME.json, NAME.md (by default the table of figures) and NAME.svg."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = directory / document.name
    stem.with_suffix(".json").write_text(
        json.dumps(document.as_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    stem.with_suffix(".md").write_text("\n".join(lines(document)) + "\n", encoding="utf-8")
    stem.with_suffix(".svg").write_text(chart(document), encoding="utf-8")
    return [stem.with_suffix(suffix) for suffix in (".json", ".md", ".svg")]


def chart(document: Document) -> str:
    """A bar for each ratio to a peer, on a line at 1: a plot without a plotting library."""
    shown = [(figure, figure.ratio) for figure in document.figures if figure.ratio]
    widest = max([ratio for _, ratio in shown if ratio] + [1.0])
    scale = 320 / widest
    rows = []
    for place, (figure, ratio) in enumerate(shown):
        y = 40 + 26 * place
        colour = "#2a7f62" if ratio and ratio >= 1 else "#b8433a"
        label = f"{figure.id} vs {figure.peer}"
        rows.append(
            f'<text x="10" y="{y + 13}">{_escaped(label)}</text>'
            f'<rect x="330" y="{y}" width="{(ratio or 0) * scale:.1f}" height="18" '
            f'fill="{colour}"/>'
            f'<text x="{336 + (ratio or 0) * scale:.1f}" y="{y + 13}">{ratio:.2f}×</text>'
        )
    height = 60 + 26 * len(shown)
    line = f'<line x1="{330 + scale:.1f}" y1="30" x2="{330 + scale:.1f}" y2="{height - 14}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" '
        'font-family="sans-serif" font-size="12">'
        '<rect width="100%" height="100%" fill="white"/>'
        f'<text x="10" y="20" font-size="14">{_escaped(document.name)}: times better than the peer'
        f'</text>{"".join(rows)}{line} stroke="#555"/></svg>\n'
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
