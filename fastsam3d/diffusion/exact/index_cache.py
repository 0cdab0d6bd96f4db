"""Exact saving: builds the voxel tables of an object once, for the generator and the decoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastsam3d.diffusion.exact.tensor_versions import version
from fastsam3d.diffusion.sites import Forward


class IndexCache:
    """One index object for the voxels of an object, shared by everything that builds tables of them."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, int, Any] | None = None  # voxels, their version, index

    def clear(self) -> None:
        """Releases what was kept: the object is done."""
        self._kept = None

    def wrap(self, original: Forward) -> Forward:
        """The maker of index objects, which gives the same one for the same voxels."""

        def make_index(coords: Tensor) -> Any:
            if self._kept is None or not _same(self._kept[0], self._kept[1], coords):
                self._kept = (coords, version(coords), original(coords))
            return self._kept[2]

        return make_index


def _same(known: Tensor, known_version: int, coords: Tensor) -> bool:
    if version(known) != known_version:
        return False  # somebody has written to it
    # Moving coordinates to the device makes a new tensor at each call; comparing them is cheap beside building tables.
    equal_place = known.shape == coords.shape and known.device == coords.device
    return known is coords or (equal_place and torch.equal(known, coords))
