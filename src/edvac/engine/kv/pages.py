"""Contiguous rows of virtual memory over one pool of physical blocks, as vAttention has them
(arXiv 2405.04437, section 5), on the CPU.

A block holds 32 tokens of all layers. The pool is one memory file; a sequence's row maps its blocks
one after the other, so kernels see contiguous memory and no table, and the same physical block can
stand in many rows: a shared prefix is mapped, never copied. Blocks are committed by a helper
before they are needed. It knows tokens by number only.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch

from edvac.core.errors import InternalError, ProcessorError
from edvac.engine.config import ModelConfig
from edvac.engine.kv.codecs import F16, KVType

BLOCK: Final = 32  # tokens
_AHEAD: Final = 4  # blocks that are committed before anybody asks for them
_MOST_SHOWN: Final = 20_000  # places that stay mapped; Linux allows 65,530 maps a process
_PROT_RW: Final = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FIXED: Final = 0x10
_MAP_NORESERVE: Final = 0x4000
_MAP_POPULATE: Final = 0x8000
_NOTHING: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE  # address space alone
_POPULATE_WRITE: Final = 23  # Linux 5.14's MADV_POPULATE_WRITE
_FAILED: Final = ctypes.c_void_p(-1).value


class _System:
    """The calls that Python's mmap does not offer."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._map = library.mmap
        self._map.restype = ctypes.c_void_p
        self._map.argtypes = [
            *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int),
            *(ctypes.c_int, ctypes.c_long),
        ]
        self._advise = library.madvise
        self._advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self._unmap = library.munmap
        self._unmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

    def map(self, at: int | None, size: int, flags: int, file: int, offset: int) -> int:
        found = self._map(at, size, _PROT_RW, flags, file, offset)
        if found is None or found == _FAILED:
            why = os.strerror(ctypes.get_errno())
            raise ProcessorError(
                "kv_map_failed",
                "memory for keys and values could not be mapped",
                f"The system says: {why}.",
                "Give the engine less memory for them (kv_mb), or raise vm.max_map_count.",
            )
        return int(found)

    def commit(self, at: int, size: int) -> None:
        """Have pages given before they are touched; where that fails they come when they are."""
        self._advise(at, size, _POPULATE_WRITE)

    def unmap(self, at: int, size: int) -> None:
        self._unmap(at, size)


def can_map() -> bool:
    return hasattr(os, "memfd_create")


def block_shape(config: ModelConfig, kv: KVType = F16) -> tuple[int, ...]:
    """Layers, one, heads, tokens, items of keys and then values of a head of one token."""
    return (config.layers, 1, config.kv_heads, BLOCK, kv.row_items(config.head_dim))


def token_bytes(config: ModelConfig, kv: KVType = F16) -> int:
    """Of one token's keys and values in all layers."""
    return math.prod(block_shape(config, kv)) * int(kv.dtype.itemsize) // BLOCK


def block_bytes(config: ModelConfig, kv: KVType = F16) -> int:
    """Of a block in the pool: whole pages, since pages are what can be mapped."""
    size = token_bytes(config, kv) * BLOCK
    return int(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE)


class Pool:
    """Physical blocks by number, with how many hold each."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self._system = _System()
        self.file = os.memfd_create("edvac-kv", os.MFD_CLOEXEC)
        os.ftruncate(self.file, count * size)
        self.base = self._system.map(None, count * size, mmap.MAP_SHARED, self.file, 0)
        self._holders = [0] * count
        self._free = list(range(count - 1, -1, -1))  # the last is taken first: low numbers first
        self._taken = self._committed = 0  # how many were ever used, or made ready for it
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="commit")

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self) -> int | None:
        """A block of one's own, with any contents; None where all are held."""
        if not self._free:
            return None
        block = self._free.pop()
        self._holders[block] = 1
        self._taken = max(self._taken, block + 1)
        wanted = min(self._taken + _AHEAD, self.count)
        if wanted > self._committed:
            first, self._committed = self._committed, wanted
            size = (wanted - first) * self.size
            self._helper.submit(self._system.commit, self.base + first * self.size, size)
        return block

    def share(self, block: int) -> None:
        if not self._holders[block]:
            raise InternalError("kv_block_unheld", f"block {block} is shared and nobody holds it")
        self._holders[block] += 1

    def release(self, block: int) -> None:
        if not self._holders[block]:
            raise InternalError("kv_block_unheld", f"block {block} is given back twice")
        self._holders[block] -= 1
        if not self._holders[block]:
            self._free.append(block)

    def holders(self, block: int) -> int:
        return self._holders[block]

    def copy(self, source: int, target: int) -> None:
        ctypes.memmove(self.base + target * self.size, self.base + source * self.size, self.size)

    def close(self) -> None:
        self._helper.shutdown()
        self._system.unmap(self.base, self.count * self.size)
        os.close(self.file)


