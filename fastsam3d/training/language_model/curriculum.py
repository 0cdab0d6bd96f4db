"""From small rooms to large ones, as fast as the model follows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

SMALLEST, LARGEST = 6, 100
GROWTH = 1.015  # of the rooms, at each step that the model keeps up
KEEPS_UP = 0.72  # share of right answers to the simplest questions
FADING = 1000  # steps over which the attention aid fades, once the rooms have grown
SIMPLE = ("unique", "caption", "colour", "exists")
_STAGES = ((8.0, ("multi", "count")), (12.0, ("relation", "nearest", "situated")))


class Curriculum(nn.Module):
    """How large rooms are, and which kinds of questions come. Its state is part of a checkpoint."""

    largest: Tensor
    right: Tensor
    grown: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.tensor(float(SMALLEST)))
        self.register_buffer("right", torch.tensor(0.0))
        self.register_buffer("grown", torch.tensor(0.0))

    def objects(self, generator: torch.Generator) -> int:
        """Objects of the next rooms: up to the largest, seldom fewer than a third of it."""
        high = int(self.largest)
        low = max(SMALLEST, high // 3)
        return low + int(torch.randint(high - low + 1, (), generator=generator))

    @property
    def kinds(self) -> list[str]:
        """Kinds of questions that come."""
        later = [kind for size, kinds in _STAGES if float(self.largest) >= size for kind in kinds]
        return [*SIMPLE, *later]

    @property
    def aid(self) -> float:
        """Weight of the attention aid, from 1 to 0."""
        return max(0.0, 1.0 - float(self.grown) / FADING)

    def follow(self, by_kind: Mapping[str, float]) -> None:
        """Takes in the shares of right answers of a step; the simplest kinds count."""
        simple = [by_kind[kind] for kind in SIMPLE if kind in by_kind]
        if simple:
            self.right.lerp_(torch.tensor(sum(simple) / len(simple)), 0.05)
        if float(self.largest) >= LARGEST:
            self.grown += 1
        elif float(self.right) > KEEPS_UP:
            self.largest.mul_(GROWTH).clamp_(max=LARGEST)
