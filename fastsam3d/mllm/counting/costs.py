"""Operations and memory of a decoder, by formula. A multiplication with its addition counts as 2 operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Sizes of a decoder with gated feed-forward layers.

    Attributes:
        layers: number of layers.
        width: width of the hidden states.
        heads, key_heads, head_size: of the attention.
        feed_forward: inner width of the feed-forward layers.
        vocabulary: number of tokens that the head scores.
        element_bytes: bytes of a number in the cache.
    """

    layers: int
    width: int
    heads: int
    key_heads: int
    head_size: int
    feed_forward: int
    vocabulary: int
    element_bytes: int = 2

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token in one layer."""
        return 2 * self.key_heads * self.head_size * self.element_bytes

    def layer_flops(self, tokens: int) -> float:
        """Operations of one layer that reads `tokens` tokens at once, with causal attention."""
        queries, keys = self.heads * self.head_size, self.key_heads * self.head_size
        weights = self.width * (2 * queries + 2 * keys) + 3 * self.width * self.feed_forward
        pairs = tokens * (tokens + 1) / 2
        return 2.0 * weights * tokens + 4.0 * queries * pairs

    def prefill_flops(self, tokens: Sequence[int]) -> float:
        """Operations of reading one prompt, with the head on its last token.

        Args:
            tokens: number of tokens that each layer sees.
        """
        return sum(map(self.layer_flops, tokens)) + 2.0 * self.width * self.vocabulary

    def cache_bytes(self, tokens: Sequence[int]) -> int:
        """Bytes of the keys and values of one prompt.

        Args:
            tokens: number of tokens that each layer holds.
        """
        return self.cache_bytes_per_token * sum(tokens)
