"""KV memory in contiguous rows, and attention over it.

Each running sequence owns one row (slot) of the arena: keys and values of a layer lie in one
stripe per head, so attention reads plain views. The address space of every row is reserved at
start but costs memory only where tokens have been written. Steps with few tokens per sequence are
batched over neighbouring slots; long prefill chunks go one by one. It knows token counts, not
tokens, and no request.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Final, Protocol, TypeAlias

import torch
import torch.nn.functional as F

from edvac.engine.config import ModelConfig
from edvac.engine.kv.pages import BLOCK, PagedArena
from edvac.engine.linear import Norm

_NARROW: Final = 16  # up to this many tokens of a sequence in one step are batched with others'
CPU: Final = torch.device("cpu")
_WASTE: Final = 1.6  # a batch is split where padding would cost more than this


Rotation: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"  # cosines, sines: (rows, width / 2)
Norms: TypeAlias = "tuple[Norm, Norm] | None"  # of the queries' and of the keys' heads


@dataclass(frozen=True, slots=True)
class Span:
    """`count` consecutive tokens of the sequence in `slot`, the first at position `start`."""

    slot: int
    start: int
    count: int

    @property
    def end(self) -> int:
        return self.start + self.count


class Arena:
    """Keys and values of all running sequences."""

    pooled = False

    def __init__(
        self,
        config: ModelConfig,
        slots: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device = CPU,
    ) -> None:
        self.slots, self.capacity, self.dtype, self.device = slots, capacity, dtype, device
        shape = (2, config.layers, slots, config.kv_heads, capacity, config.head_dim)
        items = 1
        for length in shape:
            items *= length
        self._map: mmap.mmap | None = None
        self._stripe = config.kv_heads * capacity * config.head_dim * dtype.itemsize
        self._touched = [0] * slots  # tokens up to which a slot may hold memory
        self._lent = [0] * slots  # tokens with which a row began
        self._blocks: dict[int, torch.Tensor] = {}
        self._named = 0
        self.most_blocks = 0  # how many may be held, about
        self.make_room: Callable[[], bool] = lambda: False  # gives up one of them
        self.token_bytes = items * dtype.itemsize // (slots * capacity)
        if device != CPU:
            self._all = torch.zeros(shape, dtype=dtype, device=device)
            self.keys, self.values = self._all[0], self._all[1]
            return
        # Anonymous memory reserved without being counted: pages appear when first written.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._map = mmap.mmap(-1, items * dtype.itemsize, flags=flags)
        self._all = torch.frombuffer(self._map, dtype=dtype).view(shape)
        self.keys, self.values = self._all[0], self._all[1]

    def write(self, layer: int, plan: TensorPlan, key: torch.Tensor, value: torch.Tensor) -> None:
        self.keys[layer][plan.slots, :, plan.positions] = key.to(self.dtype)
        self.values[layer][plan.slots, :, plan.positions] = value.to(self.dtype)

    @property
    def touched(self) -> int:
        """Tokens that memory is held for, in slots that are used and in those that were."""
        return sum(self._touched)

    def touch(self, slot: int, end: int) -> None:
        """Note that positions up to `end` are written."""
        self._touched[slot] = max(self._touched[slot], end)

    def trim(self, free: set[int], tokens: int) -> None:
        """Give memory of free slots back, the fullest first, until `tokens` or less are held."""
        advice = getattr(mmap, "MADV_DONTNEED", None)
        for slot in sorted(free, key=lambda one: -self._touched[one]):
            if (
                self._map is None
                or advice is None
                or self.touched <= tokens
                or not self._touched[slot]
            ):
                return
            for stripe in range(slot, len(self._map) // self._stripe, self.slots):
                start = -(-stripe * self._stripe // mmap.PAGESIZE) * mmap.PAGESIZE
                end = (stripe + 1) * self._stripe // mmap.PAGESIZE * mmap.PAGESIZE
                if start < end:
                    self._map.madvise(advice, start, end - start)
            self._touched[slot] = 0

    def export(self, slot: int, start: int, end: int) -> torch.Tensor:
        """A copy of some positions of one slot: (2, layers, heads, tokens, width), in main
        memory."""
        found = self._all[:, :, slot, :, start:end]
        return found.to(CPU, memory_format=torch.contiguous_format, copy=True)

    def load(self, slot: int, start: int, block: torch.Tensor) -> None:
        self._all[:, :, slot, :, start : start + block.shape[3]] = block
        self.touch(slot, start + block.shape[3])

    def clear(self, slot: int) -> None:
        """The row is empty from now on; its memory stays until `trim`."""
        self._lent[slot] = 0

    # --- blocks of finished rows, kept as copies -----------------------------------------------

    def harvest(self, slot: int, index: int) -> int:
        """The row's tokens of this block, held by the caller from now on."""
        self._has_room()  # or it is one too many: a sequence is kept whole
        end = min((index + 1) * BLOCK, self.capacity)
        return self._hold(self.export(slot, index * BLOCK, end))

    def make(self, contents: torch.Tensor) -> int | None:
        """A block with these contents, or None where there is no room."""
        return self._hold(contents.clone()) if self._has_room() else None

    def reserve(self) -> int | None:
        """A block to be filled, or None where there is no room."""
        layers, _, heads, _, width = self.keys.shape
        shape = (2, layers, heads, BLOCK, width)
        return self._hold(torch.empty(shape, dtype=self.dtype)) if self._has_room() else None

    def _has_room(self) -> bool:
        while len(self._blocks) >= self.most_blocks and self.make_room():
            pass
        return len(self._blocks) < self.most_blocks

    def _hold(self, contents: torch.Tensor) -> int:
        self._named += 1
        self._blocks[self._named] = contents
        return self._named

    def contents(self, block: int) -> torch.Tensor:
        return self._blocks[block]

    def release(self, block: int) -> None:
        del self._blocks[block]

    def is_used(self, block: int) -> bool:
        return False

    def lend(self, slot: int, block: int, count: int) -> None:
        """The row's next tokens are the first `count` of a block."""
        self.load(slot, self._lent[slot], self._blocks[block][:, :, :, :count])
        self._lent[slot] += count

    def copy(self, source: int, target: int, count: int) -> None:
        self._all[:, :, target, :, :count] = self._all[:, :, source, :, :count]
        self.touch(target, count)


