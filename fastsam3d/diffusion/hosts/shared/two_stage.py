"""The part that the hosts of SAM 3D Objects and TRELLIS share: two sampled stages, sparse tensors, like-named parts.

docs/facts.md, sections S7, S8, S12 and S13.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.hosts.shared.attention_sites import block_site
from fastsam3d.diffusion.hosts.shared.model_table import ModelTableHost
from fastsam3d.diffusion.hosts.shared.sparse_states import SPARSE
from fastsam3d.diffusion.hosts.shared.stage_clock import StageClock
from fastsam3d.diffusion.hosts.shared.voxel_structure import Structure, VoxelsBetweenStages
from fastsam3d.diffusion.hosts.shared.voxel_tables import VoxelTables
from fastsam3d.diffusion.hosts.shared.wrappers import owner_of
from fastsam3d.diffusion.sites import BlockSite
from fastsam3d.diffusion.vocabulary import STRUCTURED_LATENT, VoxelPolicy

STAGE_METHODS = ("sample_sparse_structure", "sample_slat", "decode_slat")
CELL = 2
"""Voxels along the side of a transformer token of the latent stage."""


class TwoStageHost(ModelTableHost):
    """A pipeline with `models`, `sample_sparse_structure`, `sample_slat` and `decode_slat`."""

    stage_models: ClassVar[Mapping[str, str]] = {
        "slat_decoder_mesh": "mesh_decode",
        "slat_decoder_gs": "gaussian_decode",
        "slat_decoder_gs_4": "gaussian_decode",
        "slat_decoder_rf": "radiance_field_decode",
    }

    def __init__(self, pipeline: Any) -> None:
        super().__init__(owner_of(pipeline, "sample_slat"))
        self._between = VoxelsBetweenStages(self.structure_of, lambda: self._resolution)
        self._tables = VoxelTables()

    @abstractmethod
    def structure_of(self, result: Any) -> Structure:
        """The result of `sample_sparse_structure` as a `Structure`."""

    @abstractmethod
    def attach_picture(self, patches: Patches) -> None:
        """Keeps the picture `[H, W, 3]` of every object, and the object in it, bool `[H, W]`, in `_between.picture`."""

    # --- sites in the networks

    def branch_prefix(self, stage: str) -> list[Any]:
        if self.is_sealed(stage):
            return []
        network = self.network(stage)
        # The first cross-attention comes after the first self-attention.
        first = network.blocks[0].self_attn
        return [*network.input_blocks, first] if self.stages[stage] == STRUCTURED_LATENT else [first]

    def latent_blocks(self, stage: str) -> list[BlockSite]:
        return [block_site(block, SPARSE) for block in self.network(stage).blocks]

    def pyramid_blocks(self, stage: str) -> list[Any]:
        if self.stages[stage] != STRUCTURED_LATENT or self.is_sealed(stage):
            return []
        network = self.network(stage)
        return [*network.input_blocks, *network.out_blocks]

    def full_attentions(self) -> list[BlockSite]:
        if self._tokens_refusal() is not None:
            return []
        return [site for stage in self.stages_of(STRUCTURED_LATENT) for site in self.latent_blocks(stage)]

    def windowed_attentions(self) -> list[Any]:
        blocks = [block for name in self.stage_models for block in getattr(self.model(name), "blocks", ())]
        attentions = [getattr(block, "attn", None) for block in blocks]
        return [attention for attention in attentions if getattr(attention, "attn_mode", None) == "windowed"]

    def surface_extractors(self) -> list[tuple[Any, str]]:
        decoder = self.model("slat_decoder_mesh")
        return [] if getattr(decoder, "mesh_extractor", None) is None else [(decoder, "mesh_extractor")]

    def index_makers(self) -> list[Any]:
        return [self._tables]

    # --- between the stages

    @property
    def _resolution(self) -> int:
        """Voxels along the side of the grid that the first latent stage works on."""
        return int(self.network(self.stages_of(STRUCTURED_LATENT)[0]).resolution)

    def cells(self, stage: str, coords: Tensor) -> Tensor | None:
        """Transformer token `[N]` of each voxel of a latent stage; None where tokens are not cells of one object."""
        network = self.network(stage)
        if getattr(network, "patch_size", None) != CELL or len(coords) == 0 or int(coords[:, 0].max()) > 0:
            return None
        return self._tables.make_index(coords).pooling().inverse

    def attach_structure(self, patches: Patches, policy: VoxelPolicy | None) -> None:
        patches.replace(self.pipeline.models[self.structure_decoder], "forward", self._between.decoded_structure)
        patches.replace(self.pipeline, "sample_sparse_structure", self._between.sampled_structure)
        patches.replace(self.pipeline, "sample_slat", self._between.sampling(policy))
        if policy is not None:
            patches.replace(self.pipeline, "decode_slat", self._between.decoded)
            self.attach_picture(patches)

    # --- the report

    def attach_clock(self, patches: Patches, clock: StageClock) -> None:
        surface = self.model("slat_decoder_mesh")
        if hasattr(surface, "to_representation"):
            patches.replace(surface, "to_representation", clock.timed("surface"))


def fp32_layers(networks: Iterable[nn.Module]) -> list[Any]:
    """Linear layers with fp32 weights, which take and give tensors."""
    layers = [layer for network in networks for layer in network.modules() if type(layer) is nn.Linear]
    return [layer for layer in layers if layer.weight.dtype == torch.float32]
