"""SAM 3D Objects as its authors publish it: `InferencePipelinePointMap`, and the notebook's `Inference` around it.

Nothing of it is imported; a pipeline is recognised by its parts (docs/facts.md, sections S1, S4, S12 and S15).
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches, temporarily
from fastsam3d.diffusion.host import Runner
from fastsam3d.diffusion.hosts.sam3d_objects.parts import SAM3D_OBJECTS_PARTS
from fastsam3d.diffusion.hosts.sam3d_objects.sampler import RunSteps, Sampler
from fastsam3d.diffusion.hosts.shared.signatures import class_signature
from fastsam3d.diffusion.hosts.shared.two_stage import STAGE_METHODS, TwoStageHost, fp32_layers
from fastsam3d.diffusion.hosts.shared.voxel_structure import Structure
from fastsam3d.diffusion.hosts.shared.wrappers import is_compiled, owner_of
from fastsam3d.diffusion.maths.voxel_lattice import subtract_voxels
from fastsam3d.diffusion.sites import Forward, PictureEncoderSite
from fastsam3d.diffusion.vocabulary import LATENT, SHAPE, SPARSE_STRUCTURE, STRUCTURED_LATENT, Trajectory
from fastsam3d.errors import UserError

GRID = 64
"""Voxels along the side of the structure grid."""
ZEROING = ("zeros", "add_flag")
"""Ways of the guidance class to make a condition of zeros; the second leaves it to the network."""
PARAMETERS = {SPARSE_STRUCTURE: 959_962_133, STRUCTURED_LATENT: 600_432_520}
"""Of the published networks (docs/facts.md, sections S4.4 and S7)."""


class Sam3dObjectsHost(TwoStageHost):
    """The authors' pipeline, untouched.

    Velocities are taken over at `reverse_fn.forward`, once a step: outside what the pipeline's own `compile_model`
    compiles, for both generators alike, with time already multiplied and the step size already embedded. Each branch
    is computed by `reverse_fn.inner_forward`, compiled or not.
    """

    name = "SAM 3D Objects (InferencePipelinePointMap, Inference)"
    networks: Mapping[str, str] = {SPARSE_STRUCTURE: "ss_generator", STRUCTURED_LATENT: "slat_generator"}
    capabilities: ClassVar[Mapping[str, tuple[str, ...]]] = {
        SPARSE_STRUCTURE: ("conditional_only", "occupancy", "block_stack", "shortcut"),
        STRUCTURED_LATENT: ("conditional_only", "subset", "tokens", "block_stack"),
    }
    structure_decoder = "ss_decoder"
    expectations = SAM3D_OBJECTS_PARTS
    stage_methods: ClassVar[Mapping[str, str]] = {
        "compute_pointmap": "depth",
        "preprocess_image": "preprocess",
        "sample_sparse_structure": "sparse_structure",
        "get_condition_input": "condition",
        "sample_slat": "structured_latent",
        "decode_slat": "decode",
        "postprocess_slat_output": "postprocess",
        "run_post_optimization": "layout",
    }
    nested_stages: ClassVar[Mapping[tuple[str, str], str]] = {
        ("sparse_structure", "condition"): "ss_condition",
        ("structured_latent", "condition"): "slat_condition",
    }

    def __init__(self, pipeline: Any) -> None:
        super().__init__(_inner(pipeline))

    @classmethod
    def recognises(cls, pipeline: Any) -> bool:
        inner = _inner(pipeline)
        if not all(callable(getattr(inner, method, None)) for method in STAGE_METHODS):
            return False
        try:
            generators = [inner.models[name] for name in cls.networks.values()]
        except (AttributeError, KeyError, TypeError):
            return False
        return all(hasattr(g, "reverse_fn") and hasattr(g, "inference_steps") for g in generators)

    def generator(self, stage: str) -> Any:
        """The sampler of a stage, within wrappers that hand on its attributes."""
        return owner_of(self.pipeline.models[self.networks[stage]], "generate", "_generate_dynamics")

    def guidance(self, stage: str) -> Any:
        """The guided network of a stage."""
        return self.generator(stage).reverse_fn

    def network(self, stage: str) -> Any:
        return self.generator(stage).reverse_fn.backbone

    def skips(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[str]:
        signature = class_signature(self.pipeline, method)
        given = kwargs if signature is None else signature.bind_partial(*args, **kwargs).arguments
        return self.stages_of(STRUCTURED_LATENT) if given.get("stage1_only") else []

    def check(self) -> None:
        super().check()
        for stage in self.stages:
            generator = self.generator(stage)
            solver = type(generator._solver).__name__
            if solver != "Euler":
                raise UserError(
                    f"the {stage} sampler integrates by {solver}; techniques count one velocity a step, which only "
                    "Euler's method asks for. Build the pipeline with the Euler solver, as it is published."
                )
            if generator.reversed_timestamp:
                raise UserError(f"the {stage} sampler runs from data to noise, which is not known of this pipeline.")
            handling = generator.reverse_fn.unconditional_handling
            if handling not in ZEROING:
                raise UserError(
                    f"guidance of the {stage} stage makes its unconditional pass by {handling!r}; known are "
                    f"{', '.join(ZEROING)}."
                )
            if vars(self.guidance(stage)).get("_compiled_call_impl") is not None:
                raise UserError(
                    f"the guidance of the {stage} stage is compiled in place, and a forecast step would run all "
                    "the same: compile its inner_forward, as the pipeline itself does, or nothing."
                )

    def is_sealed(self, stage: str) -> bool:
        # Compiling the pipeline puts a compiled `inner_forward` on the instance, which no longer looks inside.
        return "inner_forward" in vars(self.guidance(stage)) or super().is_sealed(stage)

    def closed_sites(self) -> dict[tuple[str, str], str]:
        closed: dict[tuple[str, str], str] = {}
        reason = "the sparse-structure network is compiled (step caching works); compile_model=False lets them in"
        for stage in self.stages_of(SPARSE_STRUCTURE):
            if self.is_sealed(stage):
                closed |= {(site, stage): reason for site in ("cross_attentions", "branch_prefix")}
        names = self._fusers()
        if any(len(self._open_embedders(name)) < len(self._embedders(name)) for name in names):
            closed["picture_encoders", ""] = "the condition embedders are compiled, and their outputs are not shared"
        return closed

    def cast_layers(self) -> list[Any]:
        networks = [self.network(s) for s in self.stages_of(SPARSE_STRUCTURE) if not self.is_sealed(s)]
        networks += [e for name in self._fusers() for e in self._open_embedders(name)]
        return fp32_layers(networks)

    def branch_prefix(self, stage: str) -> list[Any]:
        # Zeroing all arguments zeroes the step size as well, so that the branches differ from the first layer on.
        add_flag = self.generator(stage).reverse_fn.unconditional_handling == "add_flag"
        return super().branch_prefix(stage) if add_flag else []

    def costs(self) -> Any | None:
        from fastsam3d.basics.config_files import config_directory
        from fastsam3d.sam3d.models.config import load_model_config
        from fastsam3d.sam3d.models.flops import ModelFlops

        counts = {stage: sum(p.numel() for p in self.network(stage).parameters()) for stage in self.stages}
        if counts != {stage: PARAMETERS[kind] for stage, kind in self.stages.items()}:
            return None  # other sizes than the published ones
        return ModelFlops(load_model_config(config_directory() / "model" / "sam3d.yaml"))

    # --- sampling

    def attach_sampler(self, patches: Patches, stage: str, runner: Runner) -> None:
        generator = self.generator(stage)
        guidance, sampler, run = self.guidance(stage), Sampler(generator), RunSteps()

        def generated(original: Forward) -> Forward:
            def generate(shape: Any, device: Any, *args: Any, **kwargs: Any) -> Any:
                own = generator.inference_steps, float(generator.rescale_t)
                grid = runner.grid(*own, sampler.times, sampler.edges())
                changes: dict[str, Any] = {} if grid == own else {"inference_steps": grid[0], "rescale_t": grid[1]}
                distilled = {"strength": 0} if runner.shortcut else {}
                if runner.shortcut:
                    changes["no_shortcut"] = False
                with temporarily(generator, **changes), temporarily(generator.reverse_fn, **distilled):
                    trajectory = self._trajectory(sampler, stage, args)
                    run.begin(trajectory)
                    runner.start(trajectory)
                    try:
                        return original(shape, device, *args, **kwargs)
                    finally:
                        runner.finish()

            return generate

        def guided(original: Forward) -> Forward:
            draws = "p_unconditional" in inspect.signature(type(guidance).forward).parameters

            def forward(x: Any, t: Tensor, *args: Any, **kwargs: Any) -> Any:
                index = run.next() if runner.state.running else None
                if index is None:
                    return original(x, t, *args, **kwargs)
                if draws:
                    # The guidance class draws a number at every call, which has no effect in inference. Whoever
                    # seeds Python's generator finds it where the pipeline alone would have left it.
                    random.random()
                single = isinstance(x, Tensor)
                time = run.times[index]
                evaluate = sampler.evaluation(self.network(stage), runner.state, time, (t, args, kwargs), single)
                result = runner.velocity({LATENT: x} if single else dict(x), time, evaluate)
                return result[LATENT] if single else result

            return forward

        patches.replace(generator, "generate", generated)
        patches.replace(guidance, "forward", guided)

    def _trajectory(self, sampler: Sampler, stage: str, args: tuple[Any, ...]) -> Trajectory:
        times, kind = tuple(sampler.times()), self.stages[stage]
        coords = None
        if kind == STRUCTURED_LATENT and args and not isinstance(args[-1], Mapping):
            coords = torch.as_tensor(args[-1]).to(self.device)
        return Trajectory(
            stage=kind,
            times=times,
            guided=tuple(sampler.is_guided(t) for t in times[:-1]),
            shortcut=sampler.shortcut,
            coords=coords,
            logits=self._between.logits if kind == STRUCTURED_LATENT else None,
            cells=None if coords is None else self.cells(stage, coords),
            occupancy=self._occupancy if kind == SPARSE_STRUCTURE else None,
        )

    @torch.no_grad()
    def _occupancy(self, latents: Mapping[str, Tensor]) -> Tensor:
        """Occupancy logits of a state of the first stage, decoded as the pipeline does (docs/facts.md, section S5)."""
        shape = latents[SHAPE]
        side = round(shape.shape[1] ** (1 / 3))
        cube = shape.transpose(1, 2).contiguous().view(len(shape), -1, side, side, side)
        return self.pipeline.models[self.structure_decoder](cube).float()

    # --- voxels, picture, encodings

    def structure_of(self, result: Any) -> Structure:
        coords = result["coords"]
        halved = int(result.get("downsample_factor", 1)) != 1
        original = result.get("coords_original")
        interior = None if halved or original is None else subtract_voxels(original, coords, GRID)
        return Structure(coords, interior, halved)

    def attach_picture(self, patches: Patches) -> None:
        def merged(original: Forward) -> Forward:
            def merge_image_and_mask(*args: Any, **kwargs: Any) -> Any:
                pixels = original(*args, **kwargs)
                self._between.picture = (torch.from_numpy(pixels[..., :3].copy()), torch.from_numpy(pixels[..., 3] > 0))
                return pixels

            return merge_image_and_mask

        if hasattr(self.pipeline, "merge_image_and_mask"):
            patches.replace(self.pipeline, "merge_image_and_mask", merged)

    def picture_encoders(self) -> list[PictureEncoderSite]:
        backbones = [
            getattr(embedder, "backbone", None) for name in self._fusers() for embedder in self._open_embedders(name)
        ]
        return [PictureEncoderSite(b, "forward_features") for b in backbones if hasattr(b, "forward_features")]

    def depth_models(self) -> list[tuple[Any, str]]:
        return [(self.pipeline, "depth_model")] if callable(getattr(self.pipeline, "depth_model", None)) else []

    def _embedders(self, name: str) -> list[Any]:
        fuser = self._fusers()[name]
        return [embedder for embedder, _ in getattr(fuser, "embedder_list", ())]

    def _fusers(self) -> Mapping[str, Any]:
        """Condition embedders by name; none where a variant of the pipeline embeds in another way."""
        return getattr(self.pipeline, "condition_embedders", {})

    def _open_embedders(self, name: str) -> list[Any]:
        """Those that are not compiled."""
        return [e for e in self._embedders(name) if not ({"forward", "inner_forward"} & set(vars(e)) or is_compiled(e))]


def _inner(pipeline: Any) -> Any:
    """The pipeline inside the notebook's `Inference` object, or the object itself."""
    return getattr(pipeline, "_pipeline", pipeline)
