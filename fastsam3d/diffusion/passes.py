"""Counts the passes of a run's networks, and the share of each that ran. Operations follow from these counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields

from torch import Tensor

from fastsam3d.diffusion.sites import CONDITIONAL, UNCONDITIONAL

LAYOUT = "layout"
"""Name of the passes that run the layout tokens alone."""


@dataclass(frozen=True)
class Passes:
    """Passes of a stage's network.

    Attributes:
        conditional, unconditional: how many went through the network, in whole or in part.
        conditional_blocks, unconditional_blocks: the same, each by the share of the transformer blocks that ran.
        conditional_tokens, unconditional_tokens: the same, each by the share of blocks and of tokens that ran.
        shared: unconditional passes that have a conditional one beside them, whose first layers serve both.
        shared_tokens: those of them in which the first block serves both, by the share of tokens that ran.
    """

    conditional: float = 0.0
    unconditional: float = 0.0
    conditional_blocks: float = 0.0
    unconditional_blocks: float = 0.0
    conditional_tokens: float = 0.0
    unconditional_tokens: float = 0.0
    shared: float = 0.0
    shared_tokens: float = 0.0

    @classmethod
    def full(cls, conditional: float, unconditional: float, tokens: float = 1.0) -> Passes:
        """Passes through all blocks, over this share of the tokens; a conditional one beside each unconditional."""
        c, u = conditional, unconditional
        return cls(c, u, c, u, c * tokens, u * tokens, u, u * tokens)

    @classmethod
    def evaluation(cls, branches: Collection[str], blocks: Mapping[str, float], tokens: float = 1.0) -> Passes:
        """Passes of one evaluation.

        Args:
            branches: "conditional", "unconditional", or both.
            blocks: share of the blocks that ran, for branches in which it was not all.
            tokens: share of the tokens that ran.
        """
        c, u = (blocks.get(name, 1.0) if name in branches else 0.0 for name in (CONDITIONAL, UNCONDITIONAL))
        conditional, unconditional = (float(name in branches) for name in (CONDITIONAL, UNCONDITIONAL))
        shared = conditional * unconditional
        first = shared * tokens * float(c > 0 and u > 0)
        return cls(conditional, unconditional, c, u, c * tokens, u * tokens, shared, first)

    def __add__(self, other: Passes) -> Passes:
        return Passes(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Passes)))

    def __mul__(self, objects: float) -> Passes:
        return Passes(*(getattr(self, f.name) * objects for f in fields(Passes)))


@dataclass(frozen=True)
class WorkCount:
    """Counts how often each part of a pass is computed in sampling runs. An exact saving lowers some counts.

    Attributes:
        tokens: work on tokens, in passes over all of them.
        rest: work that does not depend on the tokens, modulation apart, in passes.
        cross_conditional, cross_unconditional: cross-attention, in passes over all tokens.
        condition_conditional, condition_unconditional: projections of the condition, in passes through all blocks.
        modulation: modulation by the time, in passes through all blocks.
        table_steps: steps whose modulation is computed beforehand.
        prefix_tokens, prefix_rest: first layers that are *not* computed, their work on tokens and the rest.
    """

    tokens: float
    rest: float
    cross_conditional: float
    cross_unconditional: float
    condition_conditional: float
    condition_unconditional: float
    modulation: float
    table_steps: float = 0.0
    prefix_tokens: float = 0.0
    prefix_rest: float = 0.0

    @classmethod
    def plain(cls, passes: Passes) -> WorkCount:
        """Returns the counts without any saving."""
        every = passes.conditional + passes.unconditional
        blocks = passes.conditional_blocks, passes.unconditional_blocks
        tokens = passes.conditional_tokens, passes.unconditional_tokens
        return cls(sum(tokens), every, *tokens, *blocks, sum(blocks))


@dataclass
class RunPasses:
    """Passes that ran in one sampling run.

    Attributes:
        whole: those in which every token is seen, computed or not.
        layout: those of the layout tokens alone.
        alone: those that saw some shape tokens or voxels alone, each with which `[A]`.
        subsets: the same all together, each by the share of its tokens.
        decodings: times that a technique decoded the occupancy on the way.
    """

    whole: Passes = field(default_factory=Passes)
    layout: Passes = field(default_factory=Passes)
    alone: list[tuple[Tensor, Passes]] = field(default_factory=list)
    subsets: Passes = field(default_factory=Passes)
    decodings: int = 0