class AttentionPlan(Protocol):
    """Which rows of a step attend to what; built once and used in every layer.

    Attributes:
        answering: rows, the first ones, that belong to answers.
        positions: of every row in its sequence.
        device: where rows have to lie.
    """

    answering: int
    positions: torch.Tensor
    device: torch.device

    def mix(self, layer: int, qkv: torch.Tensor, rotation: Rotation, norms: Norms) -> torch.Tensor:
        """Store a layer's new keys and values, and give the values mixed, (rows, heads x width)."""
        ...


@dataclass(frozen=True, slots=True)
class KeyBias:
    """What a model adds to its keys, where the memory does not hold it: rotated, it depends on the
    position alone.

    Attributes:
        layers: (kv heads x width) each, or None where a layer has none.
        blocks: (blocks, width): the rotation of each block's first position, cosines before sines.
        tokens: (width, 32): the same, turned, of the positions in a block.
    """

    layers: list[torch.Tensor | None]
    blocks: torch.Tensor
    tokens: torch.Tensor

    @classmethod
    def up_to(
        cls, positions: int, layers: list[torch.Tensor | None], rates: torch.Tensor
    ) -> KeyBias:
        """What so many positions need; `rates` are the rotary frequencies, (width / 2), float64."""

        def turns(first: int, end: int, step: int) -> torch.Tensor:
            return torch.cat(rotation(torch.arange(first, end, step), rates), dim=1).contiguous()

        return cls(layers, turns(0, positions, BLOCK), turns(0, BLOCK, 1).t().contiguous())


