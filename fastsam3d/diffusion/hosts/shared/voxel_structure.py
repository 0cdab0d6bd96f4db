"""SAM 3D Objects and TRELLIS between their two stages: voxels go from stage to stage as plain coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastsam3d.diffusion.hosts.shared.between_stages import BetweenStages
from fastsam3d.diffusion.hosts.shared.put_back import to_fine
from fastsam3d.diffusion.sites import Forward
from fastsam3d.diffusion.vocabulary import MergedVoxels, VoxelSet


@dataclass(frozen=True)
class Structure:
    """Result of the first stage, kept until the second has ended.

    Attributes:
        coords: voxels `[N, 4]` that the pipeline goes on with.
        interior: dropped voxels that are known to lie inside `[M, 4]`, or None.
        halved: the pipeline has put them on a coarser grid itself.
    """

    coords: Tensor
    interior: Tensor | None = None
    halved: bool = False


class VoxelsBetweenStages(BetweenStages):
    """The object in work of a pipeline whose latent stage is given voxels `[N, 4]` and returns a sparse tensor.

    Args:
        structure_of: the result of `sample_sparse_structure` as a `Structure`.
        resolution: voxels along the side of the latent stage's grid.
    """

    def __init__(self, structure_of: Callable[[Any], Structure], resolution: Callable[[], int]) -> None:
        super().__init__()
        self._structure_of, self._resolution = structure_of, resolution
        self._decoded_logits: Tensor | None = None
        self._structure: Structure | None = None

    def voxels(self, structure: Tensor) -> VoxelSet | None:
        coords = structure
        known, logits = self._structure, self._decoded_logits
        # Voxels that somebody edited, or brought along, have no logits and no inside.
        if known is None or not (known.coords is coords or _equal(known.coords, coords)):
            known, logits = Structure(coords), None
        several = len(coords) == 0 or int(coords[:, 0].max()) > 0
        # A grid that the pipeline halved itself is coarse already, and the logits do not belong to its voxels.
        if known.halved or several:
            return None
        resolution = self._resolution()
        if logits is not None and (logits.shape[0] != 1 or logits.shape[-1] != resolution):
            logits = None
        image, mask = self.picture or (None, None)
        return VoxelSet(
            coords=coords,
            resolution=resolution,
            interior_coords=known.interior,
            logits=None if logits is None else logits.float(),
            image=image,
            mask=mask,
        )

    def replaced(self, structure: Tensor, merged: MergedVoxels) -> Tensor:
        return merged.coords

    def key(self, structure: Tensor, latents: Any) -> Tensor:
        # Arithmetic on a sparse tensor hands on its coordinates.
        return latents.coords

    def ended(self) -> None:
        super().ended()
        self._structure = self._decoded_logits = None

    def decoded_structure(self, original: Forward) -> Forward:
        """Wraps the structure decoder: keeps its logits."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            self._decoded_logits = original(*args, **kwargs)
            return self._decoded_logits

        return forward

    def sampled_structure(self, original: Forward) -> Forward:
        """Wraps `sample_sparse_structure`: keeps its result."""

        def sample_sparse_structure(*args: Any, **kwargs: Any) -> Any:
            self._structure = self._decoded_logits = None
            result = original(*args, **kwargs)
            self._structure = self._structure_of(result)
            return result

        return sample_sparse_structure

    def decoded(self, original: Forward) -> Forward:
        """Wraps `decode_slat(latents, ...)`: puts what is decoded from merged voxels back."""

        def decode_slat(slat: Any, *args: Any, **kwargs: Any) -> Any:
            merge = self.merge(slat.coords)
            results = original(slat, *args, **kwargs)
            if merge is not None:
                for name, values in results.items():
                    results[name] = [to_fine(value, merge.voxels.lattice) for value in values]
            return results

        return decode_slat


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.device == b.device and torch.equal(a, b)
