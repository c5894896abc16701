"""How blocks of float16 keys and values lie on disk: as they are, or in codes of 8 or 4 bits.

Codes hold 1.9 or 3.6 times as many tokens in the same bytes. What comes back is not what was put
there, so whoever asks for exactness is not given it (`edvac.engine.kv.tree`). A model's key bias is
taken off before and added after: its size would take all the codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch

from edvac.core.errors import ConfigError
from edvac.engine.kv.codecs import KVType, choices, kv_type_named

SAME: Final = "same"
DISK_TYPES: Final = (SAME, "int8", "int4")
_LARGEST: Final = 65504.0  # of float16
_AT_ONCE: Final = 32767  # numbers; torch shares out more among threads that steps need


@dataclass(frozen=True, slots=True, eq=False)
class KeyBiases:
    """What a model adds to its keys before it turns them.

    Attributes:
        layers: (layers, kv heads, width), float32.
        rates: rotary frequencies, (width / 2), float64.
    """

    layers: torch.Tensor
    rates: torch.Tensor

    def turned(self, first: int, tokens: int) -> torch.Tensor:
        """Of consecutive positions: (layers, 1, heads, tokens, width)."""
        angles = torch.arange(first, first + tokens).double()[:, None] * self.rates
        cosine, sine = angles.cos().float(), angles.sin().float()
        one, two = self.layers[:, None, :, None].chunk(2, dim=-1)
        return torch.cat([one * cosine - two * sine, two * cosine + one * sine], dim=-1)


class BlockCodec:
    """Blocks to codes and back.

    Args:
        kv: what the codes are.
        width: of a head.
        biases: of the model's keys; None where it has none that can be taken off.
    """

    def __init__(self, kv: KVType, width: int, biases: KeyBiases | None = None) -> None:
        self._kv, self._width, self._biases = kv, width, biases
        self.name = f"{kv} without bias" if biases is not None else f"{kv}"

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the codes, uint8, of a block of this shape."""
        return (*shape[:-1], self._kv.row_items(self._width))

    def encode(self, contents: torch.Tensor, first: int) -> torch.Tensor:
        """Codes of a block, (layers, 1, heads, tokens, 2 x width) float16, whose first token stands
        at position `first`."""
        found = torch.empty(self.shape(tuple(contents.shape)), dtype=torch.uint8)
        for part, bias in self._parts(contents, first):
            key, value = contents[part].float().split(self._width, dim=-1)
            keys = self._kv.keys.encode(key if bias is None else key - bias)
            found[part] = torch.cat([keys, self._kv.values.encode(value)], dim=-1)
        return found

    def decode(self, coded: torch.Tensor, first: int, target: torch.Tensor) -> None:
        """Fill a block with what its codes say."""
        size = self._kv.keys.row_bytes(self._width)
        for part, bias in self._parts(target, first):
            key = self._kv.keys.decode(coded[part][..., :size])
            value = self._kv.values.decode(coded[part][..., size:])
            found = torch.cat([key if bias is None else key + bias, value], dim=-1)
            target[part] = found.clamp_(-_LARGEST, _LARGEST).half()

    def _parts(
        self, block: torch.Tensor, first: int
    ) -> Iterator[tuple[slice, torch.Tensor | None]]:
        """Layers, as many as one thread works on, with the bias of their keys."""
        step = max(1, _AT_ONCE // max(1, block[0].numel()))
        turned = None if self._biases is None else self._biases.turned(first, block.shape[3])
        for start in range(0, len(block), step):
            part = slice(start, start + step)
            yield part, None if turned is None else turned[part]


def disk_type_named(name: str, width: int) -> KVType | None:
    """The type of this name for heads of this width; None where blocks stay as they are.

    Raises:
        ConfigError: there is none.
    """
    if name == SAME:
        return None
    if name not in DISK_TYPES:
        raise ConfigError("kv_disk_type_unknown", f"keys and values cannot lie on disk as {name!r}",
                          *choices(name, DISK_TYPES, "kv_disk_type"))  # fmt: skip
    return kv_type_named(name, width)
