"""The interface of a scorer. A scorer ranks the groups of visual tokens; a budget says how many of them stay.

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
    """The prompts of the samples as the decoder got them, before any token has left.

    Attributes:
        layout: layout of all tokens.
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
        layout: layout of the samples at the cut. A sample is scored once: copies that beam search makes are not here.
        hidden: (B, S, D) input of the layer at the cut; at layer 0, the embeddings.
        prompts: the prompts before any token has left, and what the caller said about them.
        model: the model that the user accelerated, for scorers whose network is a part of it.
        wanted: the most groups that can stay in a sample. A scorer that chooses one group after the other may stop
            after so many.
        read_attention: function of a row set, or of weights of rows (B, S). It returns the attention in the layer
            before the cut, averaged over the heads and these rows, (B, S).
        read_keys: function without arguments. It returns the rotated keys of the layer before the cut,
            (B, key heads, S, d).
        full_map: (B, N) attention map of a run without any cut, if `Scorer.full_run` asks for one; else None.
        layer: the layer of the cut, counted from 0.
        step: 0 while a prompt is read. For scorers with `every_step`: the number of the step of generation, from 1.
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
        """Attention that the groups get from some rows in the layer before the cut, (B, N): summed over tokens."""
        return self.layout.summed(self.read_attention(rows))


class Scorer(ABC):
    """Ranks groups of visual tokens. It is made from its settings, and remembers nothing of earlier prompts."""

    needs_layer: ClassVar[bool] = False
    """Whether it reads the attention or the keys of the layer before the cut. The cut cannot be at layer 0 then."""
    every_step: ClassVar[bool] = False
    """Whether it scores single tokens, and does so again in every step of generation. Tokens are then masked and do not
    leave, as in the released code of Fast3D; nothing gets faster. See `dropping.remasking`."""
    scale: ClassVar[str] = LOGITS
    """Scale of its scores: `LOGITS`, `MASS` or `ORDER` of `budgets`."""

    @property
    def full_run(self) -> RowSet | None:
        """Rows of the attention map that it needs from a run without any cut; None: it needs no such run."""
        return None

    def cuts(self, first: int, layers: int) -> tuple[int, ...]:
        """Layers from which tokens are missing, ascending.

        Args:
            first: the first cut, from the settings.
            layers: number of layers of the model.
        """
        return (first,)

    def prepare(self, model: Any) -> None:  # noqa: B027 - most scorers need nothing
        """Called once before the first prompt, for instance to load a network.

        Args:
            model: the model that the user accelerates.

        Raises:
            UserError: the scorer cannot work for this model; nothing is attached then.
        """

    @abstractmethod
    def score(self, batch: ScoringBatch) -> Tensor:
        """Scores of the groups, (B, N). The groups with the highest scores stay."""
