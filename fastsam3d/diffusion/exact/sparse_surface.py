"""Exact saving: extracts the decoder's surface at the voxels instead of on dense grids."""

from __future__ import annotations

import copy
import sys
from typing import Any

from fastsam3d.acceleration.patching import instead_of
from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, PipelineTarget, register_saving


class SparseSurface:
    """Replaces a decoder's surface extraction on dense grids: extracts the same surface from the voxels alone.

    Vertices and faces come in another order. Everything else is asked of the extraction that it stands in for.

    Args:
        dense: the pipeline's extraction, with `res` voxels a side.
    """

    def __init__(self, dense: Any) -> None:
        self._dense = dense

    def __getattr__(self, name: str) -> Any:
        if name == "_dense":  # asked for while a copy is made, before there is one
            raise AttributeError(name)
        return getattr(self._dense, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Gives a copy of the pipeline the original extraction."""
        return copy.deepcopy(self._dense, memo)

    def __reduce__(self) -> Any:
        return instead_of, (self._dense,)

    def __call__(self, features: Any, training: bool = False) -> Any:
        """The mesh of one object's sparse tensor `[M, 101]`."""
        from fastsam3d.modules.flexicubes import CHANNELS, extract_surface

        if training or features.feats.shape[1] != CHANNELS:
            return self._dense(features, training=training)
        surface = extract_surface(features.coords[:, 1:], features.feats, self._dense.res)
        result = getattr(sys.modules[type(self._dense).__module__], "MeshExtractResult")  # noqa: B009
        return result(
            vertices=surface.vertices, faces=surface.faces, vertex_attrs=surface.attributes, res=self._dense.res
        )

    @classmethod
    def fits(cls, dense: Any) -> bool:
        """Tells whether an extraction is of the known kind: dense grid, six colours, and a result class beside it."""
        module = sys.modules.get(type(dense).__module__)
        channels = getattr(dense, "feats_channels", None)
        return hasattr(dense, "res") and channels == 101 and hasattr(module, "MeshExtractResult")


def _attach(target: PipelineTarget) -> None:
    for owner, attribute in target.host.surface_extractors():
        dense = getattr(owner, attribute)
        if SparseSurface.fits(dense):
            target.patches.set(owner, attribute, SparseSurface(dense))


register_saving(
    ExactSaving(
        "sparse_surface",
        "Surface extraction at the voxels instead of on dense grids. Faster; less memory; other order of faces.",
        Nesting.MODULES,
        sites=("surface_extractors",),
        attach=_attach,
    )
)
