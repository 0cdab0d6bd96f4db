"""Whether a tensor still holds what it held: what was made of it beforehand is out of date otherwise."""

from __future__ import annotations

from torch import Tensor


def version(tensor: Tensor) -> int:
    """How often PyTorch saw the tensor change.

    Changes made through `.data` are not seen. Tensors that were made in inference mode are not counted: always 0.
    """
    return 0 if tensor.is_inference() else tensor._version


def place_and_version(tensor: Tensor) -> tuple[int, int]:
    """Address of its values, and `version`."""
    return tensor.data_ptr(), version(tensor)
