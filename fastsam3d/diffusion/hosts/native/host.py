"""The native pipeline (`fastsam3d.sam3d.pipeline`) as a host."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastsam3d.acceleration.patching import Patches, temporarily
from fastsam3d.diffusion.host import Host, Recorder, Runner
from fastsam3d.diffusion.hosts.native.between_stages import NativeBetweenStages
from fastsam3d.diffusion.hosts.native.sampler import evaluator
from fastsam3d.diffusion.hosts.native.sites import (
    OUTSIDE_SAMPLING,
    feed_forwards,
    picture_encoders,
    refuse_wrapped,
    repeated_convolutions,
    stream_block_site,
    time_sites,
)
from fastsam3d.diffusion.hosts.shared.attention_sites import block_site, cross_attention_sites
from fastsam3d.diffusion.hosts.shared.two_stage import fp32_layers
from fastsam3d.diffusion.hosts.shared.wrappers import is_compiled, owner_of
from fastsam3d.diffusion.sites import (
    BlockSite,
    CrossAttentionSite,
    Forward,
    PictureEncoderSite,
    StreamBlockSite,
    TimeSite,
)
from fastsam3d.diffusion.vocabulary import LATENT, SHAPE, SPARSE_STRUCTURE, STRUCTURED_LATENT, Trajectory, VoxelPolicy
from fastsam3d.sam3d.memory.residency import Resident

_EMBEDDING = {SPARSE_STRUCTURE: "ss_condition", STRUCTURED_LATENT: "slat_condition"}
"""Network of the report that embeds the picture, by kind of stage."""
_STAGE_METHODS = ("run", "preprocess", "sample_slat", "colored_by_picture", "decode_slat")


class NativeHost(Host):
    """The library's own pipeline: `models`, overridable stage methods, generators with `velocity` and `sample`."""

    name = "fastsam3d.sam3d.pipeline.Pipeline"
    generators: ClassVar[Mapping[str, str]] = {SPARSE_STRUCTURE: "ss_generator", STRUCTURED_LATENT: "slat_generator"}
    """Name in `models` of the sampler of each stage, by name of stage."""
    capabilities: ClassVar[Mapping[str, tuple[str, ...]]] = {
        SPARSE_STRUCTURE: (
            "conditional_only",
            "subset",
            "layout_only",
            "occupancy",
            "block_stack",
            "shortcut",
        ),
        STRUCTURED_LATENT: ("conditional_only", "subset", "tokens", "block_stack"),
    }
    part_methods = ("sample_structures", "sample_sparse_structure", "sample_slat", "decode_slat")

    def __init__(self, pipeline: Any) -> None:
        super().__init__(owner_of(pipeline, "sample_slat"))
        self._between = NativeBetweenStages(self.pipeline)

    @classmethod
    def recognises(cls, pipeline: Any) -> bool:
        models = getattr(pipeline, "models", None)
        if models is None or not all(callable(getattr(pipeline, m, None)) for m in _STAGE_METHODS):
            return False
        try:
            generators = [models[name] for name in cls.generators.values()]
        except (KeyError, TypeError):
            return False
        return all(hasattr(g, "velocity") and hasattr(g, "sample") and hasattr(g, "reverse_fn") for g in generators)

    @property
    def device(self) -> torch.device:
        return torch.device(self.pipeline.device)

    def generator(self, stage: str) -> Any:
        """The sampler of a stage, within wrappers that hand on its attributes."""
        return owner_of(self.pipeline.models[self.generators[stage]], "sample", "velocity")

    def check(self) -> None:
        for stage in self.stages:
            refuse_wrapped(stage, self.generator(stage))

    def closed_sites(self) -> dict[tuple[str, str], str]:
        networks = {**dict(self.pipeline.models.items()), **self.pipeline.condition_embedders}
        closed = {}
        for site, names in OUTSIDE_SAMPLING.items():
            compiled = [name for name in names if name in networks and is_compiled(networks[name])]
            if compiled:
                closed[site, ""] = f"nothing is attached inside what is compiled ({', '.join(compiled)})"
        return closed

    def skips(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[str]:
        # Sampled before, in a batch, perhaps by a pipeline beside this one.
        return self.stages_of(SPARSE_STRUCTURE) if kwargs.get("sampled") is not None else []

    def attach_sampler(self, patches: Patches, stage: str, runner: Runner) -> None:
        generator = self.generator(stage)

        def sampled(original: Forward) -> Forward:
            def sample(noise: Any, condition: Tensor, *extra: Any, **kwargs: Any) -> Any:
                own = generator.inference_steps, generator.rescale_t
                grid = runner.grid(*own, self._times(generator), self._edges(generator))
                changes: dict[str, Any] = {} if grid == own else {"inference_steps": grid[0], "rescale_t": grid[1]}
                distilled = {"strength": 0.0} if runner.shortcut else {}
                if runner.shortcut:
                    changes["shortcut"] = True
                with temporarily(generator, **changes), temporarily(generator.reverse_fn, **distilled):
                    trajectory = self._trajectory(stage, extra)
                    if self.stages[stage] == SPARSE_STRUCTURE:
                        layout, batch = set(noise) != {SHAPE}, len(noise[SHAPE])
                        trajectory = dataclasses.replace(trajectory, layout=layout, batch=batch)
                    runner.start(trajectory)
                    try:
                        return original(noise, condition, *extra, **kwargs)
                    finally:
                        runner.finish()

            return sample

        def stepped(original: Forward) -> Forward:
            def velocity(x: Any, time: float, condition: Tensor, *extra: Any) -> Any:
                if not runner.state.running:
                    return original(x, time, condition, *extra)
                single = isinstance(x, Tensor)
                evaluate = evaluator(generator, runner, time, condition, extra, single)
                result = runner.velocity({LATENT: x} if single else dict(x), time, evaluate)
                return result[LATENT] if single else result

            return velocity

        patches.replace(generator, "sample", sampled)
        patches.replace(generator, "velocity", stepped)

    @staticmethod
    def _times(generator: Any) -> Callable[[int], Sequence[float]]:
        def times(steps: int) -> Sequence[float]:
            with temporarily(generator, inference_steps=steps):
                return list(generator.times())

        return times

    @staticmethod
    def _edges(generator: Any) -> tuple[float, ...]:
        guidance = generator.reverse_fn
        strength = guidance.strength
        if not any(w > 0 for w in (strength.values() if isinstance(strength, Mapping) else [strength])):
            return ()  # nothing begins or ends
        return tuple(bound / 1000.0 for bound in guidance.interval)

    def _trajectory(self, stage: str, extra: tuple[Any, ...]) -> Trajectory:
        generator, kind = self.generator(stage), self.stages[stage]
        times = tuple(float(t) for t in generator.times())
        guided = tuple(bool(generator.reverse_fn.is_guided(t)) for t in times[:-1])
        # The caller may hand them in on another device than the network's.
        coords = extra[0].to(self.device) if kind == STRUCTURED_LATENT and extra else None
        cells = None
        # Objects of a batch do not see each other; kept keys would mix them up, so a batch has no cells to carve.
        if coords is not None and len(coords) > 0 and int(coords[:, 0].max()) == 0:
            cells = self._cells(generator.reverse_fn.backbone, coords)
        return Trajectory(
            stage=kind,
            times=times,
            guided=guided,
            shortcut=bool(getattr(generator, "shortcut", False)),
            coords=coords,
            logits=self._between.logits if kind == STRUCTURED_LATENT else None,
            cells=cells,
            occupancy=self._occupancy if kind == SPARSE_STRUCTURE else None,
        )

    def _cells(self, backbone: Any, coords: Tensor) -> Tensor | None:
        """Transformer token `[N]` of each voxel; None where the network builds no tables of voxels."""
        makes = any(maker is backbone for maker in self.index_makers())
        return backbone.make_index(coords).pooling().inverse if makes else None

    @torch.no_grad()
    def _occupancy(self, latents: Mapping[str, Tensor]) -> Tensor:
        # The generator is running, and its weights may be the only ones on the device.
        with getattr(self.pipeline, "residency", Resident()).using("ss_decoder", last=True):
            return self.pipeline.models["ss_decoder"](latents[SHAPE]).float()

    def attach_structure(self, patches: Patches, policy: VoxelPolicy | None) -> None:
        self._between.attach(patches, policy)

    def attach_recorder(self, patches: Patches, recorder: Recorder) -> None:
        def timed(original: Forward) -> Forward:
            def run(*args: Any, **kwargs: Any) -> Any:
                result = original(*args, **kwargs)
                recorder.add_object(dict(result.stage_seconds))
                return result

            return run

        patches.replace(self.pipeline, "run", timed)

    def cross_attentions(self, stage: str) -> list[CrossAttentionSite]:
        return [site for block in self.block_stack(stage) for site in cross_attention_sites(block)]

    def branch_prefix(self, stage: str) -> list[Any]:
        backbone = self.generator(stage).reverse_fn.backbone
        # The first cross-attention comes after the first self-attention.
        first = backbone.blocks[0].self_attn
        return [*backbone.input_blocks, first] if self.stages[stage] == STRUCTURED_LATENT else [first]

    def latent_blocks(self, stage: str) -> list[BlockSite]:
        return [block_site(block, own=block.self_attn.project) for block in self.block_stack(stage)]

    def stream_blocks(self, stage: str) -> list[StreamBlockSite]:
        return [stream_block_site(block) for block in self.block_stack(stage)]

    def block_stack(self, stage: str) -> list[Any]:
        return list(self.generator(stage).reverse_fn.backbone.blocks)

    def index_makers(self) -> list[Any]:
        return [backbone for backbone in self._latent_networks() if callable(getattr(backbone, "make_index", None))]

    def _latent_networks(self) -> list[Any]:
        return [self.generator(stage).reverse_fn.backbone for stage in self.stages_of(STRUCTURED_LATENT)]

    def voxel_decoders(self) -> list[Any]:
        decoders = [d for name, d in self.pipeline.models.items() if name.startswith("slat_decoder")]
        return [d for d in decoders if callable(getattr(d, "make_index", None)) and not is_compiled(d)]

    def time_sites(self, stage: str) -> list[TimeSite]:
        return time_sites(self.generator(stage), self.stages[stage])

    def convolutions(self) -> list[Any]:
        return [conv for backbone in self._latent_networks() for conv in repeated_convolutions(backbone)]

    def dense_convolutions(self) -> list[Any]:
        decoder = self.pipeline.models["ss_decoder"]
        return [] if is_compiled(decoder) else [m for m in decoder.modules() if isinstance(m, nn.Conv3d)]

    def feed_forwards(self) -> list[Any]:
        backbones = [self.generator(stage).reverse_fn.backbone for stage in self.stages]
        return feed_forwards([*backbones, *self.voxel_decoders()])

    def costs(self) -> Any | None:
        from fastsam3d.sam3d.models.flops import ModelFlops

        return ModelFlops(self.pipeline.config)

    def no_room_for(self) -> frozenset[str]:
        limit = getattr(self.pipeline, "memory", None)
        if limit is None or not limit.plan.staged:
            return frozenset()
        # Kept casts would stay on the device when the weights that they were made of have left it.
        return frozenset({"cast_weights"} if limit.plan.condition_cache else {"cast_weights", "condition"})

    def replay_refusal(self) -> str | None:
        if not isinstance(getattr(self.pipeline, "residency", Resident()), Resident):
            return "the memory budget moves its weights, and a graph holds their addresses"
        limit = getattr(self.pipeline, "memory", None)
        if limit is not None and not limit.has_room_for_graphs():
            return f"memory={limit.memory} has no room for a graph beside the largest object"
        return None

    def network_tensors(self, stage: str) -> Iterable[Tensor]:
        backbone: Any = self.generator(stage).reverse_fn.backbone
        return itertools.chain(backbone.parameters(), backbone.buffers())

    def picture_encoders(self) -> list[PictureEncoderSite]:
        from fastsam3d.sam3d.models.flops import ModelFlops

        costs = ModelFlops(self.pipeline.config)
        moved = not isinstance(getattr(self.pipeline, "residency", Resident()), Resident)
        embedders = {n: e for n, e in self.pipeline.condition_embedders.items() if not is_compiled(e)}
        return [
            PictureEncoderSite(encoder, "forward", _EMBEDDING[kind], costs.encoder(kind, sees), weights_move=moved)
            for encoder, kind, sees in picture_encoders(embedders)
            if not is_compiled(encoder)
        ]

    def cast_layers(self) -> list[Any]:
        if self.pipeline.autocast is None:
            return []
        # Encoders and decoders run once an object: keeping their casts would cost more memory than it saves time.
        return fp32_layers(self.generator(stage) for stage in self.stages)