class Attending:
    """The compiled kernels over one memory.

    Args:
        heads: of queries.
        bias: of the keys, that the memory does not hold.
    """

    def __init__(
        self, native: ModuleType, arena: PagedArena, heads: int, bias: KeyBias | None = None
    ) -> None:
        self.native, self.arena, self.heads = native, arena, heads
        self._biases = None if bias is None else bias.layers
        turns = (None, None) if bias is None else (bias.blocks, bias.tokens)
        self.stored = native.stored(*arena.kv.stored, arena.width, *turns)

    def bias(self, layer: int) -> torch.Tensor | None:
        return None if self._biases is None else self._biases[layer]


class KernelPlan:
    """Attention by the compiled kernels: few bits are kept, single precision computed with.

    Whatever computes it, a row attends to what is stored, the keys of its own step included.

    A row's result depends on its sequence and its role alone. Answers share out long sequences by
    segments of keys, so that several threads read one; prompts have tokens enough to share out.
    """

    def __init__(self, attending: Attending, spans: list[Span], answering: int) -> None:
        self._attending = attending
        self.answering, self.device = answering, attending.arena.device
        self.positions = torch.cat([torch.arange(span.start, span.end) for span in spans])
        table: list[tuple[int, int, int, int]] = []
        row = 0
        for span in spans:
            table.append((span.slot, span.start, span.count, row))
            row += span.count
        self._split = sum(row < answering for _, _, _, row in table)
        self._table = torch.tensor(table, dtype=torch.int32)

    def mix(self, layer: int, qkv: torch.Tensor, rotation: Rotation, norms: Norms) -> torch.Tensor:
        by = self._attending
        found = torch.empty(len(qkv), by.heads * by.arena.width)
        query, key = (None, None) if norms is None else (norms[0].weight, norms[1].weight)
        epsilon = 0.0 if norms is None else norms[0].epsilon
        by.native.attend(
            *(qkv, *rotation, query, key, epsilon),
            *(by.arena.raw(layer), self._table, self._split, by.heads, found),
            *(by.stored, by.bias(layer)),
        )
        return found


