"""Floating-point operations of every network, from its sizes alone: matrix products, two a multiply-add.

Arithmetic only, so that a report can use it at no cost; tests hold it against counts of the networks themselves. As in
docs/facts.md, section S11, sparse convolutions count the pairs of occupied voxels, whichever way they are
computed, and normalisations, activations and surface extraction are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.modules.sparse_tensor import SparseIndex
from fastsam3d.sam3d.models.config import ConditionEmbedderConfig, DinoConfig, ModelConfig, PointPatchConfig

SHELL_NEIGHBOURS = (14.0, 12.0, 19.0, 22.8)
"""Occupied taps of 27 on shells: cells, voxels, their children once and twice removed (docs/facts.md, S11)."""
SHELL_VOXELS_A_CELL = 4.0
SHELL_WINDOW = 90.0
"""Voxels in the attention window of a voxel, on average over voxels (docs/facts.md, section S8)."""
TAPS, POSE_TOKENS = 27, 4


@dataclass(frozen=True)
class VoxelCounts:
    """Numbers of voxels that the cost of sparse networks depends on.

    Attributes:
        voxels, cells: of the latent stage, and the 2 x 2 x 2 cells that hold them, its transformer tokens.
        neighbours: mean occupied taps of a 3 x 3 x 3 convolution at cells, voxels, children, grandchildren.
        window: mean number of voxels that a voxel of the decoders attends to.
    """

    voxels: float
    cells: float
    neighbours: tuple[float, float, float, float] = SHELL_NEIGHBOURS
    window: float = SHELL_WINDOW

    @classmethod
    def shell(cls, voxels: float) -> VoxelCounts:
        """A typical surface of so many voxels."""
        return cls(voxels, voxels / SHELL_VOXELS_A_CELL)

    @classmethod
    def of(cls, voxels: Tensor | SparseIndex, window: int = 8) -> VoxelCounts:
        """Counted on real voxels `[N, 4]` (batch, x, y, z), or on an index of them, whose tables are used.

        Taps of children follow without building them: along each axis a child meets its own voxel with two of three
        taps and one neighbour with the third.
        """
        index = SparseIndex(voxels) if isinstance(voxels, Tensor) else voxels
        coords = index.coords
        if not len(coords):
            return cls(0, 0)
        coarse = index.pooling().index
        taps = [(each.neighbours() < len(each)).sum(0) for each in (index, coarse)]
        # Two copies to the host: every other way to read a number from a GPU waits for it once more.
        fine, coarser = torch.stack(taps).cpu().double()
        on_host = coords.cpu()
        occupied = (fine / len(coords)).reshape(3, 3, 3)
        axis = torch.tensor([0.5, 2.0, 0.5], dtype=torch.float64)
        grandchild = torch.tensor([0.25, 2.5, 0.25], dtype=torch.float64)
        return cls(
            len(coords),
            len(coarse),
            (
                float(coarser.sum() / len(coarse)),
                float(occupied.sum()),
                float(torch.einsum("xyz,x,y,z", occupied, axis, axis, axis)),
                float(torch.einsum("xyz,x,y,z", occupied, grandchild, grandchild, grandchild)),
            ),
            sum(_window_mean(on_host, window, shift) for shift in (0, window // 2)) / 2,
        )


def _window_mean(coords: Tensor, window: int, shift: int) -> float:
    batch, x, y, z = torch.cat([coords[:, :1], (coords[:, 1:] + shift) // window], 1).long().unbind(1)
    side = int(coords[:, 1:].max() + shift) // window + 1
    counts = torch.bincount(((batch * side + x) * side + y) * side + z).double()
    return float((counts**2).sum() / len(coords))


@dataclass(frozen=True)
class EvaluationFlops:
    """FLOP of one pass of a velocity network, by the parts that savings change.

    Attributes:
        tokens: self-attention and feed-forward with their projections; grows with the tokens that are computed.
        cross: cross-attention with its query and output projections; grows likewise.
        condition: projection of the condition to keys and values, equal in all passes of a run.
        rest: layers before and after the blocks, and modulation.
        modulation: the part of `rest` that depends on time only, the embedding of the time left out.
        table_step: of one step in tables of the modulation, each of which embeds the time for itself.
        prefix_tokens, prefix_rest: the part of `tokens` and of `rest` that no condition has reached yet.
    """

    tokens: float
    cross: float
    condition: float
    rest: float
    modulation: float
    table_step: float
    prefix_tokens: float
    prefix_rest: float

    @property
    def total(self) -> float:
        """The whole pass."""
        return self.tokens + self.cross + self.condition + self.rest


@dataclass(frozen=True)
class ModelFlops:
    """Costs of one model's networks; all results in FLOP."""

    config: ModelConfig

    def condition_tokens(self, stage: str) -> int:
        """Condition tokens of a stage ("sparse_structure" or "structured_latent")."""
        return sum(tokens for _, tokens, _ in _inputs(self._embedder(stage)))

    def embedding(self, stage: str) -> dict[str, float]:
        """Cost of embedding each input of a stage's condition embedder, by keyword."""
        config = self._embedder(stage)
        costs = {}
        for name, tokens, part in _inputs(config):
            hidden = math.ceil(int(4 * config.channels * 2 / 3) / config.hidden_multiple) * config.hidden_multiple
            projection = 2 * tokens * hidden * (2 * part.channels + config.channels)
            costs[name] = (_dino(part) if isinstance(part, DinoConfig) else _point_patch(part)) + projection
        return costs

    def encoder(self, stage: str, kind: str) -> float:
        """One picture through the transformer of a stage's "image" or "mask" encoder."""
        config = self._embedder(stage)
        return _dino(config.image if kind == "image" else config.mask)

    def sparse_structure(self, layout: bool = True, shape_tokens: int | None = None) -> EvaluationFlops:
        """One pass of the first stage's network, for all or some shape tokens alone, with or without the pose."""
        shape = self.config.ss_generator.latent_resolution**3 if shape_tokens is None else shape_tokens
        streams = [(shape, shape), *([(POSE_TOKENS, POSE_TOKENS + shape)] if layout else [])]
        return self._streams(streams, layout)

    def layout_alone(self) -> EvaluationFlops:
        """One pass of the layout tokens through the first stage's network, the shape's keys and values kept."""
        # The projections before and after the blocks run for all tokens.
        return self._streams([(POSE_TOKENS, POSE_TOKENS + self.config.ss_generator.latent_resolution**3)], True)

    def _streams(self, streams: Sequence[tuple[float, float]], layout: bool) -> EvaluationFlops:
        """A pass of streams of (tokens, keys) through the blocks."""
        config, context = self.config.ss_generator, self.condition_tokens("sparse_structure")
        width, blocks = config.model_channels, config.num_blocks
        tokens = cross = condition = prefix = 0.0
        for count, keys in streams:
            more = _block(width, config.mlp_ratio, context, config.cond_channels, count, keys)
            tokens, cross, condition = tokens + more[0], cross + more[1], condition + more[2]
            prefix += _self_attention(width, count, keys)
        ends = 4 * width * (config.latent_resolution**3 * config.shape_channels + (6 + 3 + 3 + 1 if layout else 0))
        modulation = blocks * 12 * width**2
        embedding = 2 * _time_embedding(width)
        rest, table = ends + modulation + embedding, modulation + blocks * embedding
        return EvaluationFlops(blocks * tokens, blocks * cross, blocks * condition, rest, modulation, table, prefix, 0)

    def structured_latent(self, counts: VoxelCounts) -> EvaluationFlops:
        """One pass of the second stage's network on voxels."""
        config = self.config.slat_generator
        width, context, cells = config.model_channels, self.condition_tokens("structured_latent"), counts.cells
        tokens, cross, condition = _block(width, config.mlp_ratio, context, config.cond_channels, cells, cells)
        before, after, levels = self._levels(counts)
        blocks, prefix, embedding = config.num_blocks, _self_attention(width, cells, cells), _time_embedding(width)
        modulation = blocks * 12 * width**2 + levels
        table = modulation + (blocks + 2 * config.num_io_res_blocks) * embedding
        rest = before + after + modulation + embedding + 4 * counts.voxels * config.channels * config.io_channels[0]
        tokens, cross, condition = blocks * tokens, blocks * cross, blocks * condition
        return EvaluationFlops(tokens, cross, condition, rest, modulation, table, prefix, before)

    def structure_decoder(self) -> float:
        """The sparse-structure decoder."""
        config = self.config.ss_decoder
        channels, side = config.channels, self.config.ss_generator.latent_resolution * config.patch
        total = _dense_convolution(side, config.latent_channels, channels[0])
        total += 2 * config.num_middle_blocks * _dense_convolution(side, channels[0], channels[0])
        for level, width in enumerate(channels):
            total += 2 * config.num_res_blocks * _dense_convolution(side, width, width)
            if level + 1 < len(channels):
                total += _dense_convolution(side, width, 8 * channels[level + 1])
                side *= 2
        return total + _dense_convolution(side, channels[-1], 1)

    def mesh_decoder(self, counts: VoxelCounts) -> float:
        """The mesh decoder's network, surface extraction not included."""
        config = self.config.slat_decoder_mesh
        total = _trunk(config.latent_channels, config.model_channels, config.num_blocks, counts)
        width, voxels = config.model_channels, counts.voxels
        for level, following in enumerate(config.upsample_channels):
            skip = 2 * voxels * width * following
            voxels *= 8
            neighbours = counts.neighbours[min(2 + level, 3)]
            total += skip + 2 * voxels * neighbours * following * (width + following)
            width = following
        return total + 2 * voxels * width * 101

    def gaussian_decoder(self, counts: VoxelCounts) -> float:
        """The Gaussian decoder; 0 for a model without one."""
        config = self.config.slat_decoder_gs
        if config is None:
            return 0.0
        head = 2 * counts.voxels * config.model_channels * 14 * config.gaussians
        return _trunk(config.latent_channels, config.model_channels, config.num_blocks, counts) + head

    def counts(self, voxels: Tensor | SparseIndex) -> VoxelCounts:
        """Sizes of the second stage and of the decoders."""
        return VoxelCounts.of(voxels, self.config.slat_decoder_mesh.window)

    def sampling(
        self, stage: str, counts: VoxelCounts | None = None, layout: bool = True, shape_tokens: int | None = None
    ) -> EvaluationFlops:
        """One pass of a stage's network, see `sparse_structure` and `structured_latent`."""
        if stage == "sparse_structure":
            return self.sparse_structure(layout, shape_tokens)
        return self.structured_latent(counts or VoxelCounts(0, 0))

    def others(self, counts: VoxelCounts | None) -> dict[str, float]:
        """Every network that is not sampled, by the name of its stage; no voxels without `counts`."""
        counts = counts or VoxelCounts(0, 0)
        return {
            "ss_condition": sum(self.embedding("sparse_structure").values()),
            "ss_decode": self.structure_decoder(),
            "slat_condition": sum(self.embedding("structured_latent").values()),
            "mesh_decode": self.mesh_decoder(counts),
            "gaussian_decode": self.gaussian_decoder(counts),
        }

    def _embedder(self, stage: str) -> ConditionEmbedderConfig:
        config = self.config
        return config.ss_condition_embedder if stage == "sparse_structure" else config.slat_condition_embedder

    def _levels(self, counts: VoxelCounts) -> tuple[float, float, float]:
        """Convolutional levels before and after the transformer, and their modulation. One change of resolution."""
        config = self.config.slat_generator
        width, inner = config.model_channels, config.io_channels[0]
        at_cells = 2 * counts.cells * counts.neighbours[0]
        at_voxels = 2 * counts.voxels * counts.neighbours[1]
        same = config.num_io_res_blocks - 1
        before = same * at_voxels * 2 * inner**2
        before += at_cells * (inner * width + width**2) + 2 * counts.cells * inner * width
        after = at_voxels * (2 * width * inner + inner**2) + 2 * counts.cells * 2 * width * inner
        after += same * (at_voxels * 3 * inner**2 + 2 * counts.voxels * 2 * inner**2)
        modulation = 4 * width * (width + inner) + same * 8 * width * inner
        return before, after, modulation


