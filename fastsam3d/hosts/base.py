"""The interface between pipelines and techniques.

A host answers where a pipeline draws its velocities, where its transformer blocks, cross-attentions, voxel tables and
decoders are, in one vocabulary: time from noise (0) to data (1), velocities as dicts of modalities, sites with plain
functions. To support another pipeline, write one subclass of `Host` and add it to `fastsam3d.hosts.HOSTS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor

from fastsam3d.patching import Patches

CONDITIONAL = "conditional"
UNCONDITIONAL = "unconditional"
BOTH = "both"
"""Both branches in one pass: a batch of two, the conditional one first."""


@dataclass
class EvaluationState:
    """What a stage's network is doing at the moment; written by the host, read by what is attached inside it.

    Attributes:
        running: a sampling run is in progress.
        evaluation: number of the evaluation in progress; its two branches see the same state at the same time.
        times: of the steps of the run in progress, empty outside one.
        time: of the evaluation in progress.
        joint: whether both branches may run in one pass, where the host can.
        branch: "conditional", "unconditional" or "both" during a network evaluation, else None.
        condition: the condition as the pipeline handed it in, during an evaluation.
        tokens: transformer tokens to compute `[A]`; None for all.
        subset: tokens that the network sees alone `[A]`; None for all.
        layout_only: only the layout tokens run.
        reused: branches of the latest evaluation whose stack of blocks was replaced by what it did before.
    """

    running: bool = False
    evaluation: int = 0
    times: tuple[float, ...] = ()
    time: float | None = None
    joint: bool = False
    branch: str | None = None
    condition: Tensor | None = None
    tokens: Tensor | None = None
    subset: Tensor | None = None
    layout_only: bool = False
    reused: set[str] = field(default_factory=set)

    def end_evaluation(self) -> None:
        """Forgets what was asked of one evaluation."""
        self.branch, self.condition, self.time = None, None, None
        self.tokens, self.subset, self.layout_only = None, None, False

    def reset(self) -> None:
        """Back to idle, whatever happened."""
        self.running = False
        self.end_evaluation()
        self.times = ()


@dataclass(frozen=True)
class CrossAttentionSite:
    """One cross-attention module and its parts.

    Attributes:
        module: object whose `forward(x, context)` is called.
        project_context: `context [B, L, C] -> (keys, values)`.
        attend: `(x [B, T, C], keys, values) -> [B, T, C]`, output projection included.
        constant: the output for a context of zeros, `[1, 1, C]`.
    """

    module: Any
    project_context: Callable[[Tensor], tuple[Tensor, Tensor]]
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    constant: Callable[[], Tensor]


@dataclass(frozen=True)
class TimeSite:
    """One module whose output depends on the time of the step only.

    Attributes:
        module: object whose `forward(x [B, ...]) -> [B, C]` is called.
        inputs: times `[n]` (0 noise to 1 data) `-> ` what the module is given at each of them, `[n, ...]`.
    """

    module: Any
    inputs: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class BlockSite:
    """One transformer block of the latent stage.

    Attributes:
        block: object whose `forward(h [1, T, C], ...)` is called; further arguments do not depend on the tokens.
        attention: object whose `forward(x [1, T, C])` is self-attention.
        project: `x -> (queries, keys, values)`, each `[1, T, ...]`.
        attend: `(queries, keys, values) -> [1, T, C]`, output projection included.
    """

    block: Any
    attention: Any
    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class StreamBlockSite:
    """One transformer block of the first stage, whose shape and layout tokens have weights of their own.

    Shape attends to shape; layout attends to layout and shape. Hence the shape can run without the layout, and the
    layout against keys and values of the shape that were kept.

    Attributes:
        block: object whose `forward({stream: h [B, T, C]}, ...)` is called, also with one stream only.
        attention: object whose `forward({stream: x [B, T, C]})` is self-attention.
        shape, layout: names of the streams.
        project: `(stream, x) -> (queries, keys, values)`, each `[B, T, ...]`.
        attend: `(stream, queries, keys, values) -> [B, T, C]`, output projection included.
    """

    block: Any
    attention: Any
    shape: str
    layout: str
    project: Callable[[str, Tensor], tuple[Tensor, Tensor, Tensor]]
    attend: Callable[[str, Tensor, Tensor, Tensor], Tensor]


class Session(Protocol):
    """One stage's run, as a host sees it; see `fastsam3d.session.StageSession`."""

    state: EvaluationState
    shortcut: bool

    def steps(
        self, configured: int, times: Callable[[int], Sequence[float]], edges: Sequence[float]
    ) -> int: ...

    def start(self, trajectory: Any) -> None: ...

    def velocity(self, x: dict[str, Tensor], time: float, evaluate: Any) -> dict[str, Tensor]: ...

    def finish(self) -> None: ...


class Recorder(Protocol):
    """Receives measurements of whole runs."""

    def add_object(self, seconds: dict[str, float]) -> None: ...


class Host(ABC):
    """Where things are in one kind of pipeline.

    Args:
        pipeline: the object that is accelerated. It is changed through `Patches` only.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """What its evaluations offer beyond whole ones, by stage; names from `fastsam3d.techniques.base.CAPABILITIES`.
    A technique that needs more is refused. The `evaluate` that a host hands to a session is never called with an
    option that is not named here, `tokens` in the latent stage (see `latent_blocks`) aside."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

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

    def voxel_decoders(self) -> list[Any]:
        """Decoders whose `make_index(coords)` builds tables of the same voxels; none by default."""
        return []

    def time_sites(self, stage: str) -> list[TimeSite]:
        """Modules of a stage's network that depend on time only; none by default."""
        return []

    def convolutions(self) -> list[Any]:
        """Sparse 3 x 3 x 3 convolutions with `apply_to(feats, index)`, `taps()` and `bias`; none by default."""
        return []

    def cast_layers(self) -> list[Any]:
        """Linear layers whose fp32 weights autocast casts at every call; none by default."""
        return []
