"""The native pipeline between its two stages: its structures, and merged voxels on their way to the decoders."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.hosts.shared.between_stages import BetweenStages, Merge
from fastsam3d.diffusion.hosts.shared.put_back import to_fine
from fastsam3d.diffusion.sites import Forward
from fastsam3d.diffusion.vocabulary import MergedVoxels, VoxelPolicy, VoxelSet

if TYPE_CHECKING:
    from fastsam3d.sam3d.pipeline.reconstruction import SparseStructure


class NativeBetweenStages(BetweenStages):
    """The object in work of a native pipeline. Its latents are plain features; the decoders get the structure too."""

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self._pipeline = pipeline

    def attach(self, patches: Patches, policy: VoxelPolicy | None) -> None:
        """Makes picture and voxels known; with a voxel policy, also lets it change them."""
        patches.replace(self._pipeline, "sample_slat", self.sampling(policy))
        if policy is not None:
            patches.replace(self._pipeline, "colored_by_picture", self._colored)
            patches.replace(self._pipeline, "decode_slat", self._decoded)
            patches.replace(self._pipeline, "preprocess", self._seen)

    def voxels(self, structure: SparseStructure) -> VoxelSet | None:
        """The object's `VoxelSet`, with every tensor but the picture on the pipeline's device."""
        # A grid that the pipeline halved itself is coarse already, and the logits do not belong to its voxels.
        if getattr(structure, "downsample_factor", 1) != 1:
            return None
        image, mask = self.picture or (None, None)
        device = self._pipeline.device
        return VoxelSet(
            coords=structure.coords.to(device),
            resolution=int(structure.logits.shape[-1]),
            interior_coords=structure.interior_coords.to(device),
            logits=structure.logits.to(device),
            image=image,
            mask=mask,
        )

    def replaced(self, structure: SparseStructure, merged: MergedVoxels) -> SparseStructure:
        changes: dict[str, Any] = {"coords": merged.coords, "interior_coords": merged.interior_coords}
        if merged.logits is not None:
            changes["logits"] = merged.logits
        return dataclasses.replace(structure, **changes)

    def key(self, structure: SparseStructure, latents: Tensor) -> Tensor:
        return structure.coords

    def _merge_of(self, feats: Tensor, structure: SparseStructure) -> Merge | None:
        merge = self.merge(structure.coords)
        # Features of another length were sampled on other voxels.
        return None if merge is None or len(feats) != len(merge.voxels.coords) else merge

    def _decoded(self, original: Forward) -> Forward:
        def decode_slat(feats: Tensor, structure: SparseStructure, *args: Any, **kwargs: Any) -> Any:
            merge = self._merge_of(feats, structure)
            if merge is None:
                return original(feats, structure, *args, **kwargs)
            result = original(feats, merge.given, *args, **kwargs)
            return {name: to_fine(value, merge.voxels.lattice) for name, value in result.items()}

        return decode_slat

    def _colored(self, original: Forward) -> Forward:
        def colored_by_picture(feats: Tensor, structure: SparseStructure, *args: Any, **kwargs: Any) -> Any:
            # The colours depend on positions in the object's box, which merging does not change.
            merge = self._merge_of(feats, structure)
            return original(feats, structure if merge is None else merge.given, *args, **kwargs)

        return colored_by_picture

    def _seen(self, original: Forward) -> Forward:
        def preprocess(image: Any, mask: Any, *args: Any, **kwargs: Any) -> Any:
            from fastsam3d.basics.pixels import as_image, as_mask

            inputs = original(image, mask, *args, **kwargs)
            # After the original, which refuses unusable pictures and masks.
            pixels = as_image(image)
            self.picture = (torch.from_numpy(pixels), torch.from_numpy(as_mask(mask, *pixels.shape[:2])))
            return inputs

        return preprocess