def _inputs(config: ConditionEmbedderConfig) -> list[tuple[str, int, DinoConfig | PointPatchConfig]]:
    """(keyword, condition tokens, embedder) of every input."""
    inputs: list[tuple[str, int, DinoConfig | PointPatchConfig]] = []
    for part, names in ((config.image, ("image", "rgb_image")), (config.mask, ("mask", "rgb_image_mask"))):
        tokens = 1 + (part.image_size // part.patch) ** 2 + (part.registers if part.prenorm_features else 0)
        inputs += [(name, tokens, part) for name in names]
    if config.pointmap is not None:
        tokens = (config.pointmap.input_size // config.pointmap.patch) ** 2
        inputs += [(name, tokens, config.pointmap) for name in ("pointmap", "rgb_pointmap")]
    return inputs


def _dino(config: DinoConfig) -> float:
    patches = (config.image_size // config.patch) ** 2
    tokens, width = 1 + config.registers + patches, config.channels
    blocks = config.depth * tokens * (24 * width**2 + 4 * tokens * width)
    return blocks + 2 * patches * 3 * config.patch**2 * width


def _point_patch(config: PointPatchConfig) -> float:
    windows, tokens, width = (config.input_size // config.patch) ** 2, 1 + config.patch**2, config.channels
    return windows * tokens * (16 * width**2 + 4 * tokens * width) + 2 * 3 * config.input_size**2 * width


def _self_attention(width: int, tokens: float, keys: float) -> float:
    return 8 * tokens * width**2 + 4 * tokens * keys * width


def _block(
    width: int, mlp_ratio: float, context: int, context_width: int, tokens: float, keys: float
) -> tuple[float, float, float]:
    """(tokens, cross, condition) of one stream of a block; see `EvaluationFlops`."""
    own = _self_attention(width, tokens, keys) + 4 * tokens * width * int(width * mlp_ratio)
    cross = 4 * tokens * width**2 + 4 * tokens * context * width
    return own, cross, 4 * context * context_width * width


def _time_embedding(width: int) -> float:
    return 2 * 256 * width + 2 * width**2


def _dense_convolution(side: int, inputs: int, outputs: int) -> float:
    return 2 * TAPS * side**3 * inputs * outputs


def _trunk(inputs: int, width: int, blocks: int, counts: VoxelCounts) -> float:
    block = counts.voxels * (24 * width**2 + 4 * counts.window * width)
    return 2 * counts.voxels * inputs * width + blocks * block
