"""The part that the hosts of SAM 3D Objects and TRELLIS share: two sampled stages, sparse tensors, like-named parts.

SAM 3D Objects architecture, sections 7, 8, 12 and 13.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.host import Host, Recorder
from fastsam3d.diffusion.hosts.shared.attention_sites import block_site, cross_attention_sites
from fastsam3d.diffusion.hosts.shared.expectations import Expected, differences
from fastsam3d.diffusion.hosts.shared.sparse_states import SPARSE
from fastsam3d.diffusion.hosts.shared.stage_clock import StageClock
from fastsam3d.diffusion.hosts.shared.voxel_structure import Structure, VoxelsBetweenStages
from fastsam3d.diffusion.hosts.shared.voxel_tables import VoxelTables
from fastsam3d.diffusion.hosts.shared.wrappers import is_compiled, owner_of
from fastsam3d.diffusion.sites import TENSORS, BlockSite, CrossAttentionSite, Forward, HiddenStates
from fastsam3d.diffusion.vocabulary import STRUCTURED_LATENT, VoxelPolicy
from fastsam3d.errors import UserError

STAGE_METHODS = ("sample_sparse_structure", "sample_slat", "decode_slat")
CELL = 2
"""Voxels along the side of a transformer token of the latent stage."""


class TwoStageHost(Host):
    """A pipeline with `models`, `sample_sparse_structure`, `sample_slat` and `decode_slat`.

    Class attributes say where its parts are.
    """

    networks: ClassVar[Mapping[str, str]]
    """Name in `models` of the object that holds each stage's network."""
    structure_decoder: ClassVar[str]
    """Name in `models` of the decoder that gives occupancy logits."""
    expectations: ClassVar[tuple[Expected, ...]]
    """The parts of the pipeline that this host reads or replaces."""
    stage_methods: ClassVar[Mapping[str, str]]
    """Stage of the report by method of the pipeline."""
    stage_models: ClassVar[Mapping[str, str]] = {
        "slat_decoder_mesh": "mesh_decode",
        "slat_decoder_gs": "gaussian_decode",
        "slat_decoder_gs_4": "gaussian_decode",
        "slat_decoder_rf": "radiance_field_decode",
    }
    """Stage of the report by name in `models`."""
    nested_stages: ClassVar[Mapping[tuple[str, str], str]] = {}
    """Name in the report of a stage (second) that runs inside another (first)."""
    run_methods: ClassVar[tuple[str, ...]] = ("run",)
    """Methods of the pipeline that make a whole object."""

    def __init__(self, pipeline: Any) -> None:
        super().__init__(owner_of(pipeline, "sample_slat"))
        self._between = VoxelsBetweenStages(self.structure_of, lambda: self._resolution)
        self._tables = VoxelTables()

    @property
    def device(self) -> torch.device:
        return torch.device(self.pipeline.device)

    @abstractmethod
    def network(self, stage: str) -> Any:
        """The module whose `blocks` compute the velocity of a stage."""

    @abstractmethod
    def structure_of(self, result: Any) -> Structure:
        """The result of `sample_sparse_structure` as a `Structure`."""

    @abstractmethod
    def attach_picture(self, patches: Patches) -> None:
        """Keeps the picture `[H, W, 3]` of every object, and the object in it, bool `[H, W]`, in `_between.picture`."""

    def check(self) -> None:
        """Refuses a pipeline that lacks what every run needs.

        Raises:
            UserError: with the list of differences.
        """
        lines = differences(self.pipeline, [e for e in self.expectations if not e.optional])
        if lines:
            raise UserError(
                f"this {type(self.pipeline).__name__} is not the {self.name} that is known here:\n  "
                + "\n  ".join(lines)
                + "\nUpdate fastsam3d, or use the version of the pipeline that docs/new_pipeline.md names."
            )

    def describe_differences(self) -> list[str]:
        return differences(self.pipeline, self.expectations)

    def model(self, name: str) -> Any | None:
        """A member of `models`, None where there is none."""
        models = self.pipeline.models
        return models[name] if name in models else None  # noqa: SIM401 - a ModuleDict has no `get`

    # --- sites in the networks

    def is_sealed(self, stage: str) -> bool:
        """Whether a stage's network is compiled, so that nothing can be attached inside it."""
        network = self.network(stage)
        return any(is_compiled(module) for module in (network, *getattr(network, "blocks", ())))

    def refusals(self) -> dict[tuple[str, str], str]:
        compiled = "its {} network is compiled, and blocks are skipped inside of it"
        sealed = {kind: stage for stage, kind in self.stages.items() if self.is_sealed(stage)}
        refused = {(kind, "block_stack"): compiled.format(stage) for kind, stage in sealed.items()}
        if (reason := self._tokens_refusal()) is not None:
            refused[STRUCTURED_LATENT, "tokens"] = reason
        return refused

    def _tokens_refusal(self) -> str | None:
        """Why its latent networks cannot compute some of their tokens among the others; None where they can."""
        for stage in self.stages_of(STRUCTURED_LATENT):
            if self.is_sealed(stage):
                return "its latent network is compiled, and tokens are left out inside of it"
            attention = self.network(stage).blocks[0].self_attn
            if getattr(attention, "attn_mode", "full") != "full" or getattr(attention, "use_rope", False):
                return "its latent network does not attend to all tokens by one plain attention"
        return None

    def cross_attentions(self, stage: str) -> list[CrossAttentionSite]:
        if self.is_sealed(stage):
            return []
        states = self.block_states(stage)
        return [site for block in self.network(stage).blocks for site in cross_attention_sites(block, states)]

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

    def block_stack(self, stage: str) -> list[Any]:
        return [] if self.is_sealed(stage) else list(self.network(stage).blocks)

    def block_states(self, stage: str) -> HiddenStates:
        return SPARSE if self.stages[stage] == STRUCTURED_LATENT else TENSORS

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

    def attach_recorder(self, patches: Patches, recorder: Recorder) -> None:
        clock = StageClock(self.device, aliases=self.nested_stages)

        def whole(original: Forward) -> Forward:
            def run(*args: Any, **kwargs: Any) -> Any:
                if clock.running:
                    return original(*args, **kwargs)
                with clock.run():
                    result = original(*args, **kwargs)
                recorder.add_object(dict(clock.seconds))
                return result

            return run

        for name in self.run_methods:
            if hasattr(self.pipeline, name):
                patches.replace(self.pipeline, name, whole)
        for name, stage in self.stage_methods.items():
            if hasattr(self.pipeline, name):
                patches.replace(self.pipeline, name, clock.timed(stage))
        for name, stage in {self.structure_decoder: "ss_decode", **self.stage_models}.items():
            if self.model(name) is not None:
                patches.replace(self.model(name), "forward", clock.timed(stage))
        surface = self.model("slat_decoder_mesh")
        if hasattr(surface, "to_representation"):
            patches.replace(surface, "to_representation", clock.timed("surface"))


def fp32_layers(networks: Iterable[nn.Module]) -> list[Any]:
    """Linear layers with fp32 weights, which take and give tensors."""
    layers = [layer for network in networks for layer in network.modules() if type(layer) is nn.Linear]
    return [layer for layer in layers if layer.weight.dtype == torch.float32]
