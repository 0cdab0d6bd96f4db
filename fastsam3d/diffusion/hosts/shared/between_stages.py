"""What a host knows of an object between its two stages, and the merged voxels that a policy puts in their place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fastsam3d.diffusion.sites import Forward
from fastsam3d.diffusion.vocabulary import MergedVoxels, VoxelPolicy, VoxelSet


@dataclass(frozen=True)
class Merge:
    """Voxels of one object that were merged.

    Attributes:
        voxels: the merged voxels and the way back.
        given: what the latent stage was given in the place of the pipeline's own structure.
    """

    voxels: MergedVoxels
    given: Any


class BetweenStages(ABC):
    """Picture and voxels of the object in work. A subclass knows the form in which one pipeline hands them on.

    *Structure* is what the pipeline passes to its latent stage: voxels `[N, 4]`, or an object that holds them.

    Attributes:
        logits: occupancy logits of the voxels that the latent stage works on, while it runs; None where unknown.
        picture: the picture `[H, W, 3]` and the object in it, bool `[H, W]`; None where unknown.
    """

    def __init__(self) -> None:
        self.logits: Tensor | None = None
        self.picture: tuple[Tensor, Tensor] | None = None
        # Weak, by a tensor that the pipeline hands on to its decoders: an entry lives as long as the object.
        self._merges: Any = WeakTensorKeyDictionary()

    @abstractmethod
    def voxels(self, structure: Any) -> VoxelSet | None:
        """The voxels of a structure as techniques see them; None where they cannot be merged."""

    @abstractmethod
    def replaced(self, structure: Any, merged: MergedVoxels) -> Any:
        """A structure with the merged voxels in the place of its own."""

    @abstractmethod
    def key(self, structure: Any, latents: Any) -> Tensor:
        """Of the structure or its sampled latents, the tensor that reaches the decoders unchanged."""

    def ended(self) -> None:
        """Forgets what belongs to an object whose latent stage has ended, also by an exception."""
        self.logits = None

    def merge(self, key: Tensor) -> Merge | None:
        """The merge of an object by its `key`; None where its voxels are its own."""
        return self._merges.get(key)

    def sampling(self, policy: VoxelPolicy | None) -> Callable[[Forward], Forward]:
        """Wraps `sample_slat(condition, structure, ...)`: the policy may change the voxels of the structure."""

        def make(original: Forward) -> Forward:
            def sample_slat(condition: Any, structure: Any, *args: Any, **kwargs: Any) -> Any:
                voxels = self.voxels(structure)
                merged = None if policy is None or voxels is None else policy.reduce(voxels)
                given = structure if merged is None else self.replaced(structure, merged)
                known = voxels if merged is None else merged
                self.logits = None if known is None else known.logits
                try:
                    latents = original(condition, given, *args, **kwargs)
                finally:
                    self.ended()
                key = self.key(structure, latents)
                self._merges.pop(key, None)
                if merged is not None:
                    self._merges[key] = Merge(merged, given)
                return latents

            return sample_slat

        return make
