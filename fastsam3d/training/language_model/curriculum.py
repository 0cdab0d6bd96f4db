"""From small rooms to large ones, as fast as the model follows, and most of what it does not answer yet."""

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
KINDS = (*SIMPLE, *(kind for _, kinds in _STAGES for kind in kinds))
HOLD, COMPARING = 30.0, ("relation", "nearest")
"""Rooms are no larger than this until kinds that compare places are learned: a step takes a third of the time."""
COMPARED = 0.6  # share of right answers to these kinds
LEARNED = 0.9  # share of right answers from which on a kind comes half as often


class Curriculum(nn.Module):
    """How large rooms are, and which kinds of questions come. Its state is part of a checkpoint.

    Attributes:
        largest: objects of the largest rooms.
        right_by_kind: running share of right answers for each of `KINDS`.
        grown: steps since the rooms have their full size.
    """

    largest: Tensor
    right_by_kind: Tensor
    grown: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.tensor(float(SMALLEST)))
        self.register_buffer("right_by_kind", torch.zeros(len(KINDS)))
        self.register_buffer("grown", torch.tensor(0.0))

    def objects(self, generator: torch.Generator) -> int:
        """Objects of the next rooms: up to the largest, seldom fewer than a third of it."""
        high = int(self.largest)
        low = max(SMALLEST, high // 3)
        return low + int(torch.randint(high - low + 1, (), generator=generator))

    @property
    def kinds(self) -> list[str]:
        """Kinds of questions that come; twice where fewer than `LEARNED` of its answers are right."""
        later = [kind for size, kinds in _STAGES if float(self.largest) >= size for kind in kinds]
        names = [*SIMPLE, *later]
        return [*names, *(kind for kind in names if float(self.right_by_kind[KINDS.index(kind)]) < LEARNED)]

    @property
    def aid(self) -> float:
        """Weight of the attention aid, from 1 to 0."""
        return max(0.0, 1.0 - float(self.grown) / FADING)

    def follow(self, by_kind: Mapping[str, float]) -> None:
        """Takes in the shares of right answers of a step."""
        for kind, share in by_kind.items():
            self.right_by_kind[KINDS.index(kind)].lerp_(torch.tensor(share), 0.05)
        simple = float(self.right_by_kind[: len(SIMPLE)].mean())  # `KINDS` begins with them
        if float(self.largest) >= LARGEST:
            self.grown += 1
        elif simple > KEEPS_UP and not self._holds():
            self.largest.mul_(GROWTH).clamp_(max=LARGEST)

    def _holds(self) -> bool:
        compared = min(float(self.right_by_kind[KINDS.index(kind)]) for kind in COMPARING)
        return float(self.largest) >= HOLD and compared < COMPARED
