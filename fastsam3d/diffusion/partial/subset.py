"""Places the values of some tokens among zeros for the others."""

from __future__ import annotations

from torch import Tensor

from fastsam3d.diffusion.vocabulary import LATENT, SHAPE


def spread(values: dict[str, Tensor], x: dict[str, Tensor], subset: Tensor) -> dict[str, Tensor]:
    """Values of a subset among zeros for the other tokens; layout stays as it is.

    Args:
        values: velocity, of the subset alone or of all tokens.
        x: the whole state, `[1, T, C]` by modality.
        subset: tokens of the subset `[A]`.
    """
    name = LATENT if LATENT in x else SHAPE
    value = values[name]
    chosen = value if value.shape[1] == len(subset) else value.index_select(1, subset)
    whole = chosen.new_zeros(x[name].shape).index_copy(1, subset, chosen)
    return {**values, name: whole}
