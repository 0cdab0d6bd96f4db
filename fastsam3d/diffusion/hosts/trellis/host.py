"""TRELLIS as its authors publish it: `TrellisImageTo3DPipeline`.

Its time runs from noise (1) to data (0) and its velocity points from data to noise. The host turns both round, so that
techniques see one convention: `t = 1 - t'`, `v = -v'` (SAM 3D Objects architecture, section 13). Nothing of TRELLIS is
imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.host import Runner
from fastsam3d.diffusion.hosts.shared.signatures import class_signature
from fastsam3d.diffusion.hosts.shared.two_stage import STAGE_METHODS, TwoStageHost
from fastsam3d.diffusion.hosts.shared.voxel_structure import Structure
from fastsam3d.diffusion.hosts.shared.wrappers import owner_of
from fastsam3d.diffusion.hosts.trellis.parts import TRELLIS_PARTS
from fastsam3d.diffusion.hosts.trellis.sampler import as_tensor, evaluator, is_zero, times_of, with_values
from fastsam3d.diffusion.sites import Forward, PictureEncoderSite
from fastsam3d.diffusion.vocabulary import (
    LATENT,
    SHAPE,
    SPARSE_STRUCTURE,
    STRUCTURED_LATENT,
    MergedVoxels,
    Trajectory,
    VoxelPolicy,
    VoxelSet,
)

RADIANCE_FIELD = "radiance_field"


class TrellisHost(TwoStageHost):
    """The authors' pipeline, untouched.

    Velocities are taken over at the sampler's `_inference_model`, once a step. Several pictures by its `stochastic`
    mode pass through here as well; its `multidiffusion` mode goes past the sampler and runs as it is.
    """

    name = "TRELLIS (TrellisImageTo3DPipeline)"
    networks: ClassVar[Mapping[str, str]] = {
        SPARSE_STRUCTURE: "sparse_structure_flow_model",
        STRUCTURED_LATENT: "slat_flow_model",
    }
    samplers: ClassVar[Mapping[str, str]] = {
        SPARSE_STRUCTURE: "sparse_structure_sampler",
        STRUCTURED_LATENT: "slat_sampler",
    }
    """Attribute of the pipeline that holds the sampler of each stage, by name of stage. Stages may share one."""
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

    def network(self, stage: str) -> Any:
        return self.pipeline.models[self.networks[stage]]

    def sampler(self, stage: str) -> Any:
        """The sampler of a stage, within wrappers that hand on its attributes."""
        return owner_of(getattr(self.pipeline, self.samplers[stage]), "sample", "_inference_model")

    def check(self) -> None:
        super().check()
        for stage in self.stages:
            self.sampler(stage)

    # --- sampling

    def attach_sampler(self, patches: Patches, stage: str, runner: Runner) -> None:
        sampler = self.sampler(stage)
        # Stages may share one sampler object; then a call belongs to the stage whose network it brings.
        network = self.network(stage)
        name = SHAPE if self.stages[stage] == SPARSE_STRUCTURE else LATENT
        signature = class_signature(sampler, "sample")
        assert signature is not None  # `check` has found the method

        def sampled(original: Forward) -> Forward:
            def sample(*args: Any, **kwargs: Any) -> Any:
                call = signature.bind(*args, **kwargs)
                call.apply_defaults()
                given = call.arguments | call.arguments.get("kwargs", {})
                if given["model"] is not network:
                    return original(*args, **kwargs)
                rescale, interval = given["rescale_t"], self.guidance_interval(given)
                own = given["steps"], rescale
                edges = [1.0 - bound for bound in interval or ()]
                grid = runner.grid(*own, lambda n: [1.0 - t for t in times_of(n, rescale)], edges)
                if grid != own:
                    call.arguments["steps"], call.arguments["rescale_t"] = grid
                noise = given["noise"]
                runner.start(self._trajectory(stage, times_of(*grid), interval, noise))
                runner.state.zero_condition = is_zero(given["neg_cond"])
                try:
                    return original(*call.args, **call.kwargs)
                finally:
                    runner.finish()

            return sample

        def guided(original: Forward) -> Forward:
            def inference_model(model: Any, x: Any, t: float, cond: Any = None, **kwargs: Any) -> Any:
                if not runner.state.running or model is not network or "neg_cond" not in kwargs:
                    return original(model, x, t, cond, **kwargs)
                evaluate = evaluator(original, runner, name, (model, x, t, cond), kwargs)
                velocity = runner.velocity({name: as_tensor(x)}, 1.0 - float(t), evaluate)[name]
                return with_values(x, -velocity)

            return inference_model

        patches.replace(sampler, "sample", sampled)
        patches.replace(sampler, "_inference_model", guided)

    def guidance_interval(self, given: Mapping[str, Any]) -> tuple[float, float] | None:
        """Times of the sampler, 1 noise to 0 data, between which it runs both branches; None where it never does.

        Args:
            given: arguments of the sampler's `sample`, by name.
        """
        return given.get("cfg_interval", (0.0, 1.0))

    def _trajectory(
        self, stage: str, times: Sequence[float], interval: tuple[float, float] | None, noise: Any
    ) -> Trajectory:
        kind = self.stages[stage]
        coords = noise.coords if kind == STRUCTURED_LATENT else None
        return Trajectory(
            stage=kind,
            times=tuple(float(1.0 - t) for t in times),
            guided=tuple(interval is not None and bool(interval[0] <= t <= interval[1]) for t in times[:-1]),
            coords=coords,
            logits=self._between.logits if kind == STRUCTURED_LATENT else None,
            cells=None if coords is None else self.cells(stage, coords),
            occupancy=self._occupancy if kind == SPARSE_STRUCTURE else None,
        )

    @torch.no_grad()
    def _occupancy(self, latents: Mapping[str, Tensor]) -> Tensor:
        return self.pipeline.models[self.structure_decoder](latents[SHAPE]).float()

    # --- voxels, picture, encodings

    def structure_of(self, result: Any) -> Structure:
        return Structure(result)

    def attach_picture(self, patches: Patches) -> None:
        def encoded(original: Forward) -> Forward:
            def get_cond(image: Any, *args: Any, **kwargs: Any) -> Any:
                self._between.picture = _picture(image)
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


def _picture(images: Any) -> tuple[Tensor, Tensor] | None:
    """Picture and object of a single picture, whose background the pipeline has painted black; else None."""
    if isinstance(images, Tensor) or len(images) != 1:
        return None
    pixels = torch.from_numpy(np.array(images[0].convert("RGB")))
    return pixels, pixels.amax(-1) > 0
