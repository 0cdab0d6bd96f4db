"""TRELLIS as its authors publish it: `TrellisImageTo3DPipeline`.

Its samplers are taken over by `fastsam3d.diffusion.hosts.shared.flow_sampling`. Nothing of TRELLIS is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.hosts.shared.flow_sampling import FlowSamplingHost
from fastsam3d.diffusion.hosts.shared.signatures import class_signature
from fastsam3d.diffusion.hosts.shared.single_picture import picture_of
from fastsam3d.diffusion.hosts.shared.two_stage import STAGE_METHODS, TwoStageHost
from fastsam3d.diffusion.hosts.shared.voxel_structure import Structure
from fastsam3d.diffusion.hosts.trellis.parts import TRELLIS_PARTS
from fastsam3d.diffusion.sites import Forward, PictureEncoderSite
from fastsam3d.diffusion.vocabulary import (
    SPARSE_STRUCTURE,
    STRUCTURED_LATENT,
    MergedVoxels,
    VoxelPolicy,
    VoxelSet,
)

RADIANCE_FIELD = "radiance_field"


class TrellisHost(TwoStageHost, FlowSamplingHost):
    """The authors' pipeline, untouched.

    Velocities are taken over at the sampler's `_inference_model`, once a step. Several pictures by its `stochastic`
    mode pass through here as well; its `multidiffusion` mode goes past the sampler and runs as it is.
    """

    name = "TRELLIS (TrellisImageTo3DPipeline)"
    networks: Mapping[str, str] = {
        SPARSE_STRUCTURE: "sparse_structure_flow_model",
        STRUCTURED_LATENT: "slat_flow_model",
    }
    samplers: Mapping[str, str] = {
        SPARSE_STRUCTURE: "sparse_structure_sampler",
        STRUCTURED_LATENT: "slat_sampler",
    }
    capabilities: ClassVar[Mapping[str, tuple[str, ...]]] = {
        SPARSE_STRUCTURE: ("conditional_only", "occupancy", "block_stack"),
        STRUCTURED_LATENT: ("conditional_only", "tokens", "block_stack"),
    }
    structure_decoder = "sparse_structure_decoder"
    expectations = TRELLIS_PARTS
    run_methods = ("run", "run_multi_image")
    stage_methods: ClassVar[Mapping[str, str]] = {
        "preprocess_image": "preprocess",
        "get_cond": "condition",
        "sample_sparse_structure": "sparse_structure",
        "sample_slat": "structured_latent",
        "decode_slat": "decode",
    }

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self._formats: Sequence[str] = ()

    @classmethod
    def recognises(cls, pipeline: Any) -> bool:
        if not all(callable(getattr(pipeline, method, None)) for method in STAGE_METHODS):
            return False
        models = getattr(pipeline, "models", {})
        known = isinstance(models, dict) and all(name in models for name in cls.networks.values())
        return known and all(hasattr(pipeline, sampler) for sampler in cls.samplers.values())

    def logits_of(self, coords: Tensor) -> Tensor | None:
        return self._between.logits

    # --- voxels, picture, encodings

    def structure_of(self, result: Any) -> Structure:
        return Structure(result)

    def attach_picture(self, patches: Patches) -> None:
        def encoded(original: Forward) -> Forward:
            def get_cond(image: Any, *args: Any, **kwargs: Any) -> Any:
                self._between.picture = picture_of(image)
                return original(image, *args, **kwargs)

            return get_cond

        if hasattr(self.pipeline, "get_cond"):
            patches.replace(self.pipeline, "get_cond", encoded)

    def picture_encoders(self) -> list[PictureEncoderSite]:
        encoder = self.model("image_cond_model")
        return [] if encoder is None else [PictureEncoderSite(encoder, "forward", pictures=1)]

    def attach_structure(self, patches: Patches, policy: VoxelPolicy | None) -> None:
        if policy is not None:
            for method in self.run_methods:
                if hasattr(self.pipeline, method):
                    signature = class_signature(self.pipeline, method)
                    patches.replace(self.pipeline, method, partial(self._knowing_formats, signature))
        super().attach_structure(patches, None if policy is None else _UnlessRadianceField(policy, self))

    def _knowing_formats(self, signature: inspect.Signature | None, original: Forward) -> Forward:
        def run(*args: Any, **kwargs: Any) -> Any:
            assert signature is not None
            call = signature.bind(*args, **kwargs)
            call.apply_defaults()
            self._formats = call.arguments.get("formats", ())
            try:
                return original(*args, **kwargs)
            finally:
                self._formats = ()

        return run


class _UnlessRadianceField:
    """Skips voxel merging when a radiance field is requested.

    A radiance field cannot be mapped back to the fine grid.
    """

    def __init__(self, policy: VoxelPolicy, host: TrellisHost) -> None:
        self._policy, self._host = policy, host

    def reduce(self, voxels: VoxelSet) -> MergedVoxels | None:
        return None if RADIANCE_FIELD in self._host._formats else self._policy.reduce(voxels)
