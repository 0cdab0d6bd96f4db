"""The interface between pipelines and techniques.

A host answers where a pipeline draws its velocities, where its transformer blocks, cross-attentions, voxel tables and
decoders are, in one vocabulary: time from noise (0) to data (1), velocities as dicts of modalities, the sites of
`fastsam3d.diffusion.sites`. To support another pipeline, write one subclass of `Host`
and register it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.sites import (
    TENSORS,
    BlockSite,
    CrossAttentionSite,
    EvaluationState,
    HiddenStates,
    StreamBlockSite,
    TimeSite,
)


class Session(Protocol):
    """One stage's run, as a host sees it; see `fastsam3d.diffusion.stage_runner.StageSession`."""

    state: EvaluationState
    shortcut: bool
    replay: Any | None
    """Replays whole evaluations (`fastsam3d.diffusion.exact.graph_replay.GraphReplay`); None where they run as ever."""

    def steps(
        self, configured: int, times: Callable[[int], Sequence[float]], edges: Sequence[float]
    ) -> int:
        """Number of steps of the next run.

        Args:
            configured: the pipeline's own number.
            times: number of steps -> the times of such a run, 0..1.
            edges: times at which guidance begins or ends.
        """

    def start(self, trajectory: Any) -> None:
        """Begins a run, given its `fastsam3d.diffusion.vocabulary.Trajectory`."""

    def velocity(self, x: dict[str, Tensor], time: float, evaluate: Any) -> dict[str, Tensor]:
        """The velocity that the pipeline integrates from the state `x` at a time 0..1, guidance included.

        Args:
            evaluate: runs the network, see `fastsam3d.diffusion.vocabulary.Evaluate`.
        """

    def finish(self) -> None:
        """Ends the run, also after an exception."""


class Recorder(Protocol):
    """Receives measurements of whole runs."""

    def add_object(self, seconds: dict[str, float]) -> None:
        """Counts one finished object, with its seconds by stage."""


