"""`doctor`: what this machine can do, and whether the workspace is whole."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import click

from edvac.cli import local, ui
from edvac.cli.local import Finding
from edvac.core.errors import EXIT_DAMAGED, EXIT_FAILED, EdvacError, UnreachableError

SYNCS = 20
_COPY = "Copy .edvac away first; see docs/how-to/recover.md."


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--reprobe", is_flag=True, help="Find out anew what endpoints can do.")
def doctor(as_json: bool, reprobe: bool) -> int:
    """Look at this machine, the models on it, and this workspace.

    Servers of models are looked for on this machine only; lines like `model = "..."` are for
    edvac.toml, and what is in the quotes is for --model.
    """
    findings = [
        _processor(),
        _memory(),
        _disk(),
        _syncs(),
        _isolation(),
        _browser(),
        _engine(),
        _model(),
        *local.servers(),
        *local.kept(),
        *local.endpoints(reprobe=reprobe),
        *_workspace(),
    ]
    bad = [finding.name for finding in findings if finding.state == "bad"]
    if as_json:
        ui.out_json({"healthy": not bad, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            ui.out(f"{finding.state:4}  {finding.name:11} {finding.found}")
            for line in (finding.fix, *finding.paste):
                if line:
                    ui.out(f"{'':17} {line}")
    if "workspace" in bad:
        return EXIT_DAMAGED
    return EXIT_FAILED if bad else 0


def _processor() -> Finding:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        flags = ""
    wanted = ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "avx_vnni")
    shown = [flag for flag in wanted if f" {flag} " in flags.replace("\n", " ")]
    cores = len(os.sched_getaffinity(0))
    return Finding("processor", "ok", f"{cores} cores; {', '.join(shown) or 'no vector flags'}")


def _memory() -> Finding:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    total = pages * size
    few = total < 6e9
    fix = "The 1.5B model wants about 4 GB; take qwen2.5-coder:0.5b." if few else ""
    return Finding("memory", "note" if few else "ok", ui.megabytes(total), fix)


def _disk() -> Finding:
    free = shutil.disk_usage(ui.workspace()).free
    few = free < 2e9
    fix = "Runs need little, but models need gigabytes." if few else ""
    return Finding("disk", "note" if few else "ok", f"{ui.megabytes(free)} free here", fix)


def _syncs() -> Finding:
    """How long the disk takes to make a small write durable: the price of one step."""
    took = []
    try:
        with tempfile.NamedTemporaryFile(dir=ui.workspace()) as file:
            for _ in range(SYNCS):
                start = time.perf_counter()
                file.write(b"x" * 512)
                file.flush()
                os.fsync(file.fileno())
                took.append(time.perf_counter() - start)
    except OSError as problem:
        return Finding(
            "sync", "bad", f"this directory cannot be written: {problem.strerror}", "Use another."
        )
    return Finding("sync", "ok", f"{statistics.median(took) * 1e3:.2f} ms (median of {SYNCS})")


def _isolation() -> Finding:
    from edvac.sandbox import probe

    isolation = probe()
    if isolation.available:
        return Finding("sandbox", "ok", "bubblewrap works; python and shell steps can run")
    return Finding("sandbox", "note", isolation.why, isolation.fix)


def _browser() -> Finding:
    from edvac.device.browser.chromium import installed, missing

    why = missing()
    if why:
        fix = "For browser.*: apt install chromium, pip install 'edvac[browser]'."
        return Finding("browser", "note", why, fix)
    return Finding("browser", "ok", f"browser.* can use {installed()}")


def _engine() -> Finding:
    import importlib.util

    missing = [
        name for name in ("torch", "llguidance", "tokenizers") if not importlib.util.find_spec(name)
    ]
    if missing:
        fix = "pip install 'edvac[engine]', or use an endpoint: --model URL#MODEL."
        return Finding("engine", "note", f"not installed: {', '.join(missing)}", fix)
    from edvac.engine._native import kernels

    native = kernels()
    if native is None:
        fix = "They are built from native/ (`make setup` with a C++ compiler)."
        return Finding("engine", "note", "torch is installed, the compiled kernels are not", fix)
    return Finding("engine", "ok", f"torch is installed; compiled kernels for {native.level()}")


def _model() -> Finding:
    from edvac.engine import pull

    found = pull.installed()
    if not found:
        return Finding("model", "note", "no model is here", "Fetch one: edvac model pull")
    return Finding("model", "ok", ", ".join(one.entry.name for one in found))


def _workspace() -> list[Finding]:
    from edvac.machine.storage import shown_url
    from edvac.store.store import DATABASE, DIRECTORY, MARKER

    try:
        place = ui.storage()
    except EdvacError as error:
        return [Finding("workspace", "bad", f"{error.what} [{error.code}]", error.fix)]
    workspace = place.workspace
    made = any((workspace / DIRECTORY / name).exists() for name in (DATABASE, MARKER))
    if not place.url and not made:
        return [Finding("workspace", "ok", f"{workspace} (nothing has been run here yet)")]
    try:
        with place.open() as store:
            problems = store.verify()
            runs = 0 if problems else len(store.runs(limit=100_000))
    except UnreachableError as error:
        return [Finding("store", "bad", f"{error.what} [{error.code}]", error.fix)]
    except EdvacError as error:
        what = f"{ui.because(error.what, error.why)} [{error.code}]"
        return [Finding("workspace", "bad", what, f"{_COPY} {error.fix}".strip())]
    if problems:
        return [
            Finding("workspace", "bad", f"{one.where}: {one.what} [{one.code}]", _COPY)
            for one in problems[:20]
        ]
    where = f"{workspace}, {shown_url(place.url)}" if place.url else str(workspace)
    whole = f"{where}: {ui.counted(runs, 'run')}, every record verified"
    return [Finding("workspace", "ok", whole)]
