"""The native pipeline between its two stages: what is known of an object there, and the way of merged voxels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.hosts.native.sites import to_fine
from fastsam3d.diffusion.vocabulary import VoxelSet


class BetweenStages:
    """Picture and voxels of the object in work, and the merged voxels that a policy puts in their place.

    Attributes:
        logits: occupancy logits of the voxels that the latent stage works on, while it does.
    """

    def __init__(self) -> None:
        self.logits: Tensor | None = None
        self._picture: tuple[Tensor, Tensor] | None = None
        # By the voxels of the structure that the pipeline passes on to the decoder, which are not the merged ones.
        self._merged: Any = WeakTensorKeyDictionary()

    def attach(self, patches: Patches, pipeline: Any, policy: Any | None) -> None:
        """Makes picture and voxels known; with a voxel policy, also lets it change them."""

        def sampled(original: Callable[..., Any]) -> Callable[..., Any]:
            def sample_slat(condition: Tensor, structure: Any, *args: Any, **kwargs: Any) -> Any:
                voxels = self._voxels(structure, pipeline.device)
                merged = None if policy is None or voxels is None else policy.reduce(voxels)
                self._merged.pop(structure.coords, None)
                if merged is not None:
                    changes = {"coords": merged.coords, "interior_coords": merged.interior_coords}
                    if merged.logits is not None:
                        changes["logits"] = merged.logits
                    reduced = dataclasses.replace(structure, **changes)
                    self._merged[structure.coords] = (merged, reduced)
                    structure, voxels = reduced, self._voxels(reduced, pipeline.device)
                self.logits = None if voxels is None else voxels.logits
                try:
                    return original(condition, structure, *args, **kwargs)
                finally:
                    self.logits = None

            return sample_slat

        def decoded(original: Callable[..., Any]) -> Callable[..., Any]:
            def decode_slat(feats: Tensor, structure: Any, *args: Any, **kwargs: Any) -> Any:
                merged, reduced = self._merged.get(structure.coords, (None, None))
                if merged is None or len(feats) != len(merged.coords):
                    return original(feats, structure, *args, **kwargs)
                result = original(feats, reduced, *args, **kwargs)
                return {name: to_fine(value, merged.lattice) for name, value in result.items()}

            return decode_slat

        def colored(original: Callable[..., Any]) -> Callable[..., Any]:
            def colored_by_picture(feats: Tensor, structure: Any, *args: Any, **kwargs: Any) -> Any:
                # Where they are in the object's box is what counts, and merging does not change that.
                merged, reduced = self._merged.get(structure.coords, (None, None))
                same = merged is None or len(feats) != len(merged.coords)
                return original(feats, structure if same else reduced, *args, **kwargs)

            return colored_by_picture

        def seen(original: Callable[..., Any]) -> Callable[..., Any]:
            def preprocess(image: Any, mask: Any, *args: Any, **kwargs: Any) -> Any:
                from fastsam3d.basics.pixels import as_image, as_mask

                inputs = original(image, mask, *args, **kwargs)
                # Only now: the pipeline has found picture and mask to be usable.
                pixels = as_image(image)
                self._picture = (torch.from_numpy(pixels), torch.from_numpy(as_mask(mask, *pixels.shape[:2])))
                return inputs

            return preprocess

        patches.replace(pipeline, "sample_slat", sampled)
        if policy is not None:
            patches.replace(pipeline, "colored_by_picture", colored)
            patches.replace(pipeline, "decode_slat", decoded)
            patches.replace(pipeline, "preprocess", seen)

    def _voxels(self, structure: Any, device: torch.device) -> VoxelSet | None:
        """The object as techniques see it, on the device whichever part of it somebody has moved."""
        # A grid that the pipeline halved itself is coarse already, and the logits do not belong to its voxels.
        if getattr(structure, "downsample_factor", 1) != 1:
            return None
        image, mask = self._picture or (None, None)
        return VoxelSet(
            coords=structure.coords.to(device),
            resolution=int(structure.logits.shape[-1]),
            interior_coords=structure.interior_coords.to(device),
            logits=structure.logits.to(device),
            image=image,
            mask=mask,
        )
