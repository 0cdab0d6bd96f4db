"""What a predictor of attention maps reads of a batch of prompts: embeddings of objects and words, and boxes.

Shapes: B prompts, N objects of the prompt that has most, g tokens of an object, T words of the longest text, D width of
the embeddings of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from fastsam3d.errors import UserError
from fastsam3d.mllm.spans import Layout


@dataclass(frozen=True)
class PredictorBatch:
    """Inputs of a predictor.

    Attributes:
        visual: (B, N, g, D) embeddings of the tokens of each object, as the language model gets them.
        text: (B, T, D) embeddings of the words after the last visual token.
        present: (B, N) bool: there is an object, and it is no padding object.
        text_present: (B, T) bool: there is a word.
        boxes: (B, N, 6) centre x, y, z and full extents x, y, z of each object in metres; None without boxes.
    """

    visual: Tensor
    text: Tensor
    present: Tensor
    text_present: Tensor
    boxes: Tensor | None = None

    def to(self, device: Any) -> PredictorBatch:
        """The batch on a device."""
        return self._mapped(lambda part: part.to(device))

    def take(self, rows: Any) -> PredictorBatch:
        """The batch with only some of the prompts.

        Args:
            rows: a slice, or an index tensor.
        """
        return self._mapped(lambda part: part[rows])

    def without_boxes(self) -> PredictorBatch:
        """The batch without boxes."""
        return replace(self, boxes=None)

    def with_boxes(self, boxes: Tensor) -> PredictorBatch:
        """The batch with boxes, (B, N, 6)."""
        return replace(self, boxes=boxes)

    def _mapped(self, change: Any) -> PredictorBatch:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(part) for name, part in parts.items() if part is not None})


def predictor_batch(layout: Layout, embeddings: Tensor, boxes: Tensor | None = None) -> PredictorBatch:
    """Takes the inputs of a predictor out of whole prompts.

    Args:
        layout: of the prompts, before any token has left. All tokens after the visual ones are read as text, so the
            prompts must not contain answers.
        embeddings: (B, S, D) of the prompts, padded on the left.
        boxes: as in `PredictorBatch`.

    Returns:
        The batch. Where a prompt has nothing after its visual tokens, its last token is its text.

    Raises:
        UserError: the groups have unequal sizes.
    """
    groups = layout.present.shape[1]
    sizes = layout.summed(torch.ones_like(layout.group_of))
    size = max(int(sizes.max()), 1) if groups else 1
    numbers = torch.arange(groups, device=sizes.device)
    if bool((sizes != size)[numbers < layout.groups[:, None]].any()):
        raise UserError(
            f"the objects have {int(sizes[sizes > 0].min())} to {size} tokens each, and a predictor reads groups of "
            "one size: give spans with the same group_size"
        )
    # Visual tokens first, by their group: group n of a prompt has the columns n*g to n*g+g-1 of this order.
    last = torch.iinfo(torch.int64).max
    order = layout.group_of.masked_fill(~layout.visual, last).argsort(dim=1, stable=True)[:, : groups * size]
    visual = _taken(embeddings, order).view(len(order), -1, size, embeddings.shape[-1])
    text, text_present = _text(layout, embeddings)
    return PredictorBatch(visual, text, layout.present, text_present, boxes)


def _text(layout: Layout, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of the words after the visual tokens, aligned on the right, and which of them are there."""
    columns = torch.arange(embeddings.shape[1], device=embeddings.device)
    words = layout.live & (columns > layout.last_visual[:, None])
    words = torch.where(words.any(1, keepdim=True), words, columns == embeddings.shape[1] - 1)
    longest = int(words.sum(1).max())
    return embeddings[:, -longest:], words[:, -longest:]


def _taken(values: Tensor, columns: Tensor) -> Tensor:
    return values.gather(1, columns[..., None].expand(*columns.shape, values.shape[-1]))
