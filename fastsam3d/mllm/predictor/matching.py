"""Late interaction: how well each token of an object matches the words of the prompt.

The largest cosine of a token with any word says that the word speaks of it. The idea is that of ColBERT (Khattab and
Zaharia, SIGIR 2020). Where a prompt names an object by its identifier, the cosine of the identifier's token is 1.
Shapes: B prompts, N objects, g tokens of an object, T words, D width of the embeddings, W width of the predictor.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional

_NO_MATCH = -2.0
"""Less than any cosine."""


class WordMatching(nn.Module):
    """Turns cosines between tokens of objects and words into a vector for each object.

    There are, for each token of the group: the largest and the second largest cosine of the embeddings as they are, and
    the largest of learned projections of them; and the products of the first for all pairs of tokens. Each comes a
    second time less the largest of its scene, so that it tells whether the object matches best.

    Args:
        embedding: D.
        group_size: g.
        projection: width of the learned projections.
        width: W.
    """

    def __init__(self, embedding: int, group_size: int, projection: int, width: int) -> None:
        super().__init__()
        self._group_size = group_size
        pairs = list(combinations(range(group_size), 2))
        self._first, self._second = [one for one, _ in pairs], [other for _, other in pairs]
        self.visual_projection = nn.Linear(embedding, projection, bias=False)
        self.text_projection = nn.Linear(embedding, projection, bias=False)
        self.mixing = nn.Sequential(
            nn.Linear(2 * (3 * group_size + len(pairs)), width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, visual: Tensor, text: Tensor, present: Tensor, text_present: Tensor) -> Tensor:
        """Vectors of the objects, (B, N, W).

        Args:
            visual: (B, N, g, D), each of length sqrt(D), so that its numbers have variance 1.
            text: (B, T, D) alike; zeros where there is no word.
            present: (B, N) bool.
            text_present: (B, T) bool.
        """
        batch, objects = present.shape
        tokens, words = visual.flatten(1, 2), text.transpose(1, 2)
        # Absent words are zeros, so that their sums below are 0 before this is added.
        nothing = torch.zeros_like(text[:, None, :, 0]).masked_fill_(~text_present[:, None], _NO_MATCH)
        cosines = torch.baddbmm(nothing, tokens, words, alpha=1.0 / text.shape[-1])
        if cosines.shape[-1] < 2:
            cosines = functional.pad(cosines, (0, 1), value=_NO_MATCH)
        best = cosines.topk(2, dim=-1).values.view(batch, objects, self._group_size, 2)
        ours, theirs = self.visual_projection(tokens), of_length(self.text_projection(text), 1.0)
        learned = torch.baddbmm(nothing, of_length(ours, 1.0), theirs.transpose(1, 2)).amax(-1)
        parts = [best.flatten(2), learned.view(batch, objects, -1)]
        if self._first:
            parts.append(best[:, :, self._first, 0] * best[:, :, self._second, 0])
        features = torch.cat(parts, dim=-1)
        largest = features.masked_fill(~present[..., None], -1e4).amax(1, keepdim=True)
        return self.mixing(torch.cat([features, features - largest], dim=-1))


def of_length(vectors: Tensor, length: float) -> Tensor:
    """Vectors scaled to a length; zeros stay zeros."""
    return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-8).mul(1.0 / length)
