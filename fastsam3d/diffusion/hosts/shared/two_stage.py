"""What SAM 3D Objects and TRELLIS have in common as hosts: two sampled stages, sparse tensors, like-named parts.

SAM 3D Objects architecture, sections 7, 8, 12 and 13.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.host import Host, Recorder
from fastsam3d.diffusion.hosts.shared.attention_sites import block_site, cross_attention_site
from fastsam3d.diffusion.hosts.shared.expectations import Expected, differences
from fastsam3d.diffusion.hosts.shared.put_back import to_fine
from fastsam3d.diffusion.hosts.shared.sparse_states import SPARSE
from fastsam3d.diffusion.hosts.shared.stage_clock import StageClock
from fastsam3d.diffusion.hosts.shared.voxel_tables import VoxelTables
from fastsam3d.diffusion.maths.voxel_lattice import Lattice
from fastsam3d.diffusion.sites import TENSORS, BlockSite, CrossAttentionSite, HiddenStates
from fastsam3d.diffusion.vocabulary import STAGES, STRUCTURED_LATENT, VoxelSet
from fastsam3d.errors import UserError

STAGE_METHODS = ("sample_sparse_structure", "sample_slat", "decode_slat")
CELL = 2
"""Voxels along the side of a transformer token of the latent stage."""


@dataclass(frozen=True)
class Structure:
    """Result of the first stage, kept until the second has begun.

    Attributes:
        coords: voxels `[N, 4]` that the pipeline goes on with.
        interior: dropped voxels that are known to lie inside `[M, 4]`, or None.
        halved: the pipeline has put them on a coarser grid itself.
    """

    coords: Tensor
    interior: Tensor | None = None
    halved: bool = False


class TwoStageHost(Host):
    """A pipeline with `models`, `sample_sparse_structure`, `sample_slat` and `decode_slat`.

    Class attributes say where its parts are.
    """

    networks: ClassVar[Mapping[str, str]]
    """Name in `models` of the object that holds each stage's network."""
    structure_decoder: ClassVar[str]
    """Name in `models` of the decoder that gives occupancy logits."""
    expectations: ClassVar[tuple[Expected, ...]]
    """Everything that this host builds on."""
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
    """Other names for a stage (second) that runs inside another (first)."""
    run_methods: ClassVar[tuple[str, ...]] = ("run",)
    """Methods of the pipeline that make a whole object."""

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self._logits: Tensor | None = None
        self._structure: Structure | None = None
        self._picture: tuple[Tensor, Tensor] | None = None
        self._stage_logits: Tensor | None = None
        self._tables = VoxelTables()
        # By the voxels of the latents, which arithmetic on the latents hands on.
        self._lattices: Any = WeakTensorKeyDictionary()

    @property
    def device(self) -> torch.device:
        return torch.device(self.pipeline.device)

    @abstractmethod
    def network(self, stage: str) -> Any:
        """The module whose `blocks` compute the velocity of a stage."""

    @abstractmethod
    def structure_of(self, result: Any) -> Structure:
        """What `sample_sparse_structure` returned, in this library's terms."""

    @abstractmethod
    def attach_picture(self, patches: Patches) -> None:
        """Keeps the picture `[H, W, 3]` and the object in it, bool `[H, W]`, of every object in `_picture`."""

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

    # --- what the networks are made of

    def is_sealed(self, stage: str) -> bool:
        """Whether a stage's network is compiled, so that nothing can be attached inside it."""
        network = self.network(stage)
        return "_orig_mod" in getattr(network, "_modules", {}) or any(
            "_orig_mod" in getattr(block, "_modules", {}) for block in getattr(network, "blocks", ())
        )

    def refusals(self) -> dict[tuple[str, str], str]:
        compiled = "its {} network is compiled, and blocks are skipped inside of it"
        refused = {(stage, "block_stack"): compiled.format(stage) for stage in STAGES if self.is_sealed(stage)}
        if (reason := self._tokens_refusal()) is not None:
            refused[STRUCTURED_LATENT, "tokens"] = reason
        return refused

    def _tokens_refusal(self) -> str | None:
        """Why its latent network cannot compute some of its tokens among the others; None where it can."""
        if self.is_sealed(STRUCTURED_LATENT):
            return "its latent network is compiled, and tokens are left out inside of it"
        attention = self.network(STRUCTURED_LATENT).blocks[0].self_attn
        if getattr(attention, "attn_mode", "full") != "full" or getattr(attention, "use_rope", False):
            return "its latent network does not attend to all tokens by one plain attention"
        return None

    def cross_attentions(self, stage: str) -> list[CrossAttentionSite]:
        if self.is_sealed(stage):
            return []
        states = SPARSE if stage == STRUCTURED_LATENT else TENSORS
        sites = []
        for block in self.network(stage).blocks:
            attention = block.cross_attn
            modules = attention.values() if isinstance(attention, nn.ModuleDict) else [attention]
            sites += [cross_attention_site(module, states) for module in modules]
        return sites

    def branch_prefix(self, stage: str) -> list[Any]:
        if self.is_sealed(stage):
            return []
        network = self.network(stage)
        # The first cross-attention comes after the first self-attention.
        first = network.blocks[0].self_attn
        return [*network.input_blocks, first] if stage == STRUCTURED_LATENT else [first]

    def latent_blocks(self, stage: str) -> list[BlockSite]:
        return [block_site(block, SPARSE) for block in self.network(stage).blocks]

    def pyramid_blocks(self, stage: str) -> list[Any]:
        if self.stages[stage] != STRUCTURED_LATENT or self.is_sealed(stage):
            return []
        network = self.network(stage)
        return [*network.input_blocks, *network.out_blocks]

    def full_attentions(self) -> list[BlockSite]:
        return [] if self._tokens_refusal() is not None else self.latent_blocks(STRUCTURED_LATENT)

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
        return SPARSE if stage == STRUCTURED_LATENT else TENSORS

    def index_makers(self) -> list[Any]:
        return [self._tables]

    # --- between the stages

    def cells(self, coords: Tensor) -> Tensor | None:
        """Transformer token of each voxel `[N]`; None where tokens are not cells of one object."""
        network = self.network(STRUCTURED_LATENT)
        if getattr(network, "patch_size", None) != CELL or len(coords) == 0 or int(coords[:, 0].max()) > 0:
            return None
        return self._tables.make_index(coords).pooling().inverse

    def attach_structure(self, patches: Patches, policy: Any | None) -> None:
        def decoded_structure(original: Callable[..., Any]) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                logits = original(*args, **kwargs)
                self._logits = logits
                return logits

            return forward

        def sampled_structure(original: Callable[..., Any]) -> Callable[..., Any]:
            def sample_sparse_structure(*args: Any, **kwargs: Any) -> Any:
                self._structure = self._logits = None
                result = original(*args, **kwargs)
                self._structure = self.structure_of(result)
                return result

            return sample_sparse_structure

        def sampled(original: Callable[..., Any]) -> Callable[..., Any]:
            def sample_slat(condition: Any, coords: Tensor, *args: Any, **kwargs: Any) -> Any:
                voxels = self._voxels(coords)
                merged = policy.reduce(voxels) if policy is not None and voxels is not None else None
                chosen = voxels if merged is None else merged
                self._stage_logits = None if chosen is None else chosen.logits
                try:
                    slat = original(condition, coords if merged is None else merged.coords, *args, **kwargs)
                finally:
                    self._stage_logits = self._structure = self._logits = None
                if merged is not None:
                    self._lattices[slat.coords] = merged.lattice
                return slat

            return sample_slat

        def decoded(original: Callable[..., Any]) -> Callable[..., Any]:
            def decode_slat(slat: Any, *args: Any, **kwargs: Any) -> Any:
                lattice: Lattice | None = self._lattices.get(slat.coords)
                results = original(slat, *args, **kwargs)
                if lattice is not None:
                    for result in itertools.chain.from_iterable(results.values()):
                        to_fine(result, lattice)
                return results

            return decode_slat

        patches.replace(self.pipeline.models[self.structure_decoder], "forward", decoded_structure)
        patches.replace(self.pipeline, "sample_sparse_structure", sampled_structure)
        patches.replace(self.pipeline, "sample_slat", sampled)
        if policy is not None:
            patches.replace(self.pipeline, "decode_slat", decoded)
            self.attach_picture(patches)

    def _voxels(self, coords: Tensor) -> VoxelSet | None:
        structure, logits = self._structure, self._logits
        # Voxels that somebody edited, or brought along, have no logits and no inside.
        if structure is None or not (structure.coords is coords or _equal(structure.coords, coords)):
            structure, logits = Structure(coords), None
        several = len(coords) == 0 or int(coords[:, 0].max()) > 0
        # A grid that the pipeline halved itself is coarse already, and the logits do not belong to its voxels.
        if structure.halved or several:
            return None
        resolution = int(self.network(STRUCTURED_LATENT).resolution)
        if logits is not None and (logits.shape[0] != 1 or logits.shape[-1] != resolution):
            logits = None
        image, mask = self._picture or (None, None)
        return VoxelSet(
            coords=coords,
            resolution=resolution,
            interior_coords=structure.interior,
            logits=None if logits is None else logits.float(),
            image=image,
            mask=mask,
        )


    # --- the report

    def attach_recorder(self, patches: Patches, recorder: Recorder) -> None:
        clock = StageClock(self.device, aliases=self.nested_stages)

        def whole(original: Callable[..., Any]) -> Callable[..., Any]:
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


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.device == b.device and torch.equal(a, b)
