"""Floating-point operations of the flow networks of TRELLIS.2, from their sizes: matrix products, two a multiply-add.

Normalisations, activations, rotary positions, encoders and decoders are not counted, nor is the constant for a
condition of zeros: once a run, for a few tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class FlowPass:
    """FLOP of one pass of a flow network, by the parts that savings change.

    Attributes:
        tokens: self-attention and feed-forward with their projections.
        cross: cross-attention with its query and output projections.
        condition: projection of the condition to keys and values, and of a condition that each token has for itself.
        rest: layers before and after the blocks, and modulation.
        modulation: the part of `rest` that depends on time only.
        table_step: of one step in tables of the modulation.
        prefix_tokens, prefix_rest: the part of `tokens` and `rest` before the first cross-attention.
    """

    tokens: float = 0.0
    cross: float = 0.0
    condition: float = 0.0
    rest: float = 0.0
    modulation: float = 0.0
    table_step: float = 0.0
    prefix_tokens: float = 0.0
    prefix_rest: float = 0.0

    @property
    def total(self) -> float:
        """The whole pass."""
        return self.tokens + self.cross + self.condition + self.rest


@dataclass(frozen=True)
class FlowSizes:
    """Sizes of a flow network.

    Attributes:
        width, hidden: channels of the blocks, and of their feed-forward inside.
        blocks: how many.
        inputs, outputs: channels of state (a condition that is joined to it included) and velocity.
        condition: channels of a condition token.
        shared_modulation: one modulation serves all blocks.
        projected: channels of a condition that each block projects for every token; 0 without one.
    """

    width: int
    hidden: int
    blocks: int
    inputs: int
    outputs: int
    condition: int
    shared_modulation: bool = True
    projected: int = 0

    def one_pass(self, tokens: float, condition_tokens: float) -> FlowPass:
        """FLOP of one pass over so many tokens of one object."""
        width, n, c = self.width, tokens, condition_tokens
        own = 8 * n * width**2 + 4 * n**2 * width
        feed_forward = 4 * n * width * self.hidden
        cross = 4 * n * width**2 + 4 * n * c * width
        ends = 2 * n * width * (self.inputs + self.outputs)
        modulation = 12 * width**2 * (1 if self.shared_modulation else self.blocks)
        projections = 2 * n * self.projected * width * self.blocks
        return FlowPass(
            tokens=self.blocks * (own + feed_forward),
            cross=self.blocks * cross,
            condition=self.blocks * 4 * c * self.condition * width + projections,
            rest=ends + modulation,
            modulation=modulation,
            table_step=modulation,
            prefix_tokens=own,
        )


def sizes_of(network: Any, cross_attention: Any) -> FlowSizes | None:
    """Reads the sizes of a network from its layers; None if the layers are not the known ones.

    Args:
        network: has `input_layer`, `blocks` and `out_layer`.
        cross_attention: the module of its first block that attends to the condition.
    """
    try:
        block = network.blocks[0]
        linear = next(layer for layer in block.mlp.modules() if isinstance(layer, nn.Linear))
        projection = getattr(block.cross_attn, "proj_linear", None)
        return FlowSizes(
            width=block.self_attn.to_qkv.in_features,
            hidden=linear.out_features,
            blocks=len(network.blocks),
            inputs=network.input_layer.in_features,
            outputs=network.out_layer.out_features,
            condition=cross_attention.to_kv.in_features,
            shared_modulation=not hasattr(block, "adaLN_modulation"),
            projected=0 if projection is None else projection.in_features,
        )
    except (AttributeError, StopIteration, IndexError, TypeError):
        return None


class FlowCosts:
    """Costs of a pipeline's flow networks, see `fastsam3d.diffusion.operations.StagedCosts`.

    Args:
        sizes: by stage.
        structure_tokens: tokens of the structure network.
        condition_tokens: stage -> tokens of the condition in its latest run.
        stage: the stage whose network is counted; by default the first.
    """

    def __init__(
        self,
        sizes: Mapping[str, FlowSizes],
        structure_tokens: int,
        condition_tokens: Callable[[str], int],
        stage: str | None = None,
    ) -> None:
        self._sizes, self._structure_tokens, self._condition_tokens = sizes, structure_tokens, condition_tokens
        self._stage = next(iter(sizes)) if stage is None else stage

    def of_stage(self, stage: str) -> FlowCosts:
        """Costs with the network of this stage."""
        return FlowCosts(self._sizes, self._structure_tokens, self._condition_tokens, stage)

    def counts(self, voxels: Tensor) -> int:
        """Tokens of a latent stage: one for each voxel."""
        return len(voxels)

    def sampling(
        self, kind: str, counts: int | None = None, layout: bool = True, shape_tokens: int | None = None
    ) -> FlowPass:
        """One pass of the stage's network."""
        tokens = counts if counts is not None else shape_tokens or self._structure_tokens
        return self._sizes[self._stage].one_pass(tokens, self._condition_tokens(self._stage))

    def layout_alone(self) -> FlowPass:
        """Nothing: there is no layout."""
        return FlowPass()

    def others(self, counts: int | None) -> dict[str, float]:
        """Nothing: encoders and decoders are not counted."""
        return {}
