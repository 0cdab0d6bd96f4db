"""Interface between pipelines and the savings that accelerate them.

A host answers where a pipeline draws its velocities, where its transformer blocks, cross-attentions, voxel tables and
decoders are, in one vocabulary: time from noise (0) to data (1), velocities as dicts of modalities, the sites of
`fastsam3d.diffusion.sites`. It knows no technique and no exact saving: these ask for the sites that they need.

To support another pipeline, write one subclass of `Host` and register it with `fastsam3d.diffusion.register_host`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.capabilities import CAPABILITIES, SPARSE_STRUCTURE, STRUCTURED_LATENT
from fastsam3d.diffusion.evaluations.whole import Replay
from fastsam3d.diffusion.sites import (
    TENSORS,
    BlockSite,
    CoordinatesSite,
    CrossAttentionSite,
    EvaluationState,
    HiddenStates,
    NetworkSite,
    PictureEncoderSite,
    StreamBlockSite,
    TableSite,
    TimeSite,
)
from fastsam3d.diffusion.vocabulary import Evaluate, Trajectory, VoxelPolicy


class Runner(Protocol):
    """Runs one sampled stage, as a host sees it; see `fastsam3d.diffusion.stage_runner.StageRunner`."""

    state: EvaluationState
    shortcut: bool
    replay: Replay | None
    """Replays whole evaluations; None where they run as ever."""

    def steps(self, configured: int, times: Callable[[int], Sequence[float]], edges: Sequence[float]) -> int:
        """Number of steps of the next run.

        Args:
            configured: the pipeline's own number.
            times: number of steps -> the times of such a run, 0..1.
            edges: times at which guidance begins or ends.
        """

    def grid(
        self, configured: int, rescale: float, times: Callable[[int], Sequence[float]], edges: Sequence[float]
    ) -> tuple[int, float]:
        """Number of steps and bend of the time grid of the next run; for pipelines whose grid has a bend.

        Called instead of `steps`. The grid is `t_k = s / (1 + (rescale - 1) (1 - s))` with `s = k / steps`, 0..1.

        Args:
            configured: the pipeline's own number of steps.
            rescale: the pipeline's own bend.
            times: number of steps -> the times of such a run with that bend, 0..1.
            edges: times at which guidance begins or ends.
        """

    def start(self, trajectory: Trajectory) -> None:
        """Begins a run."""

    def velocity(self, x: dict[str, Tensor], time: float, evaluate: Evaluate) -> dict[str, Tensor]:
        """The velocity that the pipeline integrates from the state `x` at a time 0..1, guidance included.

        Args:
            evaluate: runs the network.
        """

    def finish(self) -> None:
        """Ends the run, also after an exception."""


class Recorder(Protocol):
    """Receives measurements of whole runs."""

    def add_object(self, seconds: dict[str, float]) -> None:
        """Counts one finished object, with its seconds by stage."""


class Host(ABC):
    """Says where things are in one kind of pipeline.

    Required is where the sampler is (`attach_sampler`), and a few facts. Every other site is optional: what needs a
    site that a host does not list does nothing, or is refused before the pipeline is touched.

    Args:
        pipeline: the object that is accelerated. It is changed through `Patches` only.
    """

    name: ClassVar[str]
    family: ClassVar[str] = "diffusion"
    stages: Mapping[str, str] = {
        SPARSE_STRUCTURE: SPARSE_STRUCTURE,
        STRUCTURED_LATENT: STRUCTURED_LATENT,
    }
    """Kind of every sampled stage by its name, in order; of the class, or of one pipeline where pipelines differ.
    Methods here take the name; techniques, settings and trajectories know the kind."""
    capabilities: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """What its evaluations offer beyond whole ones (`fastsam3d.diffusion.capabilities.CAPABILITIES`), by kind of stage.
    A technique that needs more is refused, so that `evaluate` is never called with an option that is not named here."""
    run_methods: ClassVar[tuple[str, ...]] = ("run",)
    """Methods of the pipeline that make a whole object."""
    part_methods: ClassVar[tuple[str, ...]] = ()
    """Methods that make part of one, where there are such. Threads that call either kind take turns."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    @property
    def target(self) -> Any:
        """The object that is accelerated."""
        return self.pipeline

    def stages_of(self, kind: str) -> list[str]:
        """Names of the stages of a kind, in the order in which they run."""
        return [stage for stage, own in self.stages.items() if own == kind]

    def offers(self, kind: str) -> tuple[str, ...]:
        """Capabilities in a kind of stage; all of them where the pipeline has no such stage, as nothing runs there."""
        return self.capabilities.get(kind, ()) if self.stages_of(kind) else tuple(CAPABILITIES)

    # --- required

    @classmethod
    @abstractmethod
    def recognises(cls, pipeline: Any) -> bool:
        """Tells whether `pipeline` is of this kind, by its attributes."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the pipeline computes."""

    @abstractmethod
    def attach_sampler(self, patches: Patches, stage: str, runner: Runner) -> None:
        """Hands the runs of `stage` to `runner`: step count, start, velocity of each step, end."""

    # --- the run as a whole

    def attach_structure(self, patches: Patches, policy: VoxelPolicy | None) -> None:  # noqa: B027
        """Makes voxels and picture of the current object known; with a voxel policy, also lets it change them."""

    def attach_recorder(self, patches: Patches, recorder: Recorder) -> None:  # noqa: B027
        """Reports the seconds of each stage of every finished run."""

    def check(self) -> None:  # noqa: B027
        """Refuses a pipeline that lacks parts which every run needs.

        Raises:
            UserError: what is missing, and the way out.
        """

    def describe_differences(self) -> list[str]:
        """Lists the differences from the pipeline that the host knows, one line each; empty where there are none."""
        return []

    def skips(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[str]:
        """Stages that a call of a run method leaves out, so that nobody misses them; see `diffusion.watch`."""
        return []

    def refusals(self) -> dict[tuple[str, str], str]:
        """Capabilities that this very pipeline cannot offer, by (kind of stage, capability), and why."""
        return {}

    def voxels_refusal(self) -> str | None:
        """Why the voxels of this very pipeline cannot be changed by a technique; None where they can."""
        return None

    def notes(self) -> list[str]:
        """Lines for the report: what its seconds leave out, and what would make this very pipeline faster."""
        return []

    def closed_sites(self) -> dict[tuple[str, str], str]:
        """Sites that this very pipeline lacks, by (site, place), and why; the place is a stage, or "" for the whole."""
        return {}

    def no_room_for(self) -> frozenset[str]:
        """Kinds of kept values that the pipeline's memory budget has no room for: "cast_weights", "condition"."""
        return frozenset()

    def costs(self) -> Any | None:
        """FLOP of the pipeline's networks (`fastsam3d.diffusion.operations.Costs`); None where they are not known."""
        return None

    # --- sites in the network of one stage

    def cross_attentions(self, stage: str) -> list[CrossAttentionSite]:
        """Cross-attention modules."""
        return []

    def seeded_networks(self, stage: str) -> list[NetworkSite]:
        """The network of a first stage, where its noise follows from the seed alone."""
        return []

    def branch_prefix(self, stage: str) -> list[Any]:
        """Modules that no condition has reached yet: equal output in both branches."""
        return []

    def latent_blocks(self, stage: str) -> list[BlockSite]:
        """Transformer blocks of a latent stage, in order ("tokens")."""
        return []

    def stream_blocks(self, stage: str) -> list[StreamBlockSite]:
        """Transformer blocks of a first stage, in order ("layout_only" and "subset" there)."""
        return []

    def block_stack(self, stage: str) -> list[Any]:
        """Transformer blocks in order ("block_stack"), whose `forward(h, ...)` takes and gives hidden states.

        Those are a tensor or a mapping of tensors. One item of a batch may pass after the other.
        """
        return []

    def block_states(self, stage: str) -> HiddenStates:
        """Describes the hidden states between the blocks of `block_stack`: by default tensors, or mappings of them."""
        return TENSORS

    def time_sites(self, stage: str) -> list[TimeSite]:
        """Modules that depend on time only."""
        return []

    def pyramid_blocks(self, stage: str) -> list[Any]:
        """Blocks of a latent stage with `conv1`, `conv2`, perhaps `updown`, which build tables at every call."""
        return []

    def network_tensors(self, stage: str) -> Iterable[Tensor]:
        """Weights and buffers of the network; asked for only where `replay_refusal` gives None."""
        return ()

    def replay_refusal(self) -> str | None:
        """Why evaluations cannot be replayed; None where they go through the runner's `replay`."""
        return "evaluations are replayed in our own pipeline only"

    # --- sites in the rest of the pipeline

    def index_makers(self) -> list[Any]:
        """Objects of the latent stages whose `make_index(coords)` builds voxel tables."""
        return []

    def voxel_decoders(self) -> list[Any]:
        """Decoders whose `make_index(coords)` builds tables of the same voxels."""
        return []

    def convolutions(self) -> list[Any]:
        """Sparse 3 x 3 x 3 convolutions with `apply_to(feats, index)`, `taps()` and `bias`."""
        return []

    def dense_convolutions(self) -> list[Any]:
        """`Conv3d` layers on dense grids that run once an object or more."""
        return []

    def feed_forwards(self) -> list[Any]:
        """Sequences of linear layer, GELU and linear layer."""
        return []

    def cast_layers(self) -> list[Any]:
        """Linear layers whose fp32 weights autocast casts at every call."""
        return []

    def full_attentions(self) -> list[BlockSite]:
        """Blocks whose self-attention is over all tokens of an object."""
        return []

    def windowed_attentions(self) -> list[Any]:
        """Self-attention modules that attend inside windows of a sparse tensor."""
        return []

    def packed_attentions(self) -> list[BlockSite]:
        """Blocks whose self-attention packs objects of different lengths, also where there is one object."""
        return []

    def guided_decoders(self) -> list[tuple[Any, list[TableSite], list[TableSite]]]:
        """(decoder, its convolutions, those of a decoder that runs after it on voxels of its own) where there are."""
        return []

    def coordinate_decoders(self) -> list[CoordinatesSite]:
        """Decoders that are asked for coordinates alone."""
        return []

    def surface_extractors(self) -> list[tuple[Any, str]]:
        """(decoder, attribute) of every function that extracts a surface on a dense grid."""
        return []

    def picture_encoders(self) -> list[PictureEncoderSite]:
        """Encoders that are asked for the same picture more than once."""
        return []

    def depth_models(self) -> list[tuple[Any, str]]:
        """(owner, attribute) of models that are asked for the depth of the same picture more than once."""
        return []
