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
        reused: branches of the latest evaluation whose stack of blocks was replaced by what it did before, each with
            the share of the blocks that ran all the same.
        zero_condition: the unconditional branch sees zeros for a condition, as most pipelines have it.
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
    reused: dict[str, float] = field(default_factory=dict)
    zero_condition: bool = True

    def end_evaluation(self) -> None:
        """Forgets what was asked of one evaluation."""
        self.branch, self.condition, self.time = None, None, None
        self.tokens, self.subset, self.layout_only = None, None, False

    def reset(self) -> None:
        """Back to idle, whatever happened."""
        self.running = False
        self.end_evaluation()
        self.times = ()


Forward = Callable[..., Any]


class HiddenStates:
    """How tokens are read from, and written to, what the layers of a network hand on. This one: plain tensors."""

    def accepts(self, h: Any) -> bool:
        """Whether the sites' functions, which know one object at a time, hold for `h`."""
        return True

    def read(self, h: Any) -> Tensor:
        """Tokens `[B, T, C]`."""
        return h

    def write(self, h: Any, tokens: Tensor, kept: Tensor | None = None) -> Any:
        """The like of `h` with other values; with `kept [A]`, of those of its tokens alone."""
        return tokens

    def through(self, make: Callable[[Forward], Forward]) -> Callable[[Forward], Forward]:
        """Makes of a wrapper of functions of tensors one of functions of hidden states."""
        return make


TENSORS = HiddenStates()


@dataclass(frozen=True)
class CrossAttentionSite:
    """One cross-attention module and its parts.

    Attributes:
        module: object whose `forward(x, context)` is called.
        project_context: `context [B, L, C] -> (keys, values)`.
        attend: `(x [B, T, C], keys, values) -> [B, T, C]`, output projection included.
        constant: the output for a context of zeros, `[1, 1, C]`.
        states: what `x` is in the network; the functions here work on tensors.
    """

    module: Any
    project_context: Callable[[Tensor], tuple[Tensor, Tensor]]
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    constant: Callable[[], Tensor]
    states: HiddenStates = TENSORS


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
        states: what `h` and `x` are in the network; the functions here work on tensors.
    """

    block: Any
    attention: Any
    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    states: HiddenStates = TENSORS


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

    def cast_layers(self) -> list[Any]:
        """Linear layers whose fp32 weights autocast casts at every call; none by default."""
        return []

    def costs(self) -> Any | None:
        """FLOP of the pipeline's networks (`fastsam3d.ledger.Costs`); None where they are not known."""
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
