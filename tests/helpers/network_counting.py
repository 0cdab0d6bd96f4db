"""Counts a model's networks themselves, at any size, on the meta device: no weights, no memory, no time.

PyTorch's `FlopCounterMode` sees every matrix product of the real modules, with the exact savings attached as in a run.
Two things have no shape there and are counted by formula: sparse convolutions (pairs of occupied voxels times the
tap's matrix) and the sizes of attention windows; both follow from `VoxelCounts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.exact.condition_cache import ConditionCache
from fastsam3d.diffusion.exact.shared_prefix import SharedPrefix
from fastsam3d.diffusion.exact.zero_condition import ZeroCondition
from fastsam3d.diffusion.hosts.native.host import NativeHost
from fastsam3d.diffusion.partial.blocks import PartialBlocks
from fastsam3d.diffusion.passes import Passes
from fastsam3d.diffusion.sites import CONDITIONAL, UNCONDITIONAL, EvaluationState
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STRUCTURED_LATENT
from fastsam3d.modules.sparse_convolution import SubMConvolution
from fastsam3d.modules.sparse_tensor import Pooling, SparseIndex, Windows
from fastsam3d.sam3d.models.build import build_condition_embedders, build_models
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.models.flops import ModelFlops, VoxelCounts
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

META = torch.device("meta")


@dataclass
class NominalIndex(SparseIndex):
    """Voxels of which only the numbers are known; all tables are on the meta device.

    Attributes:
        counts: see `VoxelCounts`; `level` 0 are cells, 1 voxels, 2 their children.
    """

    counts: VoxelCounts = field(default_factory=lambda: VoxelCounts.shell(4))
    level: int = 1

    @classmethod
    def make(cls, count: float, counts: VoxelCounts, level: int) -> NominalIndex:
        """An index of `count` voxels."""
        return cls(torch.empty(round(count), 4, dtype=torch.int32, device=META), counts=counts, level=level)

    @property
    def occupied(self) -> float:
        """Mean occupied taps of a 3 x 3 x 3 convolution."""
        return self.counts.neighbours[min(self.level, 3)]

    def pooling(self) -> Pooling:
        """The next coarser level, with as many cells as were counted there."""
        cells = NominalIndex.make(self.counts.cells, self.counts, self.level - 1)
        return Pooling(cells, _integers(len(self)), _integers(len(cells)))

    def subdivision(self) -> SparseIndex:
        """The next finer level: eight children a voxel."""
        return NominalIndex.make(8 * len(self), self.counts, self.level + 1)

    def windows(self, window: int, shift: int) -> Windows:
        """Windows that hold as many voxels each as were counted on average, whatever `shift` is."""
        length = max(1, round(self.counts.window))
        rows = _integers(-(-len(self) // length), length)
        return Windows(((rows, None),), _integers(len(self)))

    def batch_sizes(self) -> list[int]:
        """One object."""
        return [len(self)]


def _integers(*shape: int) -> Tensor:
    return torch.empty(*shape, dtype=torch.int64, device=META)


@dataclass(frozen=True)
class SamplingCounts:
    """FLOP of the passes of one stage's network. The first of a run also fills what the later ones use.

    Attributes:
        first, later: (conditional, unconditional) over all tokens.
        empty: (conditional, unconditional) later passes extrapolated to no tokens; everything between is linear.
    """

    first: tuple[float, float]
    later: tuple[float, float]
    empty: tuple[float, float]

    def run(self, passes: Passes, runs: int = 1) -> float:
        """FLOP of the passes of `runs` runs."""
        kinds = (
            (passes.conditional, passes.conditional_tokens),
            (passes.unconditional, passes.unconditional_tokens),
        )
        total = 0.0
        for branch, (count, tokens) in enumerate(kinds):
            total += count * self.empty[branch] + tokens * (self.later[branch] - self.empty[branch])
            total += runs * (self.first[branch] - self.later[branch]) if count else 0.0
        return total


def _combine(function: Callable[..., float], *counts: SamplingCounts) -> SamplingCounts:
    """Applies a function to corresponding numbers."""

    def pair(*values: tuple[float, float]) -> tuple[float, float]:
        return function(*[v[0] for v in values]), function(*[v[1] for v in values])

    return SamplingCounts(
        pair(*[c.first for c in counts]), pair(*[c.later for c in counts]), pair(*[c.empty for c in counts])
    )


class ShallowCounter:
    """Counts deep networks from two shallow ones: all blocks but the first are alike, so counts are linear in depth.

    The same results as `NetworkCounter` within rounding, in a fraction of the time.
    """

    def __init__(self, config: ModelConfig, exact: frozenset[str] = frozenset()) -> None:
        self.config = config
        self._one, self._two = (NetworkCounter(_with_depth(config, depth), exact) for depth in (1, 2))

    def embedding(self, stage: str) -> float:
        """Condition embedder of a stage; both image encoders of a stage must be equally deep."""
        config = self.config.ss_condition_embedder if stage == SPARSE_STRUCTURE else self.config.slat_condition_embedder
        if config.image.depth != config.mask.depth:
            return NetworkCounter(self.config).embedding(stage)
        return _line(config.image.depth, self._one.embedding(stage), self._two.embedding(stage))

    def structure_decoder(self) -> float:
        """The sparse-structure decoder."""
        return self._one.structure_decoder()

    def decoder(self, name: str, counts: VoxelCounts) -> float:
        """`slat_decoder_mesh` or `slat_decoder_gs`; 0 for a model without it."""
        config: Any = self.config.slat_decoder_mesh if name == "slat_decoder_mesh" else self.config.slat_decoder_gs
        if config is None:
            return 0.0
        return _line(config.num_blocks, self._one.decoder(name, counts), self._two.decoder(name, counts))

    def sampling(self, stage: str, counts: VoxelCounts | None = None) -> SamplingCounts:
        """The velocity network of a stage; `counts` for the latent stage."""
        config: Any = self.config.ss_generator if stage == SPARSE_STRUCTURE else self.config.slat_generator
        one, two = self._one.sampling(stage, counts), self._two.sampling(stage, counts)
        return _combine(lambda a, b: _line(config.num_blocks, a, b), one, two)


def _line(depth: int, one: float, two: float) -> float:
    return one + (depth - 1) * (two - one)


def _with_depth(config: ModelConfig, depth: int) -> ModelConfig:
    def embedder(part: Any) -> Any:
        return replace(part, image=replace(part.image, depth=depth), mask=replace(part.mask, depth=depth))

    gaussian = config.slat_decoder_gs
    return replace(
        config,
        ss_condition_embedder=embedder(config.ss_condition_embedder),
        slat_condition_embedder=embedder(config.slat_condition_embedder),
        ss_generator=replace(config.ss_generator, num_blocks=depth),
        slat_generator=replace(config.slat_generator, num_blocks=depth),
        slat_decoder_mesh=replace(config.slat_decoder_mesh, num_blocks=depth),
        slat_decoder_gs=gaussian and replace(gaussian, num_blocks=depth),
    )


class NetworkCounter:
    """A model's networks on the meta device, ready to be counted.

    Args:
        config: of the model.
        exact: names of the savings that are attached.
    """

    def __init__(self, config: ModelConfig, exact: frozenset[str] = frozenset()) -> None:
        self.config, self.exact = config, exact
        with META:
            models, embedders = build_models(config), build_condition_embedders(config)
        for module in (models, *embedders.values()):
            module.eval().requires_grad_(False)
        self.pipeline = Pipeline(models, embedders, config, META)
        self._analytic = 0.0

    def embedding(self, stage: str) -> float:
        """Condition embedder of a stage."""
        name = "ss_condition_embedder" if stage == SPARSE_STRUCTURE else "slat_condition_embedder"
        side = self.config.image_size
        channels = {"image": 3, "rgb_image": 3, "mask": 1, "rgb_image_mask": 1, "pointmap": 3, "rgb_pointmap": 3}
        inputs = {key: torch.empty(1, count, side, side, device=META) for key, count in channels.items()}
        return self._counted(lambda: self.pipeline.condition_embedders[name](**inputs))

    def structure_decoder(self) -> float:
        """The sparse-structure decoder."""
        shape = self.pipeline.models["ss_generator"].reverse_fn.backbone.latent_shapes(1)["shape"]
        return self._counted(lambda: self.pipeline.models["ss_decoder"](torch.empty(shape, device=META)))

    def decoder(self, name: str, counts: VoxelCounts) -> float:
        """`slat_decoder_mesh` or `slat_decoder_gs`; 0 for a model without it."""
        if name not in self.pipeline.models:
            return 0.0
        decoder: Any = self.pipeline.models[name]
        feats = torch.empty(round(counts.voxels), len(self.config.slat_mean), device=META)
        index = NominalIndex.make(counts.voxels, counts, 1)
        patches = Patches()
        try:
            patches.replace(decoder, "make_index", lambda _: lambda coords: index)
            with self._sparse(decoder):
                if name == "slat_decoder_mesh":
                    return self._counted(lambda: decoder(feats, index.coords))
                # Gaussians are split by object, which needs real voxels: the head is counted on the trunk's output.
                return self._counted(lambda: decoder.out_layer(decoder.run_trunk(feats, index.coords).feats))
        finally:
            patches.restore()

    def sampling(self, stage: str, counts: VoxelCounts | None = None) -> SamplingCounts:
        """The velocity network of a stage; `counts` for the latent stage."""
        host, state, patches = NativeHost(self.pipeline), EvaluationState(running=True), Patches()
        backbone: Any = host.generator(stage).reverse_fn.backbone
        context = ModelFlops(self.config).condition_tokens(stage)
        width = self.config.slat_generator.cond_channels
        if stage == SPARSE_STRUCTURE:
            width = self.config.ss_generator.cond_channels
        state.condition = torch.empty(1, context, width, device=META)
        index = None if counts is None else NominalIndex.make(counts.voxels, counts, 1)
        try:
            # In the order in which an acceleration attaches them.
            for name, saving in (("condition_cache", ConditionCache), ("zero_condition", ZeroCondition)):
                for attention in host.cross_attentions(stage) if name in self.exact else ():
                    patches.replace(attention.module, "forward", saving(attention, state).wrap)
            for site in host.time_sites(stage) if "time_tables" in self.exact else ():
                # As in a run, where the table of all steps is filled once; a step's share is that of its first pass.
                patches.replace(site.module, "forward", SharedPrefix(state).wrap)
            if stage == STRUCTURED_LATENT:
                patches.replace(backbone, "make_index", lambda _: lambda coords: index)
                PartialBlocks(host.latent_blocks(stage), state).attach(patches)
            for module in host.branch_prefix(stage) if "shared_prefix" in self.exact else ():
                patches.replace(module, "forward", SharedPrefix(state).wrap)

            def evaluate(tokens: int | None) -> tuple[float, float]:
                state.evaluation += 1
                state.tokens = None if tokens is None else _integers(tokens)
                conditional = self._pass(backbone, state, CONDITIONAL, index)
                return conditional, self._pass(backbone, state, UNCONDITIONAL, index)

            with self._sparse(backbone):
                first, later = evaluate(None), evaluate(None)
                if counts is None:
                    return SamplingCounts(first, later, (0.0, 0.0))
                cells = round(counts.cells)
                half = evaluate(cells // 2)
        finally:
            patches.restore()
        share = cells // 2 / cells
        empty = [(h - share * full) / (1 - share) for h, full in zip(half, later, strict=True)]
        return SamplingCounts(first, later, (empty[0], empty[1]))

    def _pass(self, backbone: Any, state: EvaluationState, branch: str, index: NominalIndex | None) -> float:
        time, state.branch = torch.empty(1, device=META), branch
        unconditional = branch == UNCONDITIONAL
        if index is None:
            x: Any = {name: torch.empty(s, device=META) for name, s in backbone.latent_shapes(1).items()}
            return self._counted(lambda: backbone(x, time, state.condition, d=time, cfg=unconditional))
        x = torch.empty(1, len(index), self.config.slat_generator.channels, device=META)
        return self._counted(lambda: backbone(x, time, state.condition, index.coords, cfg=unconditional))

    def _counted(self, call: Callable[[], Any]) -> float:
        self._analytic = 0.0
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops() + self._analytic

    @contextmanager
    def _sparse(self, network: Any) -> Iterator[None]:
        """Sparse convolutions give empty results of the right size and are counted by formula."""
        patches = Patches()

        def formula(module: SubMConvolution, children: bool) -> Callable[..., Any]:
            def apply(feats: Tensor, *tables: Any) -> Tensor:
                index = tables[-1].subdivision() if children else tables[-1]
                self._analytic += 2 * len(index) * index.occupied * module.in_channels * module.out_channels
                return feats.new_empty(len(index), module.out_channels)

            return lambda original: apply

        try:
            for module in network.modules():
                if isinstance(module, SubMConvolution) and module.kernel > 1:
                    patches.replace(module, "apply_to", formula(module, children=False))
                    patches.replace(module, "apply_to_copies", formula(module, children=False))
                    patches.replace(module, "apply_to_children", formula(module, children=True))
            yield
        finally:
            patches.restore()
