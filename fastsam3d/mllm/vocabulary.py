"""What a scorer is and what it sees. A scorer ranks the groups of visual tokens; a budget says how many of them stay.

Shapes: B samples, S columns of the batch as it is at the cut, N groups, D width of the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fastsam3d.mllm.attention_rows import RowSet
from fastsam3d.mllm.budgets import LOGITS
from fastsam3d.mllm.spans import Layout


@dataclass(frozen=True)
class Prompts:
    """The prompts of the samples as the decoder got them, whatever has left since.

    Attributes:
        layout: of all tokens.
        input_ids: (B, S), or None where embeddings were given.
        inputs_embeds: (B, S, D), or None where ids were given.
        objects: what the caller gave for each sample beside the spans, for instance features or scores of its objects;
            None where nothing was given.
        ordinals: number of each sample since the start or the last reset of the report.
    """

    layout: Layout
    input_ids: Tensor | None
    inputs_embeds: Tensor | None
    objects: Sequence[Any] | None
    ordinals: range


@dataclass
class ScoringBatch:
    """What a scorer may read of a prompt, at the layer where tokens are about to leave.

    Attributes:
        layout: of the samples. Copies of a sample, as beam search makes them, are left out: a sample is scored once.
        hidden: (B, S, D) input of that layer; the embeddings where it is layer 0.
        prompts: as they were at the beginning, and what the caller said about them.
        model: that the user accelerated, for scorers whose network is a part of it.
        wanted: the most groups that can stay in a sample; a scorer that picks one after the other may stop there.
        read_attention: `(row set, or weights of rows (B, S)) -> ` attention of the layer before, averaged over heads
            and over those rows: (B, S).
        read_keys: `() -> ` keys of the layer before, (B, heads, S, d).
        full_map: (B, N) attention map of a run without any cut, where the scorer asked for one.
        layer: of the cut.
        step: 0 while a prompt is read; of scorers that are asked in every step, the number of the step after it.
    """

    layout: Layout
    hidden: Tensor
    prompts: Prompts
    model: Any
    wanted: int
    read_attention: Callable[[RowSet | Tensor], Tensor]
    read_keys: Callable[[], Tensor]
    full_map: Tensor | None = None
    layer: int = 0
    step: int = 0

    def attention(self, rows: RowSet | Tensor) -> Tensor:
        """Attention that the groups get from some rows in the layer before, (B, N): summed over a group's tokens."""
        return self.layout.summed(self.read_attention(rows))


class Scorer(ABC):
    """Ranks groups of visual tokens. It is made from its settings and keeps nothing of one prompt for the next."""

    needs_layer: ClassVar[bool] = False
    """Whether it reads what a layer before the cut computed, so that the cut cannot be at layer 0."""
    every_step: ClassVar[bool] = False
    """Whether it is asked anew in every step of generation, about single tokens, which are masked and stay. See
    `dropping.remasking`: this is how Fast3D was released, and nothing gets faster by it."""
    scale: ClassVar[str] = LOGITS
    """Of its scores: `budgets.MASS` for shares, as attention is; `budgets.ORDER` where only their order counts."""

    @property
    def full_run(self) -> RowSet | None:
        """Rows of the map that it wants of a run without any cut; None where it wants no such run."""
        return None

    def cuts(self, first: int, layers: int) -> tuple[int, ...]:
        """Layers from which tokens are missing, ascending.

        Args:
            first: the layer of the settings.
            layers: of the model.
        """
        return (first,)

    def prepare(self, model: Any) -> None:  # noqa: B027 - most scorers need nothing
        """Called once before the first prompt, for instance to load a network.

        Args:
            model: that the user accelerates.

        Raises:
            UserError: the scorer cannot work for this model; nothing is attached then.
        """

    @abstractmethod
    def score(self, batch: ScoringBatch) -> Tensor:
        """Scores of the groups, (B, N): the highest stay."""
