"""What a worker does with one step: asks its model, or carries a call out in its sandbox."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from edvac.core.errors import (
    ConfigError,
    EdvacError,
    ModelFileError,
    SandboxError,
    StepError,
    TransientError,
)
from edvac.device.carried import Laid, carry_out, prepare, remove
from edvac.machine.fleet import wire
from edvac.machine.fleet.travel import MODEL_S
from edvac.processor import Processor
from edvac.processor.presence import Presence

# Such an error may say more about this worker than about the step.
_SUSPECT = (TransientError, ConfigError, ModelFileError)


class AwayError(TransientError):
    """This worker's model, or its sandbox, does nothing for anybody: the step is another's.

    `kinds` are those that it can do no steps of.
    """

    kinds: frozenset[str] = frozenset()


class Doer:
    """Carries steps out. `processor` is None where it does no model steps."""

    def __init__(self, processor: Processor | None) -> None:
        self.processor = processor
        self._presence = Presence(processor) if processor is not None else None

    async def do(self, payload: bytes) -> wire.Outcome:
        """What the step comes to; its own failures are an outcome, too.

        Raises:
            AwayError: it has not been done, and nobody's step would be.
        """
        try:
            step = wire.read_step(payload)
            match step:
                case wire.ModelStep():
                    return await self._asked(step)
                case wire.SandboxStep():
                    return await _carried_out(step)
        except AwayError:
            raise
        except EdvacError as error:
            return wire.error(error)

    async def away(self) -> bool:
        """Does the model answer nobody?"""
        return self._presence is not None and await self._presence.away()

    async def _asked(self, step: wire.ModelStep) -> wire.Outcome:
        processor = self.processor
        if processor is None or processor.identity != step.model:
            what = f"a worker was given a step for {step.model}, which is not its model"
            raise StepError("worker_model", what, "", "See `edvac worker --list`.")
        try:
            async with asyncio.timeout(MODEL_S):
                answer = await processor.complete(step.request)
        except TimeoutError as problem:
            what = f"a model step did not end within {MODEL_S:g} s"
            raise TransientError("worker_timeout", what) from problem
        except _SUSPECT as error:
            if await self.away():
                raise _away(error, wire.MODEL) from error
            raise
        return wire.Answered(answer, processor.contacts.take())


async def _carried_out(step: wire.SandboxStep) -> wire.Outcome:
    root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="edvac-step-"))
    try:
        laid = await asyncio.to_thread(_laid_out, step, root)
        return wire.carried(await carry_out(laid))
    except OSError as problem:
        raise _no_room(problem) from problem
    except SandboxError as error:
        if error.code == "no_isolation":
            raise _away(error, wire.PYTHON, wire.SHELL) from error
        raise
    finally:
        await asyncio.to_thread(remove, root)


def _away(error: EdvacError, *kinds: str) -> AwayError:
    found = AwayError("worker_away", error.what, error.why, error.fix)
    found.kinds = frozenset(kinds)
    return found


def _laid_out(step: wire.SandboxStep, root: Path) -> Laid:
    writes = tuple(step.writes)
    laid = Laid(root, step.op, step.slot, step.env, step.before, writes, step.timeout_s)
    _put(laid.work, step.files)
    _put(laid.control, step.control)
    prepare(laid)
    return laid


def _put(below: Path, files: Mapping[str, bytes]) -> None:
    """
    Raises:
        StepError: a path would lead out of the directory.
    """
    below.mkdir()
    for name, content in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\x00" in name or not path.parts:
            raise wire.unreadable("step_unreadable", f"a step names the file {name!r}", "")
        target = below / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _no_room(problem: OSError) -> TransientError:
    return TransientError(
        "worker_no_room",
        "a worker could not lay out the files of a step",
        f"{problem.strerror or problem}.",
        "Make room for temporary files on the worker's machine.",
    )
