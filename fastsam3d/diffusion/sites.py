"""Sites: the places in a network where savings act, as hosts describe them and techniques use them.

A site names a module of somebody's pipeline and gives its parts as plain functions; `EvaluationState` says what the
network around it is doing at the moment. Neither side needs to know the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Forward = Callable[..., Any]
"""A method of a pipeline's module, or what stands in for it."""

CONDITIONAL = "conditional"
UNCONDITIONAL = "unconditional"
BOTH = "both"
"""Both branches in one pass: a batch of two, the conditional one first."""


@dataclass
class EvaluationState:
    """State of a stage's network during an evaluation. The host writes it; wrappers inside the network read it.

    Attributes:
        running: a sampling run is in progress.
        evaluation: number of the evaluation in progress; its two branches see the same state at the same time.
        times: of the steps of the run in progress, empty outside one.
        time: of the evaluation in progress.
        joint: whether both branches may run in one pass, where the host can.
        branch: "conditional", "unconditional" or "both" during a network evaluation, else None.
        condition: the condition as the pipeline handed it in, during an evaluation.
        guided: the evaluation has an unconditional pass as well; written by the runner.
        tokens: transformer tokens to compute `[A]`; None for all.
        subset: tokens that the network sees alone `[A]`; None for all.
        layout_only: only the layout tokens run.
        computed_tokens: how many tokens the blocks computed in each pass of the latest evaluation, None for all of
            them; written by `fastsam3d.diffusion.partial.blocks.PartialBlocks`.
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
    guided: bool = False
    tokens: Tensor | None = None
    subset: Tensor | None = None
    layout_only: bool = False
    computed_tokens: int | None = None
    reused: dict[str, float] = field(default_factory=dict)
    zero_condition: bool = True

    def end_evaluation(self) -> None:
        """Clears the fields that belong to one evaluation."""
        self.branch, self.condition, self.time, self.guided = None, None, None, False
        self.tokens, self.subset, self.layout_only = None, None, False

    def reset(self) -> None:
        """Sets the state back to idle, whatever happened."""
        self.running = False
        self.end_evaluation()
        self.times = ()


class HiddenStates:
    """Reads and writes the tokens in the hidden states of a network. Here the hidden states are plain tensors."""

    def accepts(self, h: Any) -> bool:
        """Tells whether the sites' functions can work on `h`: they know one object at a time."""
        return True

    def read(self, h: Any) -> Tensor:
        """Returns the tokens of `h`, `[B, T, C]`."""
        return h

    def write(self, h: Any, tokens: Tensor, kept: Tensor | None = None) -> Any:
        """Returns a copy of `h` that holds `tokens`. If `kept [A]` is given, `tokens` are those rows of `h` only."""
        return tokens

    def through(self, make: Callable[[Forward], Forward]) -> Callable[[Forward], Forward]:
        """Adapts `make`, which wraps a function on plain tensors, to this network's type of hidden states."""
        return make


TENSORS = HiddenStates()


@dataclass(frozen=True)
class CrossAttentionSite:
    """One cross-attention module and its parts.

    Attributes:
        module: object whose `forward(x, context)` is called.
        project_context: `context [B, L, C] -> (keys, values)`.
        attend: `(x [B, T, C], keys, values) -> [B, T, C]`, output projection included.
        constant: `L -> ` the output for a context of `L` tokens of zeros, `[1, 1, C]`.
        states: what `x` is in the network; the functions here work on tensors.
        projection: layer `[..., T, P] -> [..., T, C]` of a part of the condition that each token has for itself, and
            that is added to the module's output; None where there is none.
    """

    module: Any
    project_context: Callable[[Tensor], tuple[Tensor, Tensor]]
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    constant: Callable[[int], Tensor]
    states: HiddenStates = TENSORS
    projection: Any | None = None


@dataclass(frozen=True)
class NetworkSite:
    """The network of a stage that begins at noise which follows from the seed alone.

    Attributes:
        module: a `torch.nn.Module` whose `forward(x [B, ...], t [B], condition) -> velocity [B, ...]` is called.
        weights_move: the pipeline moves its weights itself, as memory modes do.
    """

    module: Any
    weights_move: bool = False


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
        project: `(x, h) -> (queries, keys, values)`, each `[1, T, ...]`. `x` are the tokens of the hidden state `h`,
            which is what the network hands to `attention`: positions belong to the tokens that `h` holds.
        attend: `(queries, keys, values) -> [1, T, C]`, output projection included.
        states: what `h` and `x` are in the network; the functions here work on tensors.
    """

    block: Any
    attention: Any
    project: Callable[[Tensor, Any], tuple[Tensor, Tensor, Tensor]]
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


@dataclass(frozen=True)
class TableSite:
    """One sparse convolution of a decoder that keeps its neighbour table with the voxels of its input.

    Attributes:
        module: object whose `forward(x)` is called, `x` with `coords [N, 4]`.
        read: `x -> ` the tables that are kept with its voxels, by name.
        write: `(x, tables)` keeps them there.
    """

    module: Any
    read: Callable[[Any], dict[str, Any]]
    write: Callable[[Any, dict[str, Any]], None]


@dataclass(frozen=True)
class CoordinatesSite:
    """One decoder that is asked for coordinates alone.

    Attributes:
        decoder: object whose `upsample(x, upsample_times) -> coords [M, 4]` is called.
        last: `(upsample_times) -> ` the block whose output is asked for its coordinates, or None.
        subdivided: `(block) -> forward`, which gives what the block gives, with few channels of no meaning.
    """

    decoder: Any
    last: Callable[[int], Any | None]
    subdivided: Callable[[Any], Forward]


@dataclass(frozen=True)
class PictureEncoderSite:
    """One encoder of pictures.

    Attributes:
        module: a `torch.nn.Module` whose weights decide with which other encoders it can share.
        method: name of its method `(picture [B, 3, H, W], ...) -> features`; further arguments do not change.
        network: network of the report that it is part of; "" where operations are not counted.
        flops: of one picture.
        pictures: how many different pictures one object asks for.
        weights_may_change: whether its weights may be loaded or changed while the pipeline is accelerated.
        weights_move: the pipeline moves them itself, as memory modes do.
    """

    module: Any
    method: str
    network: str = ""
    flops: float = 0.0
    pictures: int = 2
    weights_may_change: bool = True
    weights_move: bool = False
