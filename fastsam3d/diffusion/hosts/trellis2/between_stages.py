"""State of one object between the stages of TRELLIS.2: logits, picture, and voxels that were merged."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from fastsam3d.diffusion.hosts.shared.put_back import to_fine
from fastsam3d.diffusion.hosts.shared.signatures import named_arguments
from fastsam3d.diffusion.sites import Forward
from fastsam3d.diffusion.vocabulary import VoxelPolicy, VoxelSet, WayBack


class BetweenStages:
    """The object in work.

    The structure decoder gives logits on a grid of 64 voxels a side. Where the pipeline asks for 32, it takes the
    largest of each 2 x 2 x 2; so do the logits here, whose positive entries are then the voxels.

    Attributes:
        picture: the picture `[H, W, 3]` and the object in it, bool `[H, W]`; None where unknown.
        keeps_voxels: a result of the run cannot be mapped back to the fine grid, so voxels are not merged.
    """

    def __init__(self) -> None:
        self.picture: tuple[Tensor, Tensor] | None = None
        self.keeps_voxels = False
        self._decoded: Tensor | None = None
        self._known: tuple[Tensor, int, Tensor | None] | None = None  # voxels, side of the grid, logits
        self._merged: tuple[Tensor, Tensor | None] | None = None  # merged voxels of the run, logits
        self._merges: Any = WeakTensorKeyDictionary()  # by the voxels of sampled latents

    def logits_of(self, coords: Tensor) -> Tensor | None:
        """Logits `[1, 1, R, R, R]` that these voxels came from; None where they are not known."""
        for known, logits in (entry for entry in (self._merged, self._known and self._known[::2]) if entry):
            if known is coords or (known.shape == coords.shape and torch.equal(known, coords.to(known.device))):
                return logits
        return None

    def ended(self) -> None:
        """Deletes the state of the object. Merged voxels can still be decoded while their latents exist."""
        self._decoded = self._known = self._merged = None

    def decoded_structure(self, original: Forward) -> Forward:
        """Wraps the structure decoder: keeps its logits."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            self._decoded = original(*args, **kwargs)
            return self._decoded

        return forward

    def sampled_structure(self, signature: inspect.Signature) -> Callable[[Forward], Forward]:
        """Wraps `sample_sparse_structure`: keeps its voxels, and the logits of the requested grid."""

        def make(original: Forward) -> Forward:
            def sample_sparse_structure(*args: Any, **kwargs: Any) -> Any:
                self.ended()
                resolution = int(named_arguments(signature, args, kwargs)["resolution"])
                coords = original(*args, **kwargs)
                logits, self._decoded = self._decoded, None
                self._known = coords, resolution, _pooled(logits, resolution)
                return coords

            return sample_sparse_structure

        return make

    def sampling(self, policy: VoxelPolicy, signature: inspect.Signature) -> Callable[[Forward], Forward]:
        """Wraps a method that samples the shape on voxels `coords`: the policy may change them."""

        def make(original: Forward) -> Forward:
            def sample(*args: Any, **kwargs: Any) -> Any:
                call = signature.bind(*args, **kwargs)
                voxels = None if self.keeps_voxels else self._voxels(call.arguments["coords"])
                merged = None if voxels is None else policy.reduce(voxels)
                if merged is None:
                    return original(*args, **kwargs)
                call.arguments["coords"] = merged.coords
                self._merged = merged.coords, merged.logits
                result = original(*call.args, **call.kwargs)
                # A cascade returns the latents and their resolution. Arithmetic on them hands on their coordinates.
                latents = result[0] if isinstance(result, tuple) else result
                self._merges[latents.coords] = merged.lattice
                return result

            return sample

        return make

    def decoded(self, original: Forward) -> Forward:
        """Wraps `decode_latent(shape latents, ...)`: maps meshes and their voxels back to the fine grid."""

        def decode_latent(shape_slat: Any, *args: Any, **kwargs: Any) -> Any:
            lattice = self._merges.get(shape_slat.coords)
            meshes = original(shape_slat, *args, **kwargs)
            return meshes if lattice is None else [mesh_to_fine(mesh, lattice) for mesh in meshes]

        return decode_latent

    def _voxels(self, coords: Tensor) -> VoxelSet | None:
        """The voxels as techniques see them; None for voxels that the caller gave, or for several objects."""
        known = self._known
        if known is None or known[0] is not coords or len(coords) == 0 or int(coords[:, 0].max()) > 0:
            return None
        image, mask = self.picture or (None, None)
        return VoxelSet(coords, known[1], logits=known[2], image=image, mask=mask)


def mesh_to_fine(mesh: Any, lattice: WayBack) -> Any:
    """Restores the place and size that a mesh had before its voxels were merged.

    Args:
        mesh: has `vertices [V, 3]`, and perhaps `origin [3]` and `voxel_size` of the voxels that colour it.
        lattice: maps merged voxels back to the fine grid.
    """
    mesh = to_fine(mesh, lattice)
    if hasattr(mesh, "voxel_size"):
        origin = torch.as_tensor(mesh.origin, dtype=torch.float32)
        mesh.origin = lattice.object_points_to_fine(origin[None])[0]
        mesh.voxel_size = mesh.voxel_size * lattice.factor
    return mesh


def _pooled(logits: Tensor | None, resolution: int) -> Tensor | None:
    if logits is None or logits.shape[0] != 1 or logits.shape[-1] % resolution:
        return None
    ratio = logits.shape[-1] // resolution
    logits = logits.float()
    return logits if ratio == 1 else F.max_pool3d(logits, ratio, ratio, 0)
