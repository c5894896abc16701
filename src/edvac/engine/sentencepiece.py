"""SentencePiece's BPE: the neighbours whose union has the best score are joined, until none can be.

The rule is that of Kudo and Richardson, "SentencePiece" (2018, §3), with the byte fallback of
Llama's vocabularies: a character that is no token becomes its UTF-8 bytes. A text is cut first
where no token reaches across, which changes nothing, for joins happen inside tokens; the cuts make
words that come again and can be remembered. It knows no special tokens.
"""

from __future__ import annotations

import heapq
from functools import lru_cache
from typing import Final

SPACE: Final = "▁"  # how pieces spell a blank
_REMEMBERED: Final = 65_536  # words
_LONGEST: Final = 64  # characters of a word worth remembering


class SentencePieces:
    """One vocabulary's joins.

    Args:
        pieces: id and score of every piece that text may become.
        by_byte: ids of the 256 byte tokens, or an empty list.
        unknown: what stands for a character that is neither; None drops it.
    """

    def __init__(
        self, pieces: dict[str, tuple[int, float]], by_byte: list[int], unknown: int | None
    ) -> None:
        self._pieces, self._by_byte, self._unknown = pieces, by_byte, unknown
        self._joints = {piece[at : at + 2] for piece in pieces for at in range(len(piece) - 1)}
        self._remembered = lru_cache(_REMEMBERED)(self._word)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text in which blanks are blanks."""
        text = text.replace(" ", SPACE)
        found: list[int] = []
        start = 0
        for at in range(1, len(text) + 1):
            if text[at - 1 : at + 1] not in self._joints:  # of one character only at the end
                word = text[start:at]
                found += self._remembered(word) if at - start <= _LONGEST else self._word(word)
                start = at
        return found

    def _word(self, word: str) -> tuple[int, ...]:
        parts: list[str] = list(word)
        before = list(range(-1, len(parts) - 1))
        after = [*range(1, len(parts)), -1]
        queue: list[tuple[float, int, int, int]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                joined = parts[left] + parts[right]
                known = self._pieces.get(joined)
                if known is not None:  # the best score first, then the leftmost
                    heapq.heappush(queue, (-known[1], left, right, len(joined)))

        for left in range(len(parts) - 1):
            offer(left, left + 1)
        while queue:
            _, left, right, length = heapq.heappop(queue)
            gone = not parts[left] or not parts[right]
            if gone or len(parts[left]) + len(parts[right]) != length:
                continue  # one of them has been joined with another since
            parts[left], parts[right] = parts[left] + parts[right], ""
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            offer(before[left], left)
            offer(left, after[left])
        return tuple(token for part in parts if part for token in self._tokens(part))

    def _tokens(self, part: str) -> list[int]:
        known = self._pieces.get(part)
        if known is not None:
            return [known[0]]
        if self._by_byte:
            return [self._by_byte[byte] for byte in part.encode()]
        return [] if self._unknown is None else [self._unknown]
