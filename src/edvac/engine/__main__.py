"""Starts an engine process: ``python -m edvac.engine --model FILE --socket PATH --cache DIR``.

It reads the command line, bounds the threads before torch is imported, and puts loader, engine
and server together.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edvac.core.errors import EdvacError
from edvac.engine._native import SETTING
from edvac.engine.cores import Cores, can_look

if TYPE_CHECKING:
    from edvac.engine.engine import Engine
    from edvac.engine.protocol import Ready

_CONTEXT: Final = 8192
_SLOTS: Final = 32
_STEP_TOKENS: Final = 256


def main() -> int:
    """Run until nobody needs the engine; the result is the exit code."""
    options = _parser().parse_args()
    threads = options.threads or free_cores()
    adaptive = options.setting == "fast" and can_look()
    if adaptive:
        # About four milliseconds, the longest pause between two products of one step.
        os.environ.setdefault("GOMP_SPINCOUNT", "100000")
        os.environ.setdefault("KMP_BLOCKTIME", "4")
    else:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ[SETTING] = options.kernels
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    from edvac.engine.server import Server, private_socket

    try:
        with private_socket(options.socket) as served:
            cores = Cores(threads, free_cores()) if adaptive else None
            server = Server(_builder(options, threads), options.idle_seconds, cores)
            asyncio.run(server.run(served))
            return server.exit_code
    except EdvacError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return error.exit_code


def free_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edvac.engine", description="Serve one model.")
    parser.add_argument("--model", type=Path, required=True, help="a .gguf or .safetensors file")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--cache", type=Path, required=True, help="directory for repacked weights")
    parser.add_argument("--setting", choices=("fast", "reference"), default="fast")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores free to it")
    parser.add_argument("--context", type=int, default=0, help="tokens per sequence")
    parser.add_argument("--idle-seconds", type=float, default=600.0)
    parser.add_argument("--kv-mb", type=int, default=0, help="memory for keys and values")
    parser.add_argument(
        "--kv-type", default="f16", help="how they are stored: f16, int8, k8v4 or int4"
    )
    parser.add_argument("--slots", type=int, default=_SLOTS, help="sequences at a time")
    parser.add_argument("--step-tokens", type=int, default=_STEP_TOKENS)
    parser.add_argument("--kernels", default="", help="avx512, avxvnni, avx2 or none")
    parser.add_argument("--kv-disk", choices=("keep", "session", "none"), default="keep")
    parser.add_argument(
        "--kv-disk-type", default="same", help="how they lie there: same, int8 or int4"
    )
    parser.add_argument("--draft", type=Path, help="a smaller model of the same vocabulary")
    parser.add_argument("--role", default="", help="tells engines of one model apart")
    parser.add_argument("--handover", type=Path, help="where engines leave prompts for others")
    parser.add_argument("--retention", default="told", help="lru, ttl=N, continuum, oracle, ...")
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        type=_named_file,
        metavar="NAME=FILE",
        help="a LoRA adapter that requests may name; may be said again",
    )
    parser.add_argument("--no-speculation", action="store_true", help="draft no tokens")
    return parser


def _named_file(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not name or not equals or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(path)


def _builder(
    options: argparse.Namespace, threads: int
) -> Callable[[Callable[[int, int], None]], tuple[Engine, Ready]]:
    def build(on_progress: Callable[[int, int], None]) -> tuple[Engine, Ready]:
        from edvac.engine.assembly import Assembly, assemble

        return assemble(
            Assembly(
                model=options.model,
                cache=options.cache,
                setting=options.setting,
                threads=threads,
                context=options.context or _CONTEXT,
                kv_bytes=options.kv_mb << 20,
                slots=options.slots,
                step_tokens=max(options.step_tokens, options.slots),
                speculate=not options.no_speculation,
                kv_disk=options.kv_disk,
                handover=options.handover,
                draft=options.draft,
                retention=options.retention,
                kv_type=options.kv_type,
                kv_disk_type=options.kv_disk_type,
                adapters=tuple(options.adapter),
            ),
            on_progress,
            _in_background,
        )

    return build


_writer = ThreadPoolExecutor(1, thread_name_prefix="keep")


def _in_background(work: Callable[[], None]) -> None:
    """Disk writes nobody waits for, one at a time: two answers may keep the same prefix."""
    _writer.submit(work)


if __name__ == "__main__":
    sys.exit(main())
