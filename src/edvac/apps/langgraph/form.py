"""Checkpoints as LangGraph has them, and as the store keeps them.

Values are stored as LangGraph's own MessagePack, never as pickles; of the types in it only those
known to be harmless are made again, and those that were allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeAlias

import msgspec
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.event_hooks import register_serde_event_listener

from edvac.core.errors import UsageError
from edvac.store import (
    Checkpoint,
    CheckpointInfo,
    NewChannel,
    NewCheckpoint,
    NewWrites,
    TaskWrite,
    Typed,
)

Config: TypeAlias = dict[str, Any]

_DELTAS = "counters_since_delta_snapshot"  # in the metadata, where a graph has delta channels
_APART = ("id", "channel_values")  # of a checkpoint: what the store keeps in places of their own
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Typed, Typed]).decode
_refused: ContextVar[list[str] | None] = ContextVar("refused", default=None)


def _note_refused(event: Mapping[str, str]) -> None:
    names = _refused.get()
    if names is not None and event["kind"] in ("msgpack_blocked", "msgpack_method_blocked"):
        names.append(f"{event['module']}.{event['name']}")


register_serde_event_listener(_note_refused)


def place_of(config: Config) -> tuple[str, str, str | None]:
    """Thread, namespace, and the checkpoint's id where there is one."""
    where = config["configurable"]
    id_ = get_checkpoint_id(config)
    return str(where["thread_id"]), where.get("checkpoint_ns") or "", str(id_) if id_ else None


def config_of(thread: str, namespace: str, id_: str) -> Config:
    where = {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": id_}
    return {"configurable": where}


def new_checkpoint(
    serde: Any, config: Config, checkpoint: Any, metadata: Any, new_versions: Mapping[str, Any]
) -> NewCheckpoint:
    thread, namespace, parent = place_of(config)
    values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
    channels = {}
    for name, value in values.items():
        if name in versions and name not in new_versions:
            later = partial(_typed, serde, value)
            channels[name] = NewChannel(versions[name], later, changed=False)
        else:
            # Now, and not on the store's thread: by then the program may have changed it.
            made = _typed(serde, value)
            channels[name] = NewChannel(versions.get(name, 0), partial(_same, made))
    state = {key: value for key, value in checkpoint.items() if key not in _APART}
    about = get_checkpoint_metadata(config, metadata)
    run = about.get("run_id")
    return NewCheckpoint(
        thread,
        namespace,
        checkpoint["id"],
        _encode([_typed(serde, state), _typed(serde, about)]),
        channels,
        parent,
        None if run is None else str(run),
        _bound(about, values, versions),
    )


def new_writes(
    serde: Any, config: Config, writes: Sequence[tuple[str, Any]], task: tuple[str, str]
) -> NewWrites:
    thread, namespace, checkpoint = place_of(config)
    name, path = task
    made = [
        TaskWrite(name, WRITES_IDX_MAP.get(channel, index), channel, _typed(serde, value), path)
        for index, (channel, value) in enumerate(writes)
    ]
    return NewWrites(thread, namespace, checkpoint or "", made)


def _bound(metadata: Mapping[str, Any], values: Any, versions: Any) -> bool | None:
    """Does a checkpoint hold only what changed since its parent in some channel? None where its
    parent tells."""
    missing = set(versions) - set(values)
    counters = metadata.get(_DELTAS)
    if counters or not missing:
        return not missing.isdisjoint(counters or ())
    # Made by hand from another one, it does not say so itself.
    return False if metadata.get("source") == "loop" else None


def _typed(serde: Any, value: Any) -> Typed:
    return Typed(*serde.dumps_typed(value))


def _same(value: Typed) -> Typed:
    return value


def _load(serde: Any, kind: str, data: bytes) -> Any:
    """The value of stored bytes.

    Raises:
        UsageError: it holds a type that is not allowed; LangGraph alone would hand out its parts.
    """
    names: list[str] = []
    token = _refused.set(names)
    try:
        value = serde.loads_typed((kind, data))
    finally:
        _refused.reset(token)
    if names:
        raise UsageError(
            "checkpoint_type_refused",
            f"a checkpoint holds an object of the type {names[0]}",
            "To make it is to run that type's code, so only known types are made.",
            f"If it is yours, allow it: EdvacSaver(..., allow=[{names[0].rpartition('.')[2]}]).",
        )
    return value


def metadata_of(serde: Any, info: CheckpointInfo) -> Any:
    return _load(serde, *_decode(info.payload)[1])


def as_tuple(serde: Any, found: Checkpoint) -> Any:
    info = found.info
    state = _load(serde, *_decode(info.payload)[0])
    values = {name: _load(serde, *value) for name, value in found.channels.items()}
    return CheckpointTuple(
        config=config_of(info.thread, info.namespace, info.id),
        checkpoint={**state, "id": info.id, "channel_values": values},
        metadata=metadata_of(serde, info),
        parent_config=config_of(info.thread, info.namespace, info.parent) if info.parent else None,
        pending_writes=[(one.task, one.channel, _load(serde, *one.value)) for one in found.writes],
    )
