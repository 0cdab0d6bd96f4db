"""Detects in-place writes to a tensor, so that values that were made from it can be dropped."""

from __future__ import annotations

import torch
from torch import Tensor


def version(tensor: Tensor) -> int:
    """Counts how often PyTorch saw the tensor change.

    Changes made through `.data` are not seen. Tensors that were made in inference mode are not counted: always 0.
    """
    return 0 if tensor.is_inference() else tensor._version


def place_and_version(tensor: Tensor) -> tuple[int, int]:
    """Address of its values, and `version`."""
    return tensor.data_ptr(), version(tensor)


def written_to(place: Tensor | None, values: Tensor) -> Tensor:
    """Copies `values` to the address of `place` if they fit there; returns the tensor that holds them.

    Args:
        place: a tensor that somebody reads at its address, or None.
        values: what it shall hold.
    """
    if place is None or (place.shape, place.dtype, place.device) != (values.shape, values.dtype, values.device):
        return values
    if place.is_inference() and not torch.is_inference_mode_enabled():
        return values  # PyTorch forbids writing to such a tensor outside the mode that it was made in
    return place.copy_(values)
