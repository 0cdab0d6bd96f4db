"""Late interaction: how well each token of an object matches the words of the prompt.

A token matches the words as well as its largest cosine with any word. The idea is that of ColBERT (Khattab and Zaharia,
SIGIR 2020). Where a prompt names an object by its identifier, the cosine of the token of this identifier is 1.
Shapes: B prompts, N objects, g tokens of an object, T words, D width of the embeddings.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

_NO_MATCH = -2.0
"""Less than any cosine."""


class WordMatching(nn.Module):
    """Compares tokens of objects with words.

    An object gets these numbers. For each of its tokens: the largest cosine with the embedding of a word, and the
    largest cosine with a learned linear map of the embedding of a word. For each pair of its tokens: the product of
    their first cosines. Then all these numbers again, each minus its largest value in the scene: 0 means that no object
    matches better.

    Args:
        embedding: D.
        group_size: g.
        rank: rank of the learned map.

    Attributes:
        size: how many numbers an object gets.
    """

    def __init__(self, embedding: int, group_size: int, rank: int) -> None:
        super().__init__()
        self._group_size = group_size
        pairs = list(combinations(range(group_size), 2))
        self._first, self._second = [one for one, _ in pairs], [other for _, other in pairs]
        self.size = 2 * (2 * group_size + len(pairs))
        self.to_rank, self.from_rank = nn.Linear(embedding, rank, bias=False), nn.Linear(rank, embedding, bias=False)

    def forward(self, visual: Tensor, text: Tensor, present: Tensor, text_present: Tensor) -> Tensor:
        """Computes how well objects match the words, (B, N, size).

        Args:
            visual: (B, N, g, D); zeros where there is no object.
            text: (B, T, D); zeros where there is no word.
            present: (B, N) bool.
            text_present: (B, T) bool.
        """
        tokens = visual.flatten(1, 2)
        wanted = torch.cat([of_length(text, 1.0), of_length(self.from_rank(self.to_rank(text)), 1.0)], dim=1)
        # Words are the rows, so that the maximum over them runs along memory. Division by a token's length, which is
        # the same for all words, comes after it.
        products = (wanted @ tokens.transpose(1, 2)).unflatten(1, (2, -1))
        best = products.masked_fill(~text_present[:, None, :, None], float("-inf")).amax(2)
        best = (best / _lengths(tokens)[..., 0][:, None]).clamp(min=_NO_MATCH)
        best = best.unflatten(-1, (-1, self._group_size)).transpose(1, 2)  # B, N, 2, g
        parts = [best.flatten(2)]
        if self._first:
            parts.append(best[:, :, 0, self._first] * best[:, :, 0, self._second])
        features = torch.cat(parts, dim=-1).masked_fill(~present[..., None], _NO_MATCH)
        return torch.cat([features, features - features.amax(1, keepdim=True)], dim=-1)


def of_length(vectors: Tensor, length: float) -> Tensor:
    """Scales vectors to a length; zeros stay zeros."""
    return vectors / _lengths(vectors).mul(1.0 / length)


def _lengths(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-8)