class PagedArena:
    """Rows of keys and values, (slots, capacity) tokens, over a pool of blocks.

    Attributes:
        pooled: blocks of the tree and of rows take each other's room.
        kv: how they are stored.
        width: of a head.
        block_bytes: of a block in the pool.
        token_bytes: of one token's keys and values in all layers.
    """

    pooled = True

    def __init__(
        self, config: ModelConfig, slots: int, capacity: int, blocks: int, kv: KVType = F16
    ) -> None:
        self.slots, self.kv, self.dtype, self.device = slots, kv, kv.dtype, torch.device("cpu")
        self.width = config.head_dim
        self._shape = block_shape(config, kv)
        self._items = math.prod(self._shape)
        self.token_bytes = token_bytes(config, kv)
        self.block_bytes = block_bytes(config, kv)
        self._per_row = -(-capacity // BLOCK)
        self.pool = Pool(blocks, self.block_bytes)
        self._system = _System()
        self._size = slots * self._per_row * self.block_bytes
        self._base = self._system.map(None, self._size, _NOTHING, -1, 0)
        self._rows: list[list[int]] = [[] for _ in range(slots)]
        self._shown: dict[tuple[int, int], int] = {}  # by place of a row: what is mapped there
        raw = (ctypes.c_uint8 * self._size).from_address(self._base)
        self._raw = torch.frombuffer(raw, dtype=torch.uint8)
        pooled = (ctypes.c_uint8 * (blocks * self.block_bytes)).from_address(self.pool.base)
        self._pooled = torch.frombuffer(pooled, dtype=self.dtype)
        self._layers = [self._view(layer) for layer in range(config.layers)]
        # Gives a block back to the pool; whoever keeps blocks says how.
        self.make_room: Callable[[], bool] = lambda: False

    def _view(self, layer: int) -> torch.Tensor:
        heads, size = self._shape[2], self._shape[4] * self.dtype.itemsize
        shape = (self.slots, self._per_row, heads, BLOCK, size)
        step = self.block_bytes
        strides = (self._per_row * step, step, BLOCK * size, size, 1)
        return self._raw.as_strided(shape, strides, layer * heads * BLOCK * size)

    def raw(self, layer: int) -> torch.Tensor:
        """A layer's keys and values as bytes, (slots, blocks, heads, 32 tokens, bytes): of each
        head of a token keys, then values."""
        return self._layers[layer]

    @property
    def touched(self) -> int:
        """Tokens that memory is held for."""
        return (self.pool.count - self.pool.free) * BLOCK

    def touch(self, slot: int, end: int) -> None:
        """See that positions up to `end` can be written."""
        row = self._rows[slot]
        while len(row) * BLOCK < end:
            block = self._take()
            row.append(block)
            self._show(slot, len(row) - 1, block)

    def clear(self, slot: int) -> None:
        """The row is empty from now on."""
        for block in self._rows[slot]:
            self.pool.release(block)
        self._rows[slot] = []
        if len(self._shown) > _MOST_SHOWN:
            self._hide(slot)

    def trim(self, free: set[int], tokens: int) -> None:
        """Nothing: what rows gave back serves the next ones."""

    def lend(self, slot: int, block: int, count: int) -> None:
        """The row's next tokens are the first `count` of a block that is held elsewhere."""
        row = self._rows[slot]
        if count == BLOCK:
            self.pool.share(block)
            row.append(block)
            self._show(slot, len(row) - 1, block)
            return
        own = self._take()  # somebody will write behind them
        self.pool.copy(block, own)
        row.append(own)
        self._show(slot, len(row) - 1, own)

    def copy(self, source: int, target: int, count: int) -> None:
        """The empty row `target` begins with the first `count` tokens of `source`."""
        for index in range(-(-count // BLOCK)):
            self.lend(target, self._rows[source][index], min(BLOCK, count - index * BLOCK))

    def harvest(self, slot: int, index: int) -> int:
        """The row's block of this index, held by the caller from now on; nobody may write it."""
        block = self._rows[slot][index]
        self.pool.share(block)
        return block

    def release(self, block: int) -> None:
        self.pool.release(block)

    def is_used(self, block: int) -> bool:
        """Whether a row shows a block that the caller holds."""
        return self.pool.holders(block) > 1

    def contents(self, block: int) -> torch.Tensor:
        """A block's memory, (layers, 1, heads, 32 tokens, items): a view, not a copy."""
        start = block * (self.block_bytes // self.dtype.itemsize)
        return self._pooled[start : start + self._items].view(self._shape)

    def make(self, contents: torch.Tensor) -> int | None:
        """A block with these contents (tokens may be fewer), or None where there is no room."""
        block = self.reserve()
        if block is not None:
            self.contents(block)[:, :, :, : contents.shape[3]] = contents
        return block

    def reserve(self) -> int | None:
        """A block to be filled, or None where there is no room."""
        block = self.pool.take()
        if block is None and self.make_room():
            block = self.pool.take()
        return block

    def export(self, slot: int, start: int, end: int) -> torch.Tensor:
        """A copy of some positions of one row: (layers, 1, heads, tokens, items)."""
        blocks = self._rows[slot][start // BLOCK : -(-end // BLOCK)]
        whole = torch.cat([self.contents(block) for block in blocks], dim=3)
        first = start // BLOCK * BLOCK
        return whole[:, :, :, start - first : end - first].clone()

    def _take(self) -> int:
        block = self.pool.take()
        while block is None and self.make_room():
            block = self.pool.take()
        if block is None:
            raise InternalError("kv_exhausted", "running sequences hold more than was promised")
        return block

    def _show(self, slot: int, index: int, block: int) -> None:
        if self._shown.get((slot, index)) == block:
            return  # it stands there still
        at = self._base + (slot * self._per_row + index) * self.block_bytes
        flags = mmap.MAP_SHARED | _MAP_FIXED | _MAP_POPULATE
        self._system.map(at, self.block_bytes, flags, self.pool.file, block * self.block_bytes)
        self._shown[slot, index] = block

    def _hide(self, slot: int) -> None:
        """One map of nothing in the place of all that a row showed."""
        size = self._per_row * self.block_bytes
        self._system.map(self._base + slot * size, size, _NOTHING | _MAP_FIXED, -1, 0)
        for index in range(self._per_row):
            self._shown.pop((slot, index), None)

    def close(self) -> None:
        """Give everything back; nothing of it may be used any more."""
        self._layers = []
        self.pool.close()
        self._system.unmap(self._base, self._size)
