"""TRELLIS.2 as its authors publish it, and Pixal3D, which has the same parts: pictures to meshes, meshes to textures.

One pipeline has up to five sampled stages: the structure, and shape and texture each by a network for 512 and one for
1024. Which of them run depends on the mode. A cascade runs one sampler twice in one method, with two networks; a stage
is known by the network that the sampler is given. Nothing of either package is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.host import Runner
from fastsam3d.diffusion.hosts.shared.flow_sampling import FlowSamplingHost, Interval
from fastsam3d.diffusion.hosts.shared.signatures import class_signature, named_arguments
from fastsam3d.diffusion.hosts.shared.single_picture import picture_of
from fastsam3d.diffusion.hosts.shared.stage_clock import StageClock
from fastsam3d.diffusion.hosts.shared.wrappers import owner_of
from fastsam3d.diffusion.hosts.trellis2.between_stages import BetweenStages
from fastsam3d.diffusion.hosts.trellis2.costs import FlowCosts, sizes_of
from fastsam3d.diffusion.hosts.trellis2.parts import trellis2_parts
from fastsam3d.diffusion.hosts.trellis2.sites import (
    attach_chosen_projections,
    coordinates_site,
    cross_attention,
    inner_cross_attention,
    is_projected,
    rotary_block_site,
    table_sites,
)
from fastsam3d.diffusion.sites import BlockSite, CoordinatesSite, CrossAttentionSite, Forward, TableSite
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STRUCTURED_LATENT, Trajectory, VoxelPolicy

STRUCTURE, SHAPE_512, SHAPE_1024 = "sparse_structure", "shape_512", "shape_1024"
TEXTURE_512, TEXTURE_1024 = "texture_512", "texture_1024"
STAGE_PARTS = {
    STRUCTURE: ("sparse_structure_flow_model", "sparse_structure_sampler"),
    SHAPE_512: ("shape_slat_flow_model_512", "shape_slat_sampler"),
    SHAPE_1024: ("shape_slat_flow_model_1024", "shape_slat_sampler"),
    TEXTURE_512: ("tex_slat_flow_model_512", "tex_slat_sampler"),
    TEXTURE_1024: ("tex_slat_flow_model_1024", "tex_slat_sampler"),
}
"""Network and sampler of every stage, in the order in which they run."""
MODES = {
    "512": (STRUCTURE, SHAPE_512, TEXTURE_512),
    "1024": (STRUCTURE, SHAPE_1024, TEXTURE_1024),
    "1024_cascade": (STRUCTURE, SHAPE_512, SHAPE_1024, TEXTURE_1024),
    "1536_cascade": (STRUCTURE, SHAPE_512, SHAPE_1024, TEXTURE_1024),
}
"""Stages that run by mode (`pipeline_type`)."""
NOT_MEASURED = (
    "seconds are those of run; what comes after it (o_voxel.postprocess.to_glb: remeshing, unwrapping, baking) is not "
    "in them, and often takes longer than all sampling"
)
LOW_VRAM = (
    "low_vram is on: every stage of every object moves its network to the device and back. Where memory allows, set "
    "low_vram = False and call the pipeline's `to` again: the same result, sooner"
)


class Trellis2Host(FlowSamplingHost):
    """`Trellis2ImageTo3DPipeline`, `Trellis2TexturingPipeline`, `Pixal3DImageTo3DPipeline`, and copies of them.

    Replaces `_inference_model` of the samplers, which gives the velocity of each step. Guidance stays the samplers'.
    """

    name = "TRELLIS.2 and Pixal3D (Trellis2ImageTo3DPipeline, Trellis2TexturingPipeline, Pixal3DImageTo3DPipeline)"
    capabilities: ClassVar[Mapping[str, tuple[str, ...]]] = {
        SPARSE_STRUCTURE: ("conditional_only", "occupancy", "block_stack"),
        STRUCTURED_LATENT: ("conditional_only", "tokens", "block_stack"),
    }
    structure_decoder = "sparse_structure_decoder"
    stage_methods: ClassVar[Mapping[str, str]] = {
        "preprocess_image": "preprocess",
        "get_cond": "condition",
        "get_proj_cond_ss": "condition",
        "get_proj_cond_shape": "condition",
        "encode_shape_slat": "shape_encode",
        "decode_shape_slat": "shape_decode",
        "decode_tex_slat": "texture_decode",
        "postprocess_mesh": "postprocess",
    }

    def __init__(self, pipeline: Any) -> None:
        method = "sample_tex_slat" if hasattr(pipeline, "sample_tex_slat") else "sample_shape_slat"
        super().__init__(owner_of(pipeline, method))
        found = _stages_of(self.pipeline)
        self.stages = {s: SPARSE_STRUCTURE if s == STRUCTURE else STRUCTURED_LATENT for s in found}
        self.networks = {stage: STAGE_PARTS[stage][0] for stage in found}
        self.samplers = {stage: STAGE_PARTS[stage][1] for stage in found}
        self.expectations = trellis2_parts(self.networks, self.samplers, STRUCTURE in found)
        self._between = BetweenStages()
        self._condition_tokens: dict[str, int] = {}

    @classmethod
    def recognises(cls, pipeline: Any) -> bool:
        methods = ("sample_tex_slat", "sample_shape_slat")
        return any(callable(getattr(pipeline, m, None)) for m in methods) and bool(_stages_of(pipeline))

    def skips(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[str]:
        signature = class_signature(self.pipeline, method)
        given = {} if signature is None else named_arguments(signature, args, kwargs)
        if STRUCTURE in self.stages:
            mode = given.get("pipeline_type") or getattr(self.pipeline, "default_pipeline_type", None)
            run: Sequence[str] = MODES.get(str(mode), ())  # of a mode that is not known nothing is expected
        else:
            run = (TEXTURE_512 if given.get("resolution") == 512 else TEXTURE_1024,)
        return [stage for stage in self.stages if stage not in run]

    def refusals(self) -> dict[tuple[str, str], str]:
        refused = super().refusals()
        if self.moves_weights and self.device.type != "cpu":
            reason = "its low_vram keeps the structure decoder away from the device while the structure is sampled"
            refused[SPARSE_STRUCTURE, "occupancy"] = reason
        return refused

    def voxels_refusal(self) -> str | None:
        if STRUCTURE not in self.stages:
            return "it textures a mesh whose voxels are given"
        if not hasattr(self.pipeline, "decode_latent"):
            return "it has no decode_latent, after which merged voxels could be put back"
        if any(is_projected(self.network(stage).blocks[0]) for stage in self.stages):
            return "its condition is projected for each voxel before the voxels could be merged"
        return None

    def notes(self) -> list[str]:
        lines = [LOW_VRAM] if self.moves_weights else []
        return [*lines, NOT_MEASURED] if STRUCTURE in self.stages else lines

    @property
    def moves_weights(self) -> bool:
        return bool(getattr(self.pipeline, "low_vram", False))

    def costs(self) -> FlowCosts | None:
        sizes = {s: sizes_of(n, inner_cross_attention(n.blocks[0])) for s in self.stages for n in [self.network(s)]}
        known = {stage: size for stage, size in sizes.items() if size is not None}
        if len(known) < len(sizes):
            return None
        side = int(self.network(STRUCTURE).resolution) if STRUCTURE in self.stages else 0
        return FlowCosts(known, side**3, lambda stage: self._condition_tokens.get(stage, 0))

    # --- sampling

    def guidance_interval(self, given: Mapping[str, Any]) -> Interval | None:
        if given.get("guidance_strength") in (0, 1):  # one branch alone
            return None
        return given.get("guidance_interval", (0.0, 1.0))

    def attach_sampler(self, patches: Patches, stage: str, runner: Runner) -> None:
        super().attach_sampler(patches, stage, runner)
        if self.stages[stage] == STRUCTURED_LATENT and not self.is_sealed(stage):
            for block in self.network(stage).blocks:
                if is_projected(block):
                    attach_chosen_projections(patches, block, runner.state)

    def trajectory(
        self, stage: str, times: Sequence[float], interval: Interval | None, given: Mapping[str, Any]
    ) -> Trajectory:
        condition = given["cond"]
        tokens = condition.get("global") if isinstance(condition, Mapping) else condition
        self._condition_tokens[stage] = int(tokens.shape[1]) if isinstance(tokens, Tensor) else 0
        return super().trajectory(stage, times, interval, given)

    def logits_of(self, coords: Tensor) -> Tensor | None:
        return self._between.logits_of(coords)

    def cells(self, stage: str, coords: Tensor) -> Tensor | None:
        import torch

        if len(coords) == 0 or int(coords[:, 0].max()) > 0:
            return None
        return torch.arange(len(coords), device=coords.device)  # every voxel is a token

    # --- sites

    def _knows_positions(self, attention: Any) -> bool:
        return not getattr(attention, "use_rope", False) or hasattr(attention, "rope")

    def cross_attentions(self, stage: str) -> list[CrossAttentionSite]:
        if self.is_sealed(stage):
            return []
        states = self.block_states(stage)
        sites = [cross_attention(block, states) for block in self.network(stage).blocks]
        return [site for site in sites if site is not None]

    def branch_prefix(self, stage: str) -> list[Any]:
        # The first cross-attention comes after the first self-attention.
        return [] if self.is_sealed(stage) else [self.network(stage).blocks[0].self_attn]

    def latent_blocks(self, stage: str) -> list[BlockSite]:
        return [rotary_block_site(block) for block in self.network(stage).blocks]

    def packed_attentions(self) -> list[BlockSite]:
        if self._tokens_refusal() is not None:
            return []
        return [site for stage in self.stages_of(STRUCTURED_LATENT) for site in self.latent_blocks(stage)]

    def guided_decoders(self) -> list[tuple[Any, list[TableSite], list[TableSite]]]:
        first, second = self.model("shape_slat_decoder"), self.model("tex_slat_decoder")
        if first is None or second is None:
            return []
        return [(first, table_sites(first), table_sites(second))]

    def coordinate_decoders(self) -> list[CoordinatesSite]:
        decoder = self.model("shape_slat_decoder")
        site = None if decoder is None else coordinates_site(decoder)
        return [] if site is None else [site]

    # --- voxels and picture

    def attach_structure(self, patches: Patches, policy: VoxelPolicy | None) -> None:
        if STRUCTURE not in self.stages:
            return
        pipeline, between = self.pipeline, self._between
        patches.replace(pipeline.models[self.structure_decoder], "forward", between.decoded_structure)
        signature = class_signature(pipeline, "sample_sparse_structure")
        assert signature is not None  # `check` has found the method
        patches.replace(pipeline, "sample_sparse_structure", between.sampled_structure(signature))
        for method in self.run_methods:
            patches.replace(pipeline, method, self._forgetting(method))
        if policy is None:
            return
        for method in ("sample_shape_slat", "sample_shape_slat_cascade"):
            if (signature := class_signature(pipeline, method)) is not None:
                patches.replace(pipeline, method, between.sampling(policy, signature))
        patches.replace(pipeline, "decode_latent", between.decoded)
        if hasattr(pipeline, "get_cond"):
            patches.replace(pipeline, "get_cond", self._seeing)

    def _forgetting(self, method: str) -> Any:
        signature = class_signature(self.pipeline, method)
        assert signature is not None

        def make(original: Forward) -> Forward:
            def run(*args: Any, **kwargs: Any) -> Any:
                # Latents of merged voxels would be given back as if they were whole.
                self._between.keeps_voxels = bool(named_arguments(signature, args, kwargs).get("return_latent"))
                try:
                    return original(*args, **kwargs)
                finally:
                    self._between.keeps_voxels = False
                    self._between.ended()

            return run

        return make

    def _seeing(self, original: Forward) -> Forward:
        def get_cond(image: Any, *args: Any, **kwargs: Any) -> Any:
            self._between.picture = picture_of(image)
            return original(image, *args, **kwargs)

        return get_cond

    # --- the report

    def attach_clock(self, patches: Patches, clock: StageClock) -> None:
        for stage in self.stages:
            patches.replace(self.sampler(stage), "sample", self._timed(stage, clock))
        decoder = self.model("shape_slat_decoder")
        if hasattr(decoder, "upsample"):
            patches.replace(decoder, "upsample", clock.timed("upsample"))

    def _timed(self, stage: str, clock: StageClock) -> Any:
        network, signature = self.network(stage), class_signature(self.sampler(stage), "sample")
        assert signature is not None

        def make(original: Forward) -> Forward:
            def sample(*args: Any, **kwargs: Any) -> Any:
                if signature.bind(*args, **kwargs).arguments["model"] is not network:
                    return original(*args, **kwargs)
                with clock.stage(stage):
                    return original(*args, **kwargs)

            return sample

        return make


def _stages_of(pipeline: Any) -> list[str]:
    """Stages of which a pipeline has network and sampler."""
    models = getattr(pipeline, "models", None)
    if not hasattr(models, "keys"):
        return []
    return [
        stage for stage, (network, sampler) in STAGE_PARTS.items() if network in models and hasattr(pipeline, sampler)
    ]
