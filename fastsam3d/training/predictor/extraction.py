"""Makes training batches of a predictor from prompts of a language model: its inputs, and the true map of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastsam3d.mllm.attention_rows import RowSet
from fastsam3d.mllm.maps import extract_maps
from fastsam3d.mllm.predictor.batch import PredictorBatch, predictor_batch
from fastsam3d.mllm.spans import layout_of, live_tokens, spans_of_samples


@torch.no_grad()
def extracted_batch(
    model: Any, visual: Any, rows: RowSet, boxes: Tensor | None = None, **inputs: Any
) -> tuple[PredictorBatch, Tensor]:
    """Inputs of a predictor for some prompts, and the attention map of the language model that it shall predict.

    Args:
        model: the language model; it is run as it is, without any cut.
        visual: spans of its visual tokens.
        rows: prompt rows whose attention counts. The last row predicts best what an answer needs.
        boxes: (B, N, 6) of the objects, see `PredictorBatch`; None without.
        inputs: of the model: `input_ids` or `inputs_embeds`, and `attention_mask` where it is padded (on the left).
            Prompts end where the answer begins.

    Returns:
        The inputs, and the map (B, N) float32.

    Raises:
        UserError: see `fastsam3d.mllm.maps.extract_maps`.
    """
    target = extract_maps(model, visual, [rows], **inputs)[0]
    embeddings = inputs.get("inputs_embeds")
    if embeddings is None:
        embeddings = model.get_input_embeddings()(inputs["input_ids"])
    samples, columns = embeddings.shape[:2]
    live = live_tokens(inputs.get("attention_mask"), samples, columns, embeddings.device)
    layout = layout_of(spans_of_samples(visual, samples), live)
    return predictor_batch(layout, embeddings, boxes), target
