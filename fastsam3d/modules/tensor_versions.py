"""Detects changes of a tensor's values, so that what was made from them can be dropped.

PyTorch counts in-place writes; a tensor that was given other memory, as by `parameter.data = values`, is told by its
address. Writes to the same memory through `.data` (`parameter.data.mul_(2)`) are seen by neither.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import increment_version


def version(tensor: Tensor) -> int:
    """Counts how often PyTorch saw the tensor change.

    Changes made through `.data` are not seen. Tensors that were made in inference mode are not counted: always 0.
    """
    return 0 if tensor.is_inference() else tensor._version


def place_and_version(tensor: Tensor) -> tuple[int, int]:
    """Address of its values, and `version`."""
    return tensor.data_ptr(), version(tensor)


def count_change(tensors: Iterable[Tensor]) -> None:
    """Counts a change of each tensor, for code that changes it through `.data`."""
    for tensor in tensors:
        if not tensor.is_inference():
            increment_version(tensor)


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