class Host(ABC):
    """Where things are in one kind of pipeline.

    Args:
        pipeline: the object that is accelerated. It is changed through `Patches` only.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """What its evaluations offer beyond whole ones, by stage; names from `fastsam3d.diffusion.vocabulary.CAPABILITIES`.
    A technique that needs more is refused. The `evaluate` that a host hands to a session is never called with an
    option that is not named here, `tokens` in the latent stage (see `latent_blocks`) aside."""

    run_methods: ClassVar[tuple[str, ...]] = ("run",)
    """Methods of the pipeline that make a whole object."""
    part_methods: ClassVar[tuple[str, ...]] = (
        "sample_structures",
        "sample_sparse_structure",
        "sample_slat",
        "decode_slat",
    )
    """Methods that make part of one, where there are such. Threads that call either kind take turns."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.on_reuse: Callable[[str, float], None] = lambda stage, flops: None
        """Called with (stage, FLOP) where kept encodings spare a pass; set before anything is attached."""

    @classmethod
    @abstractmethod
    def recognises(cls, pipeline: Any) -> bool:
        """Whether `pipeline` is of this kind, by duck typing."""

    @property
    @abstractmethod
    def device(self) -> Any:
        """The `torch.device` of the pipeline."""

    @abstractmethod
    def attach_sampler(self, patches: Patches, stage: str, session: Session) -> None:
        """Hands the runs of `stage` to `session`: step count, start, velocity of each step, end."""

    @abstractmethod
    def attach_structure(self, patches: Patches, policy: Any | None) -> None:
        """Makes voxels and picture of the current object known; with a voxel policy, also lets it change them."""

    @abstractmethod
    def attach_recorder(self, patches: Patches, recorder: Recorder) -> None:
        """Reports the seconds of each stage of every finished run."""

    @abstractmethod
    def cross_attentions(self, stage: str) -> list[CrossAttentionSite]:
        """Cross-attention modules of a stage's network."""

    @abstractmethod
    def branch_prefix(self, stage: str) -> list[Any]:
        """Modules of a stage's network that no condition has reached yet: equal output in both branches."""

    @abstractmethod
    def latent_blocks(self) -> list[BlockSite]:
        """Transformer blocks of the latent stage, in order."""

    @abstractmethod
    def index_makers(self) -> list[Any]:
        """Objects of the latent stage whose `make_index(coords)` builds voxel tables."""

    def stream_blocks(self) -> list[StreamBlockSite]:
        """Transformer blocks of the first stage, in order ("layout_only" and "subset" there); none by default."""
        return []

    def block_stack(self, stage: str) -> list[Any]:
        """Transformer blocks of a stage in order ("block_stack"); none by default.

        Each is an object whose `forward(h, ...)` takes and gives hidden states, a tensor or a mapping of tensors,
        and which one item of a batch may pass after the other.
        """
        return []

    def block_states(self, stage: str) -> HiddenStates:
        """What the blocks of `block_stack` hand on; tensors, or mappings of them, by default."""
        return TENSORS

    def voxel_decoders(self) -> list[Any]:
        """Decoders whose `make_index(coords)` builds tables of the same voxels; none by default."""
        return []

    def time_sites(self, stage: str) -> list[TimeSite]:
        """Modules of a stage's network that depend on time only; none by default."""
        return []

    def convolutions(self) -> list[Any]:
        """Sparse 3 x 3 x 3 convolutions with `apply_to(feats, index)`, `taps()` and `bias`; none by default."""
        return []

    def dense_convolutions(self) -> list[Any]:
        """`Conv3d` layers on dense grids that run once an object or more; none by default."""
        return []

    def feed_forwards(self) -> list[Any]:
        """Sequences of linear layer, GELU and linear layer; none by default."""
        return []

    def cast_layers(self) -> list[Any]:
        """Linear layers whose fp32 weights autocast casts at every call; none by default."""
        return []

    def costs(self) -> Any | None:
        """FLOP of the pipeline's networks (`fastsam3d.diffusion.operations.Costs`); None where they are not known."""
        return None

    # What follows has a meaning for some pipelines only; the default is that there is nothing to attach.

    def check(self) -> None:  # noqa: B027
        """Refuses a pipeline that lacks what every run needs.

        Raises:
            UserError: what is missing, and the way out.
        """

    def refusals(self) -> dict[str, str]:
        """Techniques that cannot be attached to this very pipeline, by config group, and why."""
        return {}

    def memory_limits(self) -> dict[str, Any]:
        """Settings, as `group.key: value`, that the pipeline's memory budget leaves no choice about."""
        return {}

    def replay_refusal(self) -> str | None:
        """Why evaluations of the first stage cannot be replayed; None where they go through the session's `replay`."""
        return "evaluations are replayed in our own pipeline only"

    def network_tensors(self, stage: str) -> Iterable[Tensor]:
        """Weights and buffers of a stage's network, where `replay_refusal` has nothing against it."""
        return ()

    def left_out(self) -> list[str]:
        """Exact savings that this very pipeline has no room for, in words; everything else works."""
        return []

    def describe_differences(self) -> list[str]:
        """What this pipeline has other than the host knows it, one line each; empty where nothing is."""
        return []

    def attach_voxel_tables(self, patches: Patches, state: EvaluationState) -> list[Any]:
        """Keeps the pipeline's own voxel tables for the length of a run; returns what has `start` and `finish`."""
        return []

    def attach_maskless_attention(self, patches: Patches) -> None:  # noqa: B027
        """Replaces attention that is masked over all pairs of tokens by attention inside the allowed pairs."""

    def attach_sparse_surface(self, patches: Patches) -> None:  # noqa: B027
        """Replaces surface extraction on dense grids by extraction at the voxels."""

    def attach_shared_features(self, patches: Patches) -> None:  # noqa: B027
        """Keeps encodings of pictures that are asked for twice. What that spares goes to `on_reuse`."""

    def notes(self) -> list[str]:
        """What a report should say about savings that this very pipeline allows or not, one line each."""
        return []