class TensorPlan:
    """Attention by torch's operators, on any device; with `exact`, the reference."""

    def __init__(
        self, spans: list[Span], arena: Arena, config: ModelConfig, exact: bool, answering: int = 0
    ) -> None:
        self._config, self._arena = config, arena
        self.answering, self.device = answering, arena.device
        device = arena.device
        self.positions = torch.cat([torch.arange(s.start, s.end) for s in spans]).to(device)
        self.slots = torch.cat([torch.full((s.count,), s.slot) for s in spans]).to(device)
        self._rows = len(self.positions)
        self._exact = exact
        # torch's own attention knows neither caps nor windows.
        plainly = config.attends_plainly(arena.capacity)
        self._scale = config.query_scale or config.head_dim**-0.5
        self._one_span_each = not exact and not plainly
        self._spans: list[tuple[int, Span]] = []
        self._wide: list[tuple[int, Span, torch.Tensor | None]] = []
        narrow: list[tuple[int, Span]] = []
        row = 0
        for span in spans:
            self._spans.append((row, span))
            if span.count <= _NARROW and span.start > 0:
                narrow.append((row, span))
            elif plainly and not exact:
                self._wide.append((row, span, _causal(span, device)))
            row += span.count
        parts = [] if exact or not plainly else _partition(narrow)
        self._groups = [_Group(part, arena.dtype, device) for part in parts]

    def mix(self, layer: int, qkv: torch.Tensor, rotation: Rotation, norms: Norms) -> torch.Tensor:
        """Store a layer's new keys and values, and give the values mixed, (rows, heads x width)."""
        heads, kv_heads, width = self._config.heads, self._config.kv_heads, self._config.head_dim
        all_heads = qkv.view(self._rows, heads + 2 * kv_heads, width)
        query, key, value = all_heads.split([heads, kv_heads, kv_heads], dim=1)
        if norms is not None:
            query, key = norms[0](query), norms[1](key)
        query, key = rotate(query, rotation), rotate(key, rotation)
        self._arena.write(layer, self, key, value)
        return self.attend(layer, query)

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Mixed values, (rows, heads x width), in float32."""
        arena = self._arena
        keys, values = arena.keys[layer], arena.values[layer]
        heads, width = self._config.heads, self._config.head_dim
        found = torch.empty(self._rows, heads, width, device=arena.device)
        if self._exact:
            self._one_by_one(layer, query, found)
        if self._one_span_each:
            for row, span in self._spans:
                part = slice(row, row + span.count)
                found[part] = self._whole(layer, span, query[part])
        for row, span, mask in self._wide:
            part = query[row : row + span.count].transpose(0, 1)[None]
            mixed = F.scaled_dot_product_attention(
                part,
                keys[span.slot, :, : span.end][None].float(),
                values[span.slot, :, : span.end][None].float(),
                attn_mask=mask,
                is_causal=mask is None,
                enable_gqa=True,
            )
            found[row : row + span.count] = mixed[0].transpose(0, 1)
        for group in self._groups:
            group.attend(keys, values, query, found)
        return found.reshape(self._rows, -1)

    def _one_by_one(self, layer: int, query: torch.Tensor, found: torch.Tensor) -> None:
        """The reference: one query at a time, so its arithmetic never depends on its neighbours."""
        config = self._config
        grouped = (config.kv_heads, config.heads // config.kv_heads, config.head_dim)
        for row, span in self._spans:
            for index in range(span.count):
                one = query[row + index].view(grouped)
                mixed = self._mixed(layer, span.slot, span.start + index, 1, one)
                found[row + index] = mixed.view(config.heads, config.head_dim)

    def _whole(self, layer: int, span: Span, query: torch.Tensor) -> torch.Tensor:
        """One sequence's values mixed, (rows, heads, width)."""
        # The query heads that share a KV head become rows of one product, head after head.
        folded = query.unflatten(1, (self._config.kv_heads, -1)).permute(1, 2, 0, 3)
        mixed = self._mixed(layer, span.slot, span.start, span.count, folded.flatten(1, 2))
        return mixed.unflatten(1, (-1, span.count)).permute(2, 0, 1, 3).flatten(1, 2)

    def _mixed(
        self, layer: int, slot: int, start: int, count: int, query: torch.Tensor
    ) -> torch.Tensor:
        """Values mixed for `count` positions from `start` on, (kv heads, rows, width), with all
        that a family does to scores: a scale and a cap of its own, and windows."""
        window, end = self._config.window_of(layer), start + count
        seen = slice(max(0, start + 1 - window) if window else 0, end)
        keys = self._arena.keys[layer][slot, :, seen].float()
        scores = query @ keys.transpose(1, 2) * self._scale
        scores = capped(scores, self._config.attention_cap)
        if count > 1:
            hidden = _hidden(start, seen, window, query.device)
            scores = scores.masked_fill(hidden.repeat(query.shape[1] // count, 1), -torch.inf)
        return torch.softmax(scores, dim=-1) @ self._arena.values[layer][slot, :, seen].float()


def capped(scores: torch.Tensor, cap: float) -> torch.Tensor:
    """Kept softly between -cap and cap; 0 leaves them (Gemma 2, 2024, §2)."""
    return torch.tanh(scores / cap).mul_(cap) if cap else scores


def _hidden(start: int, seen: slice, window: int, device: torch.device) -> torch.Tensor:
    """What each row from position `start` on does not see: later positions, and those that its
    window has left behind."""
    rows = torch.arange(start, seen.stop, device=device)[:, None]
    keys = torch.arange(seen.start, seen.stop, device=device)[None]
    found = keys > rows
    return found | (keys <= rows - window) if window else found


def rotation(positions: torch.Tensor, rates: torch.Tensor) -> Rotation:
    """Of each position: cosines and sines of its angles."""
    angles = positions.double()[:, None] * rates
    return angles.cos().float(), angles.sin().float()


def rotate(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Heads (rows, heads, width), turned by their positions."""
    cosine, sine = (part[:, None, :] for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _causal(span: Span, device: torch.device) -> torch.Tensor | None:
    """The mask of a prefill chunk; None where plain causality will do."""
    if span.start == 0:
        return None
    allowed = torch.ones(span.count, span.end, dtype=torch.bool).tril_(span.start)
    return torch.zeros(span.count, span.end).masked_fill_(~allowed, -torch.inf).to(device)


def _partition(narrow: list[tuple[int, Span]]) -> list[list[tuple[int, Span]]]:
    """Neighbouring slots, cut where padding to the longest would waste too much."""
    parts: list[list[tuple[int, Span]]] = []
    for item in sorted(narrow, key=lambda one: one[1].slot):
        if parts:
            trial = [*parts[-1], item]
            width = trial[-1][1].slot - trial[0][1].slot + 1
            cost = width * max(one.end for _, one in trial) * max(one.count for _, one in trial)
            useful = sum(one.end * one.count for _, one in trial)
            if cost <= _WASTE * useful + 2048:
                parts[-1] = trial
                continue
        parts.append([item])
    return parts


class _Group:
    """Sequences in slots `first` to `last`, each with a few tokens, attended to in one call."""

    def __init__(
        self, members: list[tuple[int, Span]], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._first = members[0][1].slot
        self._last = members[-1][1].slot
        self._width = max(span.count for _, span in members)
        self._end = max(span.end for _, span in members)
        self._dtype = dtype
        slots = self._last - self._first + 1
        gather = torch.zeros(slots, self._width, dtype=torch.long)
        limits = torch.ones(slots, self._width, dtype=torch.long)  # unused rows see position 0
        used = torch.zeros(slots, self._width, dtype=torch.bool)
        for row, span in members:
            at = span.slot - self._first
            steps = torch.arange(span.count)
            gather[at, : span.count] = row + steps
            limits[at, : span.count] = span.start + 1 + steps
            used[at, : span.count] = True
        self._gather, self._targets = gather.to(device), gather[used].to(device)
        # Numbers of rows, not a mask: how many they are is known without asking the device.
        self._used = used.flatten().nonzero().flatten().to(device)
        hidden = torch.arange(self._end)[None, None, :] >= limits[:, :, None]
        mask = torch.zeros(slots, self._width, self._end, dtype=dtype)
        self._mask = mask.masked_fill_(hidden, -torch.inf).to(device)
        self._plain = not bool(hidden.any())

    def attend(
        self, keys: torch.Tensor, values: torch.Tensor, query: torch.Tensor, found: torch.Tensor
    ) -> None:
        heads, width = query.shape[1:]
        kv_heads = keys.shape[1]
        group = heads // kv_heads
        slots, tokens = self._gather.shape
        # The query heads that share a KV head become rows of one product.
        folded = (
            query.to(self._dtype)[self._gather]
            .view(slots, tokens, kv_heads, group, width)
            .permute(0, 2, 1, 3, 4)
            .reshape(slots, kv_heads, tokens * group, width)
        )
        mask = None
        if not self._plain:
            mask = self._mask[:, None, :, None, :].expand(-1, -1, -1, group, -1)
            mask = mask.reshape(slots, 1, tokens * group, self._end)
        mixed = F.scaled_dot_product_attention(
            folded,
            keys[self._first : self._last + 1, :, : self._end],
            values[self._first : self._last + 1, :, : self._end],
            attn_mask=mask,
        )
        back = mixed.view(slots, kv_heads, tokens, group, width).permute(0, 2, 1, 3, 4)
        rows = back.reshape(slots * tokens, heads, width)
        found[self._targets] = rows[self._used].float()
