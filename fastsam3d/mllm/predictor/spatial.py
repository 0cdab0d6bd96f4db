"""Spatial attention: five features of the places of each pair of objects, and a bias of attention that they give.

It is the spatial attention of Fast3D (ACM MM 2025), which is that of ViL3DRel (Chen et al., NeurIPS 2022).
Shapes: B prompts, N objects, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

PAIR_FEATURES = 5
_TINY = 1e-10
_LOWEST = 1e-6
"""Smallest factor that the features of a pair can give to its attention."""
HIDDEN = -1e9
"""Added to attention logits of what is hidden. It is finite, so there is no NaN where everything is hidden."""


def pair_features(centres: Tensor) -> Tensor:
    """Computes a constant 1 and five features of distance and direction for all pairs of objects.

    With delta = centre i - centre j: d = |delta|, d2 = |(dx, dy)|. The features are d / (largest d of the scene), dz/d,
    d2/d, dy/d2, dx/d2.

    Args:
        centres: (B, N, 3) metres. Padding objects count for the largest distance too. They do not change it if they
            are at the mean of the others.

    Returns:
        (B, N, 6, N), in the order [row i, feature, column j].
    """
    columns = centres.detach().transpose(1, 2)
    dx, dy, dz = (columns[..., None] - columns[:, :, None]).unbind(1)
    flat = (dx * dx).addcmul_(dy, dy).add_(_TINY)
    inverse = torch.addcmul(flat, dz, dz).rsqrt_()
    flat_inverse = flat.rsqrt()
    # Written in place: for a thousand objects each feature is a million numbers.
    batch, count = centres.shape[:2]
    pairs = flat.new_empty(batch, count, 1 + PAIR_FEATURES, count)
    pairs[:, :, 0] = 1.0
    nearest = inverse.amin((1, 2), keepdim=True)  # the inverse of the largest distance
    torch.div(nearest, inverse, out=pairs[:, :, 1])
    torch.mul(dz, inverse, out=pairs[:, :, 2])
    torch.mul(flat.sqrt_(), inverse, out=pairs[:, :, 3])
    torch.mul(dy, flat_inverse, out=pairs[:, :, 4])
    torch.mul(dx, flat_inverse, out=pairs[:, :, 5])
    return pairs


def spatial_bias(conditions: Tensor, pairs: Tensor, hidden: Tensor) -> Tensor:
    """Computes the bias that is added to attention logits: log(max(sigmoid(b + w . features), 1e-6)).

    Args:
        conditions: (B, N, H, 6): b and the five weights w of the row of each object, for each head.
        pairs: (B, N, 6, N), result of `pair_features`.
        hidden: (B, 1, 1, N), result of `hiding`: 0, or `HIDDEN` for objects that are not present.

    Returns:
        (B, H, N, N).
    """
    # On a CPU sigmoid and log are twice as fast as logsigmoid; in place they need no memory of their own.
    shares = conditions @ pairs
    if shares.requires_grad:
        return torch.sigmoid(shares).clamp(min=_LOWEST).log().transpose(1, 2) + hidden
    return shares.sigmoid_().clamp_(min=_LOWEST).log_().transpose(1, 2).add_(hidden)


def hiding(present: Tensor) -> Tensor:
    """Bias for attention logits that hides what is not present. (B, N) bool -> (B, 1, 1, N)."""
    return torch.zeros(present.shape, device=present.device).masked_fill(~present, HIDDEN)[:, None, None]
