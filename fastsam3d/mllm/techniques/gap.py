"""GAP (Fast3D, ACM MM 2025): a small network predicts the attention of a full run before the model reads anything.

So visual tokens can leave at layer 0. This is impossible with scorers that read the attention of a layer. The network
belongs to one language model: it was trained on the attention maps of that model. See `fastsam3d.mllm.predictor`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.acceleration.settings import TechniqueConfig, setting
from fastsam3d.errors import UserError
from fastsam3d.mllm.budgets import LOGITS
from fastsam3d.mllm.capabilities import SCORER, STAGES
from fastsam3d.mllm.predictor.batch import predictor_batch
from fastsam3d.mllm.predictor.files import load_predictor
from fastsam3d.mllm.predictor.network import MODEL_ATTRIBUTE
from fastsam3d.mllm.registry import register
from fastsam3d.mllm.spans import Layout
from fastsam3d.mllm.vocabulary import Prompts, Scorer, ScoringBatch


@dataclass(frozen=True)
class GapConfig(TechniqueConfig):
    """Settings of GAP, global attention prediction."""

    enabled: bool = setting(False, "Switches the technique.")
    predictor: str = setting(
        "", f"File of the predictor. Empty: the predictor in the attribute {MODEL_ATTRIBUTE} of the model."
    )


class GapScorer(Scorer):
    """Scores groups by the logits of a predictor. `objects` may give the boxes of each sample, see `boxes_of`."""

    scale = LOGITS

    def __init__(self, config: GapConfig) -> None:
        self._path = config.predictor
        self._network: Any = None

    def prepare(self, model: Any) -> None:
        if self._path:
            self._network = load_predictor(self._path)
            return
        self._network = getattr(model, MODEL_ATTRIBUTE, None)
        if not isinstance(self._network, torch.nn.Module):
            raise UserError(
                f"gap needs a predictor that was trained for this {type(model).__name__}: give its file, "
                f"gap={{'predictor': 'FILE.safetensors'}}, or set the model's attribute {MODEL_ATTRIBUTE}. "
                "fastsam3d.training.predictor trains one"
            )

    def score(self, batch: ScoringBatch) -> Tensor:
        prompts, layout = batch.prompts, batch.prompts.layout
        # Faster than without gradients alone: hundreds of small operations are what a small network costs.
        with torch.inference_mode():
            embeddings = _embeddings(prompts, batch.model)
            network = self._on(embeddings.device)
            inputs = predictor_batch(layout, embeddings)
            boxes, given = boxes_of(prompts.objects, layout)
            with_boxes = inputs.with_boxes(boxes.to(embeddings.device))
            if given.all() or not given.any():
                logits = network(with_boxes if given.all() else inputs)
            else:  # a sample's result must not depend on what the others have
                logits = torch.zeros(layout.present.shape, device=embeddings.device)
                for chosen, source in ((given, with_boxes), (~given, inputs)):
                    rows = torch.nonzero(chosen).flatten().to(embeddings.device)
                    logits[rows] = network(source.take(rows))
        return logits.clone()  # an ordinary tensor again

    def _on(self, device: torch.device) -> Any:
        """The predictor on a device, in float32. If it has to be moved, a copy is moved, and the original stays."""
        weight = next(self._network.parameters())
        if (weight.device, weight.dtype) != (device, torch.float32) or self._network.training:
            self._network = copy.deepcopy(self._network).to(device, torch.float32).eval()
        return self._network


def boxes_of(objects: Sequence[Any] | None, layout: Layout) -> tuple[Tensor, Tensor]:
    """Boxes of the objects, from what a caller gives for each sample.

    Args:
        objects: None, or one entry for each sample: an object with the attribute `boxes` or a mapping with the key
            `boxes`. The boxes of a sample are (groups, 6): centre x, y, z and full extents x, y, z in metres. None: the
            sample has no boxes.
        layout: of the samples.

    Returns:
        The boxes (B, N, 6) float32, with zeros where there are none, and which samples have boxes (B,) bool. Both are
        on the CPU.

    Raises:
        UserError: the number of entries or of boxes does not fit, boxes are no numbers, or a present object has numbers
            that are not finite.
    """
    samples, groups = layout.present.shape
    boxes, given = torch.zeros(samples, groups, 6), torch.zeros(samples, dtype=torch.bool)
    if objects is None:
        return boxes, given
    if len(objects) != samples:
        raise UserError(f"objects has {len(objects)} entries for a batch of {samples}: give one entry for each sample")
    for row, entry in enumerate(objects):
        if isinstance(entry, Sequence) or hasattr(entry, "__array__"):
            raise UserError(
                f"objects holds a {type(entry).__name__} for sample {row}: give {{'boxes': boxes}}, or None for a "
                "sample without boxes"
            )
        of_row = entry.get("boxes") if isinstance(entry, Mapping) else getattr(entry, "boxes", None)
        if of_row is None:
            continue
        try:
            values = torch.as_tensor(of_row, dtype=torch.float32).cpu()
        except (TypeError, ValueError, RuntimeError):
            raise UserError(
                f"the boxes of sample {row} are no rows of numbers: give six numbers for each group, centre x, y, z "
                "and full extents x, y, z in metres"
            ) from None
        expected = int(layout.groups[row])
        if values.shape != (expected, 6):
            raise UserError(
                f"the boxes of sample {row} have the shape {tuple(values.shape)}, and its spans have {expected} "
                f"groups: give ({expected}, 6), centre x, y, z and full extents x, y, z of each object in metres"
            )
        there = layout.present[row, :expected].cpu()
        if not bool(values[there].isfinite().all()):
            raise UserError(f"the boxes of sample {row} have numbers that are not finite: mask padding objects")
        boxes[row, :expected], given[row] = values, True
    return boxes, given


def _embeddings(prompts: Prompts, model: Any) -> Tensor:
    """Embeddings of the prompts' tokens, (B, S, D)."""
    if prompts.inputs_embeds is not None:
        return prompts.inputs_embeds
    return model.get_input_embeddings()(prompts.input_ids)


register(Technique("gap", GapConfig, SCORER, STAGES, GapScorer))
